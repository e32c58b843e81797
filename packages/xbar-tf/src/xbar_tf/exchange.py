"""Weights of torch networks in Keras models and back: names, axes, gates and biases, in NumPy alone.

A torch module and its Keras twin hold the same numbers in another order:

================  ==========================================  ==========================================
layer             torch                                       Keras
================  ==========================================  ==========================================
linear            (out, in)                                   (in, out)
convolution       (out, in / groups, ...window)               (...window, in / groups, out)
depthwise         (in x multiplier, 1, ...window)             (...window, in, multiplier)
flattened image   channels, height, width                     height, width, channels
LSTM              gates i f g o in rows, two biases           gates i f c o in columns, their sum
GRU               gates r z n in rows, two biases             gates z r h in columns, a bias of two rows
attention         q k v in rows of one matrix (3 out, in)     a kernel (in, heads, width) for each
================  ==========================================  ==========================================

Layers are matched by name where the layers with weights bear the names of the torch modules (as in
`xbar_tf.zoo`), else in order: the modules as the ``state_dict`` lists them, the layers as ``model.layers``
does. In a model of branches the second order may surprise; name the layers there. Of several recurrent
layers in one torch module the Keras layers are named as their tensors end (``lstm_l1``); `Bidirectional`
holds a layer and its reverse.

A dense layer or a normalisation that follows a `Flatten` has its inputs in the other order where what is
flattened is an image or its features (all axes but the last are pixels); `Permute` layers before the
`Flatten` are taken into account. What leaves recurrent or dense layers is flattened alike in both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf._twin_weights import COUNTER, Numbers, Tensors, TwinWeights, twin_weights

Key = tuple[str, str]
"""Path of a torch module and, of a recurrent one, the ending of its tensors (``"_l0_reverse"``)."""

_ENDING = r"_l\d+(?:_reverse)?"
_KEEPS_ORDER = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.BatchNormalization,
    layers.LayerNormalization,
)


def from_torch(state: Mapping[str, Any], model: keras.Model) -> None:
    """Put the weights of a torch network into a Keras model of the same layers.

    Parameters
    ----------
    state : mapping of str to array
        A ``state_dict`` as NumPy arrays.
    model : keras.Model
        A native model, already built; its weights are overwritten, all or none.

    Raises
    ------
    ConfigError
        A tensor is missing or has no place, or a layer has no twin in torch.
    ShapeError
        A tensor does not fit its layer.
    """
    modules = _modules({name: np.asarray(value) for name, value in state.items()})
    places = _places(model)
    keys = _matched(places, list(modules))
    found = [_weights(place, key, modules[key]) for place, key in zip(places, keys, strict=True)]
    for place, weights in zip(places, found, strict=True):
        place.layer.set_weights(weights)


def to_torch(model: keras.Model, names: Iterable[str] | None = None) -> dict[str, Numbers]:
    """Return the weights of a Keras model as the ``state_dict`` of the torch network of the same layers.

    Parameters
    ----------
    model : keras.Model
        A native model, already built.
    names : iterable of str or None
        Keys of the torch network's ``state_dict``; needed where the layers do not bear its modules' names.

    Returns
    -------
    dict of str to array
        Of the two biases of an LSTM or a simple recurrent layer the second is 0, and so is
        ``num_batches_tracked``, which Keras does not count.

    Raises
    ------
    ConfigError
        A layer has no twin in torch, or the names do not fit.
    """
    places = _places(model)
    keys = [place.key for place in places]
    if names is not None:
        keys = _matched(places, list(_modules(dict.fromkeys(names, np.empty(0)))))
    result: dict[str, Numbers] = {}
    for place, (path, ending) in zip(places, keys, strict=True):
        for name, value in _tensors(place).items():
            own = f"{path}.{name}{ending}" if path else f"{name}{ending}"
            result[own] = np.array(value, order="C")
    return result


# The torch side: tensors by module.


def _modules(state: Mapping[str, Numbers]) -> dict[Key, Tensors]:
    """Return the tensors of each module, or of each layer and direction of a recurrent one."""
    found: dict[Key, Tensors] = {}
    for full, value in state.items():
        path, _, name = full.rpartition(".")
        recurrent = re.fullmatch(rf"((?:weight|bias)_(?:ih|hh|hr))({_ENDING})", name)
        name, ending = recurrent.groups() if recurrent is not None else (name, "")
        if name != COUNTER:
            found.setdefault((path, ending), {})[name] = value
    for (path, _), tensors in list(found.items()):
        if tensors.keys() & {"in_proj_weight", "q_proj_weight"}:  # attention's last projection is a module
            last = found.pop((f"{path}.out_proj" if path else "out_proj", ""), {})
            tensors.update({f"out_proj.{name}": value for name, value in last.items()})
    return found


def _matched(places: list[_Place], modules: list[Key]) -> list[Key]:
    """Return the module of each place: by name where all names agree, else in order."""
    if {place.key for place in places} == set(modules):
        return [place.key for place in places]
    if len(places) != len(modules):
        ours = ", ".join(place.layer.name for place in places)
        raise ConfigError(
            f"model: {len(places)} layers with weights ({ours}) do not fit {len(modules)} torch modules "
            f"({', '.join(path + ending for path, ending in modules)}); build the same network in both"
        )
    return modules


# The Keras side: layers with weights.


@dataclass(frozen=True)
class _Place:
    """A layer with weights: its name in torch's terms, and where torch has each of its flattened inputs."""

    key: Key
    layer: Any
    twin: TwinWeights
    order: Numbers | None


