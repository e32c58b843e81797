"""Figures of one solved read: voltage along the wires, and where the power goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import NDArray

from xbar_core.errors import ShapeError
from xbar_core.plots._style import COLOURS, as_matrix, heat, label_cells, new_figure, signed_scale

if TYPE_CHECKING:
    from xbar_core.circuit.solution import Solution


def voltage_figure(
    solution: Solution,
    *,
    rows: Sequence[int] | None = None,
    cols: Sequence[int] | None = None,
    title: str = "",
) -> Figure:
    """Draw the node voltages along some row wires and some column wires.

    Parameters
    ----------
    solution : Solution
        Result of `solve` for one vector of input voltages.
    rows, cols : sequence of int or None
        Wires to draw; None draws the first, the middle and the last.
    title : str
        A second title line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    along_row = as_matrix("solution.voltages_row", solution.voltages_row)
    along_col = as_matrix("solution.voltages_col", solution.voltages_col)
    figure = new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    _lines(left, along_row, _chosen("rows", rows, along_row.shape[0]), "row")
    _lines(right, along_col.T, _chosen("cols", cols, along_col.shape[1]), "column")
    left.set_xlabel("column (driver on the left)")
    left.set_title("Row wires: what reaches the devices", fontsize=10)
    right.set_xlabel("row (sense amplifier on the right)")
    right.set_title("Column wires: lift above virtual ground", fontsize=10)
    heading = "Voltage along the wires"
    figure.suptitle(f"{heading}: {title}" if title else heading, fontsize=11)
    return figure


def power_figure(solution: Solution, *, title: str = "") -> Figure:
    """Draw where the power of one read goes: totals by place, and the devices one by one.

    Parameters
    ----------
    solution : Solution
        Result of `solve` for one vector of input voltages.
    title : str
        A second title line.

    Returns
    -------
    matplotlib.figure.Figure
    """
    drop = as_matrix("solution.voltages_row", solution.voltages_row) - as_matrix(
        "solution.voltages_col", solution.voltages_col
    )
    per_device = drop * as_matrix("solution.current_device", solution.current_device)
    power = solution.power
    parts = {"devices": power.devices, "wires": power.wires, "source": power.source, "sense": power.sense}
    figure = new_figure(9.5, 3.9)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    _bars(left, {name: float(value) for name, value in parts.items()}, float(power.total))

    top = float(per_device.max())
    factor, prefix = _prefix(top)
    norm, colours, extend = signed_scale(per_device * factor)
    image = heat(right, per_device * factor, norm, colours)
    label_cells(right)
    right.set_title("Power in each device", fontsize=10)
    figure.colorbar(image, ax=right, extend=extend).set_label(f"power ({prefix}W)")
    heading = "Where the power of a read goes"
    figure.suptitle(f"{heading}: {title}" if title else heading, fontsize=11)
    return figure


def _chosen(field: str, wires: Sequence[int] | None, count: int) -> list[int]:
    if wires is None:
        return sorted({0, count // 2, count - 1})
    for wire in wires:
        if not -count <= wire < count:
            raise ShapeError(f"{field}: {wire} is out of range; an array with {count} has 0 to {count - 1}")
    return [wire % count for wire in wires]


def _lines(axes: Axes, voltages: NDArray[np.float64], wires: list[int], name: str) -> None:
    styles = ("-", "--", "-.", ":")
    marker = "o" if voltages.shape[1] <= 16 else ""
    for k, wire in enumerate(wires):
        axes.plot(
            voltages[wire],
            color=COLOURS[k % len(COLOURS)],
            linestyle=styles[k % len(styles)],
            marker=marker,
            markersize=4,
            label=f"{name} {wire}",
        )
    axes.set_ylabel("node voltage")
    axes.yaxis.set_major_formatter(EngFormatter(unit="V"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.16 * (high - low))  # room for the legend above the lines
    axes.legend(fontsize=8, loc="upper right", ncols=3)


def _bars(axes: Axes, parts: dict[str, float], total: float) -> None:
    watts = EngFormatter(unit="W", places=2)
    labels = {
        "devices": "devices",
        "wires": "row and column wires",
        "source": "drivers (r_source)",
        "sense": "sense amplifiers (r_sense)",
    }
    names = [labels[name] for name in parts]
    bars = axes.barh(names, list(parts.values()), color=COLOURS[: len(parts)])
    share = [f"{watts(value)}  ({value / total if total else 0:.1%})" for value in parts.values()]
    axes.bar_label(bars, share, padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max(*parts.values(), np.finfo(float).tiny))
    axes.xaxis.set_major_formatter(EngFormatter(unit="W"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.set_xlabel(f"power (total {watts(total)})")
    axes.set_title("By place", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _prefix(top: float) -> tuple[float, str]:
    """Return the factor and SI prefix that bring `top` between 1 and 1000."""
    prefixes: dict[int, str] = {0: "", 1: "m", 2: "µ", 3: "n", 4: "p", 5: "f"}
    step = 0 if top <= 0 else int(min(max(-np.floor(np.log10(top) / 3), 0), 5))
    return 1e3**step, prefixes[step]
