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
  and hands to a function of NumPy arrays (`_bridge.host_call`), the same eagerly and in a graph. Ranges are read
  and written inside that function, under the group's lock: `Crossbar.ranges`, `Crossbar.keep_ranges`. The
  counter of calls is advanced outside, by `Crossbar.count_call`, once per call.
- `functional.crossbar_linear(x, crossbar, training)` is ``x @ W`` with both backward modes; it may be called any
  number of times per step (time steps, tied weights). Biases are added by the layer, digitally.
- The gradient of ``state`` is dL/ds: in `crossbar` mode ``mapping.state_gradient`` of dL/dw, in `exact` mode
  the derivative. `Crossbar.weight_gradient` returns dL/dw from it, after whatever clipped or scaled it.
- An optimizer writes by `Crossbar.write(step, rate)`, in weight units, eagerly or in a graph. States have a
  constraint that puts them back into [0, 1] after a step of any other Keras optimizer. `pulses` (on the host)
  holds the x and dy of the present step where the chip's update encoding wants them.
- `host.crossbars_of(model)` finds the handles of a model, `group.link` has their matrices computed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from xbar_core import mapping
from xbar_core.config import Chip
from xbar_core.devices.faults import HEALTHY
from xbar_core.engine import Call, Layout, Matrices, Ranges, Reference, Request, conductances, update, weights
from xbar_core.errors import ShapeError
from xbar_tf._bridge import Array, assign, host, host_call, is_finite
from xbar_tf.group import MatrixGroup

if TYPE_CHECKING:
    from xbar_tf.host import CrossbarLayer

EVALUATION = 1 << 40
"""First step number of evaluation calls: their draws are not those of training."""
COUNTERS = ("calls", "evaluations", "updates", "programmings", "epochs")
"""What ``counters`` holds, in this order: training and evaluation calls, writes, programmings, epochs."""


class Pulses(NamedTuple):
    """What one backward call leaves for a pulsed update.

    Attributes
    ----------
    part : int
        Array set (group of a convolution).
    x : array (samples, places, in)
        Inputs as the DAC decoded them.
    dy : array (samples, places, out)
        Errors as the DAC decoded them.
    call : Call
        Identity of the forward call.
    """

    part: int
    x: Array
    dy: Array
    call: Call


class Held(NamedTuple):
    """What a crossbar weight holds in one call.

    Attributes
    ----------
    state : array (devices, in, out)
        Device states.
    counters : int64 array (5,)
        As `COUNTERS` names them.
    buffers : dict of str to array
        The engine's buffers; of several array sets stacked along a first axis.
    """

    state: Array
    counters: Array
    buffers: dict[str, Array]

    def step(self, training: bool) -> int:
        """Return the number of the call, which keys its draws."""
        return int(self.counters[0]) if training else EVALUATION + int(self.counters[1])


class Solved(NamedTuple):
    """Matrices, and what they were computed from.

    Attributes
    ----------
    version : int
        Numbers the solutions of one crossbar weight.
    held : Held
        Copies of what the weight held.
    key : tuple
        Time, and call where conductances are drawn for each.
    requests, matrices : list
        For every array set.
    derived : dict
        Whatever a read makes of the matrices and may keep.
    """

    version: int
    held: Held
    key: tuple[Any, ...]
    requests: list[Request]
    matrices: list[Matrices]
    derived: dict[str, Any]


