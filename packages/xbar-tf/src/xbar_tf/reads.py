"""Products of a crossbar weight on the host: functions of NumPy arrays, run eagerly or by a graph.

A forward call returns y, the words that were sent (where they differ from x) and a `Note` of the call; the
backward calls take them back. Nothing is kept in between, so that a graph may hold as many calls as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xbar_core.engine import (
    Call,
    Encoded,
    Residual,
    encode,
    read_encoded,
)
from xbar_core.engine.exact import exact_vjp
from xbar_core.engine.layout import Layout
from xbar_core.engine.parts import read_parts
from xbar_core.engine.pulses import Pulses
from xbar_core.engine.ranges import settle
from xbar_tf._bridge import Array, is_finite
from xbar_tf.crossbar import Crossbar, Held, Solved


class Note(NamedTuple):
    """What a backward call must know of its forward call beside tensors.

    Attributes
    ----------
    version : int
        Of the matrices, see `Crossbar.recalled`.
    call : Call
        Its identity.
    full_scale : float or 0-d array
        Of the DAC.
    current_scales : tuple
        Of the ADC, for every array set.
    """

    version: int
    call: Call
    full_scale: Any
    current_scales: tuple[Any, ...]

    def pack(self) -> Array:
        """Return the note as a float64 array (6 + 2 scales,), exact: all its integers are below 2^53."""
        scales = [part for scale in (self.full_scale, *self.current_scales) for part in _scale(scale)]
        call = self.call
        return np.array([self.version, call.step, call.first, call.training, call.epoch, *scales], np.float64)

    @classmethod
    def unpack(cls, values: Array, dtype: Any) -> Note:
        """Return the note that `pack` wrote, with scales that were arrays in `dtype`."""
        version, step, first, training, epoch = (int(n) for n in values[:5])
        scales = [_unscale(value, kind, dtype) for value, kind in values[5:].reshape(-1, 2)]
        return cls(version, Call(step, first, bool(training), epoch), scales[0], tuple(scales[1:]))


def unread(crossbar: Crossbar, held: Held, training: bool) -> Note:
    """Return the note of a call without samples: no matrix, no range."""
    return Note(0, call_of(held, training, 0), 1.0, (1.0,) * crossbar.parts)


def note_size(parts: int) -> int:
    """Return the length of a packed note."""
    return 5 + 2 * (1 + parts)


def _scale(value: Any) -> tuple[float, bool]:
    """Return a full scale and whether it is of the dtype of the arrays, not a Python number."""
    return float(value), isinstance(value, np.ndarray | np.generic)


def _unscale(value: float, array: float, dtype: Any) -> Any:
    return np.dtype(dtype).type(value) if array else float(value)


def call_of(held: Held, training: bool, first: int) -> Call:
    """Return the identity of a forward call; ranges agree over replicas by sharing them, not by the call."""
    return Call(held.step(training), first, training, int(held.counters[4]))


def keeps_inputs(layout: Layout) -> bool:
    """Return whether backward calls want x itself, so that words need not be kept."""
    chip = layout.chip
    return (
        chip.backward.mode == "exact" or chip.update.gradient == "full" or not layout.forward.converts_input
    )


def split(values: Array, parts: int) -> list[Array]:
    """Return the share of every array set along the last axis, contiguous."""
    return [np.ascontiguousarray(part) for part in np.split(values, parts, -1)]


def join(parts: Sequence[Array]) -> Array:
    """Return the array sets side by side."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def forward(
    crossbar: Crossbar, x: Array, held: Held, *, training: bool, first: int = 0, backward: bool = False
) -> tuple[Array, Array, Note]:
    """Return ``x @ W`` (batch, ..., out), the words that were sent, and the call's note.

    Parameters
    ----------
    crossbar : Crossbar
        The weight; its array sets stand side by side in inputs and outputs.
    x : array (batch, ..., in)
        Activations.
    held : Held
        What the weight holds.
    training : bool
        Whether the call trains.
    first : int
        Index of the first sample in the global batch.
    backward : bool
        Whether a gradient of x will be asked for.
    """
    crossbar.require_finite(x, "input", held)
    solved = crossbar.solved(held, training, backward)
    layout, call = crossbar.layout, call_of(held, training, first)
    plan = layout.forward
    x = np.ascontiguousarray(x)
    with crossbar.group.lock:
        before = ranges = crossbar.ranges
        full_scale: Any = 1.0
        if plan.converts_input:
            full_scale, ranges = settle(ranges, plan.input_range, plan.input_rule, [x], call)
        sent = [
            encode(each, plan, part, full_scale, call)
            for each, part in zip(crossbar.layouts, split(x, crossbar.parts), strict=True)
        ]
        buffers = [crossbar.parts_of(held.buffers, part) for part in range(crossbar.parts)]
        readings, ranges = read_parts(crossbar.layouts, plan, solved.matrices, buffers, ranges, sent, call)
        crossbar.keep_ranges(ranges, before)
    scales = tuple(reading.current_scale for reading in readings)
    note = Note(solved.version, call, full_scale, scales)
    words = x if keeps_inputs(layout) else join([each.value for each in sent])
    return join([reading.result for reading in readings]), words, note


