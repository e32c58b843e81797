"""Figure 5(b): LeNet-5 trained with every circuit model: whether the faster ones change the accuracy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xbar_core.config import preset
from xbar_core.lab.studies.frame import Finding, Scale, Study, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import compared, harmless, lost, mean_of, percent, points_text
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.spread import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PERIODS = (1, 10, 100)
_WITHOUT_MUCH_LOSS = 0.005  # the paper's axis is magnified; half a point is what its bars could show


def _models(scale: Scale) -> dict[str, dict[str, Any] | None]:
    models: dict[str, dict[str, Any] | None] = {"native": None, "FCM": {"kind": "fcm"}}
    models |= {f"AAM {order}": {"kind": "aam", "order": order} for order in (0, 1, 2)}
    for reuse in ("distortion", "anchored"):
        for period in thinned(_PERIODS, scale):
            name = f"{reuse}, L = {period}"
            models[name] = {"kind": "interpolated", "period": period, "reuse": reuse}
    return models


def _points(scale: Scale) -> list[Point]:
    recipe, where, _ = lenet(scale)
    chip = preset("txsim")
    made = []
    for name, circuit in _models(scale).items():
        for seed in seeds(scale, 5):
            case = None if circuit is None else chip.with_("circuit", circuit)
            made.append(trained({"model": name, "seed": seed}, case, recipe, **where))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import COLOURS, new_figure

    figure = new_figure(7.0, 3.6)
    left, right = figure.subplots(1, 2, sharey=True)
    groups = table.groups("accuracy", ["model"])
    names = [str(group.values[0]) for group in groups][::-1]
    means = [100 * group.estimate.mean for group in groups][::-1]
    halves = [0.0 if group.estimate.count < 2 else 100 * group.estimate.half for group in groups][::-1]
    left.errorbar(means, names, xerr=halves, fmt="o", capsize=3, color=COLOURS[0])
    left.set(xlabel="test accuracy [%]")
    times = [group.estimate.mean for group in table.groups("seconds", ["model"])][::-1]
    right.barh(names, times, color=COLOURS[5])
    right.set(xlabel="training time [s]")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle("Circuit models in training (figure 5b)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    exact = {"model": "FCM"}
    findings = []
    names = dict.fromkeys(row.values["model"] for row in table.rows)
    for name in names:
        if name in ("native", "FCM"):
            continue
        case = {"model": name}
        loss = lost(table, exact, case)
        sharper = lost(table, case, exact, "test_loss")
        times = mean_of(table, exact, "seconds"), mean_of(table, case, "seconds")
        found = (
            f"{percent(mean_of(table, case))} against {percent(mean_of(table, exact))} with FCM, lost "
            f"{points_text(loss)}; the test loss differs by {sharper.mean:+.4f} ± {sharper.half:.4f}; "
            f"{times[0].mean / times[1].mean:.2f} times as fast"
        )
        claim = f"{name} models training without much loss of fidelity"
        difference = harmless(_size(loss), _WITHOUT_MUCH_LOSS)
        findings.append(
            compared(claim, found, difference, f"the accuracy differs by {points_text(loss)}", loss.count)
        )
    return findings


def _size(loss: Estimate) -> Estimate:
    """Return the size of a difference: a model that gains accuracy is as wrong as one that loses it."""
    return replace(loss, mean=abs(loss.mean))


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Chip txsim, all else equal. Much loss means a difference to FCM of more than "
        f"{100 * _WITHOUT_MUCH_LOSS:g} points."
    )


FIG5B = Study(
    name="fig5b",
    title="Figure 5(b): accuracy with every circuit model",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
)
