"""Everything a trainer's future depends on, as named NumPy arrays, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from xbar_core.lab.trainer import Arrays
from xbar_tf._bridge import assign, host
from xbar_tf._plan import own_weights

_MODEL, _OPTIMIZER = "model/", "optimizer/"


def to_array(value: Any) -> NDArray[Any]:
    """Return a copy of a Keras weight on the host."""
    return np.array(host(value))


def named_variables(network: keras.Model, *, seeds: bool = True) -> dict[str, Any]:
    """Return all variables of a network by names that depend on the network alone.

    Keras numbers layers without a name over the whole process (``dropout_7``); here they are counted
    within the network.

    Parameters
    ----------
    network : Model
        Any built model.
    seeds : bool
        Whether states of random generators are among them.
    """
    found: dict[str, Any] = {}
    known: set[int] = set()
    for name, layer in _named_layers(network, "", {}):
        own = own_weights(layer)
        if seeds:
            own = [*own, *(generator.state for generator in layer._seed_generators)]
        for variable in own:
            if id(variable) in known:
                continue
            known.add(id(variable))
            key = f"{name}/{variable.name}" if name else str(variable.name)
            count = sum(1 for each in found if each.partition(":")[0] == key)
            found[f"{key}:{count}" if count else key] = variable
    return found


def _named_layers(layer: Any, prefix: str, counts: dict[str, int]) -> Iterator[tuple[str, Any]]:
    yield prefix, layer
    own: dict[str, int] = {}
    for child in layer._layers:
        kind = re.sub(r"(?<!^)(?=[A-Z][a-z])|(?<=[a-z0-9])(?=[A-Z])", "_", type(child).__name__).lower()
        name = child.name
        if re.fullmatch(rf"{re.escape(kind)}(_\d+)?", name):
            own[kind] = own.get(kind, 0) + 1
            name = kind if own[kind] == 1 else f"{kind}_{own[kind] - 1}"
        yield from _named_layers(child, f"{prefix}/{name}" if prefix else name, own)


def collect(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> Arrays:
    """Return all variables of a network and of its optimizer by flat names."""
    return {name: to_array(variable) for name, variable in _all(network, optimizer).items()}


def restore(
    network: keras.Model, optimizer: keras.optimizers.Optimizer, state: Mapping[str, NDArray[Any]]
) -> None:
    """Take what `collect` returned, after it was checked."""
    for name, variable in _all(network, optimizer).items():
        assign(variable, state[name])


def _all(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    found = {f"{_MODEL}{name}": variable for name, variable in named_variables(network).items()}
    names = _moments(network, optimizer)
    for index, variable in enumerate(optimizer.variables):
        key = f"{_OPTIMIZER}{names.get(id(variable), variable.name)}"
        found[f"{key}:{index}" if key in found else key] = variable
    return found


def _moments(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> dict[int, str]:
    """Return names of the moments, by the weights that they belong to."""
    names = {id(variable): name for name, variable in named_variables(network).items()}
    trained = [names[id(variable)] for variable in optimizer._trainable_variables]
    found = {}
    for attribute, value in vars(optimizer).items():
        if isinstance(value, list) and len(value) == len(trained) and attribute.startswith("_") is False:
            for name, variable in zip(trained, value, strict=True):
                if isinstance(variable, keras.Variable):
                    found[id(variable)] = f"{name}/{attribute}"
    return found
