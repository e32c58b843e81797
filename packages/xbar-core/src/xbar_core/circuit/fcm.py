"""FCM: the exact non-ideal conductance matrix.

Two methods give it. Block Gauss-Seidel sweeps over rows and columns (`_sweeps`) need few steps
when wires are much less resistive than devices, and know beforehand how many; they are used while
that number is small. Otherwise star-mesh elimination (`_elimination`) does the same work for any
resistances. Neither can return an unconverged matrix.

References
----------
S. Jain et al., "RxNN: A framework for evaluating deep neural networks on resistive crossbars",
IEEE TCAD 40, 326 (2021); S. Roy et al., "TxSim", arXiv:2002.11151, section IV-A.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._threads import run_parallel
from xbar_core.circuit import _elimination
from xbar_core.circuit._lanes import LANES
from xbar_core.circuit._sweeps import sweep_matrices
from xbar_core.circuit.base import DEFAULT_RTOL, THRESHOLD, Wires

Array = NDArray[Any]

# Sweeps beyond these cost more than elimination (benchmarks/bench_circuit.py).
MAX_SWEEPS = {8: 8, 4: 16}  # by the width of the number in bytes
# What float32 may lose at each cell of a line; where wires are nearly perfect the losses add up.
_FLOAT32_ROUNDING = 6e-8


def exact_matrices(conductance: Array, wires: Wires, rtol: float | None = None) -> tuple[Array, Array]:
    """Return ``G_ni`` of a batch of arrays, and how each was found.

    Parameters
    ----------
    conductance : (batch, rows, cols) float32 or float64, siemens, checked.
    wires : Wires
    rtol : float or None
        As in `FCM`.

    Returns
    -------
    matrices : (batch, rows, cols), siemens, dtype kept.
    sweeps : (batch,) integers; 0 where elimination was used (or nothing had to be solved).
    """
    batch, rows, cols = conductance.shape
    if cols < rows:
        # By reciprocity the array read from its other end has the transposed matrix, and there
        # are as many right-hand sides as rows.
        turned, sweeps = exact_matrices(turn(conductance), wires.turned(), rtol)
        return turn(turned), sweeps
    tolerance = DEFAULT_RTOL[conductance.dtype.itemsize] if rtol is None else rtol
    dtype = conductance.dtype
    if tolerance < _FLOAT32_ROUNDING * (rows + cols):
        # Rounding of float32 is in the way: work in float64 and round once.
        dtype = np.dtype(np.float64)
    given = conductance.astype(dtype, copy=False)
    result = np.empty_like(given)
    sweeps = np.zeros(batch, np.int64)
    resistances = (wires.r_row, wires.r_col, wires.r_source, wires.r_sense)
    rules = (tolerance, THRESHOLD[dtype.itemsize], MAX_SWEEPS[dtype.itemsize], 0)

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        sweep_matrices(given[part], *resistances, *rules, result[part], sweeps[part])
        for index in range(start, stop):
            if sweeps[index] < 0:
                result[index] = Elimination(given[index], wires, keep=False).matrix
                sweeps[index] = 0

    run_parallel(work, batch)
    return result.astype(conductance.dtype, copy=False), sweeps


def turn(conductance: Array) -> Array:
    """Return the array as seen from its other read: ``turned[j, i] = g[rows-1-i, cols-1-j]``."""
    return np.ascontiguousarray(conductance[..., ::-1, ::-1].swapaxes(-1, -2))


@lru_cache(maxsize=64)
def _plan(rows: int, cols: int) -> tuple[Array, tuple[int, int, int]]:
    blocks = _elimination.plan(rows, cols)
    return blocks, _elimination.workspace(blocks, rows, cols)


class Elimination:
    """One array, eliminated.

    Parameters
    ----------
    conductance : (rows, cols), siemens, not all zero.
    wires : Wires
    keep : bool
        Keep the stars, so that `_elimination.potentials` can be called.

    Attributes
    ----------
    matrix : (rows, cols) float64, siemens.
    blocks, factor : what `_elimination.potentials` needs.
    nodes : (2 rows cols + rows + cols, LANES) scratch for node voltages, empty unless `keep`; its
        memory served the elimination before.
    """

    def __init__(self, conductance: Array, wires: Wires, *, keep: bool) -> None:
        largest = float(conductance.max())
        scaled = np.ascontiguousarray(conductance, np.float64) / largest
        self.blocks, sizes = _plan(*conductance.shape)
        front, stack, factor = sizes
        rows, cols = conductance.shape
        nodes = (2 * rows * cols + rows + cols) * LANES if keep else 0
        memory = np.empty(max(front + stack, nodes))
        self.factor = np.empty(factor if keep else 0)
        resistances = (wires.r_row, wires.r_col, wires.r_source, wires.r_sense)
        conductances = tuple(1.0 / (r * largest) if r > 0 else _elimination.PERFECT for r in resistances)
        self.matrix: Array = _elimination.eliminate(
            scaled, conductances, self.blocks, memory[:front], memory[front : front + stack], self.factor
        )
        self.matrix *= largest
        self.nodes: Array = memory[:nodes].reshape(-1, LANES)