def error_scale(crossbar: Crossbar, dy: Array, note: Note) -> Any:
    """Return the full scale that errors dy (batch, ..., out) are sent with, in `crossbar` mode.

    Nothing is learned where there are none, or any is not finite: those are not sent.
    """
    plan = crossbar.layout.backward
    if not plan.converts_input or dy.size == 0 or not is_finite(dy):
        return 1.0
    with crossbar.group.lock:
        before = crossbar.ranges
        scale, ranges = settle(before, plan.input_range, plan.input_rule, [dy], note.call)
        crossbar.keep_ranges(ranges, before)
    return scale


def state_gradient(
    crossbar: Crossbar, dy: Array, full_scale: Any, kept: Array, held: Held, note: Note
) -> Array:
    """Return the gradient of the target in `crossbar` mode.

    Parameters
    ----------
    dy : array (batch, ..., out)
        Errors.
    full_scale : float or 0-d array
        What they are sent with.
    kept : array (batch, ..., in)
        Words of the forward call, or its inputs (see `keeps_inputs`).
    """
    layout, dy = crossbar.layout, np.ascontiguousarray(dy)
    sent = encode(layout, layout.backward, dy, full_scale, note.call)
    residual = Residual(kept, note.full_scale, note.current_scales[0], note.call)
    if crossbar.chip.update.pulsed:
        _keep_pulses(crossbar, residual, sent, dy, held, note)
    return crossbar.call_gradient(residual, sent, dy, held)


def _keep_pulses(
    crossbar: Crossbar, residual: Residual, sent: Encoded, dy: Array, held: Held, note: Note
) -> None:
    x = residual.inputs
    full = crossbar.chip.update.gradient == "full"
    decoded = (x, dy) if full else (x * residual.full_scale, sent.value * sent.full_scale)
    places, errors = (part.reshape(part.shape[0], -1, part.shape[-1]) for part in decoded)
    crossbar.keep_pulses(Pulses(0, places, errors, note.call), held.state)


def transposed(crossbar: Crossbar, dy: Array, full_scale: Any, held: Held, note: Note) -> Array:
    """Return dL/dx by the transposed read, in `crossbar` mode."""
    layout, call = crossbar.layout, note.call
    solved = crossbar.recalled(note.version, held, call.step, backward=True)
    sent = encode(layout, layout.backward, np.ascontiguousarray(dy), full_scale, call)
    with crossbar.group.lock:
        before = crossbar.ranges
        reading = read_encoded(layout, layout.backward, solved.matrices[0], held.buffers, before, sent, call)
        crossbar.keep_ranges(reading.ranges, before)
    result: Array = reading.result
    return result


def exact(
    crossbar: Crossbar, dy: Array, x: Array, held: Held, note: Note, *, need_x: bool = True
) -> tuple[Array | None, Array]:
    """Return dL/dx (None where it is not needed) and dL/ds: the derivative of the simulated read."""
    solved: Solved = crossbar.recalled(note.version, held, note.call.step)
    inputs, errors = split(x, crossbar.parts), split(dy, crossbar.parts)
    ranges = crossbar.ranges
    gradients = [
        exact_vjp(
            layout,
            solved.matrices[part],
            solved.requests[part].buffers,
            ranges,
            Residual(inputs[part], note.full_scale, note.current_scales[part], note.call),
            errors[part],
            solved.requests[part],
            need_dx=need_x,
        )
        for part, layout in enumerate(crossbar.layouts)
    ]
    dx = join([gradient.x for gradient in gradients]) if need_x else None
    return dx, join([gradient.state for gradient in gradients])
