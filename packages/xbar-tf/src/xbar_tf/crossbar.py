"""One crossbar weight of a layer: its arrays in the layer, its matrices, its counters.

The contract inside the package
-------------------------------
- A layer with crossbar weights is a `xbar_tf.host.CrossbarLayer`. In ``build`` it calls
  ``self.add_crossbar(suffix, weight, ...)`` with a NumPy weight (in, out) and gets a `Crossbar`. That makes
  Keras weights of the layer: ``state<suffix>`` (devices, in, out), trainable, and not trainable
  ``w_max<suffix>`` and the engine's other buffers, ``ranges<suffix>`` (4, 2), ``counters<suffix>`` (5,)
  and, for the interpolated circuit model, ``references<suffix>``. Rows and columns stand as in
  `xbar_torch` (a convolution's rows: channels, then kernel cells), so that both frameworks have one chip.
- **Keras weights are the truth.** Nothing of what is saved lives in Python: weights files, ``.keras``,
  ``set_weights`` and checkpoints carry everything and need no hook. Matrices are kept beside a copy of the
  state and the buffers that they were made of and are computed anew where those differ.
- **What runs where.** States, counters and buffers are tensors that every call reads (`Crossbar.tensors`)
  and hands to a function of NumPy arrays (`_bridge.host_call`), the same eagerly and in a graph. Ranges are
  read and written inside that function, under the group's lock: `Crossbar.ranges`, `Crossbar.keep_ranges`.
  The counter of calls is advanced outside, by `Crossbar.count_call`, once per call.
- In a graph nobody knows whether dL/dx will be wanted: the transposed read is a node without state, which
  TensorFlow leaves out where nobody takes its result. Matrices of the backward read are solved for once a
  backward read has been made.
- `functional.crossbar_linear(x, crossbar, training)` is ``x @ W`` with both backward modes; it may be called
  any number of times per step (time steps, tied weights). Biases are added by the layer, digitally.
- The gradient of ``state`` is dL/ds: in `crossbar` mode ``mapping.state_gradient`` of dL/dw, in `exact` mode
  the derivative. `Crossbar.weight_gradient` returns dL/dw from it, after whatever clipped or scaled it.
- An optimizer finds the handle of a Keras weight as ``variable.crossbar`` (other weights have no such
  attribute) and writes by `Crossbar.write(step, rate)`, in weight units, eagerly or in a graph. States have a
  constraint that puts them back into [0, 1] after a step of any other Keras optimizer. `pulses` (on the host)
  holds the x and dy of backward passes where the chip's update encoding wants them, `accumulated` those of
  gradients that an optimizer has set aside for a later write. Whether a step is made is decided elsewhere
  (Keras leaves out those that overflow), so `xbar_tf.pulses` looks for the ones that a gradient is made of.
- `host.crossbars_of(model)` finds the handles of a model, `group.link` has their matrices computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from xbar_core import mapping
from xbar_core.devices.faults import HEALTHY
from xbar_core.engine import Encoded, Residual, conductances, weight_gradient, weights
from xbar_core.engine.array_sets import update_parts
from xbar_core.engine.pulses import Pulses
from xbar_core.errors import ShapeError
from xbar_tf._bridge import Array, host_call, is_finite
from xbar_tf.parallel import first_sample
from xbar_tf.stored import COUNTERS, Held, Solved, StoredWeight

__all__ = ["COUNTERS", "Crossbar", "Held", "Pulses", "Solved"]


class Crossbar(StoredWeight):
    """Handle to one crossbar weight; the arrays themselves are Keras weights of its layer.

    It is made from what `StoredWeight` takes.
    """

    def forget(self) -> None:
        """Drop everything that is computed from the states."""
        super().forget()
        self.drop_pulses()

    def drop_pulses(self) -> None:
        """Drop the pulses of all backward passes."""
        self.pulses: list[list[Pulses]] = []
        self.accumulated: list[Pulses] = []
        self._pulsed: Array | None = None

    # Looking.

    def weight(self) -> tf.Tensor:
        """Return the weights (in, out) that the states stand for; differentiable in the states."""
        code, inputs, faults = self.layout.code, self.tensors(), self.variables.get("faults")
        # Read here: where a loop of a graph goes backward nobody may touch variables.
        w_max = tf.convert_to_tensor(self.w_max.value)
        healthy = None if faults is None else self._healthy(tf.convert_to_tensor(faults.value))

        @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
        def decoded(state: tf.Tensor) -> Any:
            if healthy is None:
                value = mapping.decode(code, tf.clip_by_value(state, 0.0, 1.0), w_max)
            else:
                shape = tf.TensorSpec(state.shape[1:], state.dtype)
                (value,) = host_call(self._weight, inputs, [shape], stateful=False)

            def gradient(bar: tf.Tensor) -> tf.Tensor:
                state_bar = self.state_gradient(bar, w_max)
                return state_bar if healthy is None else tf.where(healthy, state_bar, 0)

            return value, gradient

        return decoded(tf.convert_to_tensor(self.state.value))

    def _healthy(self, faults: tf.Tensor) -> tf.Tensor:
        if self.parts > 1:
            faults = tf.concat(tf.unstack(faults), axis=-1)
        return tf.equal(faults, tf.cast(HEALTHY, faults.dtype))

    def _weight(self, *arrays: Array) -> list[Array]:
        held = self.held(arrays)
        blocks = [
            weights(layout, state, self.parts_of(held.buffers, part))
            for part, (layout, state) in enumerate(zip(self.layouts, self.states(held.state), strict=True))
        ]
        return [np.concatenate(blocks, axis=-1)]

    def conductances(self) -> Array:
        """Return the conductances (devices, in, out), siemens, with variation, faults and drift."""
        held = self.present()
        blocks = [
            conductances(layout, values, self.parts_of(held.buffers, part), self.time, int(held.counters[0]))
            for part, (layout, values) in enumerate(zip(self.layouts, self.states(held.state), strict=True))
        ]
        return np.concatenate(blocks, axis=-1)

    # Training.

    def first_sample(self, x: tf.Tensor) -> tf.Tensor:
        """Return the index of a call's first sample in the global batch."""
        return first_sample(x)

    def target(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return what the gradient of a call flows to, of the tensors that the call reads."""
        return tensors[0]

    @property
    def in_order(self) -> bool:
        """Whether the gradients of several calls are wanted in the order in which errors come back."""
        return self.chip.update.pulsed

    def sends(self, errors: Array, what: str, held: Held) -> bool:
        """Return whether errors can go backward; NaN and infinity raise one clear line.

        In half precision they do not: Keras tries out the scale of the loss. There they go on as NaN, so that
        the step is skipped.
        """
        if is_finite(errors):
            return True
        if self.owner.compute_dtype != "float16":
            self.require_finite(errors, what, held)
        return False

    def call_gradient(self, residual: Residual, sent: Encoded, dy: Array, held: Held) -> Array:
        """Return the gradient of the target that one call of a linear layer leaves, ``crossbar`` mode."""
        bar = weight_gradient(self.layout, residual, sent, dy)
        found: Array = mapping.state_gradient(self.layout.code, bar, float(held.buffers["w_max"]))
        return found

    def state_gradient(self, weight_bar: tf.Tensor, w_max: tf.Tensor) -> tf.Tensor:
        """Return dL/ds (devices, in, out) from dL/dw (in, out), by the ideal mapping."""
        return tf.stack([(gain * w_max) * weight_bar for gain in self.layout.code.gains])

    def weight_gradient(self, bar: tf.Tensor) -> tf.Tensor:
        """Return dL/dw (in, out) from dL/ds, the gradient of ``state`` (`mapping.weight_gradient`)."""
        return mapping.weight_gradient(self.layout.code, bar, tf.convert_to_tensor(self.w_max.value))

    def write(self, step: Any, rate: Any = 1.0, native: float | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Write an optimizer's step: w moves towards ``w + rate step``; eagerly or in a graph.

        Parameters
        ----------
        step : Tensor (in, out)
            The step without the rate, in weight units: minus the velocity of plain or momentum SGD.
        rate : float or 0-d Tensor
            Learning rate.
        native : float or None
            Native maximum of the weights, for ``update.scale.rule = "native"``.

        Returns
        -------
        tuple of 0-d int64 Tensor
            Devices asked to go beyond their range, and pairs that were refreshed.
        """
        if tuple(step.shape) != tuple(self.state.shape[1:]):
            raise ShapeError(f"step: shape {tuple(step.shape)} is not that of {tuple(self.state.shape[1:])}")

        def written(values: Array, rate: Array, *arrays: Array) -> list[Array]:
            return self.written(values, float(rate), native, arrays)

        # As a float32 tensor 0.1 would not be 0.1 for float64 states.
        exact = tf.cast(rate, "float64") if tf.is_tensor(rate) else tf.constant(float(rate), "float64")
        inputs = [step, exact, *self.all_tensors()]
        return self.take(host_call(written, inputs, self.write_specs()))

    def all_tensors(self) -> list[tf.Tensor]:
        """Return states, counters and all buffers as tensors: what a write needs."""
        names = ("state", "counters", *self.buffer_names)
        return [tf.convert_to_tensor(self.variables[name].value) for name in names]

    def write_specs(self) -> list[tf.TensorSpec]:
        """Return what a write computes: states, words where there are any, saturated, refreshed."""
        names = ("state", "words") if "words" in self.buffer_names else ("state",)
        specs = [tf.TensorSpec(self.variables[name].shape, self.variables[name].dtype) for name in names]
        return [*specs, tf.TensorSpec((), "int64"), tf.TensorSpec((), "int64")]

    def held_for_write(self, arrays: Sequence[Array]) -> Held:
        """Return what `all_tensors` are on the host."""
        return Held(arrays[0], arrays[1], dict(zip(self.buffer_names, arrays[2:], strict=True)))

    def written(self, step: Array, rate: float, native: float | None, arrays: Sequence[Array]) -> list[Array]:
        """Return what `write` computes, from `all_tensors` on the host, in the order of `write_specs`."""
        held = self.held_for_write(arrays)
        state, counters, buffers = held
        self.require_finite(step, "weight step", held)
        count = int(counters[2])
        done = update_parts(self.layouts, state, buffers, step, rate=rate, count=count, w_max=native)
        return self._stored(done.state, done.words, [done])

    def joined(self, results: Sequence[Any]) -> list[Array]:
        """Return the results of `pulse_update` of every array set as `write_specs` wants them."""
        words = None
        if results[0].words is not None:
            held = [result.words for result in results]
            words = held[0] if self.parts == 1 else np.stack(held)
        return self._stored(np.concatenate([result.state for result in results], axis=-1), words, results)

    def _stored(self, state: Array, words: Array | None, results: Sequence[Any]) -> list[Array]:
        self.drop_pulses()
        counts = [
            np.int64(sum(int(getattr(r, name)) for r in results)) for name in ("saturated", "refreshed")
        ]
        return [state, *([] if words is None else [words]), *map(np.asarray, counts)]

    def take(self, results: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Store what a write computed (`write_specs`) and count one update."""
        *values, saturated, refreshed = results
        for name, value in zip(("state", "words"), values, strict=False):
            self.variables[name].value.assign(value)
        self.count("updates", values)
        return saturated, refreshed

    # Pulses.

    def begin_pulses(self) -> None:
        """Begin a forward pass: the pulses that come from now on are not of the backward pass before it."""
        with self.group.lock:
            if self.pulses and self.pulses[-1]:
                self.pulses.append([])

    def keep_pulses(self, pulses: Pulses, state: Array) -> None:
        """Keep what a pulsed update of devices in `state` needs, until they are in another."""
        with self.group.lock:
            begins = not self.pulses or not self.pulses[-1]
            if begins and (self._pulsed is None or not np.array_equal(self._pulsed, state)):
                self.pulses, self._pulsed = [], state.copy()
            if not self.pulses:
                self.pulses.append([])
            self.pulses[-1].append(pulses)
