"""AAM: the approximate matrix that keeps only the short current paths.

Order 0 is the direct path alone, order 1 all paths that cross one device (closed form), order k
all paths that cross up to 2 k - 1 devices. From order 1 up the matrix rises with the order,
elementwise, to the exact one.

References
----------
S. Roy et al., "TxSim", arXiv:2002.11151, section IV-D and figure 6. The paper does not print
its formula; order 0 is our reading of its direct path.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._threads import run_parallel
from xbar_core.circuit._kernels import first_order
from xbar_core.circuit._sweeps import sweep_matrices
from xbar_core.circuit.base import Wires
from xbar_core.circuit.ladder import path_resistance

Array = NDArray[Any]


def aam_matrices(conductance: Array, wires: Wires, order: int) -> Array:
    """Return the AAM matrix of a batch of arrays.

    Parameters
    ----------
    conductance : (batch, rows, cols) float32 or float64, siemens, checked.
    wires : Wires
    order : int, at least 0.

    Returns
    -------
    (batch, rows, cols), siemens, dtype kept.
    """
    if order == 0:
        loaded: Array = conductance / (1 + conductance * path_resistance(conductance, wires))
        return loaded
    result = np.empty_like(conductance)
    resistances = (wires.r_row, wires.r_col, wires.r_source, wires.r_sense)

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        if order == 1:
            first_order(conductance[part], *resistances, result[part])
        else:
            done = np.empty(stop - start, np.int64)
            sweep_matrices(conductance[part], *resistances, 0.0, 0.0, 0, order, result[part], done)

    run_parallel(work, conductance.shape[0])
    return result
