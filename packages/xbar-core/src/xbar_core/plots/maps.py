"""Maps of one value per cell: what the wires do to an array, and what a model gets wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from xbar_core.errors import ShapeError
from xbar_core.plots._style import (
    SEQUENTIAL,
    as_matrix,
    heat,
    label_cells,
    log_scale,
    new_figure,
    signed_scale,
)


def distortion_map(conductance: Any, non_ideal: Any, *, title: str = "") -> Figure:
    r"""Draw how much of each conductance the wires take away, :math:`(G - G_{ni}) / G`.

    Parameters
    ----------
    conductance : array, shape (rows, cols), siemens
        Devices; an open cell (0) is drawn grey.
    non_ideal : array, shape (rows, cols), siemens
        Matrix of `effective_conductance`, forward direction.
    title : str
        A second title line, for example the name of the model and the array.

    Returns
    -------
    matplotlib.figure.Figure
    """
    ideal, actual = _pair("conductance", conductance, "non_ideal", non_ideal)
    heading = "Conductance lost to the wires and the periphery"
    lost = _ratio(ideal - actual, ideal)
    gained = "\nnegative: gained through other cells" if (lost < -0.01).any() else ""
    return _single(lost, heading, title, f"(G − G_ni) / G  (%){gained}")


def error_map(approximate: Any, exact: Any, *, title: str = "") -> Figure:
    r"""Draw the relative error of a circuit model in every cell, :math:`(G_m - G_{ni}) / G_{ni}`.

    Parameters
    ----------
    approximate, exact : array, shape (rows, cols), siemens
        Matrix of the model and the exact matrix (an `ErrorReport` has both).
    title : str
        A second title line, for example the name of the model and the array.

    Returns
    -------
    matplotlib.figure.Figure
    """
    model, truth = _pair("approximate", approximate, "exact", exact)
    heading = "Error of the circuit model against the exact matrix"
    return _single(_ratio(model - truth, truth), heading, title, "(G_model − G_ni) / G_ni  (%)")


def error_maps(approximate: Mapping[str, Any], exact: Any | Mapping[str, Any]) -> Figure:
    """Draw the relative errors of several models side by side on one logarithmic scale.

    Parameters
    ----------
    approximate : mapping of str to array, shape (rows, cols), siemens
        Matrix of each model; the name becomes the panel's title.
    exact : array or mapping of str to array, shape (rows, cols), siemens
        Exact matrix, one for all models or one for each.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if not approximate:
        raise ShapeError("approximate: no model is given; give at least one matrix")
    maps = {}
    for name, matrix in approximate.items():
        truth = exact[name] if isinstance(exact, Mapping) else exact
        model, reference = _pair(f"approximate[{name!r}]", matrix, "exact", truth)
        maps[name] = np.abs(_ratio(model - reference, reference))
    count = len(maps)
    cols = min(count, 3 if count <= 6 else 4)
    rows = -(-count // cols)
    shape = next(iter(maps.values())).shape
    tall = min(max(shape[0] / shape[1], 0.35), 2.0)
    figure = new_figure(3.0 * cols + 1.2, (2.6 * tall + 0.55) * rows + 0.6)
    grid = figure.subplots(rows, cols, squeeze=False, sharex=True, sharey=True)
    norm = log_scale(list(maps.values()))
    for axes, (name, values) in zip(grid.flat, maps.items(), strict=False):
        # A cell without error has no logarithm: it takes the lowest colour, not the grey of "undefined".
        image = heat(axes, np.maximum(values, norm.vmin or 0.0), norm, SEQUENTIAL)
        axes.set_title(name, fontsize=9)
    for axes in list(grid.flat)[count:]:
        axes.set_axis_off()
    for axes in list(grid.flat)[max(count - cols, 0) : count]:  # lowest panel of each column
        axes.tick_params(labelbottom=True)
    bar = figure.colorbar(image, ax=list(grid.flat), shrink=0.9, extend="min")
    bar.set_label("|G_model − G_ni| / G_ni")
    figure.supxlabel("column (sensed below the last row)", fontsize=10)
    figure.supylabel("row (driven from column 0)", fontsize=10)
    figure.suptitle("Relative error of each circuit model, cell by cell", fontsize=11)
    return figure


def _pair(
    name: str, matrix: Any, other_name: str, other: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = as_matrix(name, matrix), as_matrix(other_name, other)
    if first.shape != second.shape:
        raise ShapeError(
            f"{name}: shape {first.shape} differs from {other_name} {second.shape}; give one array's matrices"
        )
    return first, second


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return part / whole, NaN where the whole is 0."""
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
    return ratio


def _single(values: NDArray[np.float64], heading: str, title: str, label: str) -> Figure:
    rows, cols = values.shape
    figure = new_figure(6.0, min(max(4.6 * rows / cols + 1.0, 2.8), 7.0))
    axes = figure.subplots()
    norm, colours, extend = signed_scale(100 * values)
    image = heat(axes, 100 * values, norm, colours)
    label_cells(axes)
    axes.set_title(f"{heading}\n{title}" if title else heading, fontsize=10)
    note = "\n(grey: open cell)" if np.isnan(values).any() else ""
    figure.colorbar(image, ax=axes, extend=extend, shrink=0.9).set_label(label + note)
    return figure
