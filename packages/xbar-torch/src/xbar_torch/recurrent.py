"""Recurrent layers on crossbars: every weight matrix of every layer and direction has its own arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import _VF, Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from xbar_core._checks import check_by_name
from xbar_core.config import Chip
from xbar_core.errors import ShapeError
from xbar_torch._bridge import excluded, from_analog, owned, resolve_chip, to_analog, undrawn
from xbar_torch._recurrence import Cell, GRUCell, LSTMCell, RNNCell, run
from xbar_torch.crossbar import Crossbar
from xbar_torch.functional import effective_weight, is_product
from xbar_torch.host import CrossbarModule
from xbar_torch.native import native_tensors

Native = nn.RNN | nn.LSTM | nn.GRU


class _XbarRecurrent(CrossbarModule):
    """Base of the recurrent layers.

    Parameters
    ----------
    *arguments, **options
        As in the native layer, drawn from the same generator.
    config : str, Path or Chip
        Preset's name, chip file or chip.
    seed : int or None
        Takes the place of the chip's seed.
    name : int or str
        Keys the draws of the layer; give each layer of a network its own.
    signed_input : bool
        False where the inputs of the first layer cannot be negative: their words then have no sign bit.
    w_max : mapping of str to float, or None
        Ranges of weights by name (``"weight_ih_l0"``), weight units; the others follow the chip's rule.

    Attributes
    ----------
    state_ih_l0, state_hh_l0, ... : Parameter (devices, in, out)
        Normalised device states in [0, 1]; ``_reverse`` and ``state_hr_l0`` as in torch.
    weight_ih_l0, weight_hh_l0, ... : Tensor (out, in)
        The weights that the states stand for; read-only.
    bias_ih_l0, bias_hh_l0, ... : Parameter (out,)
        Digital.

    Notes
    -----
    All inputs of a sequence are read in one call; hidden states are read step by step, each step with noise
    of its own, with matrices that are computed once. Gates and activations are digital. In a packed batch,
    too, the samples are the sequences; data-parallel processes train on as many, of one longest length.
    """

    _native: ClassVar[type[Any]]

    def __init__(
        self,
        *arguments: Any,
        config: str | Path | Chip = "ideal",
        seed: int | None = None,
        name: int | str = 0,
        signed_input: bool = True,
        w_max: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        native = self._native(*arguments, **options)
        self._adopt(native, resolve_chip(config, seed), name, signed_input, w_max)

    def _adopt(
        self,
        native: Native,
        chip: Chip,
        name: int | str,
        signed_input: bool,
        w_max: Mapping[str, float] | None,
    ) -> None:
        self.key = name
        self.mode, self.bias, self.batch_first = native.mode, native.bias, native.batch_first
        self.input_size, self.hidden_size = native.input_size, native.hidden_size
        self.num_layers, self.bidirectional = native.num_layers, native.bidirectional
        self.dropout, self.proj_size = native.dropout, native.proj_size
        self._order = list(native._flat_weights_names)
        ranges = self._ranges(w_max)
        for own in self._order:
            value = getattr(native, own)
            if own.startswith("bias"):
                self.register_parameter(own, value)
                continue
            suffix = own.removeprefix("weight")
            self.add_crossbar(
                suffix,
                value.detach().T,
                chip,
                f"{name}{suffix}",
                signed_input=signed_input or not suffix.startswith("_ih_l0"),
                w_max=ranges.get(own),
            )

    def _ranges(self, w_max: Mapping[str, float] | None) -> dict[str, float]:
        """Return the ranges that were given, by the native names of weights, checked."""
        return check_by_name("w_max", w_max, [own for own in self._order if "weight" in own], "weight")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("weight_"):
            crossbar = self.__dict__["crossbars"].get(name.removeprefix("weight"))
            if crossbar is not None:
                return crossbar.weight().T
        return super().__getattr__(name)

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """Weights and biases of every layer and direction, as in torch; weights are read-only."""
        count = len(self._order) // (self.num_layers * (2 if self.bidirectional else 1))
        found = [getattr(self, own) for own in self._order]
        return [found[first : first + count] for first in range(0, len(found), count)]

    def flatten_parameters(self) -> None:
        """Do nothing: there are no native weights to lay out."""

    def load_native(
        self, source: nn.Module | Mapping[str, Any], w_max: Mapping[str, float] | None = None
    ) -> None:
        """Program the weights of a native layer, or of its ``state_dict``; biases are copied."""
        shapes: dict[str, tuple[int, ...]] = {}
        ranges = self._ranges(w_max)
        for own in self._order:
            crossbar = self.crossbars.get(own.removeprefix("weight"))
            shapes[own] = (
                (crossbar.layout.outputs, crossbar.layout.inputs)
                if crossbar is not None
                else tuple(self.get_parameter(own).shape)
            )
        found = native_tensors(source, shapes, None, self.key)
        with torch.no_grad():
            for own, value in found.items():
                crossbar = self.crossbars.get(own.removeprefix("weight"))
                if crossbar is None:
                    self.get_parameter(own).copy_(value)
                else:
                    weight = value.to(crossbar.state.detach()).T.contiguous()
                    crossbar.program(weight, ranges.get(own))

    def to_native(self) -> Native:
        """Return a native layer with the weights that the states stand for."""
        native = undrawn(
            self._native,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            bias=self.bias,
            batch_first=self.batch_first,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
            device=self.crossbars["_ih_l0"].state.device,
            **self._options(),
        )
        for own in self._order:
            crossbar = self.crossbars.get(own.removeprefix("weight"))
            value = owned(getattr(self, own)) if crossbar is None else crossbar.native_weight()
            setattr(native, own, nn.Parameter(value))
        trained: Native = native.train(self.training)
        return trained

    def _options(self) -> dict[str, Any]:
        """Return the arguments that only this kind of layer has."""
        return {}

    # The forward pass.

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Tensor | PackedSequence, Any]:
        """Return the outputs of the last layer and the final states, as the native layer does.

        Parameters
        ----------
        input : Tensor (length, batch, input_size), or PackedSequence
            With ``batch_first`` (batch, length, input_size); without a batch (length, input_size).
        hx : Tensor or pair of Tensor (layers x directions, batch, hidden_size), or None
            Initial states; zeros where None.
        """
        packed = input if isinstance(input, PackedSequence) else None
        x = packed.data if packed is not None else input
        assert isinstance(x, Tensor)
        self._check_input(x, packed is not None)
        batched = packed is not None or x.ndim == 3
        if not batched:
            x = x.unsqueeze(0 if self.batch_first else 1)
        batch = self._batch(x, packed)
        like = x
        x = to_analog(x, next(iter(self.crossbars.values())).state.dtype, self.key)
        states = self._initial(hx, batch, batched, x)
        if packed is not None and packed.sorted_indices is not None:
            states = [state.index_select(1, packed.sorted_indices) for state in states]
        output, states = self._forward(x, None if packed is None else packed.batch_sizes, states)
        output, states = from_analog(output, like), [from_analog(state, like) for state in states]
        if packed is not None:
            if packed.unsorted_indices is not None:
                states = [state.index_select(1, packed.unsorted_indices) for state in states]
            result = PackedSequence(
                output, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
            )
            return result, self._joined(states)
        if not batched:
            output = output.squeeze(0 if self.batch_first else 1)
            states = [state.squeeze(1) for state in states]
        return output, self._joined(states)

    def _check_input(self, x: Tensor, packed: bool) -> None:
        wanted = (2,) if packed else (2, 3)
        steps = x.shape[-2 if x.ndim == 2 or self.batch_first else 0] if x.ndim in wanted else 0
        if x.ndim not in wanted or x.shape[-1] != self.input_size or steps == 0:
            axes = "(batch, length, " if self.batch_first else "(length, batch, "
            raise self.misfit(
                "input",
                x.shape,
                f"is not {axes}{self.input_size}), nor (length, {self.input_size}) of one sequence, nor a "
                "packed sequence of them",
            )

    def _batch(self, x: Tensor, packed: PackedSequence | None) -> int:
        if packed is not None:
            return int(packed.batch_sizes[0])
        return x.shape[0 if self.batch_first else 1]

    @property
    def _state_sizes(self) -> tuple[int, ...]:
        """Widths of the states: hidden state, and cell state of an LSTM."""
        return (self.hidden_size,)

    def _initial(self, hx: Any, batch: int, batched: bool, like: Tensor) -> list[Tensor]:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        if hx is None:
            return [like.new_zeros(rows, batch, size) for size in self._state_sizes]
        given = list(hx) if isinstance(hx, tuple | list) else [hx]
        shapes = [(rows, batch, size) if batched else (rows, size) for size in self._state_sizes]
        if [tuple(state.shape) for state in given] != shapes:
            raise ShapeError(
                f"layer {self.key!r}: hx: shapes {[tuple(state.shape) for state in given]} do not fit; "
                f"the initial states are {shapes}"
            )
        widened = [to_analog(state, like.dtype, self.key, "hx") for state in given]
        return widened if batched else [state.unsqueeze(1) for state in widened]

    def _joined(self, states: list[Tensor]) -> Any:
        return states[0] if len(states) == 1 else tuple(states)

    @excluded
    def _forward(
        self, x: Tensor, batch_sizes: Tensor | None, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        for state in states:
            self.crossbars["_ih_l0"].require_finite(state.detach(), "initial state")
        with torch.autocast(x.device.type, enabled=False):
            # Torch's own loop hides its steps from who looks on.
            if all(is_product(each) and each.seen is None for each in self.crossbars.values()):
                return self._native_forward(x, batch_sizes, states)
            return run(self, self._cell(), x, batch_sizes, states)

    def _native_forward(
        self, x: Tensor, batch_sizes: Tensor | None, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Run torch's own loop on the matrices that a read multiplies by."""
        x = self.crossbars["_ih_l0"].enter(x)
        flat = [self._flat(own, x.dtype) for own in self._order]
        hx = tuple(states) if len(states) > 1 else states[0]
        call = getattr(_VF, self.mode.lower())
        common = (flat, self.bias, self.num_layers, self.dropout, self.training, self.bidirectional)
        if batch_sizes is None:
            output, *final = call(x, hx, *common, self.batch_first)
        else:
            output, *final = call(x, batch_sizes, hx, *common)
        return output, final

    def _flat(self, own: str, dtype: torch.dtype) -> Tensor:
        crossbar: Crossbar | None = self.crossbars.get(own.removeprefix("weight"))
        if crossbar is not None:
            return effective_weight(crossbar).T.contiguous()
        bias: Tensor = getattr(self, own)
        return bias.to(dtype)

    def _cell(self) -> Cell:
        """Return one step of the recurrence."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        text = f"{self.input_size}, {self.hidden_size}"
        usual = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
        }
        for name, value in usual.items():
            held = getattr(self, name)
            text += "" if held == value else f", {name}={held}"
        return f"{text}, chip={self.chip.name!r}"


class XbarRNN(_XbarRecurrent):
    """Elman network on crossbar arrays: the twin of `torch.nn.RNN`."""

    __doc__ += (_XbarRecurrent.__doc__ or "").split("\n", 1)[1]
    _native = nn.RNN

    @property
    def nonlinearity(self) -> str:
        """Either ``"tanh"`` or ``"relu"``."""
        return self.mode.removeprefix("RNN_").lower()

    def _options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}

    def _cell(self) -> Cell:
        return RNNCell(torch.tanh if self.nonlinearity == "tanh" else torch.relu)


class XbarLSTM(_XbarRecurrent):
    """Long short-term memory on crossbar arrays: the twin of `torch.nn.LSTM`."""

    __doc__ += (_XbarRecurrent.__doc__ or "").split("\n", 1)[1]
    _native = nn.LSTM

    @property
    def _state_sizes(self) -> tuple[int, ...]:
        return self.proj_size or self.hidden_size, self.hidden_size

    def _options(self) -> dict[str, Any]:
        return {"proj_size": self.proj_size}

    def _cell(self) -> Cell:
        return LSTMCell()


class XbarGRU(_XbarRecurrent):
    """Gated recurrent unit on crossbar arrays: the twin of `torch.nn.GRU`."""

    __doc__ += (_XbarRecurrent.__doc__ or "").split("\n", 1)[1]
    _native = nn.GRU

    def _cell(self) -> Cell:
        return GRUCell()
