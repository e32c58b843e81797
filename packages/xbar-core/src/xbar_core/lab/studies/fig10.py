"""Figure 10: how much the non-linearity of updates and write noise cost, under each law."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from xbar_core.config import preset
from xbar_core.lab.studies.frame import Finding, Scale, Study, Verdict, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import (
    compared,
    harmful,
    harmless,
    listing,
    lost,
    mean_of,
    percent,
    points_text,
)
from xbar_core.lab.sweep.figures import draw_line
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.spread import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_V = (0.01, 0.1, 0.5, 1.0, 5.0, 20.0)
_FEW_V = (0.01, 0.1, 1.0)
_LIMIT = 100.0  # the largest v that a chip takes
_GAMMA = (1.0, 5.0, 10.0, 20.0)
_FEW_GAMMA = (1.0, 5.0, 10.0)
_NATIVE_MAX = 0.9  # largest weight of native training: of all layers, for a point has one scale
# A balanced pair cancels much of the asymmetry, a single device against a reference does not; a range
# eight times as wide takes the steps and the states nearer to the middle.
_MAPPINGS: dict[str, dict[str, Any]] = {
    "balanced pair": {},
    "balanced pair, native scale": {"update.scale": {"rule": "native", "w_max": _NATIVE_MAX}},
    "differential pair": {"mapping.kind": "differential"},
    "single device": {"mapping.kind": "offset"},
    "single device, after the rate": {"mapping.kind": "offset", "update.noise.stage": "after_lr"},
    "single device, wide range": {
        "mapping.kind": "offset",
        "mapping.w_max": {"rule": "max_abs", "headroom": 32.0},
    },
}
_ALL_V = {"balanced pair": (*_V, _LIMIT), "single device": _V}
_LAWS: dict[str, dict[str, Any]] = {
    "txsim": {},
    "sqrt, before the rate": {"update.noise.law": "sqrt"},
    "sqrt, after the rate": {"update.noise.law": "sqrt", "update.noise.stage": "after_lr"},
}
_PLAIN = ("balanced pair", "txsim")  # what the paper most likely has
_ALMOST_NONE, _ALL = 0.005, 0.30  # shares of the test samples
_ABOUT_TEN = (0.05, 0.20)


def _points(scale: Scale) -> list[Point]:
    recipe, where, _ = lenet(scale)
    chip = preset("txsim").with_("circuit", {"kind": "aam", "order": 1})
    made = [
        trained({"part": "reference", "case": "native", "value": 0.0, "seed": seed}, None, recipe, **where)
        for seed in seeds(scale)
    ]
    for name, changes in _MAPPINGS.items():
        for v in thinned(_ALL_V.get(name, _FEW_V), scale):
            case = chip.with_values({**changes, "update.v_up": v, "update.v_down": v})
            for seed in seeds(scale):
                labels = {"part": "v", "case": name, "value": v, "seed": seed}
                made.append(trained(labels, case, recipe, **where))
    for name, changes in _LAWS.items():
        for gamma in thinned(_GAMMA if name in _PLAIN else _FEW_GAMMA, scale):
            case = chip.with_values({**changes, "update.noise.gamma": gamma})
            for seed in seeds(scale):
                labels = {"part": "gamma", "case": name, "value": gamma, "seed": seed}
                made.append(trained(labels, case, recipe, **where))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import new_figure

    figure = new_figure(9.0, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, part, field in zip(
        panels, ("v", "gamma"), ("non-linearity v", "write noise gamma"), strict=True
    ):
        for case in dict.fromkeys(row.values["case"] for row in table.rows if row.values["part"] == part):
            rows = [row for row in table.rows if row.values["part"] == part and row.values["case"] == case]
            groups = Table(rows).groups("accuracy", ["value"])
            draw_line(axes, groups, field, "test accuracy", label=case)
        axes.set_xscale("log")
        axes.legend(fontsize=8)
    figure.suptitle("Sensitivity to update non-idealities (figure 10)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    native = {"part": "reference"}

    def of(part: str, case: str, value: float) -> dict[str, Any]:
        return {"part": part, "case": case, "value": value}

    def told(part: str, case: str, values: tuple[float, ...]) -> str:
        means = [(value, mean_of(table, of(part, case, value))) for value in values]
        return listing(f"{value:g}: {percent(mean)}" for value, mean in means if mean.count)

    findings = []
    for case in _MAPPINGS:
        series = f"native {percent(mean_of(table, native))}; {told('v', case, _V)}"
        small = lost(table, of("v", case, 0.01), of("v", case, 0.1))
        findings.append(
            compared(
                f"v from 0.01 to 0.1 costs almost nothing ({case})",
                f"lost {points_text(small)}",
                harmless(small, _ALMOST_NONE),
                f"accuracy against v: {series}",
                small.count,
            )
        )
        fatal = lost(table, of("v", case, 0.01), of("v", case, 1.0))
        beyond = [(v, lost(table, of("v", case, 0.01), of("v", case, v))) for v in _V if v > 1]
        findings.append(
            compared(
                f"v = 1 is fatal: training fails to converge ({case})",
                f"lost {points_text(fatal)}; "
                + listing(f"at v = {v:g} {points_text(loss)}" for v, loss in beyond if loss.count),
                harmful(fatal, _ALL),
                f"accuracy against v: {series}. A step on a device is at most {_bend(1.0):.0%} off at v = "
                "1 (at an end of its range), and the two halves of a pair are off in opposite directions.",
                fatal.count,
            )
        )
    trends: dict[str, tuple[Verdict, Verdict]] = {}
    for case in _LAWS:
        few = lost(table, of("gamma", case, 1.0), of("gamma", case, 5.0))
        many = lost(table, of("gamma", case, 1.0), of("gamma", case, 10.0))
        series = f"accuracy against gamma: {told('gamma', case, _GAMMA)}"
        trends[case] = harmless(few, 0.01), _about_ten(many)
        findings.append(
            compared(
                f"gamma up to 5 is nearly harmless (law {case})",
                f"gamma 5 against 1: lost {points_text(few)}; at gamma 1 lost "
                f"{points_text(lost(table, native, of('gamma', case, 1.0)))} against native",
                trends[case][0],
                series,
                few.count,
            )
        )
        findings.append(
            compared(
                f"gamma = 10 costs about 10 points (law {case})",
                f"lost {points_text(many)} against gamma 1",
                trends[case][1],
                f"{series}. The effect of the noise grows with rate and network.",
                many.count,
            )
        )
    findings.append(_law_of_the_paper(trends))
    return findings


def _law_of_the_paper(trends: dict[str, tuple[Verdict, Verdict]]) -> Finding:
    """Say which law and stage shows both of the paper's trends."""
    right = [case for case, verdicts in trends.items() if set(verdicts) == {"reproduced"}]
    wrong = [case for case, verdicts in trends.items() if "not reproduced" in verdicts]
    open_ = [case for case in trends if case not in (*right, *wrong)]
    claim = "A law and stage of write noise shows both of the paper's trends (our own question)"
    parts = (("both", right), ("not both", wrong), ("undecided", open_))
    found = listing(f"{word}: {' / '.join(cases)}" for word, cases in parts if cases)
    if right:
        return Finding(claim, found, "reproduced")
    if open_:
        return Finding(claim, found, "undecided", "the spread is too wide, or points are missing")
    return Finding(claim, found, "not reproduced", "the size of the effect depends on rate and network")


def _about_ten(loss: Estimate) -> Verdict:
    """Judge whether the loss is about ten points, whatever the interval leaves open within that."""
    low, high = _ABOUT_TEN
    if loss.count < 3:
        return "undecided"
    if loss.beyond_spread and low <= loss.mean <= high:
        return "reproduced"
    return "not reproduced" if loss.high < low or loss.low > high else "undecided"


def _bend(v: float) -> float:
    """Return the largest relative error of a small step: v / (1 - exp(-v)) - 1 at g_min."""
    return v / (1 - math.exp(-v)) - 1


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Chip txsim (AAM of order 1); gamma 5 while v varies, v 0.01 while gamma varies. "
        "Law txsim draws the same noise before and after the rate. Almost nothing means at most "
        f"{100 * _ALMOST_NONE:g} points, fatal at least {100 * _ALL:g}, about ten from "
        f"{100 * _ABOUT_TEN[0]:g} to {100 * _ABOUT_TEN[1]:g}."
    )


FIG10 = Study(
    name="fig10",
    title="Figure 10: non-linearity and noise of updates",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
)
