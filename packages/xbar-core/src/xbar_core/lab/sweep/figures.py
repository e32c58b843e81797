"""Figures of a sweep: a line for one field, a heat map for two, a panel each for more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xbar_core.lab.sweep.points import text_of
from xbar_core.lab.sweep.results import Group, Table
from xbar_core.lab.sweep.spread import LEVEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 30.0  # ratio of largest to smallest value from which an axis is logarithmic
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""One for each line of a figure, besides its colour."""
_MOST_CELLS = 40  # fields of more values are drawn as panels, not as a map


def sweep_figure(table: Table, metric: str, title: str = "") -> Figure:
    """Return the figure that fits the number of fields that vary.

    Error bars are the confidence intervals of the means over repeats. Where a panel shows one of several
    fields, the means are over the others, too, and have no bars: their spread is not that of repeats. Points
    that have a setting each, as those of a design that draws several fields, are not joined.
    """
    from xbar_core.plots._style import new_figure

    fields = table.fields
    sizes = [len({text_of(row.values.get(name)) for row in table.rows}) for name in fields]
    full = math.prod(sizes) == len(table.groups(metric))
    if len(fields) == 2 and full and max(sizes) <= _MOST_CELLS:
        figure = new_figure(1.6 + 0.9 * max(sizes[0], 4), 1.6 + 0.55 * max(sizes[1], 3))
        _map(figure, table, metric, fields)
    else:
        count = max(len(fields), 1)
        wide = min(count, 3)
        figure = new_figure(5.2 if count == 1 else 3.6 * wide, 3.4 * math.ceil(count / wide))
        panels = np.ravel(figure.subplots(math.ceil(count / wide), wide, squeeze=False))
        for axes in panels[count:]:
            axes.set_visible(False)
        alone = len(fields) < 2
        for axes, name in zip(panels, fields or ("",), strict=False):
            groups = table.groups(metric, [name] if name else [])
            # A value for each setting: drawn at random, or every field follows one.
            drawn = not alone and len(groups) == len(table.groups(metric))
            draw_line(axes, groups, name, metric, bars=alone or drawn, joined=not drawn)
    figure.suptitle(title, fontsize=10)
    return figure


def draw_line(
    axes: Axes,
    groups: Sequence[Group],
    field: str,
    metric: str,
    label: str = "",
    *,
    number: int = 0,
    factor: float = 1.0,
    shift: float = 0.0,
    bars: bool = True,
    joined: bool = True,
) -> None:
    """Draw means with error bars against one field: numbers to scale, words side by side.

    Parameters
    ----------
    axes : Axes
    groups : sequence of Group
        One for each value of the field.
    field, metric, label : str
        Names for the axes and the legend.
    number : int
        Colour and marker.
    factor : float
        The metric is multiplied by it: 100 for per cent.
    shift : float
        Numbers of the field are moved by this share of them, so that error bars lie side by side.
    bars, joined : bool
        Draw error bars; draw lines between numbers.
    """
    from xbar_core.plots._style import COLOURS

    kept = [group for group in groups if group.estimate.count]
    means = [factor * group.estimate.mean for group in kept]
    halves = [0.0 if math.isnan(group.estimate.half) else factor * group.estimate.half for group in kept]
    values = [group.values[0] if group.values else "" for group in kept]
    numeric = bool(values) and all(_is_number(value) for value in values)
    where: list[Any] = [float(v) * (1 + shift) for v in values] if numeric else [text_of(v) for v in values]
    if numeric:
        order = np.argsort(where)
        where, means, halves = ([column[k] for k in order] for column in (where, means, halves))
    axes.errorbar(
        where,
        means,
        yerr=halves if bars else None,
        linestyle="-" if numeric and joined else "none",
        marker=MARKERS[number % len(MARKERS)],
        color=COLOURS[number % len(COLOURS)],
        capsize=3,
        markersize=4,
        label=label,
    )
    if numeric and is_wide(where):
        axes.set_xscale("log")
    axes.set_xlabel(field)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)


def is_wide(values: Sequence[float]) -> bool:
    """Whether positive values span so much that an axis should be logarithmic."""
    return len(values) > 0 and min(values) > 0 and max(values) / min(values) >= _WIDE


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _map(figure: Figure, table: Table, metric: str, fields: Sequence[str]) -> None:
    from matplotlib.colors import Normalize

    from xbar_core.plots._style import SEQUENTIAL, UNDEFINED

    groups = table.groups(metric)
    across, down = (_ordered([group.values[k] for group in groups]) for k in (0, 1))
    means = np.full((len(down), len(across)), np.nan)
    halves = np.full(means.shape, np.nan)
    for group in groups:
        cell = down.index(group.values[1]), across.index(group.values[0])
        means[cell], halves[cell] = group.estimate.mean, group.estimate.half
    axes = figure.subplots()
    axes.set_facecolor(UNDEFINED)
    known = means[np.isfinite(means)]
    norm = Normalize(known.min(), known.max()) if known.size else Normalize(0, 1)
    image = axes.imshow(
        np.ma.masked_invalid(means), norm=norm, cmap=SEQUENTIAL, aspect="auto", origin="lower"
    )
    for (i, j), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            text = f"{mean:.3g}" + (f"\n±{halves[i, j]:.1g}" if np.isfinite(halves[i, j]) else "")
            dark = norm(mean) < 0.6
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_xticks(range(len(across)), [text_of(v) for v in across], rotation=30 if len(across) > 6 else 0)
    axes.set_yticks(range(len(down)), [text_of(v) for v in down])
    axes.set(xlabel=fields[0], ylabel=fields[1])
    figure.colorbar(image, ax=axes).set_label(f"{metric} (mean, ± {LEVEL:.0%} interval)")


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Return the distinct values, numbers in rising order."""
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return sorted(distinct) if all(_is_number(value) for value in distinct) else distinct
