"""What a crossbar weight holds in Keras weights, and the matrices that are computed from it.

The contract is in `xbar_tf.crossbar`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import keras
import numpy as np
import tensorflow as tf

from xbar_core.engine import Layout, Matrices, Ranges, Reference, Request
from xbar_core.engine.array_sets import ArraySets, layouts_of
from xbar_core.engine.call import Counters
from xbar_tf._bridge import Array, advance, assign, host, is_finite
from xbar_tf.group import MatrixGroup

if TYPE_CHECKING:
    from xbar_tf.crossbar import Crossbar
    from xbar_tf.host import CrossbarLayer

COUNTERS = tuple(field.name for field in fields(Counters))
"""What ``counters`` holds, in this order."""


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
        return Counters.from_array(self.counters).step(training)


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


class StoredWeight(ArraySets):
    """What a crossbar weight is and holds, and the matrices that are kept of it; the base of `Crossbar`.

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
        self._versions = 0
        self._backward = False
        self.forget()
        self.group = MatrixGroup()
        self.group.add(cast("Crossbar", self))

    def rename(self, name: int | str) -> None:
        """Key the draws by another name from now on."""
        first = self.layout
        outputs = first.outputs * self.parts
        self.layouts = layouts_of(first.chip, first.inputs, outputs, name, first.signed_input, self.parts)
        self.forget()

    def forget(self) -> None:
        """Drop everything that is computed from the states."""
        self._solved: Solved | None = None

    def join(self, group: MatrixGroup) -> None:
        """Leave the present group for another."""
        self.group = group
        group.add(cast("Crossbar", self))

    # What it is.

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

    def buffers(self, part: int = 0) -> dict[str, Array]:
        """Return the engine's buffers of an array set as they are now."""
        return self.parts_of({name: host(self.variables[name]) for name in self.buffer_names}, part)

    def states(self, state: Array) -> list[Array]:
        """Return the states that the devices of every array set hold, as a read takes them: in [0, 1]."""
        state = np.clip(state, 0.0, 1.0)
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

    def count(self, name: str, after: Sequence[tf.Tensor] = ()) -> None:
        """Advance a counter by one, eagerly or in a graph, there not before `after` is known.

        Without an order a graph counts when it likes, and a group's look at other members would find
        counts that belong to later.
        """
        one = np.zeros(len(COUNTERS), np.int64)
        one[COUNTERS.index(name)] = 1
        with tf.control_dependencies(list(after)):
            advance(self.variables["counters"], tf.constant(one))

    def count_call(self, training: bool, after: tf.Tensor) -> None:
        """Count a forward call, whose result is `after`."""
        self.count("calls" if training else "evaluations", [after])

    def require_finite(self, values: Array, what: str, held: Held) -> None:
        """Raise one clear line where an array holds NaN or infinity."""
        if not is_finite(values):
            counters = Counters.from_array(held.counters)
            raise self.not_finite(what, counters.calls, counters.updates)

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
                self.group.refresh(cast("Crossbar", self), self.settled(held), step, training)
            assert self._solved is not None
            return self._solved

    def recalled(self, version: int, held: Held, step: int, backward: bool = False) -> Solved:
        """Return the matrices of an earlier call for its backward pass."""
        with self.group.lock:
            self._backward = self._backward or backward
            found = self._solved
            if found is None or found.version != version or not self._has_backward(found):
                if not self.is_fresh(held, step):
                    self.group.solve([(cast("Crossbar", self), held, step)])
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

    def settled(self, held: Held) -> Held:
        """Count a change of the states that was no write, a step of an ordinary optimizer; return what holds.

        The periods of the interpolation are counts of updates.
        """
        solved, at = self._solved, COUNTERS.index("updates")
        if not self.layout.interpolates or solved is None or held.counters[at] != solved.held.counters[at]:
            return held
        if np.array_equal(np.clip(held.state, 0.0, 1.0), np.clip(solved.held.state, 0.0, 1.0)):
            return held
        # Of the variable as of the call: in a sequence a call counts from where the sequence began.
        kept, counters = host(self.variables["counters"]).copy(), held.counters.copy()
        kept[at] += 1
        counters[at] += 1
        assign(self.variables["counters"], kept)
        return held._replace(counters=counters)

    def requests(self, held: Held, step: int) -> list[Request]:
        """Return what is asked of `read_matrices`, for every array set."""
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
            for part, (layout, values) in enumerate(zip(self.layouts, self.states(held.state), strict=True))
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
            held.state.copy(),
            held.counters.copy(),
            {name: value.copy() for name, value in held.buffers.items()},
        )

    def _references(self) -> list[tuple[Reference | None, Reference | None]]:
        if not self.layout.interpolates:
            return [(None, None)] * self.parts
        values = host(self.variables["references"]).copy()
        updates = [int(n) for n in host(self.variables["reference_updates"])]
        pairs: list[Any] = [
            tuple(
                None if n < 0 else Reference(part[side, 0], part[side, 1], n)
                for side, n in enumerate(updates)
            )
            for part in values
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
