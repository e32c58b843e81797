"""Ladder sweeps on the CPU: block Gauss-Seidel with a rigorous error bound.

Notation of PHYSICS section 2: ``a`` are ladder factors, ``Y`` input admittances, ``J`` Norton
currents. Conductances come divided by their maximum and resistances multiplied by it, so all
numbers are of order one. Right-hand sides are the innermost axis, in blocks of `LANES`; rows are
taken four at a time because the recursion along one row is a chain of dependent operations.

Error bound. A sweep is w -> T w + c with T >= 0 elementwise; let rho = max(T 1). From w = 0 the
steps are c, T c, T T c, ..., so after k sweeps every voltage is short of the truth by at most
rho**k / (1 - rho) max(c), and the currents of the half sweep that follows by at most that times the
current that w = 1 would drive. The number of sweeps is therefore known after the first one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from xbar_core.circuit._lanes import LANES, fma, load, max_abs_difference, scale, store

Array = NDArray[Any]

ROWS = 4
"""Rows interleaved in a row pass; arrays are padded with open rows to a multiple of it."""

_jit = njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)


@_jit
def ladder_factors(
    g: Array, r_row: float, r_col: float, r_source: float, r_sense: float
) -> tuple[Array, Array, Array, Array, Array, Array, float]:
    """Compute what both ladders need once per array.

    Parameters
    ----------
    g : (rows, cols) conductances, divided by their maximum; rows padded at the top with zeros.
    r_row, r_col, r_source, r_sense : resistances times that maximum.

    Returns
    -------
    a_row : (rows, cols) factor of the wire left of cell (i, j); column 0 holds the driver's.
    h_row : (rows, cols) voltage on row i for a unit source and all columns grounded.
    a_col : (rows, cols) factor of the wire below cell (i, j); the last row holds the sense's.
    h_col : (rows, cols) share of a current injected at (i, j) that leaves through the sense.
    y_ones : (cols,) current that all column voltages at one would add to the output.
    s_row : (rows,) r_source / (1 + r_source Y_0).
    rho : max(T 1), an upper bound of the contraction of a sweep.
    """
    n, m = g.shape
    one = g.dtype.type(1.0)
    a_row = np.empty_like(g)
    h_row = np.empty_like(g)
    a_col = np.empty_like(g)
    h_col = np.empty_like(g)
    s_row = np.empty(n, g.dtype)
    for i in range(n):
        y = g[i, m - 1]
        for j in range(m - 1, 0, -1):
            a_row[i, j] = one / (one + r_row * y)
            y = g[i, j - 1] + y * a_row[i, j]
        a_row[i, 0] = one / (one + r_source * y)
        s_row[i] = r_source * a_row[i, 0]
        h = a_row[i, 0]
        h_row[i, 0] = h
        for j in range(1, m):
            h *= a_row[i, j]
            h_row[i, j] = h
    y_col = g[0].copy()
    for i in range(n - 1):
        for j in range(m):
            a_col[i, j] = one / (one + r_col * y_col[j])
            y_col[j] = g[i + 1, j] + y_col[j] * a_col[i, j]
    for j in range(m):
        a_col[n - 1, j] = one / (one + r_sense * y_col[j])
        h_col[n - 1, j] = a_col[n - 1, j]
    for i in range(n - 2, -1, -1):
        for j in range(m):
            h_col[i, j] = h_col[i + 1, j] * a_col[i, j]
    # T 1: rows between columns held at one, then columns.
    j_ones = np.zeros((n, m), g.dtype)
    y_ones = np.zeros(m, g.dtype)
    for i in range(n):
        for j in range(m):
            u = max(one - h_row[i, j], g.dtype.type(0.0))
            j_ones[i, j] = g[i, j] * u
            if i > 0:
                j_ones[i, j] += j_ones[i - 1, j] * a_col[i - 1, j]
    rho = 0.0
    w_ones = np.empty(m, g.dtype)
    for j in range(m):
        y_ones[j] = j_ones[n - 1, j] * a_col[n - 1, j]
        w_ones[j] = r_sense * y_ones[j]
        rho = max(rho, w_ones[j])
    for i in range(n - 2, -1, -1):
        for j in range(m):
            w_ones[j] = a_col[i, j] * (w_ones[j] + r_col * j_ones[i, j])
            rho = max(rho, w_ones[j])
    return a_row, h_row, a_col, h_col, y_ones, s_row, rho


@_jit
def _row_norton(g: Array, a_row: Array, i0: int, w: Array, j_row: Array) -> None:
    """Fold rows i0 to i0 + ROWS towards their drivers: Norton currents J of every tail."""
    m = g.shape[1]
    for j in range(m - 1, -1, -1):
        for q in range(ROWS):
            i = i0 + q
            value = scale(g[i, j], load(w, (i * m + j) * LANES))
            if j < m - 1:
                value = fma(a_row[i, j + 1], load(j_row, ((j + 1) * ROWS + q) * LANES), value)
            store(j_row, (j * ROWS + q) * LANES, value)


@_jit
def _row_voltage(
    a_row: Array, s_row: Array, r_row: Any, volts: Array, j_row: Array, u: Array, i: int, q: int, j: int
) -> Any:
    """Step along row i (slot q of the group) to cell j; `u` carries the voltage of cell j - 1."""
    norton = load(j_row, (j * ROWS + q) * LANES)
    if j == 0:
        value = fma(s_row[i], norton, scale(a_row[i, 0], load(volts, i * LANES)))
    else:
        value = scale(a_row[i, j], fma(r_row, norton, load(u, q * LANES)))
    store(u, q * LANES, value)
    return value


@_jit
def _sweep(
    g: Array, a_row: Array, a_col: Array, s_row: Array, r_row: Any, r_col: Any, r_sense: Any,
    volts: Array, w: Array, j_row: Array, u: Array, w_row: Array,
) -> None:
    """Solve all rows for column voltages `w`, then all columns, in place."""
    n, m = g.shape
    for i0 in range(0, n, ROWS):
        _row_norton(g, a_row, i0, w, j_row)
        for j in range(m):
            for q in range(ROWS):
                i = i0 + q
                here = (i * m + j) * LANES
                value = scale(g[i, j], _row_voltage(a_row, s_row, r_row, volts, j_row, u, i, q, j))
                if i > 0:
                    value = fma(a_col[i - 1, j], load(w, here - m * LANES), value)
                store(w, here, value)
    _columns(a_col, r_col, r_sense, w, w_row)


@_jit
def _columns(a_col: Array, r_col: Any, r_sense: Any, w: Array, w_row: Array) -> None:
    """Turn the columns' Norton currents in `w` into their voltages, in place."""
    n, m = a_col.shape
    for i in range(n - 1, -1, -1):
        for j in range(m):
            here = (i * m + j) * LANES
            if i == n - 1:
                value = scale(a_col[i, j] * r_sense, load(w, here))
            else:
                value = scale(a_col[i, j], fma(r_col, load(w, here), load(w_row, j * LANES)))
            store(w_row, j * LANES, value)
            store(w, here, value)


