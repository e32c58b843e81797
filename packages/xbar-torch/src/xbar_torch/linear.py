"""Fully connected layer on crossbars."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xbar_core.config import Chip
from xbar_torch._bridge import from_analog, owned, resolve_chip, undrawn
from xbar_torch.functional import crossbar_linear
from xbar_torch.host import CrossbarModule
from xbar_torch.native import native_tensors


class XbarLinear(CrossbarModule):
    """``y = x W^T + b`` with W on crossbar arrays and b digital: the twin of `torch.nn.Linear`.

    Parameters
    ----------
    in_features, out_features, bias, device, dtype
        As in `torch.nn.Linear`, drawn from the same generator.
    config : str, Path or Chip
        Preset's name, chip file or chip.
    seed : int or None
        Takes the place of the chip's seed.
    name : int or str
        Keys the draws of the layer; give each layer of a network its own.
    signed_input : bool
        False where inputs cannot be negative (after a ReLU): their words then have no sign bit.
    w_max : float or None
        Range of the weights, weight units; None leaves it to the chip's rule.

    Attributes
    ----------
    state : Parameter (devices, in_features, out_features)
        Normalised device states in [0, 1].
    bias : Parameter (out_features,) or None
        Digital.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        config: str | Path | Chip = "ideal",
        seed: int | None = None,
        name: int | str = 0,
        signed_input: bool = True,
        w_max: float | None = None,
    ) -> None:
        super().__init__()
        native = nn.Linear(in_features, out_features, bias, device, dtype)
        self._adopt(native, resolve_chip(config, seed), name, signed_input, w_max)

    def _adopt(
        self, native: nn.Linear, chip: Chip, name: int | str, signed_input: bool, w_max: float | None
    ) -> None:
        self.key = name
        self.in_features, self.out_features = native.in_features, native.out_features
        self.register_parameter("bias", native.bias)
        weight = native.weight.detach().T
        self.add_crossbar("", weight, chip, name, signed_input=signed_input, w_max=w_max)

    @property
    def weight(self) -> Tensor:
        """The weights (out_features, in_features) that the states stand for; read-only."""
        return self.crossbars[""].weight().T

    def load_native(self, source: nn.Module | Mapping[str, Any], w_max: float | None = None) -> None:
        """Program the weights of a native layer, or of its ``state_dict``; the bias is copied."""
        found = native_tensors(source, {"weight": (self.out_features, self.in_features)}, self.bias, self.key)
        state = self.crossbars[""].state
        self.crossbars[""].program(found["weight"].to(state.detach()).T.contiguous(), w_max)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.copy_(found["bias"])

    def to_native(self) -> nn.Linear:
        """Return a native layer with the weights that the states stand for."""
        weight = self.crossbars[""].native_weight()
        bias = self.bias is not None
        native = undrawn(nn.Linear, self.in_features, self.out_features, bias, device=weight.device)
        native.weight = nn.Parameter(weight)
        if self.bias is not None:
            native.bias = nn.Parameter(owned(self.bias))
        return native.train(self.training)

    def product(self, x: Tensor) -> Tensor:
        """Return ``x W^T``, x (..., in_features)."""
        if x.shape[-1:] != (self.in_features,):
            raise self.misfit("input", x.shape, f"does not end in in_features = {self.in_features}")
        return from_analog(crossbar_linear(x, self.crossbars[""]), x)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x W^T + b``, x (..., in_features)."""
        y = self.product(x)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, chip={self.chip.name!r}"
        )
