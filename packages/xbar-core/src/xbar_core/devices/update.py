r"""The weight update: how far a device moves when it is asked to move.

With the state s = (g - g_min) / R in [0, 1], the ideal step d = dG_ideal / R and the non-linearity v, a
device moves by

.. math::

    \Delta s = \left(\frac{1}{1 - e^{-v}} - s\right) (1 - e^{-v |d|}) \quad (d > 0)

and by its mirror image for d < 0 (s -> 1 - s, sign reversed): S. Agarwal et al., IJCNN 2016; TxSim,
section IV-C, prints the second line with a sign lost. v = 0 is linear; a device of negative v speeds up
on its way instead of slowing down. From s = 0, d = 1 lands on s = 1; from s = 1, d = -1 on s = 0.

Order of a write: velocity (the caller's optimizer), ideal step (with the rate for stage ``after_lr``, without
it for ``before_lr``), non-linearity, noise, rate (``before_lr`` only), clip, snap.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np

from xbar_core._arrays import array_like, namespace
from xbar_core._threads import run_all
from xbar_core.config.update import Pair, Update
from xbar_core.devices.jump_table import Jumps, jump
from xbar_core.devices.noise import write_noise
from xbar_core.mapping import snap_states

_LINEAR = 1e-15  # below this |v| the exponential law is the straight line to rounding
_EXPONENT = 80.0  # e^80 is finite in float32 and saturates every device
# Devices that a thread writes at a time: few enough for its cache, enough that threads, which take turns in
# Python between operations, seldom wait for each other.
_SMALLEST_BLOCK, _LARGEST_BLOCK = 1 << 16, 1 << 18


@dataclass(frozen=True)
class Spread:
    """What differs from device to device in an update; None is the nominal value.

    Parameters
    ----------
    v_up, v_down : array (devices, in, out) or None
        Non-linearity of each device.
    lower, upper : array (devices, in, out) or None
        Ends of each device's range as states, ``0 <= lower < upper <= 1``; both or neither.
    """

    v_up: Any = None
    v_down: Any = None
    lower: Any = None
    upper: Any = None


NOMINAL = Spread()


class Written(NamedTuple):
    """Result of a write.

    Attributes
    ----------
    state : array (devices, in, out)
        New states, within [0, 1].
    saturated : 0-d array of int64
        Devices that were asked to go beyond an end of their range.
    refreshed : 0-d array of int64
        Pairs that were reset because one side was full (``one_sided`` only).
    """

    state: Any
    saturated: Any
    refreshed: Any


def nonlinear_step(
    state: Any, step: Any, v_up: Any, v_down: Any, *, lower: Any = None, upper: Any = None
) -> Any:
    r"""Return the step that devices make when asked for an ideal one; nothing is clipped.

    Parameters
    ----------
    state : array
        States in [0, 1].
    step : array
        Ideal steps d, any sign and size, same shape.
    v_up, v_down : float or array
        Non-linearity of potentiation and depression, \|v\| at most 100.
    lower, upper : array or None
        Ends of each device's own range, both or neither; None means 0 and 1.

    Returns
    -------
    array
        Steps of the same shape and dtype; finite for finite input.
    """
    xp = namespace(state)
    plain = not _is_array(v_up) and not _is_array(v_down)
    if plain and abs(v_up) < _LINEAR and abs(v_down) < _LINEAR:
        return step
    up = step > 0.0
    size = xp.abs(step)
    width = None if lower is None else upper - lower
    if width is None:
        travelled = xp.where(up, state, 1.0 - state)
    else:
        travelled = xp.where(up, state - lower, upper - state) / width
        size = size / width
    if plain and v_up == v_down:
        moved = _bend(travelled, size, v_up)
    elif plain:
        moved = xp.where(up, _bend(travelled, size, v_up), _bend(travelled, size, v_down))
    else:
        moved = _bend_each(travelled, size, xp.where(up, v_up + 0.0 * state, v_down + 0.0 * state))
    if width is not None:
        moved = moved * width
    return xp.where(up, moved, -moved)


def _is_array(value: Any) -> bool:
    return not isinstance(value, float | int)


def _bend(travelled: Any, size: Any, v: float) -> Any:
    """Return the size of the step after `travelled` of the range, one v for all devices."""
    if abs(v) < _LINEAR:
        return size
    xp = namespace(size)
    u = abs(v)
    # Of the array's library and precision, so that a full step divides equal numbers and gives exactly 1.
    full = xp.expm1(array_like(-u, size))
    part = xp.expm1(size * -u)
    if v > 0.0:
        return part / full + travelled * part
    ahead = part / full * xp.exp(xp.clip(size * u - u, None, _EXPONENT))
    return ahead - travelled * part * xp.exp(xp.clip(size * u, None, _EXPONENT))


def _bend_each(travelled: Any, size: Any, v: Any) -> Any:
    """As `_bend`, with a v for each device."""
    xp = namespace(size)
    u = xp.abs(v)
    linear = u < _LINEAR
    u = xp.where(linear, xp.ones_like(u), u)
    full, part = xp.expm1(-u), xp.expm1(-u * size)
    slowing = part / full + travelled * part
    ahead = part / full * xp.exp(xp.clip(u * size - u, None, _EXPONENT))
    quickening = ahead - travelled * part * xp.exp(xp.clip(u * size, None, _EXPONENT))
    return xp.where(linear, size, xp.where(v > 0.0, slowing, quickening))


def update_states(
    state: Any,
    step: Any,
    config: Update,
    *,
    pair: Pair,
    rate: float = 1.0,
    normal: Any = None,
    spread: Spread = NOMINAL,
    levels: int | None = None,
    uniform: Any = None,
    jumps: Jumps | None = None,
) -> Written:
    """Write one step into the devices of a weight matrix.

    Parameters
    ----------
    state : array (sides, in, out)
        States in [0, 1]: two sides of a pair, or one device (offset).
    step : array (in, out)
        Ideal step of side 0 without the rate, ``dG_ideal / R`` = (weight step) / (2 w_max); side 1 moves
        the other way.
    config : Update
        Non-linearity, noise and its stage, snapping.
    pair : {"both", "carry", "one_sided"}
        What a clipped half does; ``both`` where there is one device.
    rate : float
        Learning rate, at least 0.
    normal : array (sides, in, out) or None
        Standard normal draws; needed where the noise law draws.
    spread : Spread
        Differences from device to device.
    levels : int or None
        Levels of a device, for ``config.snap``.
    uniform : array (sides, in, out) or None
        Uniform draws for stochastic snapping.
    jumps : Jumps or None
        Measured pulse responses that take the place of law and noise.

    Returns
    -------
    Written
        New states and the counts of saturated devices and refreshed pairs.
    """
    sides, inputs, outputs = state.shape
    share = sides * inputs * outputs // (2 * numba.get_num_threads())
    rows = max(1, min(max(share, _SMALLEST_BLOCK), _LARGEST_BLOCK) // max(1, sides * outputs))
    if jumps is not None or rows >= inputs or not isinstance(state, np.ndarray):
        return _update_block(state, step, config, pair, rate, normal, spread, levels, uniform, jumps)
    written = np.empty_like(state)
    saturated = np.zeros(-(-inputs // rows), dtype=np.int64)
    refreshed = np.zeros_like(saturated)

    def write(block: int) -> None:
        part = slice(block * rows, (block + 1) * rows)
        own = Spread(*(_rows(getattr(spread, field.name), part) for field in fields(Spread)))
        draws = _rows(normal, part), own, levels, _rows(uniform, part), None
        done = _update_block(state[:, part], step[part], config, pair, rate, *draws)
        written[:, part], saturated[block], refreshed[block] = done

    run_all([partial(write, block) for block in range(len(saturated))])
    return Written(written, np.sum(saturated), np.sum(refreshed))


def _rows(array: Any, part: slice) -> Any:
    """Return a block of the rows of an array (sides, in, out); what all devices share stays."""
    return array[:, part] if _is_array(array) and array is not None else array


def _update_block(
    state: Any,
    step: Any,
    config: Update,
    pair: Pair,
    rate: float,
    normal: Any,
    spread: Spread,
    levels: int | None,
    uniform: Any,
    jumps: Jumps | None,
) -> Written:
    """As `update_states`; no device looks at another but the other side of its pair."""
    xp = namespace(state)
    before = config.noise.stage == "before_lr" and jumps is None
    low = 0.0 if spread.lower is None else spread.lower
    high = 1.0 if spread.upper is None else spread.upper
    direct = state.shape[0] == 1 or pair == "both"
    # The other pair rules must see the real step; the paper's stage takes the rate out again below.
    step = step if before and direct else step * rate
    refreshed = xp.sum(xp.zeros_like(state[:1, 0, 0], dtype=xp.int64))
    if state.shape[0] == 1:
        steps = step[None, ...]
    elif pair == "both":
        steps = xp.stack([step, -step])
    elif pair == "carry":
        steps = _carry(state, step, low, high)
    else:
        state, steps, refreshed = _one_sided(state, step, low, high)
    if jumps is not None:
        target = jump(state, steps, jumps)
    else:
        asked = steps / rate if before and not direct and rate > 0.0 else steps
        moved = nonlinear_step(
            state,
            asked,
            config.v_up if spread.v_up is None else spread.v_up,
            config.v_down if spread.v_down is None else spread.v_down,
            lower=spread.lower,
            upper=spread.upper,
        )
        noise = write_noise(asked, config.noise, normal)
        if noise is not None:
            noise += moved
            moved = noise
        target = state + (moved * rate if before else moved)
    written = xp.clip(target, low, high)
    # A step that ends at the end of the range, to rounding, does not saturate.
    saturated = _count(xp.abs(target - written) > 8.0 * xp.finfo(target.dtype).eps)
    if config.snap != "off" and levels is not None:
        written = snap_states(levels, written, uniform if config.snap == "stochastic" else None)
    return Written(written, saturated, refreshed)


def _carry(state: Any, step: Any, low: Any, high: Any) -> Any:
    """Return both sides' steps, what one side has no room for being added to the other's."""
    xp = namespace(state)
    steps = xp.stack([step, -step])
    target = state + steps
    excess = target - xp.clip(target, low, high)
    return steps - (excess[0, ...] + excess[1, ...])[None, ...]


def _one_sided(state: Any, step: Any, low: Any, high: Any) -> tuple[Any, Any, Any]:
    """Return (states, steps, refreshed pairs): the whole step upward, on one side.

    A pair with a full side is first reset to the same difference with the other side at its lowest.
    """
    xp = namespace(state)
    zero = xp.zeros_like(step)
    steps = 2.0 * xp.stack([xp.maximum(step, zero), xp.maximum(-step, zero)])
    full = xp.any(state + steps > high, axis=0)
    difference = state[0, ...] - state[1, ...]
    reset = xp.stack([xp.maximum(difference, zero), xp.maximum(-difference, zero)])
    return xp.where(full[None, ...], xp.clip(reset, low, high), state), steps, _count(full)


def _count(mask: Any) -> Any:
    xp = namespace(mask)
    return xp.sum(xp.astype(mask, xp.int64))
