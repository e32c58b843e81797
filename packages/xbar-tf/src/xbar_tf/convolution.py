"""Reads of a convolution on the host: arrays (batch, ..., channels).

`Convolution` is the read of `crossbar` mode. Forward: the DAC sends every pixel once; the currents of a row
tile are a native convolution of the voltages with the tile's rows as kernel. Backward: the errors drive the
columns, the row currents of every output place pass the ADC, then they are folded. `Unfolded` is that of
`exact` mode: a product of patches, whose derivative the engine knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from xbar_core import mapping
from xbar_core.engine import Call, Encoded, Layout, Ranges, ReadPlan, decode, decode_folded, encode
from xbar_core.engine.parts import read_parts
from xbar_core.engine.patches import Geometry, fold, unfold
from xbar_core.engine.pulses import Pulses
from xbar_core.engine.ranges import measures, settle
from xbar_tf import reads
from xbar_tf._bridge import Array, host
from xbar_tf.crossbar import Crossbar, Held, Solved
from xbar_tf.reads import Note

Currents = Callable[[], Iterable[Array]]
MASKED = 4
"""Row tiles that one convolution with masked kernels serves at once; more of them multiply too many zeros."""


def is_plain(layout: Layout) -> bool:
    """Return whether all converters are alike and free of noise, so that currents may come in any shape."""
    adc = layout.chip.adc
    errors = adc.gain_error or adc.offset_error or adc.noise
    return not (errors or layout.current_noise or layout.code.kind == "offset")


class Unfolded:
    """A convolution as a product of patches.

    Parameters
    ----------
    crossbar : Crossbar
        The weight.
    geometry : Geometry
        The convolution.
    """

    def __init__(self, crossbar: Crossbar, geometry: Geometry) -> None:
        self.crossbar, self.geometry = crossbar, geometry

    def forward(
        self, crossbar: Crossbar, x: Array, held: Held, *, training: bool, first: int, backward: bool
    ) -> tuple[Array, Array, Note]:
        """Return the convolution, x itself, and the call's note."""
        patches = unfold(x, self.geometry)
        y, _, note = reads.forward(crossbar, patches, held, training=training, first=first, backward=backward)
        size = self.geometry.output(x.shape[1:-1])
        return y.reshape(x.shape[0], *size, -1), x, note

    def exact(
        self, crossbar: Crossbar, dy: Array, x: Array, held: Held, note: Note, *, need_x: bool = True
    ) -> tuple[Array | None, Array]:
        """Return dL/dx and dL/ds."""
        errors = dy.reshape(dy.shape[0], -1, dy.shape[-1])
        patches = unfold(x, self.geometry)
        dx, state_bar = reads.exact(crossbar, errors, patches, held, note, need_x=need_x)
        return None if dx is None else fold(dx, self.geometry, x.shape[1:-1]), state_bar


