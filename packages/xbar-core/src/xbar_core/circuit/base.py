"""What every circuit model shares: the wires, and the names of the models.

The circuit (page "circuit" of the documentation): row i is driven at column 0 through
``r_source``; cells on a row are joined by ``r_row``, cells on a column by ``r_col``; after the
last cell of a column comes ``r_sense`` and virtual ground.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbar_core._checks import check_choice, check_integer, check_resistance, check_rtol

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")

# What None means for an rtol, and the share of the largest entry above which entries are held to a
# relative error of their own, by the width of the floating-point number in bytes.
DEFAULT_RTOL = {8: 1e-9, 4: 1e-5}
THRESHOLD = {8: 1e-6, 4: 1e-3}
Reuse = Literal["anchored", "distortion"]


@dataclass(frozen=True)
class Wires:
    """Resistances around the devices of one array.

    Parameters
    ----------
    r_row : float
        Row (word line) wire between neighbouring cells, ohm.
    r_col : float
        Column (bit line) wire between neighbouring cells, ohm.
    r_source : float
        Driver output resistance, ohm.
    r_sense : float
        Input resistance of the sense amplifier, ohm.

    Each is 0 or between 1e-6 and 1e9 ohm.

    Raises
    ------
    ConfigError
        A resistance is negative, not finite or outside the range.
    """

    r_row: float = 0.0
    r_col: float = 0.0
    r_source: float = 0.0
    r_sense: float = 0.0

    def __post_init__(self) -> None:
        for name in ("r_row", "r_col", "r_source", "r_sense"):
            object.__setattr__(self, name, check_resistance(f"wires.{name}", getattr(self, name)))

    def reversed(self) -> Wires:
        """Return the wires of the backward read: the two ends trade places."""
        return Wires(self.r_row, self.r_col, self.r_sense, self.r_source)

    def turned(self) -> Wires:
        """Return the wires of the array seen from its outputs: rows and columns, and ends, trade places."""
        return Wires(self.r_col, self.r_row, self.r_sense, self.r_source)


@dataclass(frozen=True)
class Ideal:
    """Perfect wires: the non-ideal matrix is the conductance matrix itself, ``G_ni = G``."""


@dataclass(frozen=True)
class AAM:
    """Approximate analytical model: only the paths up to a given length (TxSim, section IV-D).

    Parameters
    ----------
    order : int
        0: the direct path alone, devices as its only load (the paper's simplest reading);
        1: every path that crosses one device, other devices as loads to ground (closed form);
        k: paths that cross up to 2 k - 1 devices, equal to k block Gauss-Seidel sweeps.

    Raises
    ------
    ConfigError
        The order is not a whole number from 0 up.

    Notes
    -----
    Order 1 errs by 1e-3 of the largest entry for a 64x64 array of 100 kohm to 1 Mohm devices, by a
    third for 3 to 10 kohm; the page "AAM" of the documentation has the table.

    References
    ----------
    S. Roy et al., "TxSim", arXiv:2002.11151, section IV-D, figures 5 and 6.
    """

    order: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", check_integer("circuit.order", self.order, minimum=0))


@dataclass(frozen=True)
class FCM:
    """Fast crossbar model: the exact solution of the linear circuit (RxNN, TxSim section IV-A).

    Parameters
    ----------
    rtol : float or None
        Largest allowed ``max|error| / max|G_ni|`` over an array; entries above 1e-6 of the
        maximum (1e-3 in float32) are held to ``10 rtol`` of their own value. None means 1e-9
        in float64 and 1e-5 in float32. A float32 matrix is rounded to float32, whatever is asked.

    Raises
    ------
    ConfigError
        The tolerance is not between 1e-13 and 0.1.

    References
    ----------
    S. Jain et al., "RxNN", IEEE TCAD 40, 326 (2021); S. Roy et al., "TxSim", arXiv:2002.11151,
    section IV-A.
    """

    rtol: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rtol", check_rtol("circuit.rtol", self.rtol))


@dataclass(frozen=True)
class Interpolated:
    """Exact solution every `period` updates; between them its distortion is reused.

    Parameters
    ----------
    period : int
        Number of updates served by one exact solution (TxSim's L), at least 1.
    reuse : {"anchored", "distortion"}
        What is kept: the ratio to AAM of order 1 (default), or the paper's ``(G - G_ni) / G``.
    rtol : float or None
        Tolerance of the exact solution, as in `FCM`.

    Raises
    ------
    ConfigError
        A field breaks its rule.

    Notes
    -----
    Exact only right after an exact solution; the page "Interpolated FCM" of the documentation has
    measured errors.

    References
    ----------
    S. Roy et al., "TxSim", arXiv:2002.11151, section IV-D, figure 5(b).
    """

    period: int
    reuse: Reuse = "anchored"
    rtol: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "period", check_integer("circuit.period", self.period, minimum=1))
        check_choice("circuit.reuse", self.reuse, ("anchored", "distortion"))
        object.__setattr__(self, "rtol", check_rtol("circuit.rtol", self.rtol))


CircuitModel = Ideal | AAM | FCM | Interpolated
"""Every circuit model; a new one is added here and in `xbar_core.circuit._dispatch`."""
