"""Block Gauss-Seidel on the CPU, with the number of sweeps known beforehand.

A sweep is w -> T w + c with T >= 0 elementwise; let rho = max(T 1). From w = 0 the steps are c,
T c, T T c, ..., so after k sweeps every voltage is short of the truth by at most
rho**k / (1 - rho) max(c), and the currents of the half sweep that follows by at most that times the
current that w = 1 would drive. The bound holds for every array; it is useful where rho is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core.circuit._kernels import (
    ROWS,
    Ladder,
    Scratch,
    first_sweep,
    kernel,
    largest_per_lane,
    make_ladder,
    make_scratch,
    solve_columns,
    solve_outputs,
    solve_rows,
)
from xbar_core.circuit._lanes import LANES

Array = NDArray[Any]


@kernel
def hopeless(ladder: Ladder, rtol: float, most: int) -> bool:
    """Say beforehand that `most` sweeps will not reach `rtol`, to within a sweep or two."""
    return ladder.contraction**most > rtol


@kernel
def _sweep(ladder: Ladder, volts: Array, w: Array, scratch: Scratch) -> None:
    nothing = np.empty((0, 0, 0), w.dtype)
    solve_rows(ladder, volts, w, scratch, nothing)
    solve_columns(ladder, w, scratch)


@kernel
def sweep_exactly(
    ladder: Ladder, volts: Array, allowed: Array, rtol: float, floor: float, most: int, w: Array, out: Array
) -> int:
    """Solve `LANES` inputs; leave column voltages in `w`, output currents in `out`.

    Parameters
    ----------
    volts : (rows, LANES) source voltages.
    allowed : (LANES,) largest error of any output current.
    rtol, floor : outputs above `floor` are also held to a relative error of `rtol`.
    most : give up when more sweeps would be needed.
    w : (rows, cols, LANES); out : (cols, LANES).

    Returns
    -------
    Sweeps done, counting the closed form as one and the last half as none; -1 if more than `most`
    would be needed (`out` is then not usable).
    """
    rho = ladder.contraction
    scratch = make_scratch(ladder.g)
    first_sweep(ladder, volts, w, scratch)
    error = (ladder.y_ones * rho / (1.0 - rho)) * largest_per_lane(w).astype(np.float64)
    excess = 0.0
    for k in range(LANES):
        if error[k] > 0.0:
            excess = max(excess, error[k] / allowed[k])
    sweeps = 1
    while True:
        while excess > 1.0:
            sweeps += 1
            if sweeps > most:
                return -1
            _sweep(ladder, volts, w, scratch)
            excess *= rho
            error *= rho
        solve_outputs(ladder, volts, w, scratch, out)
        for j in range(out.shape[0]):
            for k in range(LANES):
                if out[j, k] > floor:
                    excess = max(excess, error[k] / (rtol * out[j, k]))
        if excess <= 1.0:
            return sweeps


@kernel
def sweep_voltages(ladder: Ladder, volts: Array, w: Array, u: Array) -> None:
    """After `sweep_exactly`: write the row voltages into `u` and bring `w` up to date with them."""
    scratch = make_scratch(ladder.g)
    solve_rows(ladder, volts, w, scratch, u)
    solve_columns(ladder, w, scratch)


@kernel
def sweep_matrices(
    conductance: Array,
    r_row: float,
    r_col: float,
    r_source: float,
    r_sense: float,
    rtol: float,
    threshold: float,
    most: int,
    order: int,
    result: Array,
    sweeps: Array,
) -> None:
    """Write ``G_ni`` of a batch of arrays into `result` by sweeps, and their number into `sweeps`.

    Parameters
    ----------
    conductance : (batch, rows, cols), siemens; resistances in ohm.
    rtol : error over the largest entry; ten times that over each entry above `threshold` times it.
    most : give up when more sweeps would be needed: `sweeps` is then -1.
    order : 0 for the exact matrix; k >= 2 for exactly k sweeps, the last a half.
    """
    batch, rows, m = conductance.shape
    number = conductance.dtype.type
    n = -(-rows // ROWS) * ROWS
    w = np.empty((n, m, LANES), conductance.dtype)
    out = np.empty((m, LANES), conductance.dtype)
    volts = np.empty((n, LANES), conductance.dtype)
    for index in range(batch):
        scale = conductance[index].max()
        if scale == 0:
            result[index] = 0
            sweeps[index] = order
            continue
        ladder = make_ladder(
            conductance[index] / scale,
            number(r_row * scale),
            number(r_col * scale),
            number(r_source * scale),
            number(r_sense * scale),
        )
        if order == 0 and hopeless(ladder, rtol, most):
            sweeps[index] = -1
            continue
        sweeps[index] = _sweep_matrix(
            ladder, rows, rtol, threshold, most, order, volts, w, out, result[index]
        )
        result[index] *= scale


@kernel
def _sweep_matrix(
    ladder: Ladder,
    rows: int,
    rtol: float,
    threshold: float,
    most: int,
    order: int,
    volts: Array,
    w: Array,
    out: Array,
    result: Array,
) -> int:
    """Do one array of `sweep_matrices`, its ladder made; `volts`, `w` and `out` are scratch."""
    n, m = ladder.g.shape
    scratch = make_scratch(ladder.g)
    allowed = np.full(LANES, rtol * ladder.largest)
    sweeps = order
    for first in range(0, rows, LANES):
        count = min(LANES, rows - first)
        volts[:] = 0
        for k in range(count):
            volts[n - rows + first + k, k] = 1
        if order == 0:
            floor = threshold * ladder.largest
            done = sweep_exactly(ladder, volts, allowed, 10.0 * rtol, floor, most, w, out)
            if done < 0:
                return -1
            sweeps = max(sweeps, done)
        else:
            first_sweep(ladder, volts, w, scratch)
            for _ in range(order - 2):
                _sweep(ladder, volts, w, scratch)
            solve_outputs(ladder, volts, w, scratch, out)
        for k in range(count):
            for j in range(m):
                result[first + k, j] = out[j, k]
    return sweeps


@kernel
def accumulate_adjoint(
    g: Array, forward: Array, backward: Array, gradient: Array, resistances: Array
) -> None:
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
