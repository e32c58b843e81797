"""Figure 12: accuracy against the on/off ratio, with either end of the resistance fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xbar_core.config import preset
from xbar_core.lab.studies.frame import Finding, Scale, Study, Verdict, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import compared, listing, lost, mean_of, percent, points_text, rows_of
from xbar_core.lab.sweep.figures import draw_line
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.setup import Setup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RATIOS = (2.0, 5.0, 8.0, 20.0, 50.0)
_FIXED = {"r_min = 100k": ("r_min", 1e5), "r_max = 1M": ("r_max", 1e6)}
_BEST = {"r_min = 100k": 5.0, "r_max = 1M": 8.0}
_QUIET, _NOISY = "none", "0.2 uA"
_SENSING = {_QUIET: 0.0, _NOISY: 2e-7}
_FAILED = 0.5  # a share of the test samples: a network that labels fewer did not learn
# Shares of the test samples: less is no sweet spot; an interval that leaves more open decides nothing.
_DIFFERENCE, _OPEN = 0.005, 0.02


def _points(scale: Scale) -> list[Point]:
    recipe, where, _ = lenet(scale)
    made = []
    for name, (end, value) in _FIXED.items():
        for ratio in thinned(_RATIOS, scale):
            low, high = (value, value * ratio) if end == "r_min" else (value / ratio, value)
            for sensing, noise in _SENSING.items():
                values = {"device.r_min": low, "device.r_max": high, "adc.noise": noise}
                case = preset("txsim").with_values(values)
                for seed in seeds(scale):
                    labels = {"part": "training", "fixed": name, "sensing": sensing, "ratio": ratio}
                    made.append(trained({**labels, "seed": seed}, case, recipe, **where))
                    if sensing == _QUIET:
                        circuit = Setup("circuit", case.with_("seed", seed), options={"arrays": 1})
                        made.append(Point({**labels, "part": "circuit", "seed": seed}, circuit))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import new_figure

    figure = new_figure(10.5, 3.6)
    axes_of = dict(zip([*_SENSING, "circuit"], figure.subplots(1, 3), strict=True))
    for name in _FIXED:
        for key, axes in axes_of.items():
            part, metric = ("circuit", "distortion") if key == "circuit" else ("training", "accuracy")
            labels = {"part": part, "fixed": name} | ({} if key == "circuit" else {"sensing": key})
            groups = Table(rows_of(table, labels)).groups(metric, ["ratio"])
            draw_line(axes, groups, "r_max / r_min", metric, label=f"{name} ohm")
            axes.set_xscale("log")
            axes.set_xticks(_RATIOS, [f"{ratio:g}" for ratio in _RATIOS])
            axes.minorticks_off()
    axes_of[_QUIET].set_ylabel("test accuracy")
    axes_of[_NOISY].set_ylabel(f"test accuracy, sensing noise {_NOISY}")
    axes_of["circuit"].set_ylabel("largest change of an entry by wires")
    axes_of[_QUIET].legend(fontsize=8)
    figure.suptitle("Sensitivity to the on/off ratio (figure 12)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    return [_sweet_spot(table, name, sensing) for sensing in _SENSING for name in _FIXED]


def _sweet_spot(table: Table, name: str, sensing: str) -> Finding:
    """Judge whether an inner ratio is better than both outer ones by more than the spread."""

    def of(ratio: float, part: str = "training") -> dict[str, Any]:
        return {"part": part, "fixed": name, "ratio": ratio, "sensing": sensing}

    ratios = sorted({row.values["ratio"] for row in table.rows})
    means = {ratio: mean_of(table, of(ratio)) for ratio in ratios}
    known = [ratio for ratio in ratios if means[ratio].count]
    noisy = "" if sensing == _QUIET else f" if sensing has an error ({sensing} rms in each current)"
    claim = f"With {name} ohm there is a sweet spot, at an on/off ratio of {_BEST[name]:g}{noisy}"
    if not known:
        return Finding(claim, "no result", "undecided", "points are missing")
    best = max(known, key=lambda ratio: means[ratio].mean)
    losses = {ratio: lost(table, of(best), of(ratio)) for ratio in known}
    ends = [losses[known[0]], losses[known[-1]]]
    repeats = min(loss.count for loss in ends)
    worse = [_clearly_worse(table, of(best), of(ratio)) for ratio in (known[0], known[-1])]
    inner = best not in (known[0], known[-1])
    alike = [ratio for ratio in known if not _clearly_worse(table, of(best), of(ratio))]
    verdict: Verdict = "undecided"
    if repeats >= 3 and inner and all(worse):
        verdict = "reproduced" if _BEST[name] in alike else "not reproduced"
    elif repeats >= 3 and all(losses[ratio].high < _OPEN for ratio in alike):
        verdict = "not reproduced"
    told = listing(f"{ratio:g}: {percent(means[ratio])}{_failures(table, of(ratio))}" for ratio in known)
    found = (
        f"{told}; against the best ({best:g}), lost {points_text(ends[0])} at the lowest and "
        f"{points_text(ends[1])} at the highest"
    )
    wires = [mean_of(table, of(ratio, "circuit"), "distortion").mean for ratio in (known[0], known[-1])]
    reason = "ratios " + ", ".join(f"{ratio:g}" for ratio in alike) + " cannot be told apart"
    if sensing == _QUIET:
        reason += (
            f"; wires and ends change the largest entry by {wires[0]:.1%} at ratio {known[0]:g} and by "
            f"{wires[1]:.1%} at {known[-1]:g}; words of 32 bits leave no sensing error that would grow as "
            "currents fall"
        )
    elif name.startswith("r_min"):
        reason += (
            "; the signal of a balanced pair is g_max - g_min, which rises with r_max: the error of sensing "
            "hurts the lowest ratio, not the highest"
        )
    if verdict == "reproduced":
        return Finding(claim, found, verdict, reason)
    return compared(claim, found, verdict, reason, repeats)


def _clearly_worse(table: Table, best: dict[str, Any], case: dict[str, Any]) -> bool:
    """Whether the case loses more than the spread, or half of its networks did not learn at all."""
    loss = lost(table, best, case)
    results = [row.metric("accuracy") for row in rows_of(table, case)]
    failed = sum(result < _FAILED for result in results)
    return (loss.mean >= _DIFFERENCE and loss.beyond_spread) or (loss.count >= 3 and 2 * failed >= loss.count)


def _failures(table: Table, case: dict[str, Any]) -> str:
    """Name the repeats that did not learn."""
    rows = rows_of(table, case)
    seeds_failed = [str(row.values["seed"]) for row in rows if row.metric("accuracy") < _FAILED]
    return f" (did not learn: seed {', '.join(seeds_failed)})" if seeds_failed else ""


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Chip txsim (exact circuit), as it is and with thermal noise of {_NOISY} rms in "
        "every sensed current, which stands for an error of sensing that does not shrink with the current. A "
        f"sweet spot is better than both ends by at least {100 * _DIFFERENCE:g} points and the spread. "
        "The right panel is of single random arrays."
    )


FIG12 = Study(
    name="fig12",
    title="Figure 12: on/off ratio",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
)
