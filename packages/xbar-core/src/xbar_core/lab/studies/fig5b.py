"""Figure 5(b): LeNet-5 trained with every circuit model: whether the faster ones change the accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xbar_core.config import preset
from xbar_core.lab.studies.frame import Finding, Scale, Study, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import (
    alike,
    all_of,
    beyond_chance,
    compared,
    listing,
    lost,
    mean_of,
    percent,
    points_text,
    rows_of,
)
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PERIODS = (1, 10, 100)
_EXACT = {"model": "FCM"}
_CONTROLS = ("distortion, L = 1", "anchored, L = 1")  # FCM at every step, by another route
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
        for seed in seeds(scale, 9):
            case = None if circuit is None else chip.with_("circuit", circuit)
            made.append(trained({"model": name, "seed": seed}, case, recipe, **where))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import COLOURS, new_figure

    figure = new_figure(7.6, 3.6)
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(str(row.values["model"]) for row in table.rows))[::-1]
    means = [mean_of(table, {"model": name}) for name in names]
    losses = [lost(table, _EXACT, {"model": name}) for name in names]
    for axes, values, marker in ((left, means, "o"), (right, losses, "s")):
        for number, (name, value) in enumerate(zip(names, values, strict=True)):
            if value.count == 0 or (axes is right and name == "FCM"):
                continue
            colour = COLOURS[4] if name in _CONTROLS else COLOURS[0]
            half = 100 * value.half if value.count > 1 else 0.0
            axes.errorbar(100 * value.mean, number, xerr=half, fmt=marker, capsize=3, color=colour)
        axes.grid(alpha=0.3)
    left.set_yticks(range(len(names)), names)
    left.set(xlabel="test accuracy [%]")
    limit = 100 * _WITHOUT_MUCH_LOSS
    right.axvspan(-limit, limit, color="#BBBBBB", alpha=0.4)
    right.axvline(0.0, color="black", linewidth=0.8)
    right.set(xlabel="lost against FCM, same seed [points]")
    figure.suptitle("Circuit models in training (figure 5b)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    names = list(dict.fromkeys(str(row.values["model"]) for row in table.rows))
    models = [name for name in names if name not in ("native", "FCM", *_CONTROLS)]
    floor = _floor(table)
    findings = [_control(table, floor)]
    for name in models:
        case = {"model": name}
        loss = lost(table, _EXACT, case)
        wide = lost(table, _EXACT, case, among=len(models))
        sharper = lost(table, case, _EXACT, "test_loss")
        found = (
            f"{percent(mean_of(table, case))} against {percent(mean_of(table, _EXACT))} with FCM, lost "
            f"{points_text(loss)}; the test loss differs by {sharper.mean:+.4f} ± {sharper.half:.4f}"
        )
        verdict = beyond_chance(alike(loss, _WITHOUT_MUCH_LOSS), alike(wide, _WITHOUT_MUCH_LOSS))
        worst = 100 * max(abs(loss.low), abs(loss.high))
        findings.append(
            compared(
                f"{name} models training without much loss of fidelity",
                found,
                verdict,
                f"the accuracy differs by {points_text(wide)} (interval for {len(models)} comparisons)",
                loss.count,
                f"the interval reaches {worst:.2f} points; single runs of FCM by another route (L = 1) "
                f"differ from FCM by up to {100 * floor:.2f}",
            )
        )
    return findings


def _floor(table: Table) -> float:
    """Return by how much two runs of the same model differ at most: L = 1 against FCM, seed by seed."""
    exact = {row.values["seed"]: row.metric("accuracy") for row in rows_of(table, _EXACT)}
    runs = [row for name in _CONTROLS for row in rows_of(table, {"model": name})]
    found = [abs(exact[row.values["seed"]] - row.metric("accuracy")) for row in runs]
    return max((size for size in found if size >= 0.0), default=float("nan"))


def _control(table: Table, floor: float) -> Finding:
    claim = (
        "Interpolation with L = 1, which is FCM at every step, differs from it by chance only (our control)"
    )
    losses = {name: lost(table, _EXACT, {"model": name}, among=len(_CONTROLS)) for name in _CONTROLS}
    told = listing(f"{name}: lost {points_text(loss)}" for name, loss in losses.items())
    found = (
        f"{told}; single runs differ by up to {100 * floor:.2f} points: no model can be told apart below that"
    )
    repeats = min(loss.count for loss in losses.values())
    if repeats < 3:
        return Finding(claim, found, "undecided", f"only {repeats} of at least three repeats have a result")
    if any(loss.beyond_spread for loss in losses.values()):
        return Finding(claim, found, "not shown", "the difference is beyond the spread")
    if all_of([alike(loss, _WITHOUT_MUCH_LOSS) for loss in losses.values()]) == "reproduced":
        return Finding(claim, found, "shown")
    limit = f"{100 * _WITHOUT_MUCH_LOSS:g} points"
    return Finding(claim, found, "undecided", f"none beyond the spread, which reaches over {limit}")


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Chip txsim, all else equal. Without much loss means that the whole interval of "
        f"the difference to FCM is within {100 * _WITHOUT_MUCH_LOSS:g} points (the grey band). L = 1 "
        "computes the same as FCM but for rounding: what differs there is the chaos of training. Speeds "
        "are in fig7."
    )


FIG5B = Study(
    name="fig5b",
    title="Figure 5(b): accuracy with every circuit model",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
    others=("test_loss",),
)
