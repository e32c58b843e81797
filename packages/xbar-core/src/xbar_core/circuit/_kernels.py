"""Ladder passes on the CPU: the pieces of one block Gauss-Seidel sweep, and the closed form.

Notation of the page on FCM: ``a`` are ladder factors, ``y`` input admittances, ``J`` Norton
currents. Conductances come divided by their maximum and resistances multiplied by it, so all
numbers are of order one. Right-hand sides are the innermost axis, in blocks of `LANES`; rows are
taken four at a time because the recursion along one row is a chain of dependent operations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xbar_core.circuit._lanes import LANES, fma, load, max_abs, scale, store

Array = NDArray[Any]

ROWS = 4
"""Rows interleaved in a row pass; arrays are padded with open rows to a multiple of it."""

kernel = njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
"""The one set of compiler options of all kernels."""


class Ladder(NamedTuple):
    """Both ladders of one array, shared by all inputs.

    Attributes
    ----------
    g : (rows, cols) conductances, divided by their maximum, rows padded to a multiple of `ROWS`.
    a_row : (rows, cols) factor of the wire left of cell (i, j); column 0 holds the driver's.
    h_row : (rows, cols) voltage on row i for a unit source and all columns grounded.
    s_row : (rows,) r_source a_row[:, 0].
    a_col : (rows, cols) factor of the wire below cell (i, j); the last row holds the sense's.
    h_col : (rows, cols) share of a current injected at (i, j) that leaves through the sense.
    y_ones : current that all column voltages at one would add to an output, the largest.
    contraction : max(T 1), an upper bound of what one sweep leaves of an error.
    largest : largest entry of the first-order matrix, a lower bound of the exact one's.
    r_row, r_col, r_sense : resistances times the largest conductance, in the dtype of g.
    """

    g: Array
    a_row: Array
    h_row: Array
    s_row: Array
    a_col: Array
    h_col: Array
    y_ones: float
    contraction: float
    largest: float
    r_row: Any
    r_col: Any
    r_sense: Any


class Scratch(NamedTuple):
    """Working memory of the passes over one array.

    Attributes
    ----------
    norton : (cols, ROWS, LANES) Norton currents of the tails of a group of rows.
    u : (ROWS, LANES) row voltages at the present column.
    w : (cols, LANES) column voltages at the present row.
    """

    norton: Array
    u: Array
    w: Array


@kernel
def make_scratch(g: Array) -> Scratch:
    """Allocate the working memory for an array like `g`."""
    m = g.shape[1]
    return Scratch(
        np.empty((m, ROWS, LANES), g.dtype), np.empty((ROWS, LANES), g.dtype), np.empty((m, LANES), g.dtype)
    )


@kernel
def make_ladder(conductance: Array, r_row: Any, r_col: Any, r_source: Any, r_sense: Any) -> Ladder:
    """Eliminate both ladders of an array of scaled conductances (rows, cols)."""
    rows, m = conductance.shape
    n = -(-rows // ROWS) * ROWS
    g = np.zeros((n, m), conductance.dtype)
    g[n - rows :] = conductance
    along_rows = _line_factors(np.ascontiguousarray(g.T), r_row, r_source)
    a_row = np.ascontiguousarray(along_rows.T)
    h_row = np.ascontiguousarray(_multiply_along(along_rows).T)
    along_cols = _line_factors(np.ascontiguousarray(g[::-1]), r_col, r_sense)
    a_col = np.ascontiguousarray(along_cols[::-1])
    h_col = np.ascontiguousarray(_multiply_along(along_cols)[::-1])
    # T 1: rows between columns held at one, then columns.
    norton = np.zeros((n, m), g.dtype)
    largest = 0.0
    for i in range(n):
        for j in range(m):
            norton[i, j] = g[i, j] * max(1 - h_row[i, j], 0)
            if i > 0:
                norton[i, j] += norton[i - 1, j] * a_col[i - 1, j]
            largest = max(largest, h_row[i, j] * g[i, j] * h_col[i, j])
    y_ones, contraction = 0.0, 0.0
    w = np.zeros(m, g.dtype)
    for i in range(n - 1, -1, -1):
        for j in range(m):
            if i == n - 1:
                out = norton[i, j] * a_col[i, j]
                y_ones = max(y_ones, out)
                w[j] = r_sense * out
            else:
                w[j] = a_col[i, j] * (w[j] + r_col * norton[i, j])
            contraction = max(contraction, w[j])
    s_row = r_source * a_row[:, 0]
    return Ladder(g, a_row, h_row, s_row, a_col, h_col, y_ones, contraction, largest, r_row, r_col, r_sense)


@kernel
def _line_factors(g: Array, r: Any, r_end: Any) -> Array:
    """Return the ladder factors of lines laid along axis 0, driven end first."""
    length, lines = g.shape
    one = g.dtype.type(1.0)
    a = np.empty_like(g)
    y = g[length - 1].copy()
    for step in range(1, length):
        # Rows taken as arrays of their own let LLVM vectorise the loops.
        a_here, g_next = a[length - step], g[length - step - 1]
        for k in range(lines):
            factor = one / (one + r * y[k])
            a_here[k] = factor
            y[k] = g_next[k] + y[k] * factor
    a_here = a[0]
    for k in range(lines):
        a_here[k] = one / (one + r_end * y[k])
    return a


@kernel
def _multiply_along(a: Array) -> Array:
    """Turn factors into transfers from the driven end, in place."""
    for i in range(1, a.shape[0]):
        here, before = a[i], a[i - 1]
        for k in range(a.shape[1]):
            here[k] *= before[k]
    return a


@kernel
def first_order(
    conductance: Array, r_row: float, r_col: float, r_source: float, r_sense: float, result: Array
) -> None:
    """Write the closed form of one sweep, ``h_row g h_col``, of a batch (batch, rows, cols)."""
    batch, n, m = conductance.shape
    ohm = conductance.dtype.type
    for index in range(batch):
        g = conductance[index]
        # Lines lie along axis 0: rows transposed, columns from the sense end up.
        a_row = _line_factors(np.ascontiguousarray(g.T), ohm(r_row), ohm(r_source))
        h_row = np.ascontiguousarray(_multiply_along(a_row).T)
        h_col = _multiply_along(_line_factors(np.ascontiguousarray(g[::-1]), ohm(r_col), ohm(r_sense)))
        for i in range(n):
            out, g_here, row_here, col_here = result[index, i], g[i], h_row[i], h_col[n - 1 - i]
            for j in range(m):
                out[j] = row_here[j] * g_here[j] * col_here[j]


@kernel
def _fold_rows(ladder: Ladder, i0: int, w: Array, scratch: Scratch) -> None:
    """Fold rows i0 to i0 + ROWS towards their drivers: Norton currents of every tail."""
    m = ladder.g.shape[1]
    for j in range(m - 1, -1, -1):
        for q in range(ROWS):
            i = i0 + q
            value = scale(ladder.g[i, j], load(w, (i * m + j) * LANES))
            if j < m - 1:
                tail = load(scratch.norton, ((j + 1) * ROWS + q) * LANES)
                value = fma(ladder.a_row[i, j + 1], tail, value)
            store(scratch.norton, (j * ROWS + q) * LANES, value)


@kernel
def _step_row(ladder: Ladder, volts: Array, scratch: Scratch, i: int, q: int, j: int) -> Any:
    """Step along row i (slot q of its group) to cell j; return its voltage."""
    norton = load(scratch.norton, (j * ROWS + q) * LANES)
    if j == 0:
        value = fma(ladder.s_row[i], norton, scale(ladder.a_row[i, 0], load(volts, i * LANES)))
    else:
        value = scale(ladder.a_row[i, j], fma(ladder.r_row, norton, load(scratch.u, q * LANES)))
    store(scratch.u, q * LANES, value)
    return value


@kernel
def solve_rows(ladder: Ladder, volts: Array, w: Array, scratch: Scratch, u: Array) -> None:
    """Solve all rows for column voltages `w`; replace `w` by the columns' Norton currents.

    The row voltages go to `u` (rows, cols, LANES) unless it is empty.
    """
    n, m = ladder.g.shape
    for i0 in range(0, n, ROWS):
        _fold_rows(ladder, i0, w, scratch)
        for j in range(m):
            for q in range(ROWS):
                i = i0 + q
                here = (i * m + j) * LANES
                value = _step_row(ladder, volts, scratch, i, q, j)
                if u.size > 0:
                    store(u, here, value)
                value = scale(ladder.g[i, j], value)
                if i > 0:
                    value = fma(ladder.a_col[i - 1, j], load(w, here - m * LANES), value)
                store(w, here, value)


@kernel
def solve_columns(ladder: Ladder, w: Array, scratch: Scratch) -> None:
    """Turn the columns' Norton currents in `w` into their voltages, in place."""
    n, m = ladder.g.shape
    for i in range(n - 1, -1, -1):
        for j in range(m):
            here = (i * m + j) * LANES
            if i == n - 1:
                value = scale(ladder.a_col[i, j] * ladder.r_sense, load(w, here))
            else:
                below = load(scratch.w, j * LANES)
                value = scale(ladder.a_col[i, j], fma(ladder.r_col, load(w, here), below))
            store(scratch.w, j * LANES, value)
            store(w, here, value)


