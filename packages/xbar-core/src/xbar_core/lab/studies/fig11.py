"""Figure 11: accuracy against the size of the arrays, for devices of high and of low resistance."""

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

_SIZES = (16, 32, 64, 128, 256)
_DEVICES = {"100k-1M": (1e5, 1e6), "3k-10k": (3e3, 1e4)}


def _points(scale: Scale) -> list[Point]:
    recipe, where, _ = lenet(scale)
    made = []
    for name, (low, high) in _DEVICES.items():
        chip = preset("txsim").with_values({"device.r_min": low, "device.r_max": high})
        for size in thinned(_SIZES, scale):
            case = chip.with_values({"array.rows": size, "array.cols": size})
            for seed in seeds(scale):
                labels = {"part": "training", "device": name, "size": size, "seed": seed}
                made.append(trained(labels, case, recipe, **where))
                circuit = Setup("circuit", case.with_("seed", seed), options={"arrays": 1})
                made.append(Point({**labels, "part": "circuit"}, circuit))
    return made


def _figure(table: Table) -> Figure:
    from xbar_core.plots._style import new_figure

    figure = new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    for name in _DEVICES:
        for axes, part, metric in ((left, "training", "accuracy"), (right, "circuit", "distortion")):
            rows = [row for row in table.rows if row.values["part"] == part and row.values["device"] == name]
            groups = Table(rows).groups(metric, ["size"])
            draw_line(axes, groups, "rows and columns of an array", metric, label=f"{name} ohm")
            axes.set_xscale("log", base=2)
            axes.set_xticks(_SIZES, [str(size) for size in _SIZES])
    left.set_ylabel("test accuracy")
    right.set_ylabel("largest change of an entry by wires")
    right.set_yscale("log")
    left.legend()
    figure.suptitle("Sensitivity to the size of the arrays (figure 11)", fontsize=10)
    return figure


def _findings(table: Table) -> list[Finding]:
    def of(device: str, size: int, part: str = "training") -> dict[str, Any]:
        return {"part": part, "device": device, "size": size}

    sizes = sorted({row.values["size"] for row in table.rows})
    losses = {name: lost(table, of(name, sizes[0]), of(name, sizes[-1])) for name in _DEVICES}
    told = {
        name: listing(f"{size}: {percent(mean_of(table, of(name, size)))}" for size in sizes)
        for name in _DEVICES
    }
    wires = {
        name: listing(
            f"{size}: {mean_of(table, of(name, size, 'circuit'), 'distortion').mean:.1%}" for size in sizes
        )
        for name in _DEVICES
    }
    high, low = losses["100k-1M"], losses["3k-10k"]
    span = f"from {sizes[0]} to {sizes[-1]}"
    slight: Verdict = "undecided"
    if high.count >= 3 and high.beyond_spread:
        slight = "reproduced" if 0 < high.mean < 0.05 else "not reproduced"
    elif high.count >= 3 and high.mean + high.half < 0.002:
        slight = "not reproduced"
    findings = [
        compared(
            "Accuracy drops slightly with the size of the arrays (100k-1M ohm)",
            f"{told['100k-1M']}; lost {points_text(high)} {span}",
            slight,
            f"wires change the largest entry by {wires['100k-1M']}, and training through the arrays learns "
            "around it",
            high.count,
        )
    ]
    more = low.mean - low.half > high.mean + high.half
    alike = low.count >= 3 and high.count >= 3 and low.mean + low.half <= high.mean
    findings.append(
        compared(
            "The effect is very prominent where devices come near the wires' resistance (3k-10k ohm)",
            f"{told['3k-10k']}; lost {points_text(low)} {span}",
            "reproduced" if more and low.beyond_spread else "not reproduced" if alike else "undecided",
            f"wires change the largest entry by {wires['3k-10k']}",
            min(low.count, high.count),
        )
    )
    return findings


def _conditions(scale: Scale) -> str:
    return (
        f"{lenet(scale)[2]} Chip txsim with square arrays (exact circuit). LeNet-5's largest matrix is 256 "
        "x 120, so larger arrays stay partly empty. The right panel is of single random arrays."
    )


FIG11 = Study(
    name="fig11",
    title="Figure 11: size of the arrays",
    points=_points,
    figure=_figure,
    findings=_findings,
    conditions=_conditions,
)