@_jit
def _output_pass(
    g: Array, a_row: Array, a_col: Array, s_row: Array, r_row: Any, volts: Array, w: Array,
    j_row: Array, u: Array, out: Array,
) -> None:
    """Half a sweep: all rows for column voltages `w`, then the output currents only."""
    n, m = g.shape
    out[:] = 0
    for i0 in range(0, n, ROWS):
        _row_norton(g, a_row, i0, w, j_row)
        for j in range(m):
            total = load(out, j * LANES)
            for q in range(ROWS):
                i = i0 + q
                value = _row_voltage(a_row, s_row, r_row, volts, j_row, u, i, q, j)
                total = scale(a_col[i, j], fma(g[i, j], value, total))
            store(out, j * LANES, total)


@_jit
def _first_sweep(
    g: Array, h_row: Array, a_col: Array, r_col: Any, r_sense: Any, volts: Array, w: Array, w_row: Array
) -> None:
    """First sweep, from grounded columns: the row voltages are known in closed form."""
    n, m = g.shape
    start = 0
    while start < n - 1 and not volts[start].any():
        start += 1
    w[:start] = 0
    for i in range(start, n):
        drive = load(volts, i * LANES)
        for j in range(m):
            here = (i * m + j) * LANES
            value = scale(g[i, j] * h_row[i, j], drive)
            if i > start:
                value = fma(a_col[i - 1, j], load(w, here - m * LANES), value)
            store(w, here, value)
    _columns(a_col, r_col, r_sense, w, w_row)


@_jit
def _largest(w: Array) -> Array:
    """Return max|w| over the cells, per lane."""
    zero = load(np.zeros(LANES, w.dtype), 0)
    result = np.empty(LANES, w.dtype)
    largest = zero
    for here in range(0, w.size, LANES):
        largest = max_abs_difference(largest, load(w, here), zero)
    store(result, 0, largest)
    return result


