"""Figure 12: accuracy against the on/off ratio, with either end of the resistance fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xbar_core.config import preset
from xbar_core.lab.studies.frame import Finding, Scale, Study, Verdict, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import compared, listing, lost, mean_of, percent, points_text
from xbar_core.lab.sweep.figures import draw_line
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.setup import Setup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATIOS = (2.0, 5.0, 8.0, 10.0, 20.0, 50.0)
_FIXED = {"r_min = 100k": ("r_min", 1e5), "r_max = 1M": ("r_max", 1e6)}
_BEST = {"r_min = 100k": 5.0, "r_max = 1M": 8.0}


def _points(scale: Scale) -> list[Point]:
    recipe, where, _ = lenet(scale)
    chip = preset("txsim")
    made = []
    for name, (end, value) in _FIXED.items():
        for ratio in thinned(_RATIOS, scale):
            low, high = (value, value * ratio) if end == "r_min" else (value / ratio, value)
            case = chip.with_values({"device.r_min": low, "device.r_max": high})
            for seed in seeds(scale):
                labels = {"part": "training", "fixed": name, "ratio": ratio, "seed": seed}
                made.append(trained(labels, case, recipe, **where))
                circuit = Setup("circuit", case.with_("seed", seed), options={"arrays": 1})
                made.append(Point({**labels, "part": "circuit"}, circuit))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import new_figure

    figure = new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    for name in _FIXED:
        for axes, part, metric in ((left, "training", "accuracy"), (right, "circuit", "distortion")):
            rows = [row for row in table.rows if row.values["part"] == part and row.values["fixed"] == name]
            draw_line(
                axes, Table(rows).groups(metric, ["ratio"]), "r_max / r_min", metric, label=f"{name} ohm"
            )
            axes.set_xscale("log")
            axes.set_xticks(_RATIOS, [f"{ratio:g}" for ratio in _RATIOS])
            axes.minorticks_off()
    left.set_ylabel("test accuracy")
    right.set_ylabel("largest change of an entry by wires")
    left.legend()
    figure.suptitle("Sensitivity to the on/off ratio (figure 12)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    return [_sweet_spot(table, name) for name in _FIXED]


def _sweet_spot(table: Table, name: str) -> Finding:
    """Judge whether an inner ratio is better than both outer ones by more than the spread."""

    def of(ratio: float, part: str = "training") -> dict[str, Any]:
        return {"part": part, "fixed": name, "ratio": ratio}

    ratios = sorted({row.values["ratio"] for row in table.rows})
    means = {ratio: mean_of(table, of(ratio)) for ratio in ratios}
    known = [ratio for ratio in ratios if means[ratio].count]
    claim = f"With {name} ohm there is a sweet spot, at an on/off ratio of {_BEST[name]:g}"
    if not known:
        return Finding(claim, "no result", "undecided", "points are missing")
    best = max(known, key=lambda ratio: means[ratio].mean)
    losses = [lost(table, of(best), of(end)) for end in (known[0], known[-1])]
    told = listing(f"{ratio:g}: {percent(means[ratio])}" for ratio in known)
    inner = best not in (known[0], known[-1])
    repeats = min(loss.count for loss in losses)
    verdict: Verdict = "undecided"
    if repeats >= 3 and inner and all(loss.beyond_spread for loss in losses):
        verdict = "reproduced" if best == _BEST[name] else "not reproduced"
    elif repeats >= 3 and any(loss.beyond_spread for loss in losses):
        verdict = "not reproduced"
    wires = [mean_of(table, of(ratio, "circuit"), "distortion").mean for ratio in (known[0], known[-1])]
    reason = (
        f"the best ratio is {best:g}; wires change the largest entry by {wires[0]:.1%} at ratio "
        f"{known[0]:g} and by {wires[1]:.1%} at {known[-1]:g}; words of 32 bits and ranges that follow the "
        "currents leave no sensing error that would grow as currents fall"
    )
    found = (
        f"{told}; against the best, lost {points_text(losses[0])} at the lowest and "
        f"{points_text(losses[1])} at the highest"
    )
    return compared(claim, found, verdict, reason, repeats)


def _conditions(scale: Scale) -> str:
    return f"{lenet(scale)[2]} Chip txsim (exact circuit). The right panel is of single random arrays."


FIG12 = Study(
    name="fig12",
    title="Figure 12: on/off ratio",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
)
