"""Decide what becomes of every layer of a network, before anything is built or changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from xbar_core.config import Chip
from xbar_core.lab.planning import Planned, choose, on_crossbars_already
from xbar_tf.native import on_crossbars, twins

_NORMALISATION = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
)
_HALF = ("float16", "bfloat16", "float32", "float64")


@dataclass
class Entry(Planned):
    """One layer of the model and what becomes of it.

    Attributes
    ----------
    key : str
        What keys the draws of the layer: torch's name of the same layer where the names agree.
    """

    key: str = "model"
    weight_names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        own = () if self.twin is None else self.twin.weight_names()
        self.weight_names = tuple(f"{self.name}/{name}" if self.name else name for name in own)

    @property
    def listed(self) -> bool:
        """Whether a report lists it: containers without weights of their own are not listed."""
        return self.on_chip or not children(self.native) or bool(own_weights(self.native))


def own_weights(layer: Any) -> list[Any]:
    """Return the weights that a layer has beside those of the layers in it."""
    found: list[Any] = [*layer._trainable_variables, *layer._non_trainable_variables]
    return found


def is_container(layer: Any) -> bool:
    """Return whether a model lists its layers itself: Sequential and functional models."""
    return isinstance(layer, keras.Sequential) or hasattr(layer, "_run_through_graph")


def is_wrapper(layer: Any) -> bool:
    """Return whether a layer of Keras wraps others that may go on crossbars."""
    return isinstance(layer, keras.layers.TimeDistributed | keras.layers.Bidirectional)


def children(layer: Any) -> list[tuple[str, Any]]:
    """Return the layers in a layer, by the name that follows its own.

    Layers of functional and sequential models bear their own names, those of subclasses the names of the
    attributes that hold them (``blocks.0`` in a list), as in torch. What a wrapper holds bears its name.
    """
    if on_crossbars(layer):
        return []
    if is_container(layer):
        return [(each.name, each) for each in layer.layers if not isinstance(each, keras.layers.InputLayer)]
    if isinstance(layer, keras.layers.TimeDistributed):
        return [("", layer.layer)]
    if isinstance(layer, keras.layers.Bidirectional):
        return [("", layer.forward_layer), ("", layer.backward_layer)]
    if type(layer).__module__.startswith("keras."):
        return []
    found, seen = [], set()
    for name, value in vars(layer).items():
        if not name.startswith("_"):
            for child_name, child in _layers_in(name, value):
                found.append((child_name, child))
                seen.add(id(child))
    hidden = [(each.name, each) for each in layer._layers if id(each) not in seen]
    return [*found, *hidden]


def _layers_in(name: str, value: Any, around: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the layers in a value by their names; `around` are the ids of the containers that it is in."""
    if isinstance(value, keras.layers.Layer):
        yield name, value
    elif isinstance(value, list | tuple | dict) and id(value) not in around:
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _layers_in(f"{name}.{key}", each, (*around, id(value)))


def walk(layer: Any, name: str = "", *, counted: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield (name, layer) of a model and everything in it, in the order of the model.

    With `counted`, layers that Keras has numbered are counted anew in every model (see `count_names`).
    """
    yield name, layer
    below = children(layer)
    names = _distinct(count_names(below) if counted else [each for each, _ in below])
    for child_name, (_, child) in zip(names, below, strict=True):
        yield from walk(child, ".".join(part for part in (name, child_name) if part), counted=counted)


def _distinct(names: Iterable[str]) -> list[str]:
    """Return names with a number after those that came before; what a wrapper holds bears the wrapper's.

    The attribute of one layer may be called as Keras calls another that a private attribute holds.
    """
    found: list[str] = []
    for name in names:
        each, number = name, 0
        while each and each in found:
            number += 1
            each = f"{name}_{number}"
        found.append(each)
    return found


def count_names(layers: Iterable[tuple[str, Any]]) -> list[str]:
    """Return names that depend on the model alone, from (name, layer) of the layers of one model.

    Keras numbers layers without a name over the whole process (``dense_7``); here they are counted within
    the model: ``dense``, ``dense_1``, ...
    """
    counts: dict[str, int] = {}
    found = []
    for name, layer in layers:
        numbered = re.fullmatch(r"(.+?)(_\d+)?", name)
        kind = type(layer).__name__.removeprefix("Xbar").lower()
        if numbered is not None and numbered[1].replace("_", "") == kind:
            stem = numbered[1]
            counts[stem] = counts.get(stem, 0) + 1
            name = stem if counts[stem] == 1 else f"{stem}_{counts[stem] - 1}"
        found.append(name)
    return found


def plan(
    model: keras.layers.Layer,
    chip: Chip,
    overrides: Mapping[str, Chip | None],
    unsigned: str | Iterable[str],
) -> list[Entry]:
    """Return what becomes of every layer, in the order of the model.

    Parameters
    ----------
    model : Layer
        The network.
    chip : Chip
        For all layers that no pattern matches.
    overrides : mapping of str to Chip or None
        By pattern, see `xbar_tf.convert`.
    unsigned : str or iterable of str
        Patterns of layers whose inputs cannot be negative.
    """
    known = twins()
    entries: dict[int, Entry] = {}
    for (name, layer), (key, _) in zip(walk(model), walk(model, counted=True), strict=True):
        if on_crossbars(layer):
            raise on_crossbars_already(name, layer)
        if id(layer) in entries:
            entries[id(layer)].names.append(name)
            continue
        twin, note = _twin(layer, known)
        entries[id(layer)] = Entry(
            layer, [name], twin, None if twin is None else chip, note, key=key or "model"
        )
    listed = list(entries.values())
    choose(listed, overrides, unsigned)
    return listed


def _twin(layer: Any, known: Mapping[Any, Any]) -> tuple[Any, str]:
    """Return the layer on crossbars of a layer, or None and the reason."""
    base = next((each for each in known if isinstance(layer, each)), None)
    if base is None:
        return None, _why_digital(layer)
    if type(layer).call is not base.call:
        return None, f"a {base.__name__} with a call of its own"
    if not layer.built:
        return None, "its shape is not known yet; call the model once"
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return None, "its weight is quantised or has LoRA; convert the plain layer"
    if layer.variable_dtype not in _HALF:
        return None, f"its weights are {layer.variable_dtype}; crossbars hold floating-point weights"
    for name in ("kernel", "recurrent", "depthwise"):
        if getattr(layer, f"{name}_constraint", None) is not None:
            return None, f"{name}_constraint; devices cannot be constrained"
    return known[base], ""


def _why_digital(layer: Any) -> str:
    if not layer.weights:
        return "no weights"
    if isinstance(layer, _NORMALISATION):
        return "normalisation is digital"
    if children(layer):
        return "weights of a container"
    return "no crossbar twin for this type"
