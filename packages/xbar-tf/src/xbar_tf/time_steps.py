"""Many calls of one crossbar weight in a time loop, as one read of the chip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xbar_core import mapping
from xbar_core.engine import Encoded, Ranges, Residual
from xbar_tf._bridge import Array, advance, host_call, is_finite
from xbar_tf.crossbar import COUNTERS, Crossbar, Held, Solved
from xbar_tf.functional import crossbar_linear, effective_weight, finite, is_product


class TimeSteps(Crossbar):
    """A crossbar weight for the length of one sequence.

    The matrices are computed before the first step and are the same in every step, conductances that are
    drawn for each batch included. Every step is a call of its own, so its noise is its own. What the
    forward converters learn of the sequence is one observation, the largest of its steps: a range that is
    averaged over the first batches is not filled by the steps of a few. (In the backward read every
    step counts.) In ``crossbar`` mode the outer products of all steps are one, after the last.

    Parameters
    ----------
    crossbar : Crossbar
        The weight. This object shares its attributes.
    training : bool
        Whether the calls train.
    backward : bool
        Whether a gradient of the hidden state will be asked for, as far as is known.

    Notes
    -----
    In a graph this object is made when the graph is; `begin` and `end` are nodes of it and mark a sequence
    whenever it runs. TensorFlow does not order such nodes and a loop of its own accord: the states pass
    through both. Variables are read before the loop and counters advanced behind it, because a strategy of
    several devices lets nobody touch them inside.

    Examples
    --------
    ::

        steps = TimeSteps(crossbar, training, backward)
        (h,) = steps.begin([h])
        for t in range(length):
            h = tf.tanh(x[:, t] + steps.product(h, t))
        (h,) = steps.end([h], length)
    """

    __slots__ = (
        "_asked",
        "_before",
        "_crossbar",
        "_first",
        "_learned",
        "_matrix",
        "_now",
        "_outer",
        "_read",
        "_samples",
        "_target",
        "_training",
    )

    def __init__(self, crossbar: Crossbar, training: bool, backward: bool) -> None:
        self.__dict__ = crossbar.__dict__
        self._crossbar, self._training, self._asked = crossbar, training, backward
        self._first: Solved | None = None
        self._learned: list[Ranges] | None = None
        self._matrix: tf.Tensor | None = None
        self._read: list[tf.Tensor] = []
        self._before = self._samples = tf.constant(0, "int64")
        self._now: Any = 0
        self._target: tf.Tensor | None = None
        self._outer: list[tuple[Array, Array]] = []

    def begin(self, states: list[tf.Tensor]) -> list[tf.Tensor]:
        """Begin a sequence; its steps start from the states that are returned."""
        if is_product(self):
            self._matrix = effective_weight(self._crossbar, self._training)
            return states if tf.executing_eagerly() else [finite(states[0], self), *states[1:]]
        # Inside of a loop replicas cannot tell each other what they have.
        self._before, self._samples = super().first_sample(states[0]), tf.shape(states[0], "int64")[0]
        self._read = super().tensors()
        self._target = self._joined(self._read[0]) if self.crossbar_mode else self._read[0]
        with tf.control_dependencies([_mark(self._begin)]):
            return [tf.identity(state) for state in states]

    def end(self, results: list[tf.Tensor], calls: Any) -> list[tf.Tensor]:
        """End a sequence of so many calls: its ranges are kept, before anything goes backward."""
        if self._matrix is not None:
            return results
        with tf.control_dependencies(results):
            advance(self.variables["counters"], self._counted(calls))
            mark = _mark(self._end)
        return [_after(mark, result) for result in results]

    def product(self, h: tf.Tensor, call: Any) -> tf.Tensor:
        """Return ``h @ W`` (batch, out), h (batch, in), in a call of the sequence: they count from 0."""
        if self._matrix is not None:
            h = tf.cast(h, self.dtype)
            return tf.matmul(finite(h, self) if tf.executing_eagerly() else h, self._matrix)
        self._now = call
        return crossbar_linear(h, self, self._training)

    def tensors(self) -> list[tf.Tensor]:
        """Return what the weight holds in a call."""
        state, counters, *buffers = self._read
        return [state, counters + self._counted(self._now), *buffers]

    def first_sample(self, x: tf.Tensor) -> tf.Tensor:
        """Return the index of a step's first sample; masks of several gates send each several times."""
        if tf.get_static_value(self._before) == 0:
            return self._before
        return self._before * (tf.shape(x, "int64")[0] // tf.maximum(self._samples, 1))

    def count_call(self, training: bool, after: tf.Tensor) -> None:
        """Leave it to `end`."""

    def target(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return what the gradient of a step flows to: in ``crossbar`` mode a number that joins the steps."""
        assert self._target is not None
        return self._target

    @property
    def in_order(self) -> bool:
        """Whether gradients are wanted in order: that of the factors of the sum that they become."""
        return True

    def call_gradient(self, residual: Residual, sent: Encoded, dy: Array, held: Held) -> Array:
        """Set copies of the factors of a step's outer product aside: memory of tensors is not kept."""
        if self.chip.update.gradient == "full":
            errors = dy.copy()
        else:
            errors = sent.value * (residual.full_scale * sent.full_scale)
        self._outer.append((residual.inputs.copy(), errors))
        return np.zeros((), errors.dtype)

    def _joined(self, state: tf.Tensor) -> tf.Tensor:
        """Return a number whose gradient is known when those of all steps are: then it is the state's."""

        def product(bar: Array, w_max: Array) -> list[Array]:
            kept, self._outer = self._outer, []
            if not kept or not is_finite(bar):  # steps without samples, or of half precision's NaN
                return [np.full(state.shape, bar)]
            x, dy = (np.concatenate(factors) for factors in zip(*kept, strict=True))
            return [mapping.state_gradient(self.layout.code, x.T @ dy, float(w_max))]

        w_max = tf.convert_to_tensor(self.w_max.value)

        @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
        def joined(state: tf.Tensor) -> Any:
            def gradient(bar: tf.Tensor) -> tf.Tensor:
                (found,) = host_call(product, [bar, w_max], [tf.TensorSpec(state.shape, state.dtype)])
                return found

            return tf.zeros((), state.dtype), gradient

        return joined(state)

    def _counted(self, calls: Any) -> tf.Tensor:
        """Return what so many calls add to the counters."""
        name = "calls" if self._training else "evaluations"
        return tf.cast(calls, "int64") * tf.constant([int(each == name) for each in COUNTERS], "int64")

    def _begin(self) -> None:
        self._first, self._learned, self._outer = None, [], []

    def _end(self) -> None:
        learned, self._learned = self._learned, None
        if learned:
            with self.group.lock:
                super().keep_ranges(Ranges.largest(learned), self.ranges)

    def solved(self, held: Held, training: bool, backward: bool = False) -> Solved:
        """Return the matrices of the sequence."""
        if self._first is None:
            self._first = self._crossbar.solved(held, training, backward or self._asked)
        return self._first

    def recalled(self, version: int, held: Held, step: int, backward: bool = False) -> Solved:
        """Return the matrices of the sequence for the backward pass of one of its steps."""
        assert self._first is not None
        first = self._first.held
        return self._crossbar.recalled(version, first, first.step(self._training), backward)

    def keep_ranges(self, ranges: Ranges, before: Ranges) -> None:
        """Set aside what a step of the forward pass has learned; keep what a backward read has."""
        if self._learned is None:
            super().keep_ranges(ranges, before)
        else:
            self._learned.append(ranges)


def _mark(function: Any) -> tf.Tensor:
    """Call a function now, or whenever the graph comes here."""

    def marked() -> list[Array]:
        function()
        return [np.zeros((), np.int64)]

    (mark,) = host_call(marked, [], [tf.TensorSpec((), "int64")])
    return mark


def _after(mark: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return values, and let their gradient go on, no sooner than a mark is set."""

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def passed(values: tf.Tensor) -> Any:
        def gradient(bar: tf.Tensor) -> tf.Tensor:
            with tf.control_dependencies([mark]):
                return tf.identity(bar)

        return tf.identity(values), gradient

    return passed(values)