@kernel
def first_sweep(ladder: Ladder, volts: Array, w: Array, scratch: Scratch) -> None:
    """First sweep, from grounded columns: the row voltages are known in closed form."""
    n, m = ladder.g.shape
    start = 0
    while start < n - 1 and not volts[start].any():
        start += 1
    w[:start] = 0
    for i in range(start, n):
        drive = load(volts, i * LANES)
        for j in range(m):
            here = (i * m + j) * LANES
            value = scale(ladder.g[i, j] * ladder.h_row[i, j], drive)
            if i > start:
                value = fma(ladder.a_col[i - 1, j], load(w, here - m * LANES), value)
            store(w, here, value)
    solve_columns(ladder, w, scratch)


@kernel
def solve_outputs(ladder: Ladder, volts: Array, w: Array, scratch: Scratch, out: Array) -> None:
    """Half a sweep: all rows for column voltages `w`, then the output currents (cols, LANES) only."""
    n, m = ladder.g.shape
    out[:] = 0
    for i0 in range(0, n, ROWS):
        _fold_rows(ladder, i0, w, scratch)
        for j in range(m):
            total = load(out, j * LANES)
            for q in range(ROWS):
                i = i0 + q
                value = _step_row(ladder, volts, scratch, i, q, j)
                total = scale(ladder.a_col[i, j], fma(ladder.g[i, j], value, total))
            store(out, j * LANES, total)


@kernel
def largest_per_lane(w: Array) -> Array:
    """Return max|w| (LANES,) over all cells."""
    result = np.zeros(LANES, w.dtype)
    largest = load(result, 0)
    for here in range(0, w.size, LANES):
        largest = max_abs(largest, load(w, here))
    store(result, 0, largest)
    return result
