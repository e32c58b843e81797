"""Wire resistance per cell of a technology node, from the resistivity of narrow copper lines."""

from __future__ import annotations

import math

from xbar_core._checks import check_number, check_resistance
from xbar_core.circuit.base import Wires
from xbar_core.errors import ConfigError

RHO_BULK = 1.72e-8
"""Resistivity of bulk copper at 300 K, ohm metre."""
MEAN_FREE_PATH = 39e-9
"""Mean free path of electrons in copper at 300 K, metre."""
SPECULARITY = 0.6
"""Share of electrons that the side walls reflect like a mirror (Steinhoegl et al. 2002)."""
REFLECTION = 0.5
"""Share of electrons that a grain boundary reflects (Steinhoegl et al. 2002)."""
SURFACE_SHAPE = 1.2
"""Factor C of the surface term for a rectangular cross-section (Steinhoegl et al. 2002)."""
ASPECT_RATIO = 2.0
"""Height over width of a line (assumed)."""

LINE_WIDTH = {
    130: 200e-9,
    90: 200e-9,
    65: 100e-9,
    45: 50e-9,
    32: 40e-9,
    22: 32e-9,
    14: 22e-9,
    10: 14e-9,
    7: 14e-9,
}
"""Width of a memory array's line at each node (nm to metre): assumed, about the metal half pitch."""


def copper_resistivity(width: float, aspect_ratio: float = ASPECT_RATIO) -> float:
    """Return the resistivity of a narrow copper line at 300 K.

    Grain boundaries (Mayadas and Shatzkes, grains as wide as the line) and side walls (Fuchs and
    Sondheimer):

        rho / rho_bulk = 1 / (3 [1/3 - a/2 + a^2 - a^3 ln(1 + 1/a)])
                         + 3/8 C (1 - p) (1 + AR) / AR  lambda / w,    a = (lambda / w) R / (1 - R)

    Parameters
    ----------
    width : float
        Line width, metre, above 1 nm; the model holds down to some 10 nm.
    aspect_ratio : float
        Height over width.

    Returns
    -------
    float
        Ohm metre.

    References
    ----------
    Mayadas and Shatzkes, Phys. Rev. B 1, 1382 (1970).
    Steinhoegl, Schindler, Steinlesberger, Engelhardt, Phys. Rev. B 66, 075414 (2002).
    """
    width = check_number("width", width, minimum=1e-9)
    aspect_ratio = check_number("aspect_ratio", aspect_ratio, minimum=0.1, maximum=100.0)
    ratio = MEAN_FREE_PATH / width
    a = ratio * REFLECTION / (1.0 - REFLECTION)
    grains = 1.0 / (3.0 * (1.0 / 3.0 - a / 2.0 + a**2 - a**3 * math.log1p(1.0 / a))) if a > 1e-4 else 1.0
    walls = 0.375 * SURFACE_SHAPE * (1.0 - SPECULARITY) * (1.0 + aspect_ratio) / aspect_ratio * ratio
    return RHO_BULK * (grains + walls)


def wires_for_node(
    node: int,
    cell_f: float = 4.0,
    *,
    r_source: float = 0.0,
    r_sense: float = 0.0,
    aspect_ratio: float = ASPECT_RATIO,
) -> Wires:
    """Return the wires of an array at a technology node.

    A cell of ``cell_f x cell_f`` line widths has ``r_row = r_col = rho cell_f / (width aspect_ratio)``.

    Parameters
    ----------
    node : int
        Technology node, nm: one of `LINE_WIDTH`.
    cell_f : float
        Edge of a cell in line widths: 2 for a bare crosspoint, 4 and more with a transistor.
    r_source, r_sense : float
        Driver and sense resistance, ohm.
    aspect_ratio : float
        Height over width of the lines.

    Raises
    ------
    ConfigError
        The node is not in the list, or a number is outside its range.
    """
    if node not in LINE_WIDTH:
        listed = ", ".join(str(n) for n in LINE_WIDTH)
        raise ConfigError(
            f"node: {node!r} nm is not in the list; use one of {listed}, "
            "or copper_resistivity with your width"
        )
    cell_f = check_number("cell_f", cell_f, minimum=1.0, maximum=1e6)
    width = LINE_WIDTH[node]
    r_cell = copper_resistivity(width, aspect_ratio) * cell_f / (width * aspect_ratio)
    return Wires(r_cell, r_cell, check_resistance("r_source", r_source), check_resistance("r_sense", r_sense))
