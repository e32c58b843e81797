"""Figure 6: what AAM gets wrong against FCM, cell by cell, for three ranges of resistance."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xbar_core.circuit import AAM
from xbar_core.circuit.report import error_report
from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_core.lab.studies.frame import Finding, Scale, Study, Verdict, seeds, thinned
from xbar_core.lab.studies.judging import all_of, listing, mean_of, within
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.sweep.spread import Estimate
from xbar_core.random import Purpose, Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RANGES = {"100k-1M": (1e5, 1e6), "20k-200k": (2e4, 2e5), "3k-10k": (3e3, 1e4)}
_ENDED, _BARE = "500+100 ohm", "none"
_ENDS = {_ENDED: (500.0, 100.0), _BARE: (0.0, 0.0)}
_ORDERS = (0, 1, 2, 3)
_NEGLIGIBLE, _SMALL = 0.01, 0.05  # of the largest entry
_STRADDLES = "an interval reaches over a limit"


class _Claim(NamedTuple):
    range: str
    text: str
    low: float
    high: float


_CLAIMS = (
    _Claim("100k-1M", "(a) AAM's errors are negligible for the highest resistances", 0.0, _NEGLIGIBLE),
    _Claim("20k-200k", "(b) AAM's errors are quite small for the middle range", 0.0, _SMALL),
    _Claim("3k-10k", "(c) AAM is not suitable for low resistances: considerable errors", _SMALL, np.inf),
)


def error_map(setup: Setup) -> dict[str, object]:
    """Compare the chip's AAM with FCM on one array of resistances that are uniform in its range."""
    chip = setup.chip
    if chip is None or not isinstance(chip.circuit, AAM):
        raise ConfigError("circuit.kind: this task compares AAM with FCM; use circuit.kind = 'aam'")
    low, high = chip.device.r_min, chip.device.r_max
    uniform = Stream(chip.seed, "fig6").uniform(Purpose.WEIGHTS, (chip.array.rows, chip.array.cols))
    report = error_report(1 / (low + (high - low) * uniform), chip.wires, chip.circuit)
    return {
        "error": report.error,
        "worst": report.elementwise_max,
        "mean": report.elementwise_mean,
        "map": np.asarray(report.map).ravel().tolist(),
    }


def _points(scale: Scale) -> list[Point]:
    side = 16 if scale == "smoke" else 64
    chip = preset("txsim").with_values({"circuit.kind": "aam", "array.rows": side, "array.cols": side})
    made = []
    for name, (low, high) in _RANGES.items():
        for ends, (source, sense) in _ENDS.items():
            for order in thinned(_ORDERS, scale):
                for seed in seeds(scale):
                    case = chip.with_values(
                        {
                            "device.r_min": low,
                            "device.r_max": high,
                            "wires.r_source": source,
                            "wires.r_sense": sense,
                            "circuit.order": order,
                            "seed": seed,
                        }
                    )
                    labels = {"resistance": name, "ends": ends, "order": order, "seed": seed}
                    made.append(Point(labels, Setup(f"{__name__}:error_map", case)))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core import plots

    approximate, exact = {}, {}
    for row in table.rows:
        cells = np.array(row.series("map"))
        if cells.size and row.values["seed"] == 0 and row.values["ends"] == _ENDED:
            side = round(cells.size**0.5)
            name = (
                f"{row.values['resistance']} ohm, order {row.values['order']}\n"
                f"largest error / largest entry {row.metric('error'):.1e}"
            )
            approximate[name] = 1.0 + cells.reshape(side, side)
            exact[name] = np.ones((side, side))
    if not exact:
        from xbar_core.plots._style import new_figure

        return new_figure(6.0, 3.0)  # no array was computed yet
    figure = plots.error_maps(approximate, exact)
    figure.suptitle("AAM against FCM (figure 6): colours, relative error of each cell", fontsize=11)
    return figure


