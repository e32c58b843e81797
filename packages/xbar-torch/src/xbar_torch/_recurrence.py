"""The time loop of recurrent layers, around reads of crossbars."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from xbar_core.errors import ConfigError
from xbar_torch.crossbar import Crossbar
from xbar_torch.functional import crossbar_linear
from xbar_torch.packed import PackedRows
from xbar_torch.parallel import data_parallel
from xbar_torch.time_steps import TimeSteps

if TYPE_CHECKING:
    from xbar_torch.recurrent import _XbarRecurrent


class Cell(Protocol):
    """One step: gate inputs of x and of h (batch, gates x hidden), states (batch, hidden) -> new states."""

    def __call__(self, from_x: Tensor, from_h: Tensor, states: list[Tensor]) -> list[Tensor]: ...


@dataclass(frozen=True)
class RNNCell:
    """``h = act(from_x + from_h)``."""

    activation: Callable[[Tensor], Tensor]

    def __call__(self, from_x: Tensor, from_h: Tensor, states: list[Tensor]) -> list[Tensor]:
        return [self.activation(from_x + from_h)]


class LSTMCell:
    """``c = f c + i g, h = o tanh(c)``, gates in the order i, f, g, o."""

    def __call__(self, from_x: Tensor, from_h: Tensor, states: list[Tensor]) -> list[Tensor]:
        i, f, g, o = (from_x + from_h).chunk(4, dim=-1)
        c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
        return [torch.sigmoid(o) * torch.tanh(c), c]


class GRUCell:
    """``n = tanh(x_n + r h_n), h = (1 - z) n + z h``, gates in the order r, z, n."""

    def __call__(self, from_x: Tensor, from_h: Tensor, states: list[Tensor]) -> list[Tensor]:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, dim=-1), from_h.chunk(3, dim=-1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        return [n + z * (states[0] - n)]


def run(
    layer: _XbarRecurrent, cell: Cell, x: Tensor, batch_sizes: Tensor | None, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return outputs, laid out as `x`, and final states of all layers and directions.

    Parameters
    ----------
    layer : recurrent layer
        Holds weights and biases.
    cell : Cell
        One step.
    x : Tensor (length, batch, in), (batch, length, in), or packed (cells, in)
        Inputs.
    batch_sizes : Tensor (length,) or None
        Sequences that have each step, where `x` is packed.
    states : list of Tensor (layers x directions, batch, hidden)
        Initial states.

    Raises
    ------
    ConfigError
        Data-parallel processes train on packed batches of other numbers of steps or sequences.
    """
    sizes = None if batch_sizes is None else [int(size) for size in batch_sizes]
    if sizes is not None and layer.training:
        _require_same_shares(layer, sizes, x.device)
    if sizes is None and not layer.batch_first:
        x = x.transpose(0, 1)
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    final: list[list[Tensor]] = []
    for depth in range(layer.num_layers):
        outputs = []
        for direction in directions:
            start = [state[len(final)] for state in states]
            output, end = _scan(layer, cell, f"_l{depth}{direction}", x, sizes, start)
            outputs.append(output)
            final.append(end)
        x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
        if layer.dropout > 0.0 and depth < layer.num_layers - 1:
            x = F.dropout(x, layer.dropout, layer.training)
    if sizes is None and not layer.batch_first:
        x = x.transpose(0, 1)
    return x, [torch.stack(each) for each in zip(*final, strict=True)]


def _require_same_shares(layer: _XbarRecurrent, sizes: list[int], device: torch.device) -> None:
    """Raise on every data-parallel process where steps or sequences differ: calls and draws would, too."""
    place = data_parallel(layer)
    if place is not None and not place.agrees(torch.tensor([len(sizes), sizes[0]], device=device)):
        raise ConfigError(
            f"layer {layer.key!r}: packed input: the processes have other numbers of sequences or of steps "
            f"(this one {sizes[0]} sequences of up to {len(sizes)} steps); give every process as many "
            "sequences with the same longest length, or padded batches of one size"
        )


def _scan(
    layer: _XbarRecurrent, cell: Cell, ending: str, x: Tensor, sizes: list[int] | None, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Run one layer in one direction: x (batch, length, in) -> (batch, length, hidden), final states.

    Packed x (cells, in) of so many sequences in each step -> (cells, hidden): nothing is read, and no range
    learns, where a sequence is over.
    """
    inputs = layer.crossbars[f"_ih{ending}"]
    read = crossbar_linear(x, inputs if sizes is None else PackedRows(inputs, sizes))
    read = _biased(layer, read, f"bias_ih{ending}")
    # Cut once: the gradient of a slice would be as large as all steps together, for every step.
    from_x = read.unbind(1) if sizes is None else torch.split(read, sizes)
    batch, order = states[0].shape[0], range(len(from_x))
    outputs: list[Tensor] = [x] * len(from_x)
    hidden = layer.crossbars[f"_hh{ending}"]
    projection: Crossbar | None = layer.crossbars.get(f"_hr{ending}")
    backward = torch.is_grad_enabled()
    with ExitStack() as stack:
        steps = stack.enter_context(TimeSteps(hidden, backward, batch))
        projected = projection and stack.enter_context(TimeSteps(projection, backward, batch))
        for t in reversed(order) if ending.endswith("_reverse") else order:
            active = from_x[t].shape[0]
            held = states if active == batch else [state[:active] for state in states]
            from_h = _biased(layer, crossbar_linear(held[0], steps), f"bias_hh{ending}")
            now = cell(from_x[t], from_h, held)
            if projected is not None:
                now[0] = crossbar_linear(now[0], projected)
            outputs[t] = now[0]
            if active < batch:
                now = [torch.cat([new, old[active:]]) for new, old in zip(now, states, strict=True)]
            states = now
    return torch.stack(outputs, dim=1) if sizes is None else torch.cat(outputs), states


def _biased(layer: _XbarRecurrent, values: Tensor, name: str) -> Tensor:
    if not layer.bias:
        return values
    bias: Tensor = getattr(layer, name)  # a plain tensor under torch.func.functional_call
    return values + bias.to(values.dtype)
