"""Figure 9: what non-idealities cost larger networks, and whether depth helps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbar_core.config import Chip, preset
from xbar_core.lab.data import DataSet, load_data
from xbar_core.lab.studies.fig8 import curves_figure
from xbar_core.lab.studies.frame import Finding, Scale, Study, Verdict, seeds, trained
from xbar_core.lab.studies.judging import compared, listing, lost, mean_of, percent, points_text, rows_of
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.trainer import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE, _BLOCK = 8, 3  # pixels of an image, and of the square that each is the mean of
_LEAST = 0.03  # the paper's smallest degradation


def tiny_mnist(folder: Path) -> DataSet:
    """Return MNIST at 8x8 pixels: residual networks train on a part of it within minutes on two cores."""
    data = load_data("mnist", folder)

    def smaller(images: Any) -> Any:
        edge, block = (images.shape[-1] - _SIDE * _BLOCK) // 2, (_SIDE, _BLOCK, _SIDE, _BLOCK)
        inner = slice(edge, edge + _SIDE * _BLOCK)
        means = images[..., inner, inner].reshape(*images.shape[:-2], *block).mean(axis=(-3, -1))
        return means.astype(np.uint8)

    return DataSet(
        "tiny-mnist",
        smaller(data.train_x),
        data.train_y,
        smaller(data.test_x),
        data.test_y,
        data.classes,
    )


def _networks(scale: Scale) -> dict[str, tuple[Recipe, dict[str, Any]]]:
    if scale == "paper":
        cifar: dict[str, Any] = {
            "epochs": 160,
            "batch": 128,
            "rate": 0.1,
            "weight_decay": 1e-4,
            "augment": "crop-flip",
        }
        return {
            "VGG-16, CIFAR-10": (Recipe("vgg16", **{**cifar, "rate": 0.05}), {"dataset": "cifar10"}),
            "ResNet-20, CIFAR-10": (Recipe("resnet20", **cifar), {"dataset": "cifar10"}),
            "ResNet-56, CIFAR-100": (Recipe("resnet56", **cifar), {"dataset": "cifar100"}),
            "ResNet-18, Tiny-ImageNet": (
                Recipe("resnet18", **{**cifar, "epochs": 60}),
                {"dataset": "tiny-imagenet"},
            ),
        }
    if scale == "smoke":
        training = Recipe("resnet20", epochs=1, batch=16, rate=0.02)
        return {"ResNet-20": (training, {"dataset": "digits", "limit": 16})}
    where: dict[str, Any] = {"dataset": f"{__name__}:tiny_mnist", "limit": 1500}
    recipe: dict[str, Any] = {"epochs": 5, "batch": 32, "rate": 0.05}
    return {
        "ResNet-20": (Recipe("resnet20", **recipe), where),
        "ResNet-56": (Recipe("resnet56", **recipe), where),
    }


def _systems(scale: Scale) -> dict[str, Chip | None]:
    real = preset("txsim")
    if scale != "paper":
        # The closed form of first order, within 0.1 % of the exact matrix at these resistances.
        real = real.with_("circuit", {"kind": "aam", "order": 1})
    return {"Cross-Ideal": preset("ideal"), "Cross-NI": real}


def _points(scale: Scale) -> list[Point]:
    return [
        trained({"network": network, "system": name, "seed": seed}, chip, recipe, **where)
        for network, (recipe, where) in _networks(scale).items()
        for name, chip in _systems(scale).items()
        for seed in seeds(scale)
    ]


def _figure(table: Table) -> Figure:
    return curves_figure(table, "Larger networks (figure 9)")


def _findings(table: Table) -> list[Finding]:
    def of(network: str, system: str) -> dict[str, str]:
        return {"network": network, "system": system}

    names = list(dict.fromkeys(row.values["network"] for row in table.rows))
    losses = {name: lost(table, of(name, "Cross-Ideal"), of(name, "Cross-NI")) for name in names}
    told = listing(
        f"{name}: {percent(mean_of(table, of(name, 'Cross-Ideal')))} ideal, "
        f"{percent(mean_of(table, of(name, 'Cross-NI')))} non-ideal, lost {points_text(losses[name])}"
        for name in names
    )
    repeats = min((loss.count for loss in losses.values()), default=0)
    verdict: Verdict = "undecided"
    if repeats >= 3 and all(loss.mean - loss.half > 0.8 * _LEAST for loss in losses.values()):
        verdict = "reproduced"
    elif repeats >= 3 and any(loss.mean + loss.half < _LEAST for loss in losses.values()):
        verdict = "not reproduced"
    findings = [
        compared(
            "Non-idealities cost larger networks 3 to 36.4 points",
            told,
            verdict,
            "another data set, fewer epochs and a rate of ours: noise of law txsim acts through the rate, "
            "and it is the stochastic noise and the mapping, which the paper does not give, that set the "
            "loss",
            repeats,
        )
    ]
    shallow = next((name for name in names if name.startswith("ResNet-20")), None)
    for deep in (name for name in names if not name.startswith(("ResNet-20", "ResNet-18"))):
        if shallow is None:
            continue
        more = losses[shallow], losses[deep]
        repeats = min(loss.count for loss in more)
        apart = abs(more[0].mean - more[1].mean) > (more[0].half ** 2 + more[1].half ** 2) ** 0.5
        verdict = "undecided"
        if repeats >= 3 and apart:
            verdict = "reproduced" if more[0].mean > more[1].mean else "not reproduced"
        findings.append(
            compared(
                f"ResNet-20 is hurt more than {deep.partition(',')[0]}",
                f"lost {points_text(more[0])} against {points_text(more[1])}",
                verdict,
                "losses overlap" if not apart else "the deeper network multiplies the errors of more layers",
                repeats,
            )
        )
    if shallow is not None and not any(rows_of(table, {"network": n}) for n in names if n.startswith("VGG")):
        findings.append(
            Finding(
                "ResNet-20 is hurt more than VGG-16", "not run", "undecided", "VGG-16 needs the scale `paper`"
            )
        )
    return findings


def _conditions(scale: Scale) -> str:
    if scale == "paper":
        return "Batches of 128; the paper gives no epochs and rates: usual ones."
    if scale == "smoke":
        return "ResNet-20 on 16 images, one step: a check that the study runs, no result."
    return (
        f"ResNet-20 and ResNet-56 on a part of MNIST at {_SIDE}x{_SIDE} pixels (1500 training and 1500 test "
        "images), 5 epochs of batches of 32, rate 0.05; chip txsim with AAM of order 1. VGG-16 and ResNet-18 "
        "(15 and 11 million weights) are left to the scale `paper`."
    )


FIG9 = Study(
    name="fig9",
    title="Figure 9: larger networks",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
)
