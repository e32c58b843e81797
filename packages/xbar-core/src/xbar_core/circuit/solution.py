"""Voltages, currents and power everywhere in one array, for given inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_rtol, check_voltages
from xbar_core.circuit._dispatch import check_problem
from xbar_core.circuit._fields import Fields
from xbar_core.circuit._lanes import LANES
from xbar_core.circuit.base import DEFAULT_RTOL, Wires
from xbar_core.errors import ConvergenceError, ShapeError

Array = NDArray[Any]


@dataclass(frozen=True)
class Power:
    """Where the power goes, watt; each of shape () or (batch,)."""

    devices: Array
    wires: Array
    source: Array
    sense: Array

    @property
    def total(self) -> Array:
        """Sum of all parts: what the sources deliver."""
        return self.devices + self.wires + self.source + self.sense


@dataclass(frozen=True)
class Solution:
    """The solved circuit. Shapes lead with (batch,) if the voltages did.

    Attributes
    ----------
    voltages_row, voltages_col : (..., rows, cols)
        Voltages of the row and column wire at each cell, volt.
    current_device : (..., rows, cols)
        Current from row to column through each device, ampere.
    current_row : (..., rows, cols)
        Current along row i into cell (i, j), ampere; column 0 holds the source currents.
    current_col : (..., rows, cols)
        Current along column j out of cell (i, j) towards the sense end; the last row holds the
        outputs.
    currents : (..., cols)
        Output currents, ampere.
    power : Power
        Power in devices, wires, source and sense resistances, watt.
    iterations : int
        Row-and-column sweeps done; 0 means direct elimination.
    residual : float
        The larger of: the largest violation of Ohm's law along any wire or at any end, relative to
        the largest voltage; the largest difference between an output current and the sum of its
        column's device currents, relative to the most that a column carries. Never above the tolerance.
    """

    voltages_row: Array
    voltages_col: Array
    current_device: Array
    current_row: Array
    current_col: Array
    currents: Array
    power: Power
    iterations: int
    residual: float


def solve(conductance: Any, wires: Wires, voltages: Any, *, rtol: float | None = None) -> Solution:
    """Solve one array for given source voltages.

    Parameters
    ----------
    conductance : (rows, cols) array, siemens (bounds as in `effective_conductance`).
    wires : Wires
    voltages : (rows,) or (batch, rows) array, volt.
    rtol : float or None
        Tolerance as in `FCM`.

    Returns
    -------
    Solution

    Raises
    ------
    ShapeError, ConfigError
        An argument breaks its rule.
    ConvergenceError
        The tolerance was missed. Device currents are conductance times a difference of voltages;
        where wires are millions of times as resistive as devices, rounding leaves too few digits.

    Notes
    -----
    The work is done in float64, and the result has the wider dtype of the two inputs.

    References
    ----------
    S. Jain et al., "RxNN", IEEE TCAD 40, 326 (2021).
    """
    arrays, wires, shape = check_problem(conductance, wires, "forward")
    if len(shape) != 2:
        raise ShapeError(f"conductance: shape {shape} is not (rows, cols); solve takes one array at a time")
    g = arrays[0]
    given = check_voltages("voltages", voltages, g.shape[0])
    inputs = np.atleast_2d(given).astype(np.float64)
    dtype, batched = np.result_type(given, g), given.ndim == 2
    g = g.astype(np.float64)
    tolerance = check_rtol("rtol", rtol) or DEFAULT_RTOL[g.dtype.itemsize]
    u = np.zeros((inputs.shape[0], *g.shape))
    w = np.zeros_like(u)
    currents = np.zeros((inputs.shape[0], g.shape[1]))
    iterations = 0
    if g.max() == 0.0:
        u[:] = inputs[:, :, None]
    else:
        # Voltages settle after currents: two digits more make the residual meet the tolerance, too.
        fields = Fields(g, wires, 0.01 * tolerance)
        for first in range(0, inputs.shape[0], LANES):
            block = inputs[first : first + LANES].T
            for target, found in zip((u, w, currents), fields.voltages(block), strict=True):
                target[first : first + LANES] = np.moveaxis(found, -1, 0)[: block.shape[1]]
        iterations = fields.iterations
    solution = _assemble(g, wires, inputs, u, w, currents, iterations, dtype, batched)
    if solution.residual > tolerance:
        raise ConvergenceError(
            f"solve: residual {solution.residual:.1e} misses rtol={tolerance:g}; wires are too resistive for "
            "the devices' currents in float64. Pass a larger rtol, or use effective_conductance, whose "
            "output currents keep all digits",
            iterations=iterations,
            residual=solution.residual,
        )
    return solution


def _assemble(
    g: Array,
    wires: Wires,
    inputs: Array,
    u: Array,
    w: Array,
    currents: Array,
    iterations: int,
    dtype: Any,
    batched: bool,
) -> Solution:
    device = g * (u - w)
    row, col = _wire_currents(device)

    def outward(values: Array) -> Array:
        values = values.astype(dtype, order="C")
        return values if batched else values[0]

    return Solution(
        voltages_row=outward(u),
        voltages_col=outward(w),
        current_device=outward(device),
        current_row=outward(row),
        current_col=outward(col),
        currents=outward(currents),
        power=Power(
            devices=outward((device * (u - w)).sum(axis=(1, 2))),
            wires=outward(
                wires.r_row * (row[:, :, 1:] ** 2).sum(axis=(1, 2))
                + wires.r_col * (col[:, :-1] ** 2).sum(axis=(1, 2))
            ),
            source=outward(wires.r_source * (row[:, :, 0] ** 2).sum(axis=1)),
            sense=outward(wires.r_sense * (col[:, -1] ** 2).sum(axis=1)),
        ),
        iterations=iterations,
        residual=_residual(wires, inputs, u, w, device, currents),
    )


def _wire_currents(device: Array) -> tuple[Array, Array]:
    """Return the currents into each cell along its row, and out of it along its column."""
    return np.cumsum(device[:, :, ::-1], axis=2)[:, :, ::-1], np.cumsum(device, axis=1)


def _residual(wires: Wires, inputs: Array, u: Array, w: Array, device: Array, currents: Array) -> float:
    """Return the residual that `Solution` describes."""
    scale = float(np.abs(inputs).max())
    carried = float(np.abs(device).sum(axis=1).max())
    if scale == 0.0 or carried == 0.0:
        return 0.0
    mismatch = float(np.abs(currents - device.sum(axis=1)).max()) / carried
    row, col = _wire_currents(device)
    violations = (
        inputs - u[:, :, 0] - wires.r_source * row[:, :, 0],
        u[:, :, :-1] - u[:, :, 1:] - wires.r_row * row[:, :, 1:],
        w[:, :-1] - w[:, 1:] - wires.r_col * col[:, :-1],
        w[:, -1] - wires.r_sense * col[:, -1],
    )
    return max(mismatch, max(float(np.abs(v).max(initial=0.0)) for v in violations) / scale)
