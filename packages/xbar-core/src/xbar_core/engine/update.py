"""Writing an optimizer's step into the devices.

The step is in weight units, so that rate, momentum and weight decay mean what they mean in digital
training. Sliced weights are updated as digital words by the same law (the paper's order: the matrix is
updated, then mapped to devices) and their cells are rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from xbar_core import mapping
from xbar_core._arrays import array_like, namespace
from xbar_core.config.device import JumpTableDevice
from xbar_core.config.update import DeterministicUpdate, NativeScale, StochasticUpdate
from xbar_core.devices.jump_table import Jumps
from xbar_core.devices.noise import draws_noise
from xbar_core.devices.pulses import Factors, deterministic, stochastic, writes
from xbar_core.devices.update import Written, update_states
from xbar_core.engine.call import Call
from xbar_core.engine.cells import held, spread_of
from xbar_core.engine.layout import Layout
from xbar_core.errors import ShapeError
from xbar_core.fixed_point import largest_code
from xbar_core.random import Purpose


class Updated(NamedTuple):
    """A layer after a step.

    Attributes
    ----------
    state : array (devices, in, out)
        New states.
    words : array (sides, in, out) or None
        New digital words of sliced weights: put them into ``buffers["words"]``.
    saturated, refreshed : 0-d int64 array
        Devices asked to go beyond their range, and pairs reset because one side was full.
    """

    state: Any
    words: Any
    saturated: Any
    refreshed: Any


def update(
    layout: Layout,
    state: Any,
    buffers: Mapping[str, Any],
    step: Any,
    *,
    rate: float = 1.0,
    count: int = 0,
    w_max: float | None = None,
) -> Updated:
    """Write one step into the devices: w moves towards ``w + rate step``.

    Parameters
    ----------
    layout : Layout
        The layer.
    state : array (devices, in, out)
        States before the step.
    buffers : mapping of str to array
        From `program`.
    step : array (in, out)
        The step without the rate, in weight units: minus the velocity of plain or momentum SGD.
    rate : float
        Learning rate, at least 0; kept apart because of ``update.noise.stage = "before_lr"``.
    count : int
        Number of earlier updates of the layer; it keys every draw.
    w_max : float or None
        Native maximum of the layer's weights, for ``update.scale.rule = "native"``.

    Returns
    -------
    Updated
        New states and counts; nothing is changed in place.

    Raises
    ------
    ShapeError
        `step` is not of the shape of the weights.
    """
    if tuple(step.shape) != (layout.inputs, layout.outputs):
        raise ShapeError(
            f"step: shape {tuple(step.shape)} is not that of the weights, ({layout.inputs}, {layout.outputs})"
        )
    sliced = layout.code.slices > 1
    held_states = buffers["words"] if sliced else state
    xp = namespace(held_states)
    ideal = step * (0.5 / _scale(layout, buffers, w_max))
    ideal = xp.astype(ideal, held_states.dtype, copy=False)
    written = _write(layout, buffers, held_states, ideal, rate, count, 0)
    if not sliced:
        return Updated(written.state, None, written.saturated, written.refreshed)
    cells = held(buffers, mapping.slice_words(layout.code, written.state, state.dtype))
    return Updated(cells, written.state, written.saturated, written.refreshed)


def _scale(layout: Layout, buffers: Mapping[str, Any], w_max: float | None) -> Any:
    """Return the weight range that a full conductance range stands for in an update."""
    scale = layout.chip.update.scale
    if isinstance(scale, NativeScale):
        native = w_max if scale.w_max is None else scale.w_max
        return buffers["w_max"] if native is None else native
    return buffers["w_max"]


def _write(
    layout: Layout, buffers: Mapping[str, Any], state: Any, ideal: Any, rate: float, count: int, write: int
) -> Written:
    """Write one ideal step; `write` numbers the writes of one update."""
    chip, stream, shape = layout.chip, layout.stream, tuple(state.shape)
    sliced = layout.code.slices > 1
    normal = uniform = jumps = None
    if draws_noise(chip.update.noise):
        draws = stream.normal(Purpose.WRITE_NOISE, shape, step=count, array=write)
        normal = array_like(draws, state)
    if chip.update.snap == "stochastic":
        uniform = array_like(stream.uniform(Purpose.SNAP, shape, step=count, array=write), state)
    if isinstance(chip.device, JumpTableDevice) and not sliced:
        jumps = Jumps(
            chip.device,
            lambda k: array_like(
                stream.uniform(Purpose.JUMP, shape, step=count, array=write * 65536 + k), state
            ),
        )
    written = update_states(
        state,
        ideal,
        chip.update,
        pair=chip.pair,
        rate=rate,
        normal=normal,
        spread=spread_of(layout, buffers),
        levels=layout.code.word_levels,
        uniform=uniform,
        jumps=jumps,
    )
    result = written.state
    if chip.precision is not None:
        result = _round(layout, result, count, write)
    if not sliced:
        result = held(buffers, result)
    return written._replace(state=result)


def _round(layout: Layout, state: Any, count: int, write: int) -> Any:
    """Return states on the grid of fixed-point weights; the sides of a pair round as mirror images."""
    precision = layout.chip.precision
    assert precision is not None
    xp = namespace(state)
    largest = largest_code(precision.bits)
    levels = 1 + (largest if layout.code.kind == "differential" else 2 * largest)
    uniform = None
    if precision.rounding == "stochastic":
        draws = layout.stream.uniform(Purpose.WEIGHT_ROUNDING, (1, *state.shape[1:]), step=count, array=write)
        uniform = array_like(draws, state)
        if state.shape[0] == 2:
            uniform = xp.concat([uniform, 1.0 - uniform])
    return mapping.snap_states(levels, state, uniform)


class WriteCounts(NamedTuple):
    """What happened to the devices of one crossbar weight in a step.

    Attributes
    ----------
    saturated : int
        Devices that were asked to go beyond an end of their range.
    refreshed : int
        Pairs reset because one side was full (``update.pair = "one_sided"``).
    """

    saturated: int
    refreshed: int


def pulse_update(
    layout: Layout,
    state: Any,
    buffers: Mapping[str, Any],
    x: Any,
    dy: Any,
    *,
    rate: float,
    x_max: Any,
    dy_max: Any,
    count: int = 0,
    call: Call = Call(),
    w_max: float | None = None,
) -> Updated:
    """Write a batch by rank-1 pulses: w moves towards ``w - rate x.T @ dy``.

    Parameters
    ----------
    layout, state, buffers, count, w_max
        As in `update`; the chip's update encoding is ``deterministic`` or ``stochastic``.
    x : array (samples, places, in)
        Inputs of the step, as the DAC decoded them.
    dy : array (samples, places, out)
        Errors of the step.
    rate : float
        Learning rate.
    x_max, dy_max : float or 0-d array
        Full scales of the pulse codes.
    call : Call
        Its `first` is the index of the first sample in the global batch.
    """
    factors = _factors(layout, x, dy, x_max, dy_max, count, call)
    ideal_scale = -0.5 / _scale(layout, buffers, w_max)
    xp = namespace(state)
    saturated = refreshed = xp.sum(xp.zeros_like(state[:1, 0, 0], dtype=xp.int64))
    for write, gradient in enumerate(writes(factors, _samples_per_write(layout))):
        written = _write(layout, buffers, state, gradient * ideal_scale, rate, count, write)
        state = written.state
        saturated, refreshed = saturated + written.saturated, refreshed + written.refreshed
    return Updated(state, None, saturated, refreshed)


def _samples_per_write(layout: Layout) -> int | None:
    encoding = layout.chip.update
    assert isinstance(encoding, DeterministicUpdate | StochasticUpdate)
    return encoding.samples_per_write


def _factors(layout: Layout, x: Any, dy: Any, x_max: Any, dy_max: Any, count: int, call: Call) -> Factors:
    encoding = layout.chip.update
    if isinstance(encoding, DeterministicUpdate):
        return deterministic(x, dy, x_max, dy_max, encoding.bits)
    assert isinstance(encoding, StochasticUpdate)
    draws = []
    for purpose, values in ((Purpose.PULSES_INPUT, x), (Purpose.PULSES_ERROR, dy)):
        samples, places, lines = values.shape
        shape = (places, encoding.stream_length, lines)
        uniform = layout.stream.uniform_samples(purpose, shape, first=call.first, count=samples, step=count)
        draws.append(array_like(uniform, values))
    return stochastic(x, dy, x_max, dy_max, encoding.stream_length, *draws)
