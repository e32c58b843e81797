"""Tensors of native layers, checked before anything is overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError, ShapeError


def native_tensors(
    source: nn.Module | Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    bias: Tensor | None,
    layer: str,
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
    layer : str
        The class's name, for messages.

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
                f"{layer}: the native layer has {name!r}, which this layer has not{nearest(name, wanted)}"
            )
    for name, shape in wanted.items():
        if name not in found:
            raise ConfigError(f"{layer}: the native layer has no {name!r}; it has {sorted(found)}")
        value = found[name]
        if tuple(value.shape) != shape:
            raise ShapeError(f"{layer}: {name} has shape {tuple(value.shape)}, this layer's is {shape}")
        if not bool(torch.isfinite(value).all()):
            raise ConfigError(f"{layer}: {name} holds NaN or infinity; load finite weights")
    return {name: found[name].detach() for name in wanted}
