"""From a circuit model to its matrix: one line for each model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_choice, check_conductance
from xbar_core.circuit.aam import aam_matrices
from xbar_core.circuit.base import AAM, DIRECTIONS, FCM, CircuitModel, Direction, Ideal, Interpolated, Wires
from xbar_core.circuit.fcm import exact_matrices
from xbar_core.circuit.interpolated import InterpolationState, apply, begin
from xbar_core.errors import ConfigError, ShapeError

Array = NDArray[Any]


def effective_conductance(
    conductance: Any, wires: Wires, model: CircuitModel | None = None, direction: Direction = "forward"
) -> Array:
    """Return the non-ideal conductance matrix: output currents are ``G_ni.T @ voltages``.

    Parameters
    ----------
    conductance : (..., rows, cols) array
        Siemens, each 0 (open) or within 1e-15 to 1e3. float32 and float64 are kept, integers
        become float64. Arrays of a batch are solved in parallel on ``numba.get_num_threads()``.
    wires : Wires
        Resistances of the array.
    model : Ideal, AAM, FCM or Interpolated
        Circuit model; None means ``FCM()``. One call of `Interpolated` alone equals FCM.
    direction : {"forward", "backward"}
        forward: rows driven, columns sensed. backward (error propagation): columns driven at their
        sensed end through r_source, rows sensed at their driven end through r_sense.

    Returns
    -------
    (..., rows, cols) array, or (..., cols, rows) for the backward read; siemens.

    Raises
    ------
    ShapeError, ConfigError
        An argument breaks its rule; nothing was computed.

    Examples
    --------
    >>> import numpy as np
    >>> from xbar_core import Wires, effective_conductance
    >>> g = np.full((2, 2), 1e-5)
    >>> effective_conductance(g, Wires(r_source=500.0)).round(9)
    array([[9.901e-06, 9.901e-06],
           [9.901e-06, 9.901e-06]])

    References
    ----------
    S. Jain et al., IEEE TCAD 40, 326 (2021); S. Roy et al., arXiv:2002.11151, sections IV-A, IV-D.
    """
    arrays, wires, shape = check_problem(conductance, wires, direction)
    matrices = _matrices(arrays, wires, check_model(model))
    return _outward(matrices, shape, direction)


def interpolation_begin(
    conductance: Any, wires: Wires, model: Interpolated, direction: Direction = "forward"
) -> tuple[Array, InterpolationState]:
    """Solve exactly and keep what `interpolation_apply` reuses.

    Parameters
    ----------
    conductance : (..., rows, cols) array, siemens (bounds as in `effective_conductance`).
    wires : Wires
    model : Interpolated
    direction : {"forward", "backward"}

    Returns
    -------
    matrix : (..., rows, cols) array, or (..., cols, rows) for the backward read; siemens
        The exact matrix, as `FCM` gives it.
    state : InterpolationState
        For the caller to keep; it belongs to this direction and to arrays of this shape.

    Raises
    ------
    ShapeError, ConfigError
        An argument breaks its rule; nothing was computed.

    References
    ----------
    S. Roy et al., arXiv:2002.11151, section IV-D.
    """
    if not isinstance(model, Interpolated):
        raise ConfigError(f"model: {model!r} keeps nothing between updates; use Interpolated(period)")
    arrays, wires, shape = check_problem(conductance, wires, direction)
    matrices, state = begin(arrays, wires, model)
    return _outward(matrices, shape, direction), state


def interpolation_apply(
    state: InterpolationState, conductance: Any, wires: Wires, direction: Direction = "forward"
) -> Array:
    """Return the matrix of changed conductances from what `interpolation_begin` kept.

    With the last exact solution at ``g*``: ``G_ni = g (1 - D)``, ``D = (g* - G_ni(g*)) / g*``
    ("distortion"), or ``G_ni = G_1(g) G_ni(g*) / G_1(g*)`` with G_1 of AAM order 1 ("anchored"). A
    cell that was open at ``g*`` keeps its entry. Exact for ``g = g*`` only.

    Parameters
    ----------
    state : InterpolationState
        From `interpolation_begin`, same direction; not changed.
    conductance : (..., rows, cols) array, siemens
        Of the shape that the state was made from.
    wires : Wires
    direction : {"forward", "backward"}

    Returns
    -------
    (..., rows, cols) array, or (..., cols, rows) for the backward read; siemens.

    Raises
    ------
    ShapeError, ConfigError
        An argument breaks its rule, or the state belongs to other arrays.

    References
    ----------
    S. Roy et al., arXiv:2002.11151, section IV-D.
    """
    arrays, wires, shape = check_problem(conductance, wires, direction)
    check_state(state, arrays)
    return _outward(apply(state, arrays, wires), shape, direction)


def check_problem(conductance: Any, wires: Wires, direction: str) -> tuple[Array, Wires, tuple[int, ...]]:
    """Check what every call shares; return (batch, rows, cols) arrays and wires of a forward read."""
    array = check_conductance("conductance", conductance)
    if not isinstance(wires, Wires):
        raise ConfigError(f"wires: {wires!r} is not a Wires; build one with Wires(r_row=..., r_col=...)")
    check_choice("direction", direction, DIRECTIONS)
    if direction == "backward":
        wires = wires.reversed()
    return np.ascontiguousarray(array).reshape(-1, *array.shape[-2:]), wires, array.shape


def check_model(model: CircuitModel | None) -> CircuitModel:
    """Return the circuit model, FCM for None."""
    if model is None:
        return FCM()
    if not isinstance(model, CircuitModel):
        raise ConfigError(
            f"model: {model!r} is not a circuit model; use Ideal(), AAM(order), FCM() or Interpolated(period)"
        )
    return model


def check_state(state: InterpolationState, arrays: Array) -> None:
    """Raise unless the interpolation state belongs to arrays of this shape."""
    if not isinstance(state, InterpolationState) or state.factor.shape != arrays.shape:
        found = getattr(getattr(state, "factor", None), "shape", type(state).__name__)
        raise ShapeError(
            f"state: made for arrays {found}, not {arrays.shape}; call interpolation_begin for these arrays"
        )


def _outward(matrices: Array, shape: tuple[int, ...], direction: str) -> Array:
    matrices = matrices.reshape(shape)
    return np.ascontiguousarray(matrices.swapaxes(-1, -2)) if direction == "backward" else matrices


def _matrices(arrays: Array, wires: Wires, model: CircuitModel) -> Array:
    match model:
        case Ideal():
            return arrays.copy()
        case AAM(order=order):
            return aam_matrices(arrays, wires, order)
        case FCM(rtol=rtol) | Interpolated(rtol=rtol):
            return exact_matrices(arrays, wires, rtol)[0]
