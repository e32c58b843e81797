"""Between torch and the engine: the traps of the framework, each in one function.

- ``torch.compile`` must not trace into the engine (NumPy, numba): the calls are excluded, which costs one
  graph break each.
- Autocast would run the analog products in bfloat16: it is switched off around them. They run in the dtype
  of the states, float32 or float64.
- Matrices are cached over calls, so they must not be born in inference mode.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from xbar_core.config import Chip, load_chip
from xbar_core.errors import ConfigError, ShapeError

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
ANALOG = (torch.float32, torch.float64)
"""Dtypes of the analog path."""


def excluded(function: Callable[P, T]) -> Callable[P, T]:
    """Keep ``torch.compile`` out of a function, without importing the compiler before it is needed."""
    return cast(Callable[P, T], _disable_dynamo(function))


def resolve_chip(config: str | Path | Chip, seed: int | None = None) -> Chip:
    """Return a chip from a preset's name, a chip file or a chip, with another seed if one is given."""
    if not isinstance(config, str | Path | Chip):
        raise ConfigError(
            f"config: {config!r} is a {type(config).__name__}; give a preset's name, a chip file or a Chip"
        )
    chip = config if isinstance(config, Chip) else load_chip(config)
    return chip if seed is None else dataclasses.replace(chip, seed=seed)


def analog_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that the analog path takes where digital tensors have `dtype`."""
    if not dtype.is_floating_point:
        raise ConfigError(f"dtype: {dtype} is not a real floating-point type; crossbars hold real weights")
    return dtype if dtype in ANALOG else torch.float32


def applied(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    """Return ``function.apply(*arguments)``; torch gives it no type."""
    apply: Callable[..., Tensor] = function.apply  # type: ignore[assignment,unused-ignore]
    return apply(*arguments)


def undrawn(kind: Callable[..., M], *arguments: Any, device: torch.device, **options: Any) -> M:
    """Return a native layer whose weights hold anything: no generator is touched."""
    return kind(*arguments, device="meta", **options).to_empty(device=device)


def owned(values: Tensor) -> Tensor:
    """Return a contiguous copy that autograd does not know."""
    return values.detach().clone(memory_format=torch.contiguous_format)


@contextmanager
def analog(device: torch.device) -> Iterator[None]:
    """Run the analog path: no autocast, no gradient, no inference tensors."""
    with torch.inference_mode(False), torch.no_grad():
        if torch.is_autocast_enabled(device.type):
            with torch.autocast(device.type, enabled=False):
                yield
        else:
            yield


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Give every module its mode (training or evaluation) back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def to_analog(x: Tensor, dtype: torch.dtype, layer: int | str, field: str = "input") -> Tensor:
    """Return an input in the dtype of the states; half precision is widened, nothing else is.

    An error begins with the name of the layer and of what it was given.
    """
    if x.dtype == dtype:
        return x
    if x.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(x.device.type):
        return x.to(dtype)
    name = str(dtype).removeprefix("torch.")
    raise ShapeError(
        f"layer {layer!r}: {field}: dtype {x.dtype} where the device states have torch.{name}; "
        f"use x.to(torch.{name})"
    )


def from_analog(y: Tensor, like: Tensor) -> Tensor:
    """Return an output in the dtype of the layer's input, as a native layer would; in autocast as it is."""
    if y.dtype == like.dtype or torch.is_autocast_enabled(y.device.type):
        return y
    return y.to(like.dtype)


def is_finite(values: Tensor) -> bool:
    """Return whether all values are finite: one pass over memory, a second one only in doubt."""
    if math.isfinite(values.sum().item()):
        return True
    return bool(torch.isfinite(values).all())
