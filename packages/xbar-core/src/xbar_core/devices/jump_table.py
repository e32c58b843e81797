"""Devices whose pulses draw their change from measured distributions.

A table holds, for a few conductances, the quantiles of the conductance change of one pulse. A pulse draws
a probability and takes that quantile, interpolated between the two nearest conductances of the table: the
"jump tables" of S. Agarwal et al., IJCNN 2016. Non-linearity, asymmetry and noise are then the measured ones.

An ideal step is turned into a whole number of pulses: its share of the pulses that cross the full range on
average, rounded up or down at random so that the mean is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbar_core._arrays import array_like, namespace
from xbar_core.config.device import JumpTable, JumpTableDevice
from xbar_core.errors import ConfigError


@dataclass(frozen=True)
class Jumps:
    """The tables of a device and the draws of one write.

    Parameters
    ----------
    device : JumpTableDevice
        The device.
    uniform : callable
        ``uniform(k)`` returns uniform draws in [0, 1) shaped like the states: k = 0 rounds the number of
        pulses, k = 1, 2, ... belong to the pulses.
    """

    device: JumpTableDevice
    uniform: Callable[[int], Any]


def jump(state: Any, step: Any, jumps: Jumps) -> Any:
    """Return the states after the pulses of one write.

    Parameters
    ----------
    state : array
        States in [0, 1].
    step : array
        Ideal steps ``dG_ideal / R``, same shape.
    jumps : Jumps
        Tables and draws.

    Returns
    -------
    array
        Same shape; the last pulse may have gone beyond [0, 1], as a caller's clip will show.
    """
    xp = namespace(state)
    device = jumps.device
    assert device.up is not None
    assert device.down is not None
    up = step > 0.0
    span_up, span_down = (pulses_across(t, device.g_min, device.g_max) for t in (device.up, device.down))
    pulses = xp.abs(step) * xp.where(up, span_up + 0.0 * step, span_down + 0.0 * step)
    pulses = xp.floor(pulses + jumps.uniform(0))
    held = state
    for k in range(1, int(xp.max(pulses)) + 1):
        draw = jumps.uniform(k)
        inside = xp.clip(held, 0.0, 1.0)
        moved = xp.where(up, _draw(inside, draw, device.up, device), _draw(inside, draw, device.down, device))
        held = xp.where(pulses >= k, inside + moved, held)
    return held


def mean_step(table: JumpTable) -> Any:
    """Return the mean conductance change of one pulse at every conductance of the table, siemens."""
    _, probability, changes = table.arrays
    edges = np.concatenate([[0.0], 0.5 * (probability[1:] + probability[:-1]), [1.0]])
    return changes @ np.diff(edges)


def pulses_across(table: JumpTable, g_min: float, g_max: float) -> float:
    """Return the mean number of pulses that cross the range: the integral of dg / E[dG](g).

    Raises
    ------
    ConfigError
        The mean change vanishes or turns round within the range, so that no pulse number crosses it.
    """
    grid = np.linspace(g_min, g_max, 1001)
    change = np.interp(grid, table.arrays[0], mean_step(table))
    if change.min() * change.max() <= 0.0:
        raise ConfigError(
            f"device.dg: the mean change of a pulse goes from {change.min():.3g} to {change.max():.3g} S "
            "within the range; it must keep its sign: narrow r_min and r_max to where pulses still move "
            "the device"
        )
    return float(np.trapezoid(1.0 / np.abs(change), grid))


def _draw(state: Any, draw: Any, table: JumpTable, device: JumpTableDevice) -> Any:
    """Return the change of one pulse in units of R, from uniform draws."""
    xp = namespace(state)
    width = device.g_max - device.g_min
    conductance, probability, changes = table.arrays
    places = (conductance - device.g_min) / width
    row, along = _cell(state, places)
    column, across = _cell(draw, probability)
    flat = array_like(changes.reshape(-1), state)
    columns = changes.shape[1]

    def at(i: Any, j: Any) -> Any:
        return xp.reshape(xp.take(flat, xp.reshape(i * columns + j, (-1,)), axis=0), state.shape)

    below = at(row, column) * (1.0 - across) + at(row, column + 1) * across
    above = at(row + 1, column) * (1.0 - across) + at(row + 1, column + 1) * across
    return (below * (1.0 - along) + above * along) / width


def _cell(value: Any, knots: Any) -> tuple[Any, Any]:
    """Return (index of the left knot, fraction of the way to the next), flat beyond the ends."""
    xp = namespace(value)
    points = array_like(knots, value)
    held = xp.clip(value, float(knots[0]), float(knots[-1]))
    flat = xp.reshape(held, (-1,))
    index = xp.searchsorted(points[1:-1], flat, side="right")
    left, right = xp.take(points, index, axis=0), xp.take(points, index + 1, axis=0)
    fraction = xp.clip((flat - left) / (right - left), 0.0, 1.0)
    return xp.reshape(index, value.shape), xp.reshape(fraction, value.shape)