def _places(model: keras.Model) -> list[_Place]:
    """Return the layers with weights in order, following what a `Flatten` does to the order of features."""
    places = []
    image, least = True, 3  # whether there is a channels axis, if there are so many axes
    moved: tuple[int, ...] | None = None
    order: Numbers | None = None
    for key, layer in _layers(model):
        if getattr(layer, "data_format", None) == "channels_first":
            raise ConfigError(f"layer {layer.name!r}: data_format 'channels_first'; use 'channels_last'")
        if isinstance(layer, layers.InputLayer):
            image, least, moved, order = True, 3, None, None
        elif isinstance(layer, layers.Permute):
            moved = tuple(moved[axis - 1] if moved else axis for axis in layer.dims)
        elif isinstance(layer, layers.Flatten):
            shape = tuple(layer.get_build_config()["input_shape"][1:])
            order = _flat_order(shape, moved) if image and len(shape) >= least else None
            image = False
        elif hasattr(layer, "data_format"):
            image, least, moved, order = True, 2, None, None
        elif isinstance(layer, layers.Reshape):
            image = False
        if not layer.weights:
            continue
        twin = twin_weights(layer)
        places.append(_Place(key, layer, twin, order))
        if not isinstance(layer, _KEEPS_ORDER):
            image, order = False, None
    return places


def _layers(model: keras.Model) -> Iterator[tuple[Key, Any]]:
    """Yield the layers of a model and of the models and wrappers in it."""
    for layer in model.layers:
        while isinstance(layer, layers.TimeDistributed):
            layer = layer.layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif isinstance(layer, layers.Bidirectional):
            path, ending = _recurrent_key(layer.name)
            yield (path, ending), layer.forward_layer
            yield (path, f"{ending}_reverse"), layer.backward_layer
        else:
            yield _recurrent_key(layer.name) if isinstance(layer, layers.RNN) else (layer.name, ""), layer


def _recurrent_key(name: str) -> Key:
    """Return path and ending of a recurrent layer: ``"lstm_l1"`` is layer 1 of ``"lstm"``."""
    found = re.fullmatch(rf"(.*?)({_ENDING})", name)
    return (found[1], found[2]) if found else (name, "_l0")


def _flat_order(shape: tuple[int, ...], moved: tuple[int, ...] | None) -> Numbers:
    """Return torch's index of each flattened feature: there the channels are the first axis."""
    channels_last = (*range(1, len(shape)), 0)
    axes = channels_last if moved is None else tuple(channels_last[axis - 1] for axis in moved)
    torch_shape = tuple(shape[axes.index(axis)] for axis in range(len(shape)))
    return np.arange(np.prod(shape)).reshape(torch_shape).transpose(axes).ravel()


# One layer: its weights in either form, rows of flattened features in the form's own order.


def _tensors(place: _Place) -> Tensors:
    """Return what the layer holds as torch's tensors."""
    weights = place.layer.get_weights()
    if place.order is not None:
        inverse = np.argsort(place.order)
        for index in range(place.twin.by_input):
            weights[index] = weights[index][inverse]
    return place.twin.to_torch(weights)


def _weights(place: _Place, key: Key, tensors: Tensors) -> list[Numbers]:
    """Return torch's tensors as the layer's weights, after checking that they are the layer's."""
    own = {name: value.shape for name, value in _tensors(place).items() if name != COUNTER}
    where = f"layer {place.layer.name!r} ({type(place.layer).__name__})"
    module = f"torch's {''.join(key)!r}"
    for name in (*own, *tensors):
        if name not in tensors:
            raise ConfigError(f"{where}: {module} has no {name!r}; it has {', '.join(tensors)}")
        if name not in own:
            raise ConfigError(
                f"{where}: {module} has {name!r}, for which the layer has no place{nearest(name, own)}; "
                f"it has {', '.join(own)}"
            )
        if tensors[name].shape != own[name]:
            raise ShapeError(
                f"{where}: {name} of {module} has shape {tensors[name].shape}; the layer needs {own[name]}"
            )
    weights = place.twin.to_keras(tensors)
    if place.order is not None:
        for index in range(place.twin.by_input):
            weights[index] = weights[index][place.order]
    return weights
