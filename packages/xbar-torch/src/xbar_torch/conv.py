"""Convolutions on crossbars, in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xbar_core.config import Chip
from xbar_core.engine.patches import Geometry
from xbar_core.errors import ShapeError
from xbar_torch._bridge import from_analog, owned, resolve_chip, undrawn
from xbar_torch.functional import crossbar_convolution
from xbar_torch.host import CrossbarModule
from xbar_torch.native import native_tensors

Native = nn.Conv1d | nn.Conv2d | nn.Conv3d
Size = int | tuple[int, ...]


class _XbarConv(CrossbarModule):
    """Base of the convolutions.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As in `torch.nn.Conv2d`, drawn from the same generator. Every group has its own arrays.
    device, dtype
        As in `torch.nn.Conv2d`.
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
    state : Parameter (devices, in_channels / groups x kernel cells, out_channels)
        Normalised device states in [0, 1]; the columns of a group stand side by side.
    bias : Parameter (out_channels,) or None
        Digital.
    """

    _native: ClassVar[type[Any]]
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
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
        native = self._native(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )
        self._adopt(native, resolve_chip(config, seed), name, signed_input, w_max)

    def _adopt(
        self, native: Native, chip: Chip, name: int | str, signed_input: bool, w_max: float | None
    ) -> None:
        self.key = name
        self.in_channels, self.out_channels = native.in_channels, native.out_channels
        self.kernel_size, self.stride = native.kernel_size, native.stride
        self.padding, self.dilation = native.padding, native.dilation
        self.groups, self.padding_mode = native.groups, native.padding_mode
        self.transposed, self.output_padding = native.transposed, native.output_padding
        self.register_parameter("bias", cast(nn.Parameter | None, native.bias))
        # Sides in the order of `torch.nn.functional.pad`; they differ for padding = "same" alone.
        sides = native._reversed_padding_repeated_twice
        symmetric = all(a == b for a, b in zip(sides[::2], sides[1::2], strict=True))
        curved = chip.input.nonlinearity is not None and not hasattr(chip.input.nonlinearity, "coefficients")
        inside = symmetric and self.padding_mode == "zeros" and not curved
        self._sides = None if inside or not any(sides) else tuple(sides)
        border = sides[::-2] if inside else [0] * len(self.kernel_size)
        padding = tuple((n, n) for n in border)
        self._geometry = Geometry(self.kernel_size, self.stride, padding, self.dilation, self.groups)
        weight = native.weight.detach().reshape(self.out_channels, -1).T
        self.add_crossbar("", weight, chip, name, parts=self.groups, signed_input=signed_input, w_max=w_max)

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    @property
    def weight(self) -> Tensor:
        """The weights (out, in / groups, kernel) that the states stand for; read-only."""
        return self.crossbars[""].weight().T.reshape(self._weight_shape)

    def load_native(self, source: nn.Module | Mapping[str, Any], w_max: float | None = None) -> None:
        """Program the weights of a native layer, or of its ``state_dict``; the bias is copied."""
        found = native_tensors(source, {"weight": self._weight_shape}, self.bias, self.key)
        state = self.crossbars[""].state.detach()
        weight = found["weight"].to(state).reshape(self.out_channels, -1).T
        self.crossbars[""].program(weight.contiguous(), w_max)
        if self.bias is not None:
            with torch.no_grad():
                self.bias.copy_(found["bias"])

    def to_native(self) -> Native:
        """Return a native layer with the weights that the states stand for."""
        weight = self.crossbars[""].native_weight().reshape(self._weight_shape)
        native = undrawn(
            self._native,
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            self.bias is not None,
            self.padding_mode,
            device=weight.device,
        )
        native.weight = nn.Parameter(weight)
        if self.bias is not None:
            native.bias = nn.Parameter(owned(self.bias))
        return cast(Native, native.train(self.training))

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x (batch, in_channels, ...), or of one sample without batch axis."""
        dims = len(self.kernel_size)
        if x.ndim not in (dims + 1, dims + 2) or x.shape[-dims - 1] != self.in_channels:
            rule = f"is not (batch, {self.in_channels}{', size' * dims}) or one sample of it"
            raise self.misfit("input", x.shape, rule)
        if x.ndim == dims + 1:
            result: Tensor = self.forward(x[None])[0]
            return result
        like = x
        if self._sides is not None:
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._sides, mode=mode)
        if min(self._geometry.output(x.shape[2:])) < 1:
            raise ShapeError(
                f"layer {self.key!r}: input: size {tuple(like.shape[2:])} is smaller than the kernel "
                f"{self.kernel_size} with padding {self.padding} and dilation {self.dilation}"
            )
        y = from_analog(crossbar_convolution(x, self.crossbars[""], self._geometry), like)
        return y if self.bias is None else y + self.bias.view(-1, *(1,) * dims)

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        extras = {
            "padding": (self.padding, (0,) * len(self.kernel_size)),
            "dilation": (self.dilation, (1,) * len(self.kernel_size)),
            "groups": (self.groups, 1),
            "bias": (self.bias is not None, True),
            "padding_mode": (self.padding_mode, "zeros"),
        }
        for name, (value, usual) in extras.items():
            text += "" if value == usual else f", {name}={value}"
        return f"{text}, chip={self.chip.name!r}"


class XbarConv1d(_XbarConv):
    """1-dimensional convolution on crossbar arrays: the twin of `torch.nn.Conv1d`."""

    __doc__ += (_XbarConv.__doc__ or "").split("\n", 1)[1]
    _native = nn.Conv1d


class XbarConv2d(_XbarConv):
    """2-dimensional convolution on crossbar arrays: the twin of `torch.nn.Conv2d`."""

    __doc__ += (_XbarConv.__doc__ or "").split("\n", 1)[1]
    _native = nn.Conv2d


class XbarConv3d(_XbarConv):
    """3-dimensional convolution on crossbar arrays: the twin of `torch.nn.Conv3d`."""

    __doc__ += (_XbarConv.__doc__ or "").split("\n", 1)[1]
    _native = nn.Conv3d
