"""Derivatives of the ladder models in the array API: any array library, any device.

All functions take conductances and cotangents (..., rows, cols) of a forward read and return
dL/dg of the same shape and (dL/dr_row, dL/dr_col, dL/dr_source, dL/dr_sense), each a number
summed over the batch. Voltages and currents of two solutions of one line give both: a device adds
the product of its two voltages, a wire the product of its two currents (Tellegen's theorem).
"""

from __future__ import annotations

from typing import Any

from array_api_compat import device

from xbar_core._arrays import namespace
from xbar_core.circuit.base import AAM, FCM, CircuitModel, Direction, Ideal, Interpolated, Wires
from xbar_core.circuit.ladder import (
    Array,
    Lines,
    eliminate_lines,
    largest_conductance,
    one_volt_each,
    path_resistance,
    solve_exact,
    solve_lines,
    tolerance,
    turn,
    turn_matrix,
)

Resistances = tuple[float, float, float, float]


def direct_adjoint(conductance: Any, wires: Wires, cotangent: Any) -> tuple[Any, Resistances]:
    """Differentiate the direct path (AAM order 0)."""
    xp = namespace(conductance)
    rows, cols = conductance.shape[-2:]
    kind = {"dtype": conductance.dtype, "device": device(conductance)}
    shared = 1 + conductance * path_resistance(conductance, wires)
    by_resistance = -cotangent * (conductance / shared) ** 2
    total = float(xp.sum(by_resistance))
    return cotangent / shared**2, (
        float(xp.sum(by_resistance * xp.arange(cols, **kind))),
        float(xp.sum(by_resistance * xp.arange(rows - 1, -1, -1, **kind)[:, None])),
        total,
        total,
    )


def first_order_adjoint(conductance: Any, wires: Wires, cotangent: Any) -> tuple[Any, Resistances]:
    """Differentiate the closed form ``h_row g h_col`` (AAM order 1) in O(rows cols)."""
    turned = turn_matrix(conductance)
    rows = eliminate_lines(conductance, wires.r_row, wires.r_source)
    cols = eliminate_lines(turned, wires.r_col, wires.r_sense)
    h_row = _transfer(rows)
    h_col = turn_matrix(_transfer(cols))
    weight = cotangent * h_row * conductance * h_col
    g_rows, r_row, r_source = _transfer_adjoint(rows, weight)
    g_cols, r_col, r_sense = _transfer_adjoint(cols, turn_matrix(weight))
    gradient = cotangent * h_row * h_col + g_rows + turn_matrix(g_cols)
    return gradient, (r_row, r_col, r_source, r_sense)


def _transfer(lines: Lines) -> Any:
    """Return the voltage (..., lines, length) for 1 V at the driven ends, far ends grounded."""
    h = [lines.a[0]]
    for factor in lines.a[1:]:
        h.append(h[-1] * factor)
    return namespace(lines.g).stack(h, axis=-1)


def _transfer_adjoint(lines: Lines, weight: Any) -> tuple[Any, float, float]:
    """Pull `weight` = dL/d log(transfer) back to conductances, r and r_end."""
    xp = namespace(lines.g)
    length = lines.g.shape[-1]
    tail = xp.flip(xp.cumulative_sum(xp.flip(weight, axis=-1), axis=-1), axis=-1)
    gradient: list[Any] = []
    r_bar, r_end_bar = 0.0, 0.0
    y_bar = xp.zeros_like(lines.y[0])
    for k in range(length):
        a, y = lines.a[k], lines.y[k]
        by_resistance = -tail[..., k] * a * y
        if k == 0:
            r_end_bar = float(xp.sum(by_resistance))
            y_bar = -tail[..., k] * a * lines.r_end
        else:
            r_bar += float(xp.sum(by_resistance - y_bar * (y * a) ** 2))
            y_bar = y_bar * a**2 - tail[..., k] * a * lines.r
        gradient.append(y_bar)
    return xp.stack(gradient, axis=-1), r_bar, r_end_bar


