"""Figure 7: training time for each network, circuit model and converter setting, against native training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xbar_core.config import Chip, preset
from xbar_core.lab.data import DataSet, load_data
from xbar_core.lab.studies.frame import Finding, Scale, Study, seeds, thinned, trained
from xbar_core.lab.studies.judging import all_of, compared, harmless, rows_of
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Row, Table
from xbar_core.lab.sweep.spread import Estimate, estimate
from xbar_core.lab.trainer import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLAIM = 14.0  # times native
_PAPER = {
    "lenet5": "mnist",
    "alexnet": "cifar10",
    "vgg16": "cifar10",
    "resnet20": "cifar10",
    "resnet56": "cifar100",
    "resnet18": "tiny-imagenet",
}
_FEW = ("native", "ideal", "AAM 1", "FCM", "FCM, 8 bits")  # of large networks, at the scale `small`


def colour_digits(folder: Path) -> DataSet:
    """Return the digits as 3x32x32 images: large networks are timed on them; what they show costs nothing."""
    data = load_data("digits", folder)

    def larger(images: Any) -> Any:
        edges = [(0, 0), (0, 0), *[((32 - side) // 2,) * 2 for side in images.shape[-2:]]]
        return np.repeat(np.pad(images, edges), 3, axis=1)

    return DataSet(
        "colour-digits", larger(data.train_x), data.train_y, larger(data.test_x), data.test_y, data.classes
    )


def _settings() -> dict[str, Chip | None]:
    exact, eight = preset("txsim"), preset("txsim-8bit")
    aam = {"kind": "aam", "order": 1}

    def kept(period: int, reuse: str) -> Chip:
        return exact.with_("circuit", {"kind": "interpolated", "period": period, "reuse": reuse})

    return {
        "native": None,
        "ideal": preset("ideal"),
        "AAM 0": exact.with_("circuit", {"kind": "aam", "order": 0}),
        "AAM 1": exact.with_("circuit", aam),
        "AAM 1, 8 bits": eight.with_("circuit", aam),
        "AAM 2": exact.with_("circuit", {"kind": "aam", "order": 2}),
        "distortion, L = 1": kept(1, "distortion"),
        "distortion, L = 10": kept(10, "distortion"),
        "distortion, L = 100": kept(100, "distortion"),
        "anchored, L = 1": kept(1, "anchored"),
        "anchored, L = 10": kept(10, "anchored"),
        "anchored, L = 100": kept(100, "anchored"),
        "FCM": exact,
        "FCM, 8 bits": eight,
        "FCM, 16-bit words": preset("txsim-16bit"),
    }


def _points(scale: Scale) -> list[Point]:
    named = _settings()
    return [
        trained({"network": recipe.network, "setting": name, "seed": seed}, named[name], recipe, **where)
        for recipe, where, settings in _networks(scale, tuple(named))
        for seed in seeds(scale)
        for name in thinned(settings, scale)
    ]


def _networks(scale: Scale, every: tuple[str, ...]) -> list[tuple[Recipe, dict[str, Any], tuple[str, ...]]]:
    """Return recipe, data and settings of each network."""
    recipe = Recipe("lenet5", epochs=3, batch=128, rate=0.01)
    if scale == "smoke":
        return [(replace(recipe, epochs=2, batch=32), {"dataset": "digits", "limit": 64}, every)]
    if scale == "paper":
        # A few thousand samples time an epoch as well as all of them.
        return [
            (replace(recipe, network=network), {"dataset": data, "limit": 12800}, every)
            for network, data in _PAPER.items()
        ]
    found = [
        (replace(recipe, network=network), {"dataset": "digits"}, every) for network in ("mlp", "lenet5")
    ]
    # An epoch of one step, after a first one. Interpolation would never be refreshed in it.
    for network, batch, settings in (
        ("resnet20", 128, _FEW),
        ("resnet56", 64, _FEW),
        ("vgg16", 32, _FEW[:4]),
    ):
        one = replace(recipe, network=network, epochs=2, batch=batch)
        where: dict[str, Any] = {"dataset": f"{__name__}:colour_digits", "limit": batch}
        found.append((one, where, settings))
    return found


def _epoch(row: Row, metric: str) -> float:
    """Return the shortest epoch but the first, which compiles and fills caches."""
    return min(row.series(metric)[1:], default=math.nan)


def _best(table: Table, network: str, setting: str) -> dict[Any, float]:
    """Return the seconds of an epoch of each repeat."""
    rows = rows_of(table, _of(network, setting))
    found = {row.values["seed"]: _epoch(row, "epoch_seconds") for row in rows}
    return {seed: seconds for seed, seconds in found.items() if not math.isnan(seconds)}


def _of(network: str, setting: str) -> dict[str, str]:
    return {"network": network, "setting": setting}


def _ratio(table: Table, network: str, setting: str) -> Estimate:
    """Return time / native time, in pairs that ran one after the other."""
    native, case = _best(table, network, "native"), _best(table, network, setting)
    return estimate([case[seed] / native[seed] for seed in case if seed in native])


def _names(table: Table, label: str) -> list[str]:
    return list(dict.fromkeys(str(row.values[label]) for row in table.rows))


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import COLOURS, new_figure

    networks, settings = _names(table, "network"), _names(table, "setting")[1:]
    figure = new_figure(4.0 + 3.0 * len(networks), 4.2)
    axes = figure.subplots()
    width = 0.86 / max(len(settings), 1)
    for number, setting in enumerate(settings):
        ratios = [_ratio(table, network, setting) for network in networks]
        axes.bar(
            np.arange(len(networks)) + (number - (len(settings) - 1) / 2) * width,
            [ratio.mean for ratio in ratios],
            width,
            yerr=[0.0 if ratio.count < 2 else ratio.half for ratio in ratios],
            label=setting,
            color=COLOURS[number % len(COLOURS)],
            hatch=("", "//", "..")[number // len(COLOURS) % 3],
            edgecolor="white",
        )
    axes.axhline(_CLAIM, color="black", linestyle="--", linewidth=1, label="the paper's 14 times")
    axes.set_xticks(range(len(networks)), networks)
    axes.set(ylabel="training time / native time")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_ylim(top=max(axes.get_ylim()[1], 1.5 * _CLAIM))
    figure.legend(fontsize=8, loc="outside right center")
    figure.suptitle("Time of training (figure 7)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    present = _names(table, "network")
    findings = [_times(table, network) for network in present]
    absent = [network for network in _PAPER if network not in present]
    if absent:
        claim = f"Training {', '.join(absent)} takes no more than 14 times native training"
        reason = "hours without a GPU: they need the scale `paper`"
        findings.append(Finding(claim, "not run at this scale", "undecided", reason))
    claim = "TxSim is 108 times as fast as CrossSim"
    reason = (
        "CrossSim is not run here, and the paper gives neither its version nor the settings of either "
        "simulator"
    )
    return [*findings, Finding(claim, "not measured", "undecided", reason)]


def _times(table: Table, network: str) -> Finding:
    settings = [name for name in _names(table, "setting")[1:] if rows_of(table, _of(network, name))]
    ratios = {setting: _ratio(table, network, setting) for setting in settings}
    known = {setting: ratio for setting, ratio in ratios.items() if ratio.count}
    native = estimate(_best(table, network, "native").values())
    told = "; ".join(
        f"{setting}: {ratio.mean:.2f}" + (f" ± {ratio.half:.2f}" if ratio.count > 1 else "")
        for setting, ratio in known.items()
    )
    exact = {setting: ratio for setting, ratio in known.items() if setting.startswith("FCM")}
    repeats = min((ratio.count for ratio in exact.values()), default=0)
    slow = [setting for setting, ratio in exact.items() if ratio.low > _CLAIM]
    verdict = all_of([harmless(ratio, _CLAIM) for ratio in exact.values()])
    faster = [setting for setting, ratio in known.items() if setting not in exact and ratio.high <= _CLAIM]
    return compared(
        f"Training {network} with the exact circuit takes no more than 14 times native training",
        f"times native: {told}" if told else "no result",
        verdict,
        f"the whole interval of {', '.join(slow)} is above; within 14 times are "
        f"{', '.join(faster) or 'none'}. "
        f"An epoch of native training takes {native.mean:.2f} s on this machine; the paper's is a GPU",
        repeats,
        "an interval reaches over 14 times",
    )


def _conditions(scale: Scale) -> str:
    if scale == "paper":
        return (
            "Batches of 128; the shorter of two epochs of 12800 samples after a first one. Nothing else ran."
        )
    if scale == "smoke":
        return "Two steps an epoch: a check that the study runs, no result."
    return (
        "Digits (1442 training images) in batches of 128; the shorter of two epochs after a first one "
        "that compiles. ResNet-20, ResNet-56 and VGG-16 on digits enlarged to 3x32x32: one step of a batch "
        "of 128, 64 and 32 after a first one. One point at a time with all cores; the settings of a seed run "
        "one after the other."
    )


FIG7 = Study(
    name="fig7",
    title="Figure 7: time of training",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
    metric="epoch_seconds",
    measure=_epoch,
    timing=True,
)
