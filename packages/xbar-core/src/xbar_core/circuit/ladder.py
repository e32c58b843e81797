"""The ladder sweeps in the array API: any array library, any device; the readable specification.

A line (a row, or a column seen from its sense end) is a ladder: its end resistance, then cells
joined by wires, each cell with a shunt g_k to a known voltage. Eliminating from the far end,

    Y_k = g_k + Y_{k+1} a_{k+1},   J_k = g_k w_k + J_{k+1} a_{k+1},   a_k = 1 / (1 + r_k Y_k)
    u_0 = a_0 (V + r_end J_0),     u_k = a_k (u_{k-1} + r J_k)

adds positive numbers only and divides by no resistance. Rows and columns in turn are block
Gauss-Seidel; the exact matrix uses its Chebyshev acceleration, with the error bound that
`_sweeps` explains, for a vector z > 0 instead of ones: T z <= rho z.

Shapes: conductances (..., rows, cols); node voltages (..., rows, cols, inputs).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from array_api_compat import device

from xbar_core._arrays import namespace
from xbar_core.circuit.base import (
    AAM,
    DEFAULT_RTOL,
    FCM,
    THRESHOLD,
    CircuitModel,
    Direction,
    Ideal,
    Interpolated,
    Wires,
)
from xbar_core.errors import ConvergenceError

MAX_ITERATIONS = 2000
_WARM_UP = 12
_CHECK_EVERY = 4


class Lines(NamedTuple):
    """One orientation of an array, eliminated once and shared by all inputs.

    Attributes
    ----------
    g : (..., lines, length) conductances.
    a : list of (..., lines) ladder factors, driven end first.
    y : list of (..., lines) admittances, driven end first.
    r, r_end : resistance between cells and at the driven end.
    """

    g: Any
    a: list[Any]
    y: list[Any]
    r: Any
    r_end: Any


def eliminate_lines(g: Any, r: Any, r_end: Any) -> Lines:
    """Compute the factors of all lines; `g` is (..., lines, length), driven end first."""
    length = g.shape[-1]
    y = [g[..., length - 1]]
    a: list[Any] = []
    for k in range(length - 1, 0, -1):
        a.append(1 / (1 + r * y[-1]))
        y.append(g[..., k - 1] + y[-1] * a[-1])
    a.append(1 / (1 + r_end * y[-1]))
    return Lines(g, a[::-1], y[::-1], r, r_end)


def solve_lines(lines: Lines, far: Any, drive: Any = None, injected: Any = None) -> Any:
    """Return the voltages along all lines.

    Parameters
    ----------
    far : (..., lines, length, inputs) voltages behind the devices, or None for ground.
    drive : (..., lines, inputs) voltages at the driven ends, or None for ground.
    injected : (..., lines, length, inputs) currents pushed into the nodes, or None.

    Returns
    -------
    (..., lines, length, inputs)
    """
    xp = namespace(lines.g)
    length = lines.g.shape[-1]
    norton: list[Any] = []
    for k in range(length - 1, -1, -1):
        current = 0 if far is None else lines.g[..., k, None] * far[..., k, :]
        if injected is not None:
            current = current + injected[..., k, :]
        if norton:
            current = current + norton[-1] * lines.a[k + 1][..., None]
        norton.append(current)
    norton.reverse()
    start = lines.r_end * norton[0] if drive is None else drive + lines.r_end * norton[0]
    u = [lines.a[0][..., None] * start]
    for k in range(1, length):
        u.append(lines.a[k][..., None] * (u[-1] + lines.r * norton[k]))
    return xp.stack(u, axis=-2)


def end_current(lines: Lines, far: Any) -> Any:
    """Return the current (..., lines, inputs) that leaves each line at its grounded end."""
    length = lines.g.shape[-1]
    norton = lines.g[..., length - 1, None] * far[..., length - 1, :]
    for k in range(length - 2, -1, -1):
        norton = lines.g[..., k, None] * far[..., k, :] + norton * lines.a[k + 1][..., None]
    return norton * lines.a[0][..., None]


def turn(values: Any) -> Any:
    """Swap rows and columns and the ends of both, of (..., rows, cols, inputs)."""
    xp = namespace(values)
    return xp.flip(xp.moveaxis(values, -2, -3), axis=(-3, -2))


def turn_matrix(matrix: Any) -> Any:
    """`turn` for (..., rows, cols)."""
    return turn(matrix[..., None])[..., 0]


class Array:
    """Both orientations of a batch of arrays.

    Rows are lines from the driver; columns are the lines of the turned array, from the sense end.
    Conductances come divided by a common scale and resistances multiplied by it.
    """

    def __init__(self, conductance: Any, wires: Wires, scale: float = 1.0) -> None:
        self.rows = eliminate_lines(conductance, wires.r_row * scale, wires.r_source * scale)
        self.cols = eliminate_lines(turn_matrix(conductance), wires.r_col * scale, wires.r_sense * scale)

    def sweep(self, w: Any, drive: Any) -> tuple[Any, Any]:
        """Return (u, w) after solving all rows for column voltages `w`, then all columns."""
        u = solve_lines(self.rows, w, drive)
        return u, turn(solve_lines(self.cols, turn(u)))

    def outputs(self, u: Any) -> Any:
        """Return output currents (..., cols, inputs) for row voltages `u`."""
        xp = namespace(u)
        return xp.flip(end_current(self.cols, turn(u)), axis=-2)


def one_volt_each(conductance: Any) -> Any:
    """Return drives (rows, rows): input s drives row s with 1 V."""
    xp = namespace(conductance)
    rows = conductance.shape[-2]
    return xp.eye(rows, dtype=conductance.dtype, device=device(conductance))


def truncated_matrix(conductance: Any, wires: Wires, order: int) -> Any:
    """Return AAM of `order` >= 1 of (..., rows, cols): that many plain sweeps."""
    xp = namespace(conductance)
    array = Array(conductance, wires)
    drive = one_volt_each(conductance)
    w = None
    for _ in range(order - 1):
        _, w = array.sweep(w, drive)
    return xp.matrix_transpose(array.outputs(solve_lines(array.rows, w, drive)))


def contraction(array: Array) -> tuple[Any, Any]:
    """Return z (..., rows, cols, 1) and rho (..., 1, 1, 1) with T z <= rho z elementwise."""
    xp = namespace(array.rows.g)
    z = xp.ones_like(array.rows.g)[..., None]
    for _ in range(_WARM_UP):
        _, following = array.sweep(z, None)
        rho = xp.max(following / z, axis=(-1, -2, -3), keepdims=True)
        if float(xp.max(rho)) < 0.1:
            break
        # Nodes that z leaves behind are kept from vanishing; any z > 0 gives a valid bound.
        z = xp.maximum(following, 1e-3 * z)
    _, following = array.sweep(z, None)
    return z, xp.max(following / z, axis=(-1, -2, -3), keepdims=True)


class Converged(NamedTuple):
    """Voltages (..., rows, cols, inputs), outputs (..., cols, inputs) and how they were found."""

    u: Any
    w: Any
    outputs: Any
    iterations: int
    residual: float


def solve_exact(array: Array, drive: Any, rtol: float, threshold: float) -> Converged:
    """Solve accelerated sweeps until the error bound meets `rtol`.

    Parameters
    ----------
    drive : (..., rows, inputs) source voltages.
    rtol : error of any output relative to the largest output of its array; ten times that
        relative to each output above `threshold` times the largest.

    Raises
    ------
    ConvergenceError
        `MAX_ITERATIONS` were not enough.
    """
    xp = namespace(array.rows.g)
    z, rho = contraction(array)
    drawn = array.outputs(solve_lines(array.rows, z))
    slack = xp.maximum(1 - rho, xp.asarray(xp.finfo(rho.dtype).eps, dtype=rho.dtype, device=device(rho)))
    gain = xp.max(drawn, axis=(-1, -2))[..., None, None] * (rho / slack)[..., 0]
    sigma2 = (rho / (2 - rho)) ** 2
    gamma = 2 / (2 - rho)
    omega = xp.ones_like(rho)
    _, w = array.sweep(None, drive)
    previous = w
    excess = float("inf")
    for iteration in range(1, MAX_ITERATIONS + 1):
        _, swept = array.sweep(w, drive)
        step = swept - w
        if iteration % _CHECK_EVERY == 0 or iteration < _CHECK_EVERY:
            u = solve_lines(array.rows, swept, drive)
            out = array.outputs(u)
            bound = gain * xp.max(xp.abs(step) / z, axis=(-2, -3))[..., None, :]
            size = xp.abs(out)
            largest = xp.max(size, axis=(-1, -2), keepdims=True)
            allowed = xp.where(
                size > threshold * largest, xp.minimum(rtol * largest, 10 * rtol * size), rtol * largest
            )
            # An array without devices has nothing to bound and nothing to allow: 0 / 1.
            excess = float(xp.max(bound / xp.where(bound > 0, allowed, xp.ones_like(allowed))))
            if excess <= 1.0:
                return Converged(u, swept, out, iteration + 1, excess * rtol)
        if iteration > 1:
            omega = 1 / (1 - sigma2 * omega / (2 if iteration == 2 else 4))
        w, previous = omega * (gamma * step + w - previous) + previous, w
    raise ConvergenceError(
        f"circuit: error bound {excess * rtol:.1e} after {MAX_ITERATIONS} sweeps misses rtol={rtol:g}; "
        "wires are about as resistive as devices. Use NumPy arrays (direct elimination) or a larger rtol",
        iterations=MAX_ITERATIONS,
        residual=excess * rtol,
    )


def effective_conductance(
    conductance: Any, wires: Wires, model: CircuitModel | None = None, direction: Direction = "forward"
) -> Any:
    """Return the non-ideal matrix of arrays of any library, on their device.

    Parameters, result and errors are those of `xbar_core.effective_conductance`, except that
    `Interpolated` is served like FCM, values are not checked (no transfer to the host), and hard
    arrays (wires about as resistive as devices) may raise `ConvergenceError`.
    """
    xp = namespace(conductance)
    if direction == "backward":
        return xp.matrix_transpose(effective_conductance(conductance, wires.reversed(), model))
    match model:
        case Ideal():
            return xp.asarray(conductance, copy=True)
        case AAM(order=0):
            return conductance / (1 + conductance * path_resistance(conductance, wires))
        case AAM(order=order):
            return truncated_matrix(conductance, wires, order)
        case FCM(rtol=rtol) | Interpolated(rtol=rtol):
            pass
        case _:
            rtol = None
    scale = largest_conductance(conductance)
    if scale == 0.0:
        return xp.zeros_like(conductance)
    array = Array(conductance / scale, wires, scale)
    found = solve_exact(array, one_volt_each(conductance), *tolerance(conductance, rtol))
    return xp.matrix_transpose(found.outputs) * scale


def path_resistance(conductance: Any, wires: Wires) -> Any:
    """Return the wire resistance (rows, cols) on the direct path through each cell, ohm."""
    xp = namespace(conductance)
    rows, cols = conductance.shape[-2:]
    kind = {"dtype": conductance.dtype, "device": device(conductance)}
    along_row = xp.arange(cols, **kind) * wires.r_row
    along_col = xp.arange(rows - 1, -1, -1, **kind) * wires.r_col
    return along_row + along_col[:, None] + (wires.r_source + wires.r_sense)


def largest_conductance(conductance: Any) -> float:
    """Return the largest conductance, 0 if all cells are open."""
    return float(namespace(conductance).max(conductance))


def tolerance(conductance: Any, rtol: float | None) -> tuple[float, float]:
    """Return the relative tolerance and the share of the maximum above which it is elementwise."""
    width = 4 if conductance.dtype == namespace(conductance).float32 else 8
    return DEFAULT_RTOL[width] if rtol is None else rtol, THRESHOLD[width]
