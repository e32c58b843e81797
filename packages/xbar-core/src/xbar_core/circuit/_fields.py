"""Node voltages of one array for any inputs, in blocks of right-hand sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core.circuit import _elimination
from xbar_core.circuit._kernels import Ladder, make_ladder
from xbar_core.circuit._lanes import LANES
from xbar_core.circuit._sweeps import hopeless, sweep_exactly, sweep_voltages
from xbar_core.circuit.base import DEFAULT_RTOL, Wires
from xbar_core.circuit.fcm import MAX_SWEEPS, Elimination, turn

Array = NDArray[Any]


class Fields:
    """One array, ready to be solved for sources at its rows or potentials at its outputs.

    Parameters
    ----------
    conductance : (rows, cols), siemens, checked and not all zero.
    wires : Wires
    rtol : float or None
        As in `FCM`.

    Attributes
    ----------
    iterations : int
        Sweeps of the slowest block so far, 0 for elimination.
    """

    def __init__(self, conductance: Array, wires: Wires, rtol: float | None = None) -> None:
        self._g = conductance
        self._wires = wires
        self._rtol = DEFAULT_RTOL[conductance.dtype.itemsize] if rtol is None else rtol
        self._elimination: Elimination | None = None
        self._turned: Fields | None = None
        self._ladder: Ladder | None = None
        self.iterations = 0

    def difference(self, sources: Array | None = None, outputs: Array | None = None) -> Array:
        """Return the device voltages u - w.

        Parameters
        ----------
        sources : (rows, count <= LANES) source voltages, outputs grounded; or
        outputs : (cols, count <= LANES) output potentials, sources grounded.

        Returns
        -------
        (rows, cols, LANES) array of the conductances' dtype, or float64 from elimination; unused
        lanes are zero. The next call may overwrite it.
        """
        if self._elimination is None:
            if outputs is None:
                assert sources is not None
                swept = self._sweep(sources)
                if swept is not None:
                    u, w, _ = swept
                    u -= w
                    return u
            else:
                if self._turned is None:
                    self._turned = Fields(turn(self._g), self._wires.turned(), self._rtol)
                swept = self._turned._sweep(outputs[::-1])
                if swept is not None:
                    self.iterations = max(self.iterations, self._turned.iterations)
                    u, w, _ = swept
                    w -= u
                    return np.ascontiguousarray(w[::-1, ::-1].swapaxes(0, 1))
        nodes = self._eliminate(sources, outputs)
        rows, cols = self._g.shape
        u, w = nodes[: rows * cols], nodes[rows * cols : 2 * rows * cols]
        u -= w
        return u.reshape(rows, cols, LANES)

    def voltages(self, sources: Array) -> tuple[Array, Array, Array]:
        """Solve for sources (rows, count <= LANES).

        Returns
        -------
        u, w : (rows, cols, LANES) row and column voltages; the next call may overwrite them.
        currents : (cols, LANES) output currents, ampere.
        """
        if self._elimination is None:
            swept = self._sweep(sources)
            if swept is not None:
                return swept
        rows, cols = self._g.shape
        nodes = self._eliminate(sources, None)
        u, w = nodes[: 2 * rows * cols].reshape(2, rows, cols, LANES).astype(self._g.dtype, copy=False)
        currents = np.zeros((cols, LANES), self._g.dtype)
        assert self._elimination is not None
        currents[:, : sources.shape[1]] = self._elimination.matrix.T @ sources
        return u, w, currents

    def _sweep(self, sources: Array) -> tuple[Array, Array, Array] | None:
        rows, m = self._g.shape
        dtype = self._g.dtype
        largest = self._g.max()
        resistances = _scaled_resistances(self._wires, largest)
        if self._ladder is None:
            self._ladder = make_ladder(np.ascontiguousarray(self._g / largest), *resistances)
        ladder = self._ladder
        if hopeless(ladder, self._rtol, MAX_SWEEPS[dtype.itemsize]):
            return None
        n = ladder.g.shape[0]
        volts = np.zeros((n, LANES), dtype)
        volts[n - rows :, : sources.shape[1]] = sources
        drive = np.maximum(np.abs(volts).max(axis=0), np.finfo(dtype).tiny).astype(np.float64)
        w = np.empty((n, m, LANES), dtype)
        out = np.empty((m, LANES), dtype)
        allowed = self._rtol * ladder.largest * drive
        sweeps = sweep_exactly(ladder, volts, allowed, self._rtol, np.inf, MAX_SWEEPS[dtype.itemsize], w, out)
        if sweeps < 0:
            return None
        self.iterations = max(self.iterations, int(sweeps))
        u = np.empty_like(w)
        sweep_voltages(ladder, volts, w, u)
        return u[n - rows :], w[n - rows :], out * largest

    def _eliminate(self, sources: Array | None, outputs: Array | None) -> Array:
        rows, cols = self._g.shape
        if self._elimination is None:
            self._elimination = Elimination(self._g, self._wires, keep=True)
            self._ladder = self._turned = None
            self.iterations = 0
        kept = self._elimination
        nodes = kept.nodes
        nodes[2 * rows * cols :] = 0
        if sources is not None:
            nodes[2 * rows * cols : 2 * rows * cols + rows, : sources.shape[1]] = sources
        if outputs is not None:
            nodes[2 * rows * cols + rows :, : outputs.shape[1]] = outputs
        _elimination.potentials(rows, cols, kept.blocks, kept.factor, nodes)
        return nodes


def _scaled_resistances(wires: Wires, largest: Any) -> list[Any]:
    """Return the four resistances times the largest conductance, in its dtype."""
    scalar = np.asarray(largest).dtype.type
    return [scalar(r * float(largest)) for r in (wires.r_row, wires.r_col, wires.r_source, wires.r_sense)]