@_jit
def sweep_block(
    g: Array, factors: Any, r_row: Any, r_col: Any, r_sense: Any, volts: Array, allowed: Array,
    rtol: float, floor: float, max_sweeps: int, w: Array, out: Array,
) -> int:
    """Solve `LANES` inputs exactly; leave column voltages in `w`, output currents in `out`.

    Parameters
    ----------
    factors : what `ladder_factors` returned.
    volts : (rows, LANES) source voltages.
    allowed : (LANES,) largest error of any output current.
    rtol, floor : outputs above `floor` are also held to a relative error of `rtol`.
    max_sweeps : give up when more would be needed.
    w : (rows, cols, LANES) scratch.
    out : (cols, LANES).

    Returns
    -------
    sweeps : full sweeps done, counting the closed form as one and the last half as none; -1 if
        more than `max_sweeps` would be needed (`out` is then not usable).
    """
    a_row, h_row, a_col, _, y_ones, s_row, rho = factors
    if rho > 0.5:
        return -1
    n, m = g.shape
    w_row = np.empty((m, LANES), w.dtype)
    j_row = np.empty((m, ROWS, LANES), w.dtype)
    u = np.empty((ROWS, LANES), w.dtype)
    _first_sweep(g, h_row, a_col, r_col, r_sense, volts, w, w_row)
    first = _largest(w)
    error = np.empty(LANES, np.float64)
    gain = y_ones.max() * rho / (1.0 - rho)
    excess = 0.0
    for k in range(LANES):
        error[k] = gain * first[k]
        if error[k] > 0.0:
            excess = max(excess, error[k] / allowed[k])
    sweeps = 1
    while True:
        while excess > 1.0:
            sweeps += 1
            if sweeps > max_sweeps:
                return -1
            _sweep(g, a_row, a_col, s_row, r_row, r_col, r_sense, volts, w, j_row, u, w_row)
            excess *= rho
            for k in range(LANES):
                error[k] *= rho
        _output_pass(g, a_row, a_col, s_row, r_row, volts, w, j_row, u, out)
        for j in range(m):
            for k in range(LANES):
                if out[j, k] > floor:
                    excess = max(excess, error[k] / (rtol * out[j, k]))
        if excess <= 1.0:
            return sweeps


@_jit
def truncated_block(
    g: Array, factors: Any, r_row: Any, r_col: Any, r_sense: Any, volts: Array, order: int, w: Array,
    out: Array,
) -> None:
    """Do `order` >= 2 plain sweeps for `LANES` inputs, whatever is left of the error."""
    a_row, h_row, a_col, _, _, s_row, _ = factors
    m = g.shape[1]
    w_row = np.empty((m, LANES), w.dtype)
    j_row = np.empty((m, ROWS, LANES), w.dtype)
    u = np.empty((ROWS, LANES), w.dtype)
    _first_sweep(g, h_row, a_col, r_col, r_sense, volts, w, w_row)
    for _ in range(order - 2):
        _sweep(g, a_row, a_col, s_row, r_row, r_col, r_sense, volts, w, j_row, u, w_row)
    _output_pass(g, a_row, a_col, s_row, r_row, volts, w, j_row, u, out)


