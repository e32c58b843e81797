"""Interpolated FCM: solve exactly now and then, reuse what was learned in between.

Both kinds have one form, ``G_ni = factor * base(G) + offset``. The paper's distortion
``D = (G - G_ni) / G`` has base G and factor 1 - D; the anchored kind has the order-1 matrix as
base, which follows the change of loads by itself. A cell that was open when the exact matrix was
found has no ratio; it keeps its matrix entry, in `offset`. Neither kind is exact after a change.

References
----------
S. Roy et al., "TxSim", arXiv:2002.11151, section IV-D.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbar_core.circuit.aam import aam_matrices
from xbar_core.circuit.base import Interpolated, Reuse, Wires
from xbar_core.circuit.fcm import exact_matrices

Array = NDArray[Any]


class InterpolationState(NamedTuple):
    """What one exact solution leaves for the next updates.

    Attributes
    ----------
    factor : (batch, rows, cols), dimensionless.
    offset : (batch, rows, cols), siemens; nonzero only where a cell was open.
    reuse : {"anchored", "distortion"}
    """

    factor: Array
    offset: Array
    reuse: Reuse


def base_matrices(conductance: Array, wires: Wires, reuse: Reuse) -> Array:
    """Return what the kept factor multiplies: the order-1 matrix or the conductances."""
    return aam_matrices(conductance, wires, 1) if reuse == "anchored" else conductance


def begin(conductance: Array, wires: Wires, model: Interpolated) -> tuple[Array, InterpolationState]:
    """Solve a batch (batch, rows, cols) exactly; return its matrices and what to keep."""
    exact, _ = exact_matrices(conductance, wires, model.rtol)
    base = base_matrices(conductance, wires, model.reuse)
    open_cell = base == 0
    factor = np.where(open_cell, 0, exact / np.where(open_cell, 1, base)).astype(exact.dtype)
    return exact, InterpolationState(factor, np.where(open_cell, exact, 0), model.reuse)


def apply(state: InterpolationState, conductance: Array, wires: Wires) -> Array:
    """Return the interpolated matrices of changed conductances (batch, rows, cols)."""
    return state.factor * base_matrices(conductance, wires, state.reuse) + state.offset
