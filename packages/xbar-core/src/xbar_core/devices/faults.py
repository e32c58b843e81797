"""Faults: devices that are stuck or open, drawn once and frozen.

A stuck device keeps its end of the range whatever is written; an open one conducts nothing. The map of a
chip is an array of small integers: 0 healthy, 1 stuck at g_min, 2 stuck at g_max, 3 open.
"""

from __future__ import annotations

from typing import Any

from xbar_core._arrays import namespace
from xbar_core.config.device import Faults

HEALTHY, STUCK_AT_G_MIN, STUCK_AT_G_MAX, OPEN = range(4)


def draw_faults(config: Faults, uniform: Any) -> Any:
    """Return the fault map of a layer, int8, of the shape of `uniform`.

    Parameters
    ----------
    config : Faults
        Fraction of each fault.
    uniform : array
        Frozen uniform draws in [0, 1) (purpose ``FAULTS``).
    """
    xp = namespace(uniform)
    first = config.stuck_at_g_min
    second = first + config.stuck_at_g_max
    third = second + config.open
    # Fractions that add up to 1 in decimal leave no healthy device, whatever their binary sum.
    third = 1.0 if third > 1.0 - 1e-12 else third
    kind = xp.zeros_like(uniform, dtype=xp.int8)
    for code, low, high in (
        (STUCK_AT_G_MIN, 0.0, first),
        (STUCK_AT_G_MAX, first, second),
        (OPEN, second, third),
    ):
        inside = (uniform >= low) & (uniform < high)
        kind = xp.where(inside, xp.full_like(kind, code), kind)
    return kind


def hold(state: Any, faults: Any) -> Any:
    """Return states in which stuck devices are at their end and open ones at 0: after every write."""
    xp = namespace(state)
    low = (faults == STUCK_AT_G_MIN) | (faults == OPEN)
    held = xp.where(low, xp.zeros_like(state), state)
    return xp.where(faults == STUCK_AT_G_MAX, xp.ones_like(state), held)


def open_cells(conductance: Any, faults: Any) -> Any:
    """Return conductances with open devices at 0, in the unit of `conductance`."""
    xp = namespace(conductance)
    return xp.where(faults == OPEN, xp.zeros_like(conductance), conductance)


def count_faults(faults: Any) -> dict[str, int]:
    """Return the number of devices of each fault."""
    xp = namespace(faults)
    names = {"stuck_at_g_min": STUCK_AT_G_MIN, "stuck_at_g_max": STUCK_AT_G_MAX, "open": OPEN}
    return {name: int(xp.sum(xp.astype(faults == code, xp.int64))) for name, code in names.items()}