class Crossbar:
    """Handle to one crossbar weight; the arrays themselves are Keras weights of its layer.

    Parameters
    ----------
    owner : CrossbarLayer
        The layer.
    suffix : str
        Ending of its names in the layer.
    layouts : sequence of Layout
        One for every array set.
    variables : mapping of str to Variable
        ``state``, ``ranges``, ``counters``, ``references`` where there are any, and the engine's buffers.
    """

    def __init__(
        self,
        owner: CrossbarLayer,
        suffix: str,
        layouts: Sequence[Layout],
        variables: Mapping[str, keras.Variable],
    ) -> None:
        self.owner, self.suffix, self.layouts = owner, suffix, tuple(layouts)
        self.variables = dict(variables)
        own = ("state", "ranges", "counters", "references", "reference_updates")
        self.buffer_names = tuple(name for name in self.variables if name not in own)
        # Words say nothing that states do not say, and reads do not ask for them.
        self.read_names = tuple(name for name in self.buffer_names if name != "words")
        self.time: float | None = None
        self.pulses: list[Pulses] = []
        self._pulse_version = -1
        self._solved: Solved | None = None
        self._versions = 0
        self._backward = False
        self.group = MatrixGroup()
        self.group.add(self)

    def forget(self) -> None:
        """Drop everything that is computed from the states."""
        self._solved = None
        self.pulses = []

    def join(self, group: MatrixGroup) -> None:
        """Leave the present group for another."""
        self.group = group
        group.add(self)

    # What it is.

    @property
    def chip(self) -> Chip:
        """The chip."""
        return self.layouts[0].chip

    @property
    def layout(self) -> Layout:
        """The layout, of the first array set where there are several."""
        return self.layouts[0]

    @property
    def name(self) -> int | str:
        """Key of the draws: that of its layer, and its suffix."""
        return self.layouts[0].name

    @property
    def state(self) -> keras.Variable:
        """Normalised device states (devices, in, out)."""
        return self.variables["state"]

    @property
    def dtype(self) -> str:
        """Dtype of the analog path."""
        return str(self.state.dtype)

    @property
    def w_max(self) -> keras.Variable:
        """Range of the weights, 0-d."""
        return self.variables["w_max"]

    @property
    def parts(self) -> int:
        """Number of array sets."""
        return len(self.layouts)

    @property
    def crossbar_mode(self) -> bool:
        """Whether the backward pass is that of the chip; else it is the derivative."""
        return bool(self.chip.backward.mode == "crossbar")

    def columns(self, part: int) -> slice:
        """Return the columns of an array set."""
        outputs = self.layout.outputs
        return slice(part * outputs, (part + 1) * outputs)

    def parts_of(self, buffers: Mapping[str, Array], part: int) -> dict[str, Array]:
        """Return the engine's buffers of an array set, of those of all."""
        if self.parts == 1:
            return dict(buffers)
        return {name: value if name == "w_max" else value[part] for name, value in buffers.items()}

    def buffers(self, part: int = 0) -> dict[str, Array]:
        """Return the engine's buffers of an array set as they are now."""
        return self.parts_of({name: host(self.variables[name]) for name in self.buffer_names}, part)

    def states(self, state: Array) -> list[Array]:
        """Return the states of every array set."""
        if self.parts == 1:
            return [state]
        return [np.ascontiguousarray(state[..., self.columns(k)]) for k in range(self.parts)]

    # Tensors of a call, and the same on the host.

    def tensors(self) -> list[tf.Tensor]:
        """Return states, counters and buffers as tensors: the inputs of a host function, to be `held`."""
        names = ("state", "counters", *self.read_names)
        return [tf.convert_to_tensor(self.variables[name].value) for name in names]

    @property
    def width(self) -> int:
        """Number of `tensors`."""
        return 2 + len(self.read_names)

    def held(self, arrays: Sequence[Array]) -> Held:
        """Return what `tensors` are on the host."""
        return Held(arrays[0], arrays[1], dict(zip(self.read_names, arrays[2:], strict=True)))

    def present(self) -> Held:
        """Return what the Keras weights hold now."""
        return self.held([host(self.variables[name]) for name in ("state", "counters", *self.read_names)])

    # Ranges and counters.

    @property
    def ranges(self) -> Ranges:
        """What the converters have learned."""
        return Ranges.from_array(host(self.variables["ranges"]))

    def keep_ranges(self, ranges: Ranges, before: Ranges) -> None:
        """Keep what a call has learned of its ranges."""
        if ranges != before:
            assign(self.variables["ranges"], ranges.to_array())

    def counter(self, name: str) -> int:
        """Return a counter by its name (see `COUNTERS`)."""
        return int(host(self.variables["counters"])[COUNTERS.index(name)])

    def count(self, name: str) -> None:
        """Advance a counter by one, eagerly or in a graph."""
        one = np.zeros(len(COUNTERS), np.int64)
        one[COUNTERS.index(name)] = 1
        self.variables["counters"].value.assign_add(tf.constant(one))

    def count_call(self, training: bool) -> None:
        """Count a forward call."""
        self.count("calls" if training else "evaluations")

    def require_finite(self, values: Array, what: str, held: Held) -> None:
        """Raise one clear line where an array holds NaN or infinity."""
        if not is_finite(values):
            raise FloatingPointError(
                f"layer {self.name!r}, training call {int(held.counters[0])}, update {int(held.counters[2])}: "
                f"the {what} holds NaN or infinity; lower the learning rate, or look at what comes before it"
            )

    # Matrices.

    def solved(self, held: Held, training: bool, backward: bool = False) -> Solved:
        """Return the matrices of what the weight holds in a call; all stale ones of the group come with it.

        Parameters
        ----------
        held : Held
            On the host.
        training : bool
            Whether the call trains.
        backward : bool
            Whether a gradient of the input will be asked for.
        """
        with self.group.lock:
            self._backward = self._backward or (backward and self.crossbar_mode)
            step = held.step(training)
            if not self.is_fresh(held, step):
                self.group.refresh(self, held, step, training)
            assert self._solved is not None
            return self._solved

    def recalled(self, version: int, held: Held, step: int, backward: bool = False) -> Solved:
        """Return the matrices of an earlier call for its backward pass."""
        with self.group.lock:
            self._backward = self._backward or backward
            found = self._solved
            if found is None or found.version != version or not self._has_backward(found):
                if not self.is_fresh(held, step):
                    self.group.solve([(self, held, step)])
                found = self._solved
            assert found is not None
            return found

    def _has_backward(self, found: Solved) -> bool:
        return not self._backward or found.matrices[0].backward is not None

    def _key(self, step: int) -> tuple[Any, ...]:
        return self.time, step if self.layout.redraws_conductance else None

    def is_fresh(self, held: Held, step: int) -> bool:
        """Return whether the matrices that are kept are those of `held`."""
        found = self._solved
        if found is None or found.key != self._key(step) or not self._has_backward(found):
            return False
        same = np.array_equal(found.held.state, held.state)
        return same and all(
            np.array_equal(found.held.buffers[name], value) for name, value in held.buffers.items()
        )

    def requests(self, held: Held, step: int) -> list[Request]:
        """Return what is asked of `read_matrices`, for every array set."""
        state = np.clip(held.state, 0.0, 1.0)
        references = self._references()
        return [
            Request(
                layout,
                self.parts_of(held.buffers, part),
                values,
                backward=self._backward,
                time=self.time,
                read=step,
                update=int(held.counters[2]),
                references=references[part],
            )
            for part, (layout, values) in enumerate(zip(self.layouts, self.states(state), strict=True))
        ]

    def accept(self, held: Held, step: int, requests: list[Request], matrices: list[Matrices]) -> None:
        """Take the matrices of `requests`, which were made from `held`."""
        self._versions += 1
        self._solved = Solved(self._versions, held, self._key(step), requests, matrices, {})
        if self.layout.interpolates:
            self._keep_references(matrices)

    def copied(self, held: Held) -> Held:
        """Return copies of what a call holds: a tensor's memory is not there for ever."""
        return Held(
            held.state.copy(), held.counters.copy(), {name: value.copy() for name, value in held.buffers.items()}
        )

    def _references(self) -> list[tuple[Reference | None, Reference | None]]:
        if not self.layout.interpolates:
            return [(None, None)] * self.parts
        values = host(self.variables["references"]).copy()
        updates = [int(n) for n in host(self.variables["reference_updates"])]
        pairs: list[Any] = [
            tuple(None if n < 0 else Reference(*part[side], n) for side, n in enumerate(updates)) for part in values
        ]
        return pairs

    def _keep_references(self, matrices: list[Matrices]) -> None:
        values = host(self.variables["references"]).copy()
        updates = np.array([-1, -1], np.int64)
        for part, each in enumerate(matrices):
            for side, reference in enumerate(each.references):
                if reference is not None:
                    values[part, side] = np.stack([reference.factor, reference.offset])
                    updates[side] = reference.update
        if not np.array_equal(updates, host(self.variables["reference_updates"])):
            assign(self.variables["references"], values)
            assign(self.variables["reference_updates"], updates)

    # Looking.

    def weight(self) -> tf.Tensor:
        """Return the weights (in, out) that the states stand for; differentiable in the states."""
        code, w_max = self.layout.code, tf.convert_to_tensor(self.w_max.value)
        faults = self.variables.get("faults")

        @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
        def decoded(state: tf.Tensor) -> Any:
            if faults is None:
                value = mapping.decode(code, state, w_max)
            else:
                shape = tf.TensorSpec(state.shape[1:], state.dtype)
                (value,) = host_call(self._weight, [*self.tensors()], [shape], stateful=False)

            def gradient(bar: tf.Tensor) -> tf.Tensor:
                state_bar = self.state_gradient(bar)
                if faults is None:
                    return state_bar
                return tf.where(self._healthy(tf.convert_to_tensor(faults.value)), state_bar, 0)

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
        state = np.clip(held.state, 0.0, 1.0)
        blocks = [
            conductances(layout, values, self.parts_of(held.buffers, part), self.time, int(held.counters[0]))
            for part, (layout, values) in enumerate(zip(self.layouts, self.states(state), strict=True))
        ]
        return np.concatenate(blocks, axis=-1)

    # Training.

    def state_gradient(self, weight_bar: tf.Tensor) -> tf.Tensor:
        """Return dL/ds (devices, in, out) from dL/dw (in, out), by the ideal mapping."""
        w_max = tf.convert_to_tensor(self.w_max.value)
        return tf.stack([(gain * w_max) * weight_bar for gain in self.layout.code.gains])

    def weight_gradient(self, bar: tf.Tensor) -> tf.Tensor:
        """Return dL/dw (in, out) from dL/ds, the gradient of ``state``.

        ``dL/dw = sum_k a_k dL/ds_k / (w_max sum_k a_k^2)``, a_k = dw / (w_max ds_k): the inverse of
        `state_gradient`, linear, so that clipping and scaling of the gradient pass through.
        """
        gains, w_max = self.layout.code.gains, tf.convert_to_tensor(self.w_max.value)
        if len(gains) == 1:
            return bar[0] * (1.0 / (gains[0] * w_max))
        total = bar[0] - bar[1] if gains == (1.0, -1.0) else tf.tensordot(tf.constant(gains, bar.dtype), bar, 1)
        return total * (1.0 / (sum(gain * gain for gain in gains) * w_max))

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
            return self._written(values, float(rate), native, arrays)

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

    def _written(self, step: Array, rate: float, native: float | None, arrays: Sequence[Array]) -> list[Array]:
        state, counters = arrays[:2]
        buffers = dict(zip(self.buffer_names, arrays[2:], strict=True))
        held = Held(state, counters, buffers)
        self.require_finite(step, "weight step", held)
        count = int(counters[2])
        results = [
            update(layout, values, self.parts_of(buffers, part), block, rate=rate, count=count, w_max=native)
            for part, (layout, values, block) in enumerate(
                zip(self.layouts, self.states(state), self.states(step), strict=True)
            )
        ]
        return self.joined(results)

    def joined(self, results: Sequence[Any]) -> list[Array]:
        """Return the results of `update` or `pulse_update` of every array set as `write_specs` wants them."""
        self.pulses = []
        found = [np.concatenate([result.state for result in results], axis=-1)]
        if results[0].words is not None:
            words = [result.words for result in results]
            found.append(words[0] if self.parts == 1 else np.stack(words))
        counts = [np.int64(sum(int(getattr(r, name)) for r in results)) for name in ("saturated", "refreshed")]
        return [*found, *map(np.asarray, counts)]

    def take(self, results: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Store what a write computed (`write_specs`) and count one update."""
        *values, saturated, refreshed = results
        for name, value in zip(("state", "words"), values, strict=False):
            self.variables[name].value.assign(value)
        self.count("updates")
        return saturated, refreshed

    def keep_pulses(self, pulses: Pulses, version: int) -> None:
        """Keep what a pulsed update needs until the states change."""
        with self.group.lock:
            if self._pulse_version != version:
                self.pulses = []
            self._pulse_version = version
            self.pulses.append(pulses)
