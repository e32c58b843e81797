"""What a layer on crossbars takes over from its native twin, checked before anything is overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from xbar_core._checks import nearest
from xbar_core.config import Chip
from xbar_core.errors import ConfigError, ShapeError
from xbar_torch._bridge import resolve_chip


class NativeTwin(nn.Module):
    """A layer that is made of a native one, and makes one.

    Attributes
    ----------
    key : int or str
        What keys the draws of the layer, and names it in messages: its name where `convert` made it.
    """

    key: int | str = 0

    @classmethod
    def from_native(
        cls,
        native: nn.Module,
        config: str | Path | Chip = "ideal",
        *,
        seed: int | None = None,
        name: int | str = 0,
        signed_input: bool = True,
        w_max: Any = None,
    ) -> Self:
        """Return a layer with the weights of its native twin programmed; digital parameters are shared.

        Parameters
        ----------
        native : Module
            The twin of `torch.nn`.
        config, seed, name, signed_input, w_max
            As when the layer is made anew.
        """
        layer = cls.__new__(cls)
        layer._prepare()
        layer._adopt(native, resolve_chip(config, seed), name, signed_input, w_max)
        return layer.train(native.training)

    def _prepare(self) -> None:
        """Do what every ``__init__`` begins with."""
        nn.Module.__init__(self)

    def _adopt(self, native: Any, chip: Chip, name: int | str, signed_input: bool, w_max: Any) -> None:
        """Take over what a native twin holds, its weights by `add_crossbar`."""
        raise NotImplementedError(f"{type(self).__name__} has no native twin")

    def misfit(self, field: str, shape: tuple[int, ...], rule: str) -> ShapeError:
        """Return the error that says that an input does not have the shape that it should."""
        return ShapeError(f"layer {self.key!r}: {field}: shape {tuple(shape)} {rule}")

    def to_native(self) -> nn.Module:
        """Return a native layer with the weights that the states stand for."""
        raise NotImplementedError(f"{type(self).__name__} has no native twin")

    def load_native(self, source: nn.Module | Mapping[str, Any], w_max: Any = None) -> None:
        """Program the weights of a native layer, or of its ``state_dict``; biases are copied."""
        raise NotImplementedError(f"{type(self).__name__} has no native twin")

    def reset_parameters(self) -> None:
        """Draw new first weights as the native twin does, and program them."""
        native: Any = self.to_native()
        native.reset_parameters()
        self.load_native(native)


def native_tensors(
    source: nn.Module | Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    bias: Tensor | None,
    layer: int | str,
) -> dict[str, Tensor]:
    """Return the tensors of a native layer by name.

    Parameters
    ----------
    source : Module or mapping
        The native layer or its ``state_dict``.
    shapes : mapping of str to tuple of int
        Names and shapes that are wanted.
    bias : Tensor or None
        The layer's own bias; wanted too unless None.
    layer : int or str
        The layer's name, for messages.

    Raises
    ------
    ConfigError, ShapeError
        A tensor is missing, unknown, of another shape or not finite.
    """
    found = source.state_dict() if isinstance(source, nn.Module) else dict(source)
    wanted = dict(shapes)
    if bias is not None:
        wanted["bias"] = tuple(bias.shape)
    for name in found:
        if name not in wanted:
            raise ConfigError(
                f"layer {layer!r}: the native layer has {name!r}, which this layer has not"
                f"{nearest(name, wanted)}"
            )
    for name, shape in wanted.items():
        if name not in found:
            raise ConfigError(f"layer {layer!r}: the native layer has no {name!r}; it has {sorted(found)}")
        value = found[name]
        if tuple(value.shape) != shape:
            raise ShapeError(
                f"layer {layer!r}: {name} has shape {tuple(value.shape)}, this layer's is {shape}"
            )
        if not bool(torch.isfinite(value).all()):
            raise ConfigError(f"layer {layer!r}: {name} holds NaN or infinity; load finite weights")
    return {name: found[name].detach() for name in wanted}