def _findings(table: Table) -> list[Finding]:
    orders = sorted({row.values["order"] for row in table.rows})
    known = [order for order in orders if all(_error(table, n, _ENDED, order).count for n in _RANGES)]
    together = {
        ends: {order: all_of([_holds(table, claim, ends, order) for claim in _CLAIMS]) for order in known}
        for ends in _ENDS
    }
    right, bare = (
        [order for order, verdict in together[ends].items() if verdict == "reproduced"] for ends in _ENDS
    )
    findings = [_claim(table, claim, orders) for claim in _CLAIMS]
    claim = "One order of AAM shows (a), (b) and (c) together"
    found = f"with ends: {_orders(right)}; without: {_orders(bare)}"
    if not known or _repeats(table) < 3:
        return [*findings, Finding(claim, found, "undecided", "points are missing")]
    reason = ""
    if right and not set(right) & set(bare):
        reason = (
            "(c) rests on the source and sense resistances, which are assumed: without them the errors at "
            "3k-10k ohm are "
            + ", ".join(
                f"{_error(table, '3k-10k', _BARE, order).mean:.1%} (order {order})" for order in right
            )
        )
    if right:
        return [*findings, Finding(claim, found, "reproduced", reason)]
    if "undecided" in together[_ENDED].values():
        return [*findings, Finding(claim, found, "undecided", _STRADDLES)]
    reason = "each order that is exact enough in (b) is so in (c), too; see the numbers of each"
    return [*findings, Finding(claim, found, "not reproduced", reason)]


def _error(table: Table, name: str, ends: str, order: int) -> Estimate:
    return mean_of(table, {"resistance": name, "ends": ends, "order": order}, "error")


def _repeats(table: Table) -> int:
    return min(
        _error(table, row.values["resistance"], row.values["ends"], row.values["order"]).count
        for row in table.rows
    )


def _holds(table: Table, claim: _Claim, ends: str, order: int) -> Verdict:
    """Judge the claim for one order, with the whole interval."""
    return within(_error(table, claim.range, ends, order), claim.low, claim.high)


def _orders(orders: list[int]) -> str:
    return f"order {', '.join(map(str, orders))}" if orders else "none"


def _claim(table: Table, claim: _Claim, orders: list[int]) -> Finding:
    told, holds = [], {}
    for order in orders:
        ended, bare = (_error(table, claim.range, ends, order) for ends in (_ENDED, _BARE))
        if ended.count:
            holds[order] = _holds(table, claim, _ENDED, order)
            told.append(f"order {order}: {_size(ended)} ({_size(bare)} without ends)")
    found = "largest error / largest entry, " + listing(told)
    if not holds:
        return Finding(claim.text, "no result", "undecided", "points are missing")
    if _repeats(table) < 3:
        return Finding(claim.text, found, "undecided", "fewer than three arrays")
    true = [order for order, held in holds.items() if held == "reproduced"]
    rest = [order for order in holds if order not in true]
    if true:
        reason = f"holds for order {', '.join(map(str, true))}, not for {', '.join(map(str, rest))}"
        return Finding(claim.text, found, "reproduced", f"{reason}; the paper names no order" if rest else "")
    if "undecided" in holds.values():
        return Finding(claim.text, found, "undecided", _STRADDLES)
    return Finding(claim.text, found, "not reproduced", "no order's errors are of that size")


def _size(error: Estimate) -> str:
    spread = f" ± {error.half:.0e}" if error.count > 1 else ""
    return f"{error.mean:.1e}{spread}"


def _conditions(scale: Scale) -> str:
    side = 16 if scale == "smoke" else 64
    return (
        f"One {side}x{side} array for each seed, resistances uniform in their range, wires of the preset "
        "txsim; the map shows the first seed with r_source 500 and r_sense 100 ohm. Negligible means an "
        f"error of at most {_NEGLIGIBLE:.0%} of the largest entry, small at most {_SMALL:.0%}, considerable "
        "more; a claim must hold with the whole interval over the seeds. Ends: r_source and r_sense, which "
        "are assumed."
    )


FIG6 = Study(
    name="fig6",
    title="Figure 6: errors of AAM against FCM",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
    metric="error",
    others=("worst", "mean"),
    trains=False,
)
