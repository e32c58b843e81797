"""What all figures share: size, fonts, colours that colour-blind readers can tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from xbar_core._checks import check_array
from xbar_core.errors import ShapeError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, dark hues first."""
SEQUENTIAL, DIVERGING, UNDEFINED = "viridis", "PuOr_r", "#BBBBBB"
DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inch, laid out so that nothing overlaps."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def as_matrix(field: str, values: Any) -> NDArray[np.float64]:
    """Return `values` as one (rows, cols) matrix for a map."""
    matrix = check_array(field, values).astype(np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ShapeError(f"{field}: shape {matrix.shape} is not (rows, cols); choose one array of the batch")
    return matrix


def heat(axes: Axes, values: NDArray[np.float64], norm: Normalize, colours: Colormap | str) -> AxesImage:
    """Draw a map of cells, row 0 on top as in the circuit; undefined cells are grey."""
    axes.set_facecolor(UNDEFINED)
    rows, cols = values.shape
    image = axes.imshow(
        np.ma.masked_invalid(values),
        norm=norm,
        cmap=colours,
        aspect="equal" if 0.25 <= rows / cols <= 4 else "auto",
        interpolation="nearest",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    return image


def label_cells(axes: Axes) -> None:
    """Name the axes of a map of cells."""
    axes.set_xlabel("column (sensed below the last row)")
    axes.set_ylabel("row (driven from column 0)")


def signed_scale(values: NDArray[np.float64]) -> tuple[Normalize, str, str]:
    """Return norm, colour map and colour-bar extension for values that may have either sign.

    One sign: from 0 in a sequential map. Both signs: symmetric about 0 in a diverging map. The
    scale ends at the 99th percentile when single cells lie more than three times above it.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0 or not finite.any():
        return Normalize(0.0, 1.0), SEQUENTIAL, "neither"
    size = np.abs(finite)
    top = float(size.max())
    bulk = float(np.percentile(size, 99))
    limit = bulk if 0 < bulk < top / 3 else top
    low, high = float(finite.min()), float(finite.max())
    if low < -0.02 * top and high > 0.02 * top:
        clipped = (low < -limit, high > limit)
        extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get(clipped, "neither")
        return Normalize(-limit, limit), DIVERGING, extend
    if high > -low:
        return Normalize(0.0, limit), SEQUENTIAL, "max" if high > limit else "neither"
    return Normalize(-limit, 0.0), f"{SEQUENTIAL}_r", "min" if low < -limit else "neither"


def log_scale(values: list[NDArray[np.float64]]) -> LogNorm:
    """Return one logarithmic norm for the sizes of several maps, at most eight decades deep."""
    sizes = np.concatenate([v[np.isfinite(v) & (v > 0)].ravel() for v in values])
    if sizes.size == 0:
        return LogNorm(1e-12, 1.0)
    top = 10.0 ** np.ceil(np.log10(sizes.max()))
    low = 10.0 ** np.floor(np.log10(np.percentile(sizes, 1)))
    return LogNorm(max(low, top * 1e-8), top)
