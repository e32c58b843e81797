"""How wrong a circuit model is on given arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_array
from xbar_core.circuit._dispatch import effective_conductance
from xbar_core.circuit.base import FCM, CircuitModel, Direction, Wires
from xbar_core.errors import ConfigError, ShapeError

Array = NDArray[Any]


@dataclass(frozen=True)
class ErrorReport:
    """What a model gets wrong against the exact matrix.

    Attributes
    ----------
    error : float
        ``max|dG_ni| / max|G_ni|``, the largest over the arrays of the batch.
    elementwise_max, elementwise_mean : float
        Largest and mean of ``|dG_ni| / G_ni`` over entries that are not zero in both matrices.
    map : (..., rows, cols)
        Signed relative error of every entry; 0 where both matrices are 0, infinite where only the
        exact one is.
    exact, approximate : (..., rows, cols)
        The two matrices, siemens.
    """

    error: float
    elementwise_max: float
    elementwise_mean: float
    map: Array
    exact: Array
    approximate: Array


def error_report(
    conductance: Any,
    wires: Wires,
    model: CircuitModel,
    direction: Direction = "forward",
    *,
    approximate: Any = None,
) -> ErrorReport:
    """Compare a circuit model with the exact solution of the same arrays.

    Parameters
    ----------
    conductance : (..., rows, cols) array, siemens.
    wires : Wires
    model : circuit model to judge.
    direction : {"forward", "backward"}
    approximate : array or None
        The matrix to judge where it is not simply the model's (a kept interpolation, a measurement).

    Returns
    -------
    ErrorReport

    Raises
    ------
    ShapeError, ConfigError
        An argument breaks its rule; nothing was computed.
    """
    if model is None:
        raise ConfigError("model: None; name the circuit model to judge, such as AAM(order=1)")
    exact = effective_conductance(conductance, wires, FCM(), direction)
    if approximate is None:
        approximate = effective_conductance(conductance, wires, model, direction)
    approximate = check_array("approximate", approximate)
    if approximate.shape != exact.shape:
        raise ShapeError(
            f"approximate: shape {approximate.shape} is not that of the matrix, {exact.shape}; "
            f"give one entry for each of its entries"
        )
    return compare_matrices(exact, approximate)


def compare_matrices(exact: Array, approximate: Array) -> ErrorReport:
    """Return the report of one matrix against another (..., rows, cols)."""
    difference = approximate.astype(np.float64) - exact
    known = exact != 0
    relative = np.where(known, difference / np.where(known, exact, 1), np.where(difference == 0, 0, np.inf))
    judged = np.abs(relative[known | (difference != 0)])
    worst = np.abs(difference).max(axis=(-1, -2))
    scale = exact.max(axis=(-1, -2))
    errors = np.where(scale > 0, worst / np.where(scale > 0, scale, 1), np.where(worst == 0, 0, np.inf))
    return ErrorReport(
        error=float(errors.max(initial=0.0)),
        elementwise_max=float(judged.max(initial=0.0)),
        elementwise_mean=float(judged.mean()) if judged.size else 0.0,
        map=relative,
        exact=exact,
        approximate=approximate,
    )