def truncated_adjoint(conductance: Any, wires: Wires, cotangent: Any, order: int) -> tuple[Any, Resistances]:
    """Differentiate `order` plain sweeps, the last first."""
    xp = namespace(conductance)
    array = Array(conductance, wires)
    drive = one_volt_each(conductance)
    history: list[tuple[Any, Any, Any]] = []
    w = xp.zeros((*conductance.shape, drive.shape[-1]), dtype=drive.dtype, device=device(drive))
    for _ in range(order):
        before = w
        u, w = array.sweep(before, drive)
        history.append((before, u, w))
    g = conductance[..., None]
    gradient = xp.zeros_like(conductance)
    resistances = [0.0, 0.0, 0.0, 0.0]
    outputs = xp.flip(xp.matrix_transpose(cotangent), axis=-2)
    w_bar: Any = None
    for before, u, w in reversed(history):
        # Columns: driven by the cotangent at the outputs, later by what the rows pulled back.
        if w_bar is None:
            q = turn(solve_lines(array.cols, None, drive=outputs))
            pushed = g * q
        else:
            q = turn(solve_lines(array.cols, None, injected=turn(w_bar)))
            pushed = g * q - w_bar
        gradient = gradient + xp.sum(q * (u - w), axis=-1)
        sense, col = _wire_products(turn(g * (u - w)), turn(-pushed))
        resistances[1] += col
        resistances[3] += sense
        u_bar = g * q
        p = solve_lines(array.rows, None, injected=u_bar)
        gradient = gradient - xp.sum(p * (u - before), axis=-1)
        source, row = _wire_products(g * (u - before), g * p - u_bar)
        resistances[0] += row
        resistances[2] += source
        w_bar = g * p
    return gradient, (resistances[0], resistances[1], resistances[2], resistances[3])


def _wire_products(first: Any, second: Any) -> tuple[float, float]:
    """Return the summed products of two currents at the driven end, and in the wires.

    `first` and `second` are the currents (..., lines, length, inputs) that leave each node; the
    current in a wire is the sum of all that leave beyond it.
    """
    xp = namespace(first)
    beyond = [xp.flip(xp.cumulative_sum(xp.flip(c, axis=-2), axis=-2), axis=-2) for c in (first, second)]
    products = beyond[0] * beyond[1]
    return float(xp.sum(products[..., 0, :])), float(xp.sum(products[..., 1:, :]))


def exact_adjoint(
    conductance: Any, wires: Wires, cotangent: Any, rtol: float | None = None
) -> tuple[Any, Resistances]:
    """Differentiate the exact matrix: one more solution, driven backwards at the outputs."""
    xp = namespace(conductance)
    scale = largest_conductance(conductance)
    if scale == 0.0:
        return xp.asarray(cotangent, copy=True), (0.0, 0.0, 0.0, 0.0)
    rtol, threshold = tolerance(conductance, rtol)
    forward = solve_exact(
        Array(conductance / scale, wires, scale), one_volt_each(conductance), rtol, threshold
    )
    outputs = xp.flip(xp.matrix_transpose(cotangent), axis=-2)
    reverse = Array(turn_matrix(conductance) / scale, wires.turned(), scale)
    # A cotangent has both signs: no entry of what it drives is held to its own size.
    backward = solve_exact(reverse, outputs, rtol, float("inf"))
    e = forward.u - forward.w
    d = turn(backward.w - backward.u)
    g = conductance[..., None]
    source, row = _wire_products(g * e, g * d)
    sense, col = _wire_products(turn(g * e), turn(g * d))
    return -xp.sum(e * d, axis=-1), (row, col, source, sense)


def effective_conductance_vjp(
    conductance: Any,
    wires: Wires,
    cotangent: Any,
    model: CircuitModel | None = None,
    direction: Direction = "forward",
) -> tuple[Any, Resistances]:
    """Pull a cotangent back on any device; see `xbar_core.effective_conductance_vjp`.

    `Interpolated` has no state here and is served like FCM.
    """
    xp = namespace(conductance)
    if direction == "backward":
        gradient, (row, col, source, sense) = effective_conductance_vjp(
            conductance, wires.reversed(), xp.matrix_transpose(cotangent), model
        )
        return gradient, (row, col, sense, source)
    match model:
        case Ideal():
            return xp.asarray(cotangent, copy=True), (0.0, 0.0, 0.0, 0.0)
        case AAM(order=0):
            return direct_adjoint(conductance, wires, cotangent)
        case AAM(order=1):
            return first_order_adjoint(conductance, wires, cotangent)
        case AAM(order=order):
            return truncated_adjoint(conductance, wires, cotangent, order)
        case FCM(rtol=rtol) | Interpolated(rtol=rtol):
            return exact_adjoint(conductance, wires, cotangent, rtol)
        case _:
            return exact_adjoint(conductance, wires, cotangent)
