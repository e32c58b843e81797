"""The products of a crossbar weight as differentiable functions of tensors.

Two roads. Where nothing happens between numbers and currents (no converter, no noise) a read is one matrix
product: `effective_weight` returns the matrix as a tensor, and TensorFlow's own ``matmul`` and convolutions
do the rest at their own speed. Elsewhere the engine's forward and backward are registered as one function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from xbar_core import mapping
from xbar_core.config import DynamicRange
from xbar_core.engine import Request
from xbar_core.engine.array_sets import is_product
from xbar_core.engine.matrices import is_ideal
from xbar_core.engine.matrices_vjp import matrices_vjp
from xbar_core.engine.patches import Geometry
from xbar_tf import convolution, reads
from xbar_tf._bridge import Array, host, host_call, to_analog, wants_gradient
from xbar_tf.crossbar import Crossbar, Held
from xbar_tf.reads import Note

Shape = Any  # a sequence of int, or None where a graph does not know

__all__ = ["crossbar_convolution", "crossbar_linear", "effective_weight", "finite", "is_product"]


def effective_weight(crossbar: Crossbar, training: bool) -> tf.Tensor:
    """Return the matrix (in, out) that a read multiplies by, in weight units (see `is_product`)."""
    state = tf.convert_to_tensor(crossbar.state.value)
    if is_ideal(Request(crossbar.layout, {}, None)):
        weight = _ideal_weight(crossbar, state)
    else:
        weight = _solved_weight(crossbar, state, training)
    crossbar.count_call(training, weight)
    return weight


def _ideal_weight(crossbar: Crossbar, state: tf.Tensor) -> tf.Tensor:
    """Return the weights as TensorFlow computes them; states beyond [0, 1] are read as their ends."""
    # Read here: where a loop of a graph goes backward nobody may touch variables.
    w_max = tf.convert_to_tensor(crossbar.w_max.value)

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def decoded(state: tf.Tensor) -> Any:
        ratio = mapping.decode(crossbar.layout.code, tf.clip_by_value(state, 0.0, 1.0), 1.0)
        return ratio * w_max, lambda bar: crossbar.state_gradient(bar, w_max)

    return decoded(state)


def finite(x: tf.Tensor, crossbar: Crossbar) -> tf.Tensor:
    """Return an input that TensorFlow multiplies by itself; raise where it holds NaN or infinity.

    A graph checks without a call on the host, and so cannot say which call it was.
    """
    if tf.executing_eagerly():
        crossbar.require_finite(host(x), "input", crossbar.present())
        return x
    with tf.control_dependencies([tf.debugging.check_numerics(x, f"layer {crossbar.name!r}, input")]):
        return tf.identity(x)


def _solved_weight(crossbar: Crossbar, state: tf.Tensor, training: bool) -> tf.Tensor:
    inputs, w_max = crossbar.tensors(), tf.convert_to_tensor(crossbar.w_max.value)
    spec = tf.TensorSpec(state.shape[1:], state.dtype)
    kept = tf.TensorSpec((2,), "int64")

    def matrix(*arrays: Array) -> list[Array]:
        held = crossbar.held(arrays)
        solved = crossbar.solved(held, training)
        blocks = [each.forward[0] for each in solved.matrices]
        return [reads.join(blocks) * held.buffers["w_max"], np.array([solved.version, held.step(training)])]

    def derivative(bar: Array, kept: Array, *arrays: Array) -> list[Array]:
        held = crossbar.held(arrays)
        if not crossbar.sends(bar, "weight gradient", held):
            return [np.full_like(held.state, np.nan)]
        solved = crossbar.recalled(int(kept[0]), held, int(kept[1]))
        bar = bar * held.buffers["w_max"]
        parts = [
            matrices_vjp(request, each.references[0], bar[None, :, crossbar.columns(part)])
            for part, (request, each) in enumerate(zip(solved.requests, solved.matrices, strict=True))
        ]
        return [reads.join(parts)]

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def solved_weight(state: tf.Tensor) -> Any:
        weight, note = host_call(matrix, inputs, [spec], [kept])

        def gradient(bar: tf.Tensor) -> tf.Tensor:
            if crossbar.crossbar_mode:
                return crossbar.state_gradient(bar, w_max)
            whole = tf.TensorSpec(state.shape, state.dtype)
            (result,) = host_call(derivative, [bar, note, *inputs], [whole], stateful=False)
            return result

        return weight, gradient

    return solved_weight(state)


def crossbar_linear(x: Any, crossbar: Crossbar, training: bool = False) -> tf.Tensor:
    """Return ``x @ W`` as the chip computes it, in the dtype of the states.

    Parameters
    ----------
    x : Tensor (batch, ..., in)
        Activations.
    crossbar : Crossbar
        The weight, of one array set.
    training : bool
        Whether the call trains: it keys the draws, and tracked ranges learn.

    Returns
    -------
    Tensor (batch, ..., out)
    """
    x = to_analog(x, crossbar.dtype)
    if is_product(crossbar):
        weight, x = effective_weight(crossbar, training), finite(x, crossbar)
        return tf.matmul(x, weight) if len(x.shape) == 2 else tf.tensordot(x, weight, 1)
    y = _registered(_Product(crossbar), x, lambda shape: (*shape[:-1], crossbar.layout.outputs), training)
    crossbar.count_call(training, y)
    return y


def crossbar_convolution(x: Any, crossbar: Crossbar, geometry: Geometry, training: bool = False) -> tf.Tensor:
    """Return a convolution as the chip computes it, in the dtype of the states, without a bias.

    For chips on which a read is more than a product (see `is_product`).

    Parameters
    ----------
    x : Tensor (batch, ..., channels)
        Activations; the DAC sends every pixel once.
    crossbar : Crossbar
        The weight (channels / groups x kernel cells, out), one array set for every group.
    geometry : Geometry
        Kernel, stride, padding, dilation, groups.
    training : bool
        Whether the call trains.

    Returns
    -------
    Tensor (batch, ..., out)
    """
    x = to_analog(x, crossbar.dtype)

    def shape_of(shape: Shape) -> Shape:
        size: Shape = shape[1:-1]
        size = (None,) * len(size) if None in size else geometry.output(size)
        return (shape[0], *size, crossbar.layout.outputs * crossbar.parts)

    kind = convolution.Convolution if crossbar.crossbar_mode else convolution.Unfolded
    y = _registered(kind(crossbar, geometry), x, shape_of, training)
    crossbar.count_call(training, y)
    return y


class _Product:
    """``x @ W`` on the host; what `_registered` wants of a read."""

    def __init__(self, crossbar: Crossbar) -> None:
        self.crossbar = crossbar

    forward = staticmethod(reads.forward)
    state_gradient = staticmethod(reads.state_gradient)
    transposed = staticmethod(reads.transposed)
    exact = staticmethod(reads.exact)


def _registered(read: Any, x: tf.Tensor, shape_of: Callable[[Shape], Shape], training: bool) -> tf.Tensor:
    """Return a read of x, of the shape that `shape_of` gives, with its backward pass in the chip's mode.

    In a graph nobody knows whether dL/dx will be asked for: it is a node of its own, which runs only if so.
    The gradient of the states is another one: errors go on to the layers before while it is computed.
    """
    crossbar: Crossbar = read.crossbar
    inputs, backward, first = crossbar.tensors(), wants_gradient(x), crossbar.first_sample(x)
    dtype, number = x.dtype, x.dtype.as_numpy_dtype
    keeps_x = reads.keeps_inputs(crossbar.layout)
    # Without a tape (eagerly) no matrices of the backward read are wanted; in a graph, once they have been.
    asked = backward and tf.executing_eagerly()
    target = crossbar.target(inputs)

    def ahead(x: Array, first: Array, *arrays: Array) -> list[Array]:
        held = crossbar.held(arrays)
        crossbar.begin_pulses()
        if x.size == 0:
            y, words, note = np.zeros(shape_of(x.shape), number), x, reads.unread(crossbar, held, training)
        else:
            y, words, note = read.forward(
                crossbar, x, held, training=training, first=int(first), backward=asked
            )
        return [y, note.pack()] if keeps_x else [y, note.pack(), words]

    def settled(dy: Array, note: Array) -> list[Array]:
        scale = reads.error_scale(crossbar, dy, Note.unpack(note, number))
        return [np.array(reads._scale(scale), np.float64)]

    def unsent(dy: Array, held: Held) -> float | None:
        """Return what gradients are where no errors can be sent, or None."""
        if dy.size == 0:
            return 0.0
        return None if crossbar.sends(dy, "gradient of the output", held) else math.nan

    def errors(dy: Array, scale: Array, kept: Array, note: Array, *arrays: Array) -> list[Array]:
        held, full_scale = crossbar.held(arrays), reads._unscale(scale[0], scale[1], number)
        if (given := unsent(dy, held)) is not None:
            return [np.full(target.shape, given, number)]
        return [read.state_gradient(crossbar, dy, full_scale, kept, held, Note.unpack(note, number))]

    def back(dy: Array, scale: Array, size: Array, note: Array, *arrays: Array) -> list[Array]:
        held, full_scale = crossbar.held(arrays), reads._unscale(scale[0], scale[1], number)
        if (given := unsent(dy, held)) is not None:
            return [np.full(size, given, number)]
        return [read.transposed(crossbar, dy, full_scale, held, Note.unpack(note, number), *_size(size))]

    def derivative(dy: Array, x: Array, note: Array, *arrays: Array) -> list[Array]:
        held = crossbar.held(arrays)
        if (given := unsent(dy, held)) is not None:
            return [np.full_like(held.state, given), np.full_like(x, given)][: 1 + backward]
        dx, state_bar = read.exact(crossbar, dy, x, held, Note.unpack(note, number), need_x=backward)
        return [state_bar] if dx is None else [state_bar, dx]

    def _size(size: Array) -> tuple[Any, ...]:
        return () if isinstance(read, _Product) else (tuple(int(n) for n in size[1:-1]),)

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def product(state: tf.Tensor, *of_x: tf.Tensor) -> Any:
        kept_specs = [tf.TensorSpec((reads.note_size(crossbar.parts),), "float64")]
        if not keeps_x:
            kept_specs.append(tf.TensorSpec(None, dtype))
        y, note, *words = host_call(
            ahead, [x, first, *inputs], [tf.TensorSpec(shape_of(x.shape), dtype)], kept_specs
        )
        kept = words[0] if words else x

        def gradient(dy: tf.Tensor) -> list[tf.Tensor]:
            state_spec, x_spec = tf.TensorSpec(state.shape, dtype), tf.TensorSpec(x.shape, dtype)
            if not crossbar.crossbar_mode:
                specs = [state_spec, x_spec] if backward else [state_spec]
                return host_call(derivative, [dy, x, note, *inputs], specs, stateful=False)
            plan, eager = crossbar.layout.backward, tf.executing_eagerly()
            if plan.converts_input and isinstance(plan.input_rule, DynamicRange) and not eager:
                # Looked at by TensorFlow: nothing is learned, and a call on the host takes longer.
                largest = tf.maximum(tf.reduce_max(dy), -tf.reduce_min(dy))
                scale = tf.stack([tf.cast(largest, "float64"), tf.constant(1.0, "float64")])
            else:
                (scale,) = host_call(settled, [dy, note], [], [tf.TensorSpec((2,), "float64")])
            (state_bar,) = host_call(errors, [dy, scale, kept, note, *inputs], [state_spec])
            if not backward:
                return [state_bar]
            if crossbar.in_order and not eager:
                with tf.control_dependencies([state_bar]):
                    scale = tf.identity(scale)
            (dx,) = host_call(back, [dy, scale, tf.shape(x), note, *inputs], [x_spec], stateful=False)
            return [state_bar, dx]

        return y, gradient

    return product(target, *([x] if backward else []))
