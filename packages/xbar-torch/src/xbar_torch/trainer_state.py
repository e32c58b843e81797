"""Everything a trainer's future depends on, as named NumPy arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError
from xbar_core.lab.trainer import Arrays

_MODEL, _OPTIMIZER = "model/", "optimizer/"
_LATER = ("reference", "reference_backward", "reference_update", "reference_backward_update")


def to_array(value: Tensor) -> NDArray[Any]:
    """Return a copy of a tensor on the host."""
    return np.array(value.detach().cpu().numpy())


def collect(network: nn.Module, optimizer: Optimizer) -> Arrays:
    """Return parameters, buffers, ranges, counters, references and moments by flat names."""
    found = {f"{_MODEL}{name}": to_array(value) for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                found[f"{_OPTIMIZER}{name}/{key}"] = to_array(value)
    return found


def comes_later(name: str) -> bool:
    """Tell what a network that has not trained yet lacks: moments, references of the interpolation."""
    if name.startswith(_OPTIMIZER):
        return True
    last = name.rpartition(".")[2].removeprefix(_MODEL)
    return any(last == each or last.startswith(f"{each}_") for each in _LATER)


def check_moments(network: nn.Module, state: Mapping[str, NDArray[Any]]) -> None:
    """Raise ConfigError for a moment of the optimizer without a parameter of its shape."""
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    for name, array in state.items():
        if not name.startswith(_OPTIMIZER):
            continue
        owner, _, key = name.removeprefix(_OPTIMIZER).rpartition("/")
        momentum_of_weights = owner in shapes and shapes[owner][1:] == array.shape
        if key != "step" and shapes.get(owner) != array.shape and not momentum_of_weights:
            raise ConfigError(
                f"checkpoint: {name!r} {array.shape} fits no parameter here{nearest(owner, shapes)}; "
                "it belongs to another network, chip or recipe"
            )


def restore(network: nn.Module, optimizer: Optimizer, state: Mapping[str, NDArray[Any]]) -> None:
    """Take what `collect` returned, after it was checked."""
    held: dict[str, dict[str, Tensor]] = {}
    tensors: dict[str, Tensor] = {}
    for name, array in state.items():
        value = torch.from_numpy(np.array(array))
        if name.startswith(_MODEL):
            tensors[name.removeprefix(_MODEL)] = value
        elif name.startswith(_OPTIMIZER):
            owner, _, key = name.removeprefix(_OPTIMIZER).rpartition("/")
            held.setdefault(owner, {})[key] = value
    network.load_state_dict(tensors)
    optimizer.state.clear()
    for name, parameter in network.named_parameters():
        if name in held:
            # Adam's count of steps stays on the host.
            moments = held[name].items()
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in moments
            }