class Convolution:
    """A convolution in `crossbar` mode.

    Parameters
    ----------
    crossbar : Crossbar
        The weight, one array set for every group.
    geometry : Geometry
        The convolution. Zeros around the input are left out of the DAC where that changes nothing.
    """

    def __init__(self, crossbar: Crossbar, geometry: Geometry) -> None:
        self.crossbar, self.whole = crossbar, geometry
        curve = crossbar.chip.input.nonlinearity
        inside = geometry.symmetric and (curve is None or hasattr(curve, "coefficients"))
        self.outside = geometry.unpadded if inside else geometry
        self.geometry = geometry if inside else geometry.unpadded
        self.plain = is_plain(crossbar.layout)
        flat = len(geometry.kernel) == 2 and geometry.groups == 1
        self.native = flat and set(geometry.dilation) == {1}
        self.folds = flat

    def _padded(self, x: Array) -> Array:
        return self.outside.pad(x) if self.outside is self.whole else x

    # Forward.

    def forward(
        self, crossbar: Crossbar, x: Array, held: Held, *, training: bool, first: int, backward: bool
    ) -> tuple[Array, Array, Note]:
        """Return the convolution, the words that were sent, and the call's note."""
        crossbar.require_finite(x, "input", held)
        solved = crossbar.solved(held, training, backward)
        layout, call = crossbar.layout, reads.call_of(held, training, first)
        plan, padded = layout.forward, np.ascontiguousarray(self._padded(x))
        with crossbar.group.lock:
            before = ranges = crossbar.ranges
            full_scale: Any = 1.0
            if plan.converts_input:
                full_scale, ranges = settle(ranges, plan.input_range, plan.input_rule, [padded], call)
            sent = encode_image(layout, plan, padded, full_scale, call)
            size = self.geometry.output(padded.shape[1:-1])
            if self.plain:
                y, ranges = self._plain(solved, held, sent, ranges, call, size)
            else:
                y, ranges = self._each(
                    plan, solved, held, sent, lambda v: unfold(v, self.geometry), ranges, call
                )
            crossbar.keep_ranges(ranges, before)
        note = Note(solved.version, call, full_scale, (1.0,) * crossbar.parts)
        words = x if reads.keeps_inputs(layout) else sent.value
        return y.reshape(x.shape[0], *size, -1), words, note

    def _plain(
        self, solved: Solved, held: Held, sent: Encoded, ranges: Ranges, call: Call, size: tuple[int, ...]
    ) -> tuple[Array, Ranges]:
        """Return the forward read by one convolution, or product of patches, for every tile."""
        layout = self.crossbar.layout
        batch, outputs = sent.value.shape[0], layout.outputs * self.crossbar.parts
        like = np.empty((batch * math.prod(size), outputs), sent.value.dtype)
        currents = (
            self._convolved(solved, sent) if self.native else self._multiplied(solved, sent, like.shape)
        )
        partials, scale, ranges = settled(layout, layout.forward, ranges, currents, call)
        worth = sent.full_scale * held.buffers["w_max"]
        return decode(layout, layout.forward, partials, scale, like, scale=worth), ranges

    def _convolved(self, solved: Solved, sent: Encoded) -> Currents:
        if "kernels" not in solved.derived:
            solved.derived["kernels"] = _kernels(self.crossbar.layout.forward, solved, self.geometry)
        outputs = self.crossbar.layout.outputs

        def currents() -> Iterator[Array]:
            for volts in sent.voltages:
                whole = tf.constant(volts)
                for first, last, kernel in solved.derived["kernels"]:
                    part = whole if last - first == volts.shape[-1] else whole[..., first:last]
                    found = host(_conv2d(part, kernel, self.geometry))
                    tiles = found.shape[-1] // outputs
                    yield found.reshape(-1, outputs) if tiles == 1 else found.reshape(-1, tiles, outputs)

        return currents

    def _multiplied(self, solved: Solved, sent: Encoded, shape: tuple[int, ...]) -> Currents:
        parts, bounds = self.crossbar.parts, self.crossbar.layout.forward.bounds
        stacked = np.stack([each.forward for each in solved.matrices], axis=1)

        def currents() -> Iterator[Array]:
            for volts in sent.voltages:
                patches = _grouped(unfold(volts, self.geometry), parts)
                for plane in stacked:
                    for start, stop in bounds:
                        yield _ungrouped(patches[..., start:stop] @ plane[:, start:stop]).reshape(shape)

        return currents

    # Backward.

    def state_gradient(
        self, crossbar: Crossbar, dy: Array, full_scale: Any, kept: Array, held: Held, note: Note
    ) -> Array:
        """Return dL/ds."""
        layout, dy = crossbar.layout, np.ascontiguousarray(dy)
        sent = encode_image(layout, layout.backward, dy, full_scale, note.call)
        inputs = self._padded(kept) if reads.keeps_inputs(layout) else kept
        full = crossbar.chip.update.gradient == "full"
        errors, unit = (dy, 1.0) if full else (sent.value, note.full_scale * sent.full_scale)
        gradient = self._weight_gradient(inputs, errors) * unit
        if crossbar.chip.update.pulsed:
            scales = (1.0, 1.0) if full else (note.full_scale, sent.full_scale)
            self._keep_pulses(inputs * scales[0], errors * scales[1], held, note)
        found: Array = mapping.state_gradient(layout.code, gradient, float(held.buffers["w_max"]))
        return found

    def _weight_gradient(self, inputs: Array, errors: Array) -> Array:
        """Return the digital outer product (in, out) of the patches of `inputs` and of `errors`."""
        geometry, channels = self.geometry, inputs.shape[-1]
        if self.native:
            # Zeros around it are laid first: with an explicit padding TensorFlow takes 15 times as long.
            kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=tf.constant(geometry.pad(inputs)),
                filter_sizes=tf.constant((*geometry.kernel, channels, errors.shape[-1])),
                out_backprop=tf.constant(errors),
                strides=(1, *geometry.stride, 1),
                padding="VALID",
            )
            return np.moveaxis(host(kernel), 2, 0).reshape(channels * geometry.cells, -1)
        parts = self.crossbar.parts
        patches = _grouped(unfold(inputs, geometry), parts)
        products = np.matrix_transpose(patches) @ _grouped(errors, parts)
        return _ungrouped(products)

    def _keep_pulses(self, inputs: Array, errors: Array, held: Held, note: Note) -> None:
        parts = self.crossbar.parts
        patches = reads.split(unfold(inputs, self.geometry), parts)
        places = reads.split(errors.reshape(errors.shape[0], -1, errors.shape[-1]), parts)
        for part, (x, dy) in enumerate(zip(patches, places, strict=True)):
            self.crossbar.keep_pulses(Pulses(part, x, dy, note.call), held.state)

    def transposed(
        self,
        crossbar: Crossbar,
        dy: Array,
        full_scale: Any,
        held: Held,
        note: Note,
        size: tuple[int, ...],
    ) -> Array:
        """Return dL/dx: the transposed read of every output place, folded."""
        layout, call, plan = crossbar.layout, note.call, crossbar.layout.backward
        solved = crossbar.recalled(note.version, held, call.step, backward=True)
        sent = encode_image(layout, plan, np.ascontiguousarray(dy), full_scale, call)
        outside = self.outside.padding if self.outside is self.whole else ()
        if outside:
            size = tuple(n + before + behind for n, (before, behind) in zip(size, outside, strict=True))
        with crossbar.group.lock:
            before = crossbar.ranges
            if self.plain:
                dx, ranges = self._plain_back(solved, held, sent, before, call, size)
            else:
                columns, ranges = self._each(
                    plan, solved, held, sent, lambda v: v.reshape(v.shape[0], -1, v.shape[-1]), before, call
                )
                dx = fold(columns, self.geometry, size)
            crossbar.keep_ranges(ranges, before)
        return np.ascontiguousarray(self.outside.crop(dx)) if outside else dx

    def _plain_back(
        self, solved: Solved, held: Held, sent: Encoded, ranges: Ranges, call: Call, size: tuple[int, ...]
    ) -> tuple[Array, Ranges]:
        layout, plan = self.crossbar.layout, self.crossbar.layout.backward
        worth = sent.full_scale * held.buffers["w_max"]
        batch, geometry = sent.value.shape[0], self.geometry
        if self.folds:
            rows = self._row_currents(solved, sent)
            partials, scale, ranges = settled(layout, plan, ranges, rows, call)
            image = np.empty((batch, layout.inputs // geometry.cells, *size), sent.value.dtype)
            pads = (before for before, _ in geometry.padding)
            shape = list(zip(geometry.stride, pads, geometry.dilation, strict=True))
            folded = decode_folded(layout, plan, partials, scale, image, shape, scale=worth)
            if folded is not None:
                return np.ascontiguousarray(np.moveaxis(folded, 1, -1)), ranges
            currents = self._columns(solved, sent)
            partials = currents()
        else:
            currents = self._columns(solved, sent)
            partials, scale, ranges = settled(layout, plan, ranges, currents, call)
        lines = layout.inputs * self.crossbar.parts
        like = np.empty((batch, sent.value[0, ..., 0].size, lines), sent.value.dtype)
        decoded = decode(layout, plan, partials, scale, like, scale=worth)
        return fold(decoded, geometry, size), ranges

    def _row_currents(self, solved: Solved, sent: Encoded) -> Currents:
        """Return row currents as (batch, channels, kernel, places), which one kernel converts and folds."""
        matrices = np.ascontiguousarray(np.matrix_transpose(solved.matrices[0].backward))
        batch, *places, outputs = sent.value.shape

        def currents() -> Iterator[Array]:
            for volts in sent.voltages:
                errors = np.ascontiguousarray(np.moveaxis(volts.reshape(batch, -1, outputs), -1, 1))
                for plane in matrices:
                    for start, stop in self.crossbar.layout.backward.bounds:
                        current = plane[:, start:stop] @ errors[:, start:stop]
                        yield current.reshape(batch, -1, *self.geometry.kernel, *places)

        return currents

    def _columns(self, solved: Solved, sent: Encoded) -> Currents:
        """Return row currents as (batch, places, lines of all groups)."""
        parts, batch = self.crossbar.parts, sent.value.shape[0]
        stacked = np.stack([each.backward for each in solved.matrices], axis=1)

        def currents() -> Iterator[Array]:
            for volts in sent.voltages:
                errors = _grouped(volts, parts)
                for plane in stacked:
                    for start, stop in self.crossbar.layout.backward.bounds:
                        lines = _ungrouped(errors[..., start:stop] @ plane[:, start:stop])
                        yield lines.reshape(batch, -1, lines.shape[-1])

        return currents

    # Through the engine's own products: noise, and converters that differ from one another.

    def _each(
        self,
        plan: ReadPlan,
        solved: Solved,
        held: Held,
        sent: Encoded,
        shaped: Callable[[Array], Array],
        ranges: Ranges,
        call: Call,
    ) -> tuple[Array, Ranges]:
        """Return the read (batch, places, lines of all groups) of words and voltages brought into shape."""
        crossbar = self.crossbar
        parts = range(crossbar.parts)
        values = reads.split(shaped(sent.value), crossbar.parts)
        volts = [reads.split(shaped(each), crossbar.parts) for each in sent.voltages]
        numbers = [Encoded(values[k], tuple(v[k] for v in volts), sent.full_scale) for k in parts]
        buffers = [crossbar.parts_of(held.buffers, part) for part in parts]
        readings, ranges = read_parts(crossbar.layouts, plan, solved.matrices, buffers, ranges, numbers, call)
        return reads.join([reading.result for reading in readings]), ranges


def encode_image(layout: Layout, plan: ReadPlan, x: Array, full_scale: Any, call: Call) -> Encoded:
    """Return numbers (batch, ..., channels) as words and voltages; draws count channels first."""
    precision = layout.chip.precision
    if precision is None or precision.rounding == "nearest":
        return encode(layout, plan, x, full_scale, call)
    sent = encode(layout, plan, np.ascontiguousarray(np.moveaxis(x, -1, 1)), full_scale, call)
    value, *volts = (np.ascontiguousarray(np.moveaxis(v, 1, -1)) for v in (sent.value, *sent.voltages))
    return Encoded(value, tuple(volts), sent.full_scale)


def settled(
    layout: Layout, plan: ReadPlan, ranges: Ranges, currents: Currents, call: Call
) -> tuple[Iterable[Array], Any, Ranges]:
    """Return the currents, the full scale of their converters and the ranges after."""
    if not plan.converts_current:
        return currents(), 1.0, ranges
    name, rule = plan.current_range, plan.current_rule
    values: list[Array] = list(currents()) if measures(ranges, name, rule, call) else []
    scale, ranges = settle(ranges, name, rule, values, call, layout.current_unit)
    return values or currents(), scale, ranges


def _conv2d(x: tf.Tensor, kernel: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """Return TensorFlow's convolution of this shape."""
    pads = [0, 0, *(side for sides in geometry.padding for side in sides), 0, 0]
    return tf.raw_ops.Conv2D(
        input=x,
        filter=kernel,
        strides=(1, *geometry.stride, 1),
        padding="EXPLICIT" if any(pads) else "VALID",
        explicit_paddings=pads if any(pads) else [],
    )


def _kernels(plan: ReadPlan, solved: Solved, geometry: Geometry) -> list[tuple[int, int, tf.Tensor]]:
    """Return (first channel, last channel, kernel) of every convolution of a phase of the voltages.

    The outputs of a kernel are those of a row tile, or where tiles are few of all tiles, one after the other.
    """
    cells, kernels = geometry.cells, []
    bounds = [plan.bounds] if len(plan.bounds) <= MASKED else [(tile,) for tile in plan.bounds]
    for plane in solved.matrices[0].forward:
        for tiles in bounds:
            first, last = tiles[0][0] // cells, -(-tiles[-1][1] // cells)
            rows = np.zeros(((last - first) * cells, len(tiles), plane.shape[1]), plane.dtype)
            for tile, (start, stop) in enumerate(tiles):
                rows[start - first * cells : stop - first * cells, tile] = plane[start:stop]
            kernel = np.moveaxis(rows.reshape(last - first, *geometry.kernel, -1), 0, -2)
            kernels.append((first, last, tf.constant(np.ascontiguousarray(kernel))))
    return kernels


def _grouped(values: Array, parts: int) -> Array:
    """Return values (batch, ..., lines of all groups) as (groups, batch x places, lines of one)."""
    return np.moveaxis(values.reshape(-1, parts, values.shape[-1] // parts), 1, 0)


def _ungrouped(values: Array) -> Array:
    """Return (groups, n, lines) as (n, lines of all groups), contiguous."""
    return np.ascontiguousarray(np.moveaxis(values, 0, 1)).reshape(values.shape[1], -1)
