"""One crossbar weight of a module: its arrays in the module, its matrices, its counters.

The contract inside the package
-------------------------------
- A module that has crossbar weights is a `xbar_torch.host.CrossbarModule`. It calls
  ``self.add_crossbar(suffix, weight, chip, name, parts=1, ...)`` with a weight (in, out) and gets a
  `Crossbar`. That registers the Parameter ``state<suffix>`` (devices, in, out) and the buffers
  ``w_max<suffix>``, ``variation<suffix>``, ... of the engine. Suffixes are those of torch: ``""`` for
  linear and convolution, ``"_ih_l0"``, ``"_hh_l0_reverse"``, ... for recurrent layers.
- ``parts`` > 1 splits the columns evenly into as many array sets (groups of a convolution), each with its
  own `Layout`; their engine buffers are stacked along a new first axis, ``w_max`` is shared.
- `functional.crossbar_linear(x, crossbar)` is ``x @ W`` with both backward modes; it may be called any
  number of times per step (time steps, tied weights). Biases are added by the module, digitally.
- ``state.grad`` is dL/ds: in `crossbar` mode ``mapping.state_gradient`` of dL/dw, in `exact` mode the
  derivative. `Crossbar.weight_gradient` returns dL/dw from it, after whatever clipped or scaled it.
- An optimizer writes by `Crossbar.write(step, rate)`, in weight units; `pulses` holds the x and dy of
  the present step where the chip's update encoding wants them.
- Anything that changes ``state`` in place is noticed at the next forward. `host.crossbars_of(model)`
  finds the handles of a model, `group.link` has their matrices computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from xbar_core import mapping
from xbar_core._arrays import to_numpy
from xbar_core.engine import (
    Call,
    Encoded,
    Layout,
    Matrices,
    Programmed,
    Ranges,
    Reference,
    Request,
    Residual,
    Updated,
    conductances,
    reprogram,
    weight_gradient,
    weights,
)
from xbar_core.engine.array_sets import ArraySets, packed, program_parts, update_parts
from xbar_core.engine.call import Counters
from xbar_core.engine.pulses import Pulses
from xbar_core.errors import ShapeError
from xbar_torch._bridge import is_finite, owned, to_analog
from xbar_torch.group import MatrixGroup
from xbar_torch.parallel import data_parallel

if TYPE_CHECKING:
    from xbar_torch.host import CrossbarModule


class Crossbar(ArraySets):
    """Handle to one crossbar weight; the arrays themselves are parameters and buffers of its module.

    Parameters
    ----------
    owner : CrossbarModule
        The module.
    suffix : str
        Ending of its names in the module.
    layouts : sequence of Layout
        One for every array set.

    Attributes
    ----------
    digital : dtype or None
        That of a native weight in half precision, which is too coarse for states; None is that of the states.
    seen : list of Tensor or None
        Takes the inputs of reads while somebody looks on (`xbar_torch.inspect`).
    """

    digital: torch.dtype | None = None
    seen: list[Tensor] | None = None

    def __init__(self, owner: CrossbarModule, suffix: str, layouts: Sequence[Layout]) -> None:
        self.owner, self.suffix, self.layouts = owner, suffix, tuple(layouts)
        self.ranges = Ranges()
        self.counters = Counters()
        self.references: list[tuple[Reference | None, Reference | None]] = [(None, None)] * len(layouts)
        self.time: float | None = None
        self.group = MatrixGroup()
        self.group.add(self)
        self.forget()

    def forget(self) -> None:
        """Drop everything that is computed from the states."""
        self.pulses: list[Pulses] = []
        self._matrices: list[Matrices] = []
        self._requests: list[Request] = []
        self._key: tuple[Any, ...] | None = None
        self._snapshot: Tensor | None = None
        self._solved_update = -1
        self._projected: tuple[int, int] | None = None
        self._pulse_key: tuple[int, int] | None = None
        self._backward = False

    def __getstate__(self) -> dict[str, Any]:
        self.settle()
        # What `forget` drops is private, or the pulses.
        return {name: value for name, value in self.__dict__.items() if name[0] != "_" and name != "pulses"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.forget()
        self.group.add(self)

    def join(self, group: MatrixGroup) -> None:
        """Leave the present group for another."""
        self.group = group
        group.add(self)

    # The arrays.

    @property
    def state(self) -> nn.Parameter:
        """Normalised device states (devices, in, out)."""
        return cast(nn.Parameter, self.owner._parameters[f"state{self.suffix}"])

    @property
    def w_max(self) -> Tensor:
        """Range of the weights, 0-d."""
        return cast(Tensor, self.owner._buffers[f"w_max{self.suffix}"])

    def buffers(self, part: int = 0) -> dict[str, Tensor]:
        """Return the engine's buffers of an array set by the engine's names."""
        names = self.owner.engine_buffers(self.suffix)
        held = {name: cast(Tensor, self.owner._buffers[f"{name}{self.suffix}"]) for name in names}
        return self.parts_of(held, part)

    def states(self, state: Tensor | None = None) -> list[Tensor]:
        """Return the states of every array set: views."""
        whole = self.state if state is None else state
        return [whole] if self.parts == 1 else [whole[..., self.columns(k)] for k in range(self.parts)]

    def held(self) -> Tensor:
        """Return the states that the devices hold, as a read takes them: in [0, 1]; differentiable.

        The gradient passes straight through, as that of a read does: a penalty also moves what lies beyond.
        Autograd keeps no state, so that the projection before a forward pass may follow.
        """
        state = self.state
        present = state.detach()
        held = present.clamp(0.0, 1.0)
        return held + (state - present) if torch.is_grad_enabled() else held

    # Programming and reading back.

    def program(self, weight: Tensor, w_max: float | None = None) -> None:
        """Program weights (in, out); devices keep the differences that they were made with."""
        count = self.counters.programmings
        kept = [self.buffers(part) for part in range(self.parts)] if count else None
        self._store(program_parts(self.layouts, weight.detach(), w_max, kept, count))

    def reprogram(self, w_max: float | None = None) -> None:
        """Read the weights back digitally and program them anew with a fresh range."""
        with torch.no_grad():
            if self.parts > 1:
                self.program(self.weight(), w_max)
                return
            count = self.counters.programmings
            self._store([reprogram(self.layout, self.held(), self.buffers(), w_max=w_max, count=count)])

    def _store(self, results: list[Programmed]) -> None:
        self.owner.store(self.suffix, *packed(results))
        self.counters.programmings += 1
        self.references = [(None, None)] * self.parts
        self.forget()

    def weight(self) -> Tensor:
        """Return the weights (in, out) that the states stand for; differentiable in the states."""
        blocks = [
            weights(layout, state, self.buffers(part))
            for part, (layout, state) in enumerate(zip(self.layouts, self.states(self.held()), strict=True))
        ]
        return blocks[0] if self.parts == 1 else torch.cat(blocks, dim=-1)

    def native_weight(self) -> Tensor:
        """Return the weights (out, in) for a native layer, in the dtype that one has."""
        return owned(self.weight().T).to(self.digital or self.state.dtype)

    @torch.no_grad()
    def conductances(self) -> Tensor:
        """Return the conductances (devices, in, out), siemens, with variation, faults and drift."""
        blocks = [
            conductances(layout, state, self.buffers(part), self.time, self.counters.calls)
            for part, (layout, state) in enumerate(zip(self.layouts, self.states(self.held()), strict=True))
        ]
        return torch.cat(blocks, dim=-1)

    # Matrices.

    def _present_key(self) -> tuple[Any, ...]:
        state = self.state
        read = self.step(self.owner.training) if self.layout.redraws_conductance else None
        return state.data_ptr(), state._version, state.dtype, state.device, self.time, read

    def prepare(self, training: bool) -> bool:
        """Project the states to [0, 1] in training; return whether the matrices are out of date.

        States in range are not written to: graphs that hold them stay valid.
        """
        state = self.state
        if unseen := self._changed_unseen():
            self._projected = None
        if training and self._projected != (state.data_ptr(), state._version):
            with torch.no_grad():
                low, high = torch.aminmax(state)
                if low < 0.0 or high > 1.0:
                    state.clamp_(0.0, 1.0)
            self._projected = (state.data_ptr(), state._version)
        if unseen or not self._matrices or self._key != self._present_key():
            return True
        return self._backward and self._matrices[0].backward is None

    def _changed_unseen(self) -> bool:
        """Return whether the states are others although their address and version are the same.

        A change through `.data` leaves no trace in the version, and a new tensor may lie where one was freed.
        """
        if self._key is None or self._snapshot is None or self._key[:4] != self._present_key()[:4]:
            return False
        return not torch.equal(self._snapshot, self.state)

    def requests(self) -> list[Request]:
        """Return what is asked of `read_matrices`, for every array set."""
        self.settle()
        self._solved_update = self.counters.updates
        snapshot = self.state.detach().clone()
        if not is_finite(snapshot):
            raise self.not_finite("device state", self.counters.calls, self.counters.updates)
        self._key, self._snapshot = self._present_key(), snapshot
        held = snapshot.clamp(0.0, 1.0) if self._projected != self._key[:2] else snapshot
        read = self.step(self.owner.training)
        return [
            Request(
                layout,
                self.buffers(part),
                state,
                backward=self._backward,
                time=self.time,
                read=read,
                update=self.counters.updates,
                references=self.references[part],
            )
            for part, (layout, state) in enumerate(zip(self.layouts, self.states(held), strict=True))
        ]

    def settle(self) -> None:
        """Count a change of the states that was no write: a step of an ordinary optimizer.

        The periods of the interpolation are counts of updates.
        """
        if not self.layout.interpolates or self._snapshot is None:
            return
        if self.counters.updates == self._solved_update:
            held = self.held().detach()
            self.counters.updates += int(not torch.equal(held, self._snapshot.to(held).clamp(0.0, 1.0)))

    def accept(self, requests: list[Request], matrices: list[Matrices]) -> None:
        """Take the matrices of `requests`."""
        self._requests, self._matrices = requests, matrices
        if self.layout.interpolates:
            self.references = [each.references for each in matrices]

    def matrices(self, backward: bool = False) -> list[Matrices]:
        """Return the matrices of every array set, computing all stale ones of the group if need be.

        Parameters
        ----------
        backward : bool
            Whether a gradient of the input will be asked for.
        """
        self._backward = self._backward or (backward and self.chip.backward.mode == "crossbar")
        if self.prepare(self.owner.training):
            self.group.refresh(self)
        return self._matrices

    @property
    def asked(self) -> list[Request]:
        """The requests that the present matrices came from; ``exact`` mode differentiates through them."""
        return self._requests

    # Calls.

    def step(self, training: bool) -> int:
        """Return the number of the next call, which keys its draws."""
        return self.counters.step(training)

    def call(self, samples: int) -> Call:
        """Return the identity of the next call, of this many samples."""
        training = self.owner.training
        place = data_parallel(self.owner) if training else None
        first, reduce = (0, None) if place is None else (place.rank * samples, place.largest)
        return Call(self.step(training), first, training, self.counters.epochs, reduce)

    def finish_call(self, ranges: Ranges, training: bool) -> None:
        """Count a call and keep what its ranges have learned."""
        self.ranges = ranges
        if training:
            self.counters.calls += 1
        else:
            self.counters.evaluations += 1

    def enter(self, x: Tensor) -> Tensor:
        """Return an input in the dtype of the states, checked, on its way into the analog path."""
        x = to_analog(x, self.state.dtype, self.owner.key)
        self.require_finite(x.detach(), "input")
        if self.seen is not None:
            self.seen.append(x.detach())
        return x

    def require_finite(self, values: Tensor, what: str) -> None:
        """Raise one clear line where a tensor holds NaN or infinity."""
        if not is_finite(values):
            raise self.not_finite(what, self.counters.calls, self.counters.updates)

    # Training.

    @property
    def target(self) -> Tensor:
        """What the gradient of a call flows to."""
        return self.state

    def call_gradient(self, residual: Residual, sent: Encoded, dy: Tensor) -> Tensor:
        """Return the gradient of `target` that one call of a linear layer leaves, ``crossbar`` mode."""
        return self.state_gradient(weight_gradient(self.layout, residual, sent, dy))

    def state_gradient(self, weight_bar: Tensor) -> Tensor:
        """Return dL/ds (devices, in, out) from dL/dw (in, out), by the ideal mapping."""
        return cast(Tensor, mapping.state_gradient(self.layout.code, weight_bar, cast(Any, self.w_max)))

    def weight_gradient(self) -> Tensor | None:
        """Return dL/dw (in, out) from ``state.grad``, None where there is none: `mapping.weight_gradient`."""
        bar = self.state.grad
        if bar is None:
            return None
        return cast(Tensor, mapping.weight_gradient(self.layout.code, bar, self.w_max))

    @torch.no_grad()
    def write(self, step: Tensor, rate: float = 1.0, native: float | None = None) -> tuple[int, int]:
        """Write an optimizer's step: w moves towards ``w + rate step``.

        Parameters
        ----------
        step : Tensor (in, out)
            The step without the rate, in weight units: minus the velocity of plain or momentum SGD.
        rate : float
            Learning rate.
        native : float or None
            Native maximum of the weights, for ``update.scale.rule = "native"``.

        Returns
        -------
        tuple of int
            Devices asked to go beyond their range, and pairs that were refreshed.
        """
        if tuple(step.shape) != tuple(self.state.shape[1:]):
            raise ShapeError(f"step: shape {tuple(step.shape)} is not that of {tuple(self.state.shape[1:])}")
        self.require_finite(step, "weight step")
        names = self.owner.engine_buffers(self.suffix)
        buffers: dict[str, Any] = {name: self.owner._buffers[f"{name}{self.suffix}"] for name in names}
        values: list[Any] = [self.state.detach(), step]
        if self.state.device.type == "cpu":
            # Small operations cost less on NumPy's arrays; the memory is the same.
            buffers = {name: to_numpy(value) for name, value in buffers.items()}
            values = [to_numpy(value) for value in values]
        state, change = values
        count = self.counters.updates
        done = update_parts(self.layouts, state, buffers, change, rate=rate, count=count, w_max=native)
        return self._take(done.state, done.words, [done])

    def take(self, results: Sequence[Updated]) -> tuple[int, int]:
        """Store the results of `pulse_update` of every array set and count one update."""
        states = [torch.as_tensor(result.state) for result in results]
        words = None if results[0].words is None else [torch.as_tensor(result.words) for result in results]
        if self.parts == 1:
            return self._take(states[0], None if words is None else words[0], results)
        joined = None if words is None else torch.stack(words)
        return self._take(torch.cat(states, dim=-1), joined, results)

    @torch.no_grad()
    def _take(self, held: Any, words: Any, results: Sequence[Updated]) -> tuple[int, int]:
        """Store states and words of all array sets."""
        state = self.state
        state.copy_(torch.as_tensor(held))
        if words is not None:
            cast(Tensor, self.owner._buffers[f"words{self.suffix}"]).copy_(torch.as_tensor(words))
        self.counters.updates += 1
        self.pulses.clear()
        saturated = sum(int(result.saturated) for result in results)
        return saturated, sum(int(result.refreshed) for result in results)

    def keep_pulses(self, pulses: Pulses) -> None:
        """Keep what a pulsed update needs until the states change."""
        key = (self.state.data_ptr(), self.state._version)
        if self.pulses and self._pulse_key != key:
            self.pulses.clear()
        self._pulse_key = key
        self.pulses.append(pulses)
