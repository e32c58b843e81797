"""Figure 6: what AAM gets wrong against FCM, cell by cell, for three ranges of resistance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xbar_core.circuit import AAM
from xbar_core.circuit.report import error_report
from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_core.lab.studies.frame import Finding, Scale, Study, seeds, thinned
from xbar_core.lab.studies.judging import listing, mean_of, rows_of
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.setup import Setup
from xbar_core.random import Purpose, Stream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RANGES = {"100k-1M": (1e5, 1e6), "20k-200k": (2e4, 2e5), "3k-10k": (3e3, 1e4)}
_ENDS = {"500+100 ohm": (500.0, 100.0), "none": (0.0, 0.0)}
_ORDERS = (0, 1, 2, 3)
_NEGLIGIBLE, _SMALL = 0.01, 0.05  # of the largest entry


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
        if cells.size and row.values["seed"] == 0 and row.values["ends"] == "500+100 ohm":
            side = round(cells.size**0.5)
            name = (
                f"{row.values['resistance']} ohm, order {row.values['order']}\n"
                f"error {row.metric('error'):.1e}"
            )
            approximate[name] = 1.0 + cells.reshape(side, side)
            exact[name] = np.ones((side, side))
    if not exact:
        from xbar_core.plots._style import new_figure

        return new_figure(6.0, 3.0)  # no array was computed yet
    return plots.error_maps(approximate, exact)


def _findings(table: Table) -> list[Finding]:
    claims = (
        ("100k-1M", "AAM's errors are negligible for the highest resistances (a)", 0.0, _NEGLIGIBLE),
        ("20k-200k", "AAM's errors are quite small for the middle range (b)", 0.0, _SMALL),
        ("3k-10k", "AAM is not suitable for low resistances (c): considerable errors", _SMALL, np.inf),
    )
    findings = []
    orders = sorted({row.values["order"] for row in table.rows})
    for name, claim, low, high in claims:
        told = []
        holds: dict[int, bool] = {}
        for order in orders:
            labels = {"resistance": name, "order": order}
            errors = {e: mean_of(table, {**labels, "ends": e}, "error") for e in _ENDS}
            if not any(rows_of(table, labels)) or errors["500+100 ohm"].count == 0:
                continue
            holds[order] = low <= errors["500+100 ohm"].mean <= high
            told.append(
                f"order {order}: {errors['500+100 ohm'].mean:.1e} ({errors['none'].mean:.1e} without ends)"
            )
        found = "largest error / largest entry, " + listing(told)
        true = [order for order, held in holds.items() if held]
        if not holds:
            findings.append(Finding(claim, "no result", "undecided", "points are missing"))
        elif true:
            rest = [order for order in holds if order not in true]
            reason = f"not for order {', '.join(map(str, rest))}; the paper names no order" if rest else ""
            findings.append(Finding(claim, found, "reproduced", reason))
        else:
            reason = (
                "no order behaves so; the paper gives neither its ranges nor its source and sense resistances"
            )
            findings.append(Finding(claim, found, "not reproduced", reason))
    return findings


def _conditions(scale: Scale) -> str:
    side = 16 if scale == "smoke" else 64
    return (
        f"One {side}x{side} array for each seed, resistances uniform in their range, wires of the preset "
        "txsim; the map shows the first seed with r_source 500 and r_sense 100 ohm. Negligible means an "
        f"error of at most {_NEGLIGIBLE:.0%} of the largest entry, small at most {_SMALL:.0%}."
    )


FIG6 = Study(
    name="fig6",
    title="Figure 6: errors of AAM against FCM",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
    metric="error",
    trains=False,
)
