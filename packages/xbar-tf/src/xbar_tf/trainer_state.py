"""Everything a trainer's future depends on, as named NumPy arrays, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from xbar_core.lab.trainer import Arrays
from xbar_tf._bridge import assign, host
from xbar_tf._plan import count_names, own_weights
from xbar_tf.host import crossbars_of

_MODEL, _OPTIMIZER = "model/", "optimizer/"


def to_array(value: Any) -> NDArray[Any]:
    """Return a copy of a Keras weight on the host."""
    return np.array(host(value))


def named_variables(network: keras.Model, *, seeds: bool = True) -> dict[str, Any]:
    """Return all variables of a network by names that depend on the network alone.

    Parameters
    ----------
    network : Model
        Any built model.
    seeds : bool
        Whether states of random generators are among them.
    """
    found: dict[str, Any] = {}
    known: set[int] = set()
    for name, layer in _named_layers(network, ""):
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


def _named_layers(layer: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    yield prefix, layer
    for name, child in zip(count_names([(c.name, c) for c in layer._layers]), layer._layers, strict=True):
        yield from _named_layers(child, f"{prefix}/{name}" if prefix else name)


def collect(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> Arrays:
    """Return all variables of a network and of its optimizer by flat names."""
    for _, crossbar in crossbars_of(network):
        crossbar.settled(crossbar.present())
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
    own = {id(variable) for variable in optimizer.variables}
    found = {}
    for attribute, value in vars(optimizer).items():
        if isinstance(value, list) and len(value) == len(trained):
            for name, variable in zip(trained, value, strict=True):
                if id(variable) in own:
                    found[id(variable)] = f"{name}/{attribute.removeprefix('_')}"
    return found