@_jit
def pad_rows(g: Array) -> Array:
    """Add open rows at the far end until the rows are a multiple of `ROWS`."""
    rows, m = g.shape
    n = -(-rows // ROWS) * ROWS
    padded = np.zeros((n, m), g.dtype)
    padded[n - rows :] = g
    return padded


@_jit
def largest_first_order(g: Array, factors: Any) -> float:
    """Return the largest entry of the first-order matrix, a lower bound of the exact one's."""
    largest = 0.0
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            largest = max(largest, factors[1][i, j] * g[i, j] * factors[3][i, j])
    return largest


@_jit
def sweep_matrix(
    g: Array, r_row: Any, r_col: Any, r_source: Any, r_sense: Any, rtol: float, threshold: float,
    max_sweeps: int, order: int, result: Array,
) -> int:
    """Write ``G_ni`` of one array into `result` by sweeps; return their number or -1.

    Parameters
    ----------
    g : (rows, cols) conductances divided by their maximum; resistances times it.
    rtol : error over the largest entry; ten times that over each entry above `threshold` times it.
    order : 0 for the exact matrix; k >= 2 for exactly k sweeps.
    """
    rows, m = g.shape
    padded = pad_rows(g)
    n = padded.shape[0]
    pad = n - rows
    factors = ladder_factors(padded, r_row, r_col, r_source, r_sense)
    largest = largest_first_order(padded, factors)
    w = np.empty((n, m, LANES), g.dtype)
    out = np.empty((m, LANES), g.dtype)
    volts = np.zeros((n, LANES), g.dtype)
    allowed = np.full(LANES, rtol * largest)
    sweeps = order
    for first in range(0, rows, LANES):
        count = min(LANES, rows - first)
        volts[:] = 0
        for k in range(count):
            volts[pad + first + k, k] = 1
        if order == 0:
            done = sweep_block(
                padded, factors, r_row, r_col, r_sense, volts, allowed, 10.0 * rtol,
                threshold * largest, max_sweeps, w, out,
            )
            if done < 0:
                return -1
            sweeps = max(sweeps, done)
        else:
            truncated_block(padded, factors, r_row, r_col, r_sense, volts, order, w, out)
        for k in range(count):
            for j in range(m):
                result[first + k, j] = out[j, k]
    return sweeps


@_jit
def voltages_block(
    g: Array, factors: Any, r_row: Any, r_col: Any, r_sense: Any, volts: Array, w: Array, u: Array
) -> None:
    """After `sweep_block`: write the row voltages into `u` and bring `w` up to date with them."""
    n, m = g.shape
    a_row, _, a_col, _, _, s_row, _ = factors
    j_row = np.empty((m, ROWS, LANES), w.dtype)
    u_group = np.empty((ROWS, LANES), w.dtype)
    w_row = np.empty((m, LANES), w.dtype)
    for i0 in range(0, n, ROWS):
        _row_norton(g, a_row, i0, w, j_row)
        for j in range(m):
            for q in range(ROWS):
                i = i0 + q
                value = _row_voltage(a_row, s_row, r_row, volts, j_row, u_group, i, q, j)
                store(u, (i * m + j) * LANES, value)
                value = scale(g[i, j], value)
                if i > 0:
                    value = fma(a_col[i - 1, j], load(w, ((i - 1) * m + j) * LANES), value)
                store(w, (i * m + j) * LANES, value)
    _columns(a_col, r_col, r_sense, w, w_row)


@_jit
def first_order(
    g: Array, r_row: Any, r_col: Any, r_source: Any, r_sense: Any, result: Array
) -> None:
    """Write the closed form of one sweep, ``h_row g h_col``, into `result`."""
    h_row, h_col = first_order_factors(g, r_row, r_col, r_source, r_sense)
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            result[i, j] = h_row[j, i] * g[i, j] * h_col[i, j]


@_jit
def first_order_factors(
    g: Array, r_row: Any, r_col: Any, r_source: Any, r_sense: Any
) -> tuple[Array, Array]:
    """Return the transfer of all rows (cols, rows) and of all columns (rows, cols)."""
    return (
        _line_transfer(np.ascontiguousarray(g.T), r_row, r_source),
        _line_transfer(np.ascontiguousarray(g[::-1]), r_col, r_sense)[::-1],
    )


@_jit
def _line_transfer(g: Array, r: Any, r_end: Any) -> Array:
    """Return, for lines laid along axis 0, the voltage at each cell for 1 V at their driven end."""
    length, lines = g.shape
    one = g.dtype.type(1.0)
    a = np.empty_like(g)
    y = g[length - 1].copy()
    for i in range(length - 1, 0, -1):
        for k in range(lines):
            a[i, k] = one / (one + r * y[k])
            y[k] = g[i - 1, k] + y[k] * a[i, k]
    for k in range(lines):
        a[0, k] = one / (one + r_end * y[k])
    for i in range(1, length):
        for k in range(lines):
            a[i, k] *= a[i - 1, k]
    return a


@_jit
def accumulate_adjoint(g: Array, forward: Array, backward: Array, gradient: Array, resistances: Array) -> None:
    """Add one block's share of dL/dg (rows, cols) and dL/d(r_row, r_col, r_source, r_sense).

    `forward` and `backward` are device voltages (rows, cols, LANES) of the two solutions; the
    currents in the wires are sums of device currents.
    """
    n, m = g.shape
    col = np.zeros((2, m, LANES), g.dtype)
    row = np.empty((2, LANES), g.dtype)
    for i in range(n):
        row[:] = 0
        for j in range(m - 1, -1, -1):
            total, along_row, along_col = 0.0, 0.0, 0.0
            for k in range(LANES):
                e, d = forward[i, j, k], backward[i, j, k]
                total += e * d
                row[0, k] += g[i, j] * e
                row[1, k] += g[i, j] * d
                along_row += row[0, k] * row[1, k]
                col[0, j, k] += g[i, j] * e
                col[1, j, k] += g[i, j] * d
                along_col += col[0, j, k] * col[1, j, k]
            gradient[i, j] -= total
            resistances[0 if j > 0 else 2] += along_row
            resistances[1 if i < n - 1 else 3] += along_col
