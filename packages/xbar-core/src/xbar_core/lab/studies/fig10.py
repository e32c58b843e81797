"""Figure 10: how much the non-linearity of updates and write noise cost, under each law."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from xbar_core.config import preset
from xbar_core.lab.studies.frame import Finding, Scale, Study, Verdict, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import (
    all_of,
    beyond_chance,
    compared,
    harmful,
    harmless,
    listing,
    lost,
    mean_of,
    percent,
    points_text,
    rows_of,
    within,
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
_NATIVE_MAX = 0.9  # about the largest weight of native training: of all layers, for a point has one scale
# A balanced pair cancels much of the asymmetry, a single device against a reference does not. The reference
# column does not see what wires take from its neighbours, so that device is tried without them, too.
_SINGLE, _NO_WIRES = "single device", "single device, perfect wires"
_MAPPINGS: dict[str, dict[str, Any]] = {
    "balanced pair": {},
    "balanced pair, native scale": {"update.scale": {"rule": "native", "w_max": _NATIVE_MAX}},
    "balanced pair, after the rate": {"update.noise.stage": "after_lr"},
    "differential pair": {"mapping.kind": "differential"},
    _SINGLE: {"mapping.kind": "offset"},
    _NO_WIRES: {"mapping.kind": "offset", "circuit": {"kind": "ideal"}},
}
_ALL_V = {"balanced pair": (*_V, _LIMIT), _SINGLE: _FEW_V, _NO_WIRES: _V}
_LAWS: dict[str, dict[str, Any]] = {
    "txsim": {},
    "sqrt, before the rate": {"update.noise.law": "sqrt"},
    "sqrt, after the rate": {"update.noise.law": "sqrt", "update.noise.stage": "after_lr"},
}
_PLAIN = ("balanced pair", "txsim")  # what the paper most likely has
_NATIVE = {"part": "reference"}
# Shares of the test samples.
_ALMOST_NONE, _NEARLY = 0.005, 0.01
_CHANCE, _NEAR_CHANCE = 0.10, 0.25
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

    figure = new_figure(10.0, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    native = 100 * mean_of(table, _NATIVE).mean
    for axes, part, field in zip(
        panels, ("v", "gamma"), ("non-linearity v", "write noise gamma"), strict=True
    ):
        cases = dict.fromkeys(row.values["case"] for row in table.rows if row.values["part"] == part)
        for number, case in enumerate(cases):
            groups = Table(rows_of(table, {"part": part, "case": case})).groups("accuracy", ["value"])
            shift = 0.03 * (number - (len(cases) - 1) / 2)
            draw_line(
                axes, groups, field, "test accuracy [%]", case, number=number, factor=100.0, shift=shift
            )
        axes.axhline(native, color="black", linestyle=":", linewidth=1.2, label="native")
        if axes.containers:
            axes.set_xscale("log")
        axes.set_ylim(0, 105)
        axes.legend(fontsize=8, loc="center right" if part == "v" else "lower left")
    panels[1].set_ylabel("")
    figure.suptitle("Sensitivity to update non-idealities (figure 10)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    findings = []
    for case in _MAPPINGS:
        findings += _of_v(table, case)
    trends = {}
    for case in _LAWS:
        pair = _of_gamma(table, case)
        trends[case] = pair
        findings += pair
    findings.append(_law_of_the_paper(trends))
    return findings


def _of(part: str, case: str, value: float) -> dict[str, Any]:
    return {"part": part, "case": case, "value": value}


def _told(table: Table, part: str, case: str) -> str:
    values = dict.fromkeys(row.values["value"] for row in rows_of(table, {"part": part, "case": case}))
    means = [(value, mean_of(table, _of(part, case, value))) for value in values]
    return listing(f"{value:g}: {percent(mean)}" for value, mean in means if mean.count)


def _of_v(table: Table, case: str) -> list[Finding]:
    """Judge the claims on v for one mapping."""
    values = sorted({row.values["value"] for row in rows_of(table, {"part": "v", "case": case})})
    base = lost(table, _NATIVE, _of("v", case, 0.01))
    series = f"accuracy against v: native {percent(mean_of(table, _NATIVE))}; {_told(table, 'v', case)}"
    start = mean_of(table, _of("v", case, 0.01))
    dead = ""
    if start.count >= 3 and _failed(start) != "not reproduced":
        dead = f"at v = 0.01 it reaches {percent(start)} only: little is left to compare with"
    if dead and case == _SINGLE:
        dead += f"; with perfect wires it reaches {percent(mean_of(table, _of('v', _NO_WIRES, 0.01)))}"
    claims: list[tuple[str, str, Verdict, int]] = []
    small, wide = (
        lost(table, _of("v", case, 0.01), _of("v", case, 0.1), among=n) for n in (1, len(_MAPPINGS))
    )
    found = f"lost {points_text(small)}; v = 0.01 lost {points_text(base)} to native"
    verdict = beyond_chance(harmless(small, _ALMOST_NONE), harmless(wide, _ALMOST_NONE))
    claims.append((f"v from 0.01 to 0.1 costs almost nothing ({case})", found, verdict, small.count))
    if 0.5 in values:
        cases = sum(0.5 in _ALL_V.get(name, _FEW_V) for name in _MAPPINGS)
        half, wide = (lost(table, _of("v", case, 0.01), _of("v", case, 0.5), among=n) for n in (1, cases))
        claim = f"v = 0.5 becomes noticeable ({case})"
        noticed = harmful(half, _ALMOST_NONE), harmful(wide, _ALMOST_NONE)
        verdict = beyond_chance(*noticed, difference="reproduced")
        claims.append((claim, f"lost {points_text(half)} against v = 0.01", verdict, half.count))
    fatal = mean_of(table, _of("v", case, 1.0))
    loss = lost(table, _of("v", case, 0.01), _of("v", case, 1.0))
    claims.append(
        (
            f"v = 1 is fatal: training fails to converge ({case})",
            f"{percent(fatal)} (chance is {100 * _CHANCE:g} %), lost {points_text(loss)}",
            _failed(fatal),
            fatal.count,
        )
    )
    pair = "pair" in case
    halves = ", and the two halves of a pair are off in opposite directions" if pair else ""
    bend = (
        f"{series}. A step on a device is at most {_bend(0.5):.0%} off at v = 0.5 and {_bend(1.0):.0%} at v "
        f"= 1 (at an end of its range){halves}."
    )
    findings = [
        Finding(claim, found, "undecided", dead)
        if dead and count >= 3
        else compared(claim, found, verdict, bend, count)
        for claim, found, verdict, count in claims
    ]
    return [*findings, _first_failure(table, case, values, dead)]


def _first_failure(table: Table, case: str, values: list[float], dead: str) -> Finding:
    """Say at which v training fails, if at any: a question of our own."""
    means = {v: mean_of(table, _of("v", case, v)) for v in values}
    known = [v for v in values if means[v].count >= 3]
    told = _told(table, "v", case) or "no result"
    judged = {v: _failed(means[v]) for v in known}
    failing = [v for v in known if all(judged[u] == "reproduced" for u in known if u >= v)]
    claim = f"Training fails to converge from some v on ({case}; our own question)"
    if len(known) < len(values):
        return Finding(claim, told, "undecided", "points are missing")
    if dead:
        return Finding(claim, told, "undecided", dead)
    if failing:
        return Finding(f"Training fails to converge from v = {failing[0]:g} on ({case})", told, "shown")
    top = values[-1]
    if set(judged.values()) != {"not reproduced"}:
        unsure = [f"{v:g}" for v in known if judged[v] != "not reproduced"]
        reason = f"at v = {', '.join(unsure)} repeats fail, but not all of them, or not at every larger v"
        return Finding(claim, told, "undecided", reason)
    if top >= _LIMIT:
        reason = f"it trains at every v up to {top:g}, the largest that the model takes"
        return Finding(claim, told, "not shown", reason)
    return Finding(claim, told, "undecided", f"it trains up to v = {top:g}, the largest that was tried")


def _of_gamma(table: Table, case: str) -> tuple[Finding, Finding]:
    """Judge the claims on gamma for one law, against native training."""
    one, few, many = (lost(table, _NATIVE, _of("gamma", case, gamma)) for gamma in (1.0, 5.0, 10.0))
    series = (
        f"accuracy against gamma: native {percent(mean_of(table, _NATIVE))}; {_told(table, 'gamma', case)}"
    )
    verdict = all_of([harmless(loss, _NEARLY) for loss in (one, few)])
    wide = [lost(table, _NATIVE, _of("gamma", case, gamma), among=2 * len(_LAWS)) for gamma in (1.0, 5.0)]
    verdict = beyond_chance(verdict, all_of([harmless(loss, _NEARLY) for loss in wide]))
    first = compared(
        f"gamma 1 and 5 are nearly harmless (law {case})",
        f"against native lost {points_text(one)} at gamma 1 and {points_text(few)} at gamma 5",
        verdict,
        series,
        min(one.count, few.count),
        f"an interval reaches over {100 * _NEARLY:g} point",
    )
    second = compared(
        f"gamma = 10 costs about 10 points (law {case})",
        f"lost {points_text(many)} against native",
        within(many, *_ABOUT_TEN),
        series,
        many.count,
        f"the interval reaches out of {100 * _ABOUT_TEN[0]:g} to {100 * _ABOUT_TEN[1]:g} points",
    )
    return first, second


def _law_of_the_paper(trends: dict[str, tuple[Finding, Finding]]) -> Finding:
    """Say which law and stage shows both of the paper's trends."""
    verdicts = {case: {finding.verdict for finding in pair} for case, pair in trends.items()}
    right = [case for case, found in verdicts.items() if found == {"reproduced"}]
    wrong = [case for case, found in verdicts.items() if "not reproduced" in found]
    open_ = [case for case in trends if case not in (*right, *wrong)]
    claim = "A law and stage of write noise shows both of the paper's trends (our own question)"
    parts = (("both", right), ("not both", wrong), ("undecided", open_))
    found = listing(f"{word}: {' / '.join(cases)}" for word, cases in parts if cases)
    if right:
        return Finding(claim, found, "shown")
    told = listing(f"{case}: {pair[0].found}; gamma 10 {pair[1].found}" for case, pair in trends.items())
    return Finding(claim, found, "undecided" if open_ else "not shown", told)


