"""Derivatives of the non-ideal matrix with respect to conductances and wire resistances.

For L = sum(cotangent * G_ni) the circuit is solved twice for each source s: driven by it, and
driven backwards at the outputs by the cotangent's row s. With device voltages e and e~ and wire
currents i and i~ of the two solutions (Tellegen's theorem)

    dL/dg[a, b] = -sum_s e_s[a, b] e~_s[a, b]        dL/dr = sum_s sum_segments i_s i~_s

A truncated model (AAM of order k >= 2) is differentiated sweep by sweep in `ladder_adjoint`.

References
----------
S. W. Director, R. A. Rohrer, "The generalized adjoint network and network sensitivities",
IEEE Trans. Circuit Theory 16, 318 (1969).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_array
from xbar_core._threads import run_parallel
from xbar_core.circuit._dispatch import check_model, check_problem, check_state
from xbar_core.circuit._fields import Fields
from xbar_core.circuit._lanes import LANES
from xbar_core.circuit._sweeps import accumulate_adjoint
from xbar_core.circuit.base import AAM, FCM, CircuitModel, Direction, Ideal, Interpolated, Wires
from xbar_core.circuit.interpolated import InterpolationState, begin
from xbar_core.circuit.ladder_adjoint import direct_adjoint, first_order_adjoint, truncated_adjoint
from xbar_core.errors import ConfigError, ShapeError

Array = NDArray[Any]


class WiresGradient(NamedTuple):
    """Derivative with respect to each resistance, summed over the batch; per ohm."""

    r_row: float
    r_col: float
    r_source: float
    r_sense: float


class CircuitGradient(NamedTuple):
    """Derivatives of one scalar: with respect to conductances, and to the four resistances."""

    conductance: Array
    wires: WiresGradient


def effective_conductance_vjp(
    conductance: Any,
    wires: Wires,
    cotangent: Any,
    model: CircuitModel | None = None,
    direction: Direction = "forward",
) -> CircuitGradient:
    """Pull a cotangent of the non-ideal matrix back to conductances and resistances.

    Parameters
    ----------
    conductance : (..., rows, cols) array, siemens.
    wires : Wires
    cotangent : array of the shape that `effective_conductance` returns
        dL/dG_ni of a scalar L.
    model : circuit model, None for ``FCM()``
        Interpolated: its kept factor is a constant.
    direction : {"forward", "backward"}

    Returns
    -------
    conductance : (..., rows, cols), dL/dg, dtype kept.
    wires : WiresGradient of floats, dL/dr.

    Raises
    ------
    ShapeError, ConfigError
        An argument breaks its rule.

    Notes
    -----
    The derivative is that of the model which was asked for, not of the exact circuit. Without any
    device no current flows, and the derivative with respect to conductances is the cotangent itself.

    References
    ----------
    S. W. Director, R. A. Rohrer, IEEE Trans. Circuit Theory 16, 318 (1969).
    """
    arrays, wires, shape = check_problem(conductance, wires, direction)
    model = check_model(model)
    weights = _check_cotangent(cotangent, shape, arrays, direction)
    if isinstance(model, Interpolated):
        return _interpolated(begin(arrays, wires, model)[1], arrays, wires, weights, shape, direction)
    return _outward(*_vjp(arrays, wires, weights, model), shape, direction)


def interpolation_vjp(
    state: InterpolationState,
    conductance: Any,
    wires: Wires,
    cotangent: Any,
    direction: Direction = "forward",
) -> CircuitGradient:
    """Pull a cotangent back through `interpolation_apply`; the state is a constant.

    Parameters
    ----------
    state : InterpolationState
        From `interpolation_begin`, same direction.
    conductance : (..., rows, cols) array, siemens
        Where the derivative is taken.
    wires : Wires
    cotangent : array of the shape that `interpolation_apply` returns
        dL/dG_ni of a scalar L.
    direction : {"forward", "backward"}

    Returns
    -------
    conductance : (..., rows, cols), dL/dg, dtype kept.
    wires : WiresGradient of floats, dL/dr.

    Raises
    ------
    ShapeError, ConfigError
        An argument breaks its rule, or the state belongs to other arrays.
    """
    arrays, wires, shape = check_problem(conductance, wires, direction)
    check_state(state, arrays)
    weights = _check_cotangent(cotangent, shape, arrays, direction)
    return _interpolated(state, arrays, wires, weights, shape, direction)


def _interpolated(
    state: InterpolationState, arrays: Array, wires: Wires, weights: Array, shape: Any, direction: Direction
) -> CircuitGradient:
    base = AAM(1) if state.reuse == "anchored" else Ideal()
    return _outward(*_vjp(arrays, wires, weights * state.factor, base), shape, direction)


def _check_cotangent(cotangent: Any, shape: tuple[int, ...], arrays: Array, direction: str) -> Array:
    """Return the cotangent as (batch, rows, cols) of the forward-shaped matrix."""
    array = check_array("cotangent", cotangent)
    expected = (*shape[:-2], shape[-1], shape[-2]) if direction == "backward" else shape
    if array.shape != expected:
        raise ShapeError(
            f"cotangent: shape {array.shape} is not that of the {direction} matrix, {expected}; "
            f"give one derivative for each of its entries"
        )
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(k) for k in np.argwhere(~finite)[0])
        raise ConfigError(f"cotangent{list(index)}: {array[index]!s} is not finite; give finite derivatives")
    if direction == "backward":
        array = array.swapaxes(-1, -2)
    return np.ascontiguousarray(array, arrays.dtype).reshape(arrays.shape)


def _outward(
    conductance: Array, resistances: Sequence[float], shape: tuple[int, ...], direction: Direction
) -> CircuitGradient:
    r_row, r_col, r_source, r_sense = (float(r) for r in resistances)
    if direction == "backward":
        r_source, r_sense = r_sense, r_source
    return CircuitGradient(conductance.reshape(shape), WiresGradient(r_row, r_col, r_source, r_sense))


def _vjp(arrays: Array, wires: Wires, weights: Array, model: CircuitModel) -> tuple[Array, Sequence[float]]:
    """Return dL/dg (batch, rows, cols) and dL/dr (4,) of a forward read."""
    match model:
        case Ideal():
            return weights.copy(), (0.0, 0.0, 0.0, 0.0)
        case AAM(order=0):
            return direct_adjoint(arrays, wires, weights)
        case AAM(order=1):
            return first_order_adjoint(arrays, wires, weights)
        case AAM(order=order):
            return truncated_adjoint(arrays, wires, weights, order)
        case FCM(rtol=rtol):
            return _exact(arrays, wires, weights, rtol)
        case Interpolated():
            raise AssertionError("handled by _interpolated")


def _exact(arrays: Array, wires: Wires, weights: Array, rtol: float | None) -> tuple[Array, Sequence[float]]:
    gradient = np.zeros_like(arrays)
    resistances = np.zeros((arrays.shape[0], 4))

    def work(start: int, stop: int) -> None:
        for index in range(start, stop):
            _exact_array(arrays[index], wires, weights[index], rtol, gradient[index], resistances[index])

    run_parallel(work, arrays.shape[0])
    return gradient, resistances.sum(axis=0).tolist()


def _exact_array(
    g: Array, wires: Wires, weights: Array, rtol: float | None, gradient: Array, resistances: Array
) -> None:
    if g.max() == 0.0:
        # No current flows: only the devices themselves can be felt.
        gradient[:] = weights
        return
    fields = Fields(g, wires, rtol)
    forward = np.empty((*g.shape, LANES), g.dtype)
    for first in range(0, g.shape[0], LANES):
        count = min(LANES, g.shape[0] - first)
        sources = np.zeros((g.shape[0], count), g.dtype)
        sources[first + np.arange(count), np.arange(count)] = 1
        np.copyto(forward, fields.difference(sources=sources))
        backward = fields.difference(outputs=weights[first : first + count].T)
        accumulate_adjoint(g, forward, backward, gradient, resistances)
