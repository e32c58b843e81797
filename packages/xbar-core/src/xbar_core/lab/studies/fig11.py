"""Figure 11: accuracy against the size of the arrays, for devices of high and of low resistance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xbar_core.config import preset
from xbar_core.lab.studies.frame import Finding, Scale, Study, Verdict, lenet, seeds, thinned, trained
from xbar_core.lab.studies.judging import (
    all_of,
    compared,
    harmful,
    listing,
    lost,
    mean_of,
    percent,
    points_text,
)
from xbar_core.lab.sweep.figures import draw_line
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.setup import Setup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZES = (16, 32, 64, 128, 256)
_FEW_SIZES = (16, 64, 256)
_HIGH, _LOW, _BARE = "100k-1M", "3k-10k", "3k-10k, no ends"
_LEGEND = {
    _HIGH: "100k-1M ohm",
    _LOW: "3k-10k ohm",
    _BARE: "3k-10k ohm, without source and sense resistance",
}
_LOW_RANGE: Mapping[str, Any] = {"device.r_min": 3e3, "device.r_max": 1e4}
_DEVICES: Mapping[str, Mapping[str, Any]] = {
    _HIGH: {"device.r_min": 1e5, "device.r_max": 1e6},
    _LOW: _LOW_RANGE,
    _BARE: {**_LOW_RANGE, "wires.r_source": 0.0, "wires.r_sense": 0.0},
}
_SLIGHT, _PROMINENT, _VISIBLE = 0.05, 0.05, 0.002  # shares of the test samples


def _points(scale: Scale) -> list[Point]:
    recipe, where, _ = lenet(scale)
    made = []
    for name, values in _DEVICES.items():
        chip = preset("txsim").with_values(values)
        for size in thinned(_SIZES if name == _HIGH else _FEW_SIZES, scale):
            case = chip.with_values({"array.rows": size, "array.cols": size})
            for seed in seeds(scale, 4 if name == _HIGH else 3):
                labels = {"part": "training", "device": name, "size": size, "seed": seed}
                made.append(trained(labels, case, recipe, **where))
                circuit = Setup("circuit", case.with_("seed", seed), options={"arrays": 1})
                made.append(Point({**labels, "part": "circuit"}, circuit))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import new_figure

    figure = new_figure(9.6, 3.8)
    left, right = figure.subplots(1, 2)
    for number, name in enumerate(_DEVICES):
        for axes, part, metric in ((left, "training", "accuracy"), (right, "circuit", "distortion")):
            rows = [row for row in table.rows if row.values["part"] == part and row.values["device"] == name]
            groups = Table(rows).groups(metric, ["size"])
            draw_line(
                axes,
                groups,
                "rows and columns of an array",
                metric,
                _LEGEND[name],
                number=number,
                factor=100.0,
                shift=0.06 * (number - 1),
            )
            axes.set_xscale("log", base=2)
            axes.set_xticks(_SIZES, [str(size) for size in _SIZES])
    left.set_ylabel("test accuracy [%]")
    left.set_ylim(0, 105)
    right.set_ylabel("largest change of an entry by wires [%]")
    right.set_yscale("log")
    left.legend(fontsize=8)
    figure.suptitle("Sensitivity to the size of the arrays (figure 11)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    def of(device: str, size: int, part: str = "training") -> dict[str, Any]:
        return {"part": part, "device": device, "size": size}

    sizes = {
        name: sorted({row.values["size"] for row in table.rows if row.values["device"] == name})
        for name in _DEVICES
    }

    def accuracies(name: str) -> str:
        return listing(f"{size}: {percent(mean_of(table, of(name, size)))}" for size in sizes[name])

    def wires(name: str) -> str:
        return listing(
            f"{size}: {mean_of(table, of(name, size, 'circuit'), 'distortion').mean:.1%}"
            for size in sizes[name]
        )

    least, most = sizes[_HIGH][0], sizes[_HIGH][-1]
    high = lost(table, of(_HIGH, least), of(_HIGH, most))
    slower = lost(table, of(_HIGH, most), of(_HIGH, least), "test_loss")
    slight: Verdict = "undecided"
    if high.beyond_spread and high.low > 0 and high.high < _SLIGHT:
        slight = "reproduced"
    elif high.count >= 3 and (high.high < _VISIBLE or high.low > _SLIGHT):
        slight = "not reproduced"
    findings = [
        compared(
            "Accuracy drops slightly with the size of the arrays (100k-1M ohm)",
            f"{accuracies(_HIGH)}; lost {points_text(high)} from {least} to {most}, and the test loss "
            f"rose by {slower.mean:.3f} ± {slower.half:.3f}",
            slight,
            f"the interval is {'above a slight drop' if high.low > _SLIGHT else 'below a visible drop'}; "
            f"wires and ends change the largest entry by {wires(_HIGH)}",
            high.count,
        )
    ]
    bare = lost(table, of(_BARE, least), of(_BARE, most))
    findings.append(
        compared(
            "The effect is very prominent where devices come near the wires' resistance (3k-10k ohm, without "
            "source and sense resistance)",
            f"{accuracies(_BARE)}; lost {points_text(bare)} from {least} to {most}; the wires change the "
            f"largest entry by {wires(_BARE)}",
            harmful(bare, _PROMINENT),
            "see the test losses: what the wires do to arrays of this size does not reach the accuracy",
            bare.count,
        )
    )
    ended = [lost(table, of(_HIGH, size), of(_LOW, size)) for size in (least, most)]
    named: dict[Verdict, Verdict] = {"reproduced": "shown", "not reproduced": "not shown"}
    judged = all_of([harmful(loss, _PROMINENT) for loss in ended])
    findings.append(
        Finding(
            "With sources of 500 ohm and senses of 100 ohm devices of 3k-10k ohm do worse than those of "
            "100k-1M ohm at every size (our own check: these ends are assumed)",
            f"{accuracies(_LOW)}; lost {points_text(ended[0])} at {least} and {points_text(ended[1])} at "
            f"{most}",
            named.get(judged, "undecided"),
            f"wires and ends change the largest entry by {wires(_LOW)}",
        )
    )
    return findings


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Chip txsim with square arrays (exact circuit); no ends: without source and sense "
        "resistance. LeNet-5's largest matrix is 256 x 120, so larger arrays stay partly empty. Prominent "
        f"means at least {100 * _PROMINENT:g} points, slightly a drop whose interval lies above 0 and below "
        f"{100 * _SLIGHT:g} points. The right panel is of single random arrays."
    )


FIG11 = Study(
    name="fig11",
    title="Figure 11: size of the arrays",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
    others=("test_loss", "distortion"),
)