def _failed(accuracy: Estimate) -> Verdict:
    """Judge whether training failed to converge: the accuracy is near chance."""
    return harmless(accuracy, _NEAR_CHANCE)


def _bend(v: float) -> float:
    """Return the largest relative error of a small step: v / (1 - exp(-v)) - 1 at g_min."""
    return v / (1 - math.exp(-v)) - 1


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Chip txsim (AAM of order 1); gamma 5 while v varies, v 0.01 while gamma varies. "
        "Law txsim draws the same noise before and after the rate. Native scale: steps are scaled with a "
        f"weight of {_NATIVE_MAX:g} for all layers, about the largest of native training at the scale small "
        "(0.87 over three seeds); the paper has one for "
        f"each. Almost nothing means at most {100 * _ALMOST_NONE:g} points against v = 0.01, nearly "
        f"harmless at most {100 * _NEARLY:g} against native, about ten from {100 * _ABOUT_TEN[0]:g} to "
        f"{100 * _ABOUT_TEN[1]:g}, each with the whole interval; training fails where the accuracy is at "
        f"most {100 * _NEAR_CHANCE:g} %. Where training fails at v = 0.01 already, nothing is said of v."
    )


FIG10 = Study(
    name="fig10",
    title="Figure 10: non-linearity and noise of updates",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
    others=("test_loss",),
)
