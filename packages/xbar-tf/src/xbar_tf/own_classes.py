"""Objects of the user's own classes with some of their layers on crossbars, and how Keras saves them.

What a user's class writes into its configuration makes native layers. A converted object is therefore of a
class that is made from the user's (`Converted` stands before it): its configuration holds the user's one
and the layers that have taken the places of others. Files are loaded by Keras alone; the user's class is
found as always, because it is registered or in ``custom_objects``.
"""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Mapping
from functools import cache, partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

import keras
import numpy as np

from xbar_core.errors import ConfigError
from xbar_tf._plan import walk
from xbar_tf.host import crossbars_of

_register = keras.saving.register_keras_serializable("xbar_tf", "Converted")


@_register
class Converted:
    """What stands before the class of a converted object.

    Attributes
    ----------
    native_class : type or None
        The user's class.
    swapped : tuple of str
        Names of the layers that have taken the places of others; they depend on the class alone.
    """

    native_class: ClassVar[type | None] = None
    swapped: tuple[str, ...] = ()

    def get_config(self) -> dict[str, Any]:
        """Return the user's configuration, and the layers that it does not tell of."""
        native, there = class_of(self), _named(self)
        serialize = keras.saving.serialize_keras_object
        return {
            "class": keras.saving.get_registered_name(native),
            "config": own_config(self),
            "build_config": native.get_build_config(self),
            "layers": {name: serialize(there[name]) for name in self.swapped},
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """Return an object of the user's class with the layers that a configuration names."""
        name = config["class"]
        native = cls.native_class
        if native is None or keras.saving.get_registered_name(native) != name:
            native = keras.saving.get_registered_object(name)
        if native is None:
            raise ConfigError(
                f"class {name!r}: Keras does not know it; decorate it with "
                "@keras.saving.register_keras_serializable() and import its module, or give "
                f"custom_objects={{{name!r}: ...}}"
            )
        result = fresh(native, config["config"], config["build_config"])
        made = {name: keras.saving.deserialize_keras_object(each) for name, each in config["layers"].items()}
        there = _named(result)
        lost = [name for name in made if name not in there]
        if lost:
            raise ConfigError(
                f"class {name!r}: makes no layer {lost[0]!r}, which was converted; load the file with the "
                "class that it was saved with"
            )
        return with_layers(result, {id(there[name]): layer for name, layer in made.items()})


@cache
def _converted(native: type) -> type:
    """Return the class of a user's converted objects."""
    own: dict[str, Any] = {"native_class": native, "__doc__": native.__doc__}
    if getattr(native.get_config, "_is_default", False):  # type: ignore[attr-defined]
        # Then Keras writes the arguments of the user's class itself, unless another method seems to.
        def get_config(self: Any) -> dict[str, Any]:
            return Converted.get_config(self)

        get_config._is_default = True  # type: ignore[attr-defined]
        own["get_config"] = get_config
    made = type(native.__name__, (Converted, native), own)
    # Known to Keras by one name, which is the base's: a file does not need the class that was made here.
    _register(made)
    _register(Converted)
    return made


def class_of(layer: Any) -> Any:
    """Return the user's class of a converted object; of any other object its class."""
    native = layer.native_class if isinstance(layer, Converted) else None
    return type(layer) if native is None else native


def own_config(layer: Any) -> dict[str, Any]:
    """Return what the user's class says of an object."""
    config: dict[str, Any] = class_of(layer).get_config(layer)
    return config


def fresh(native: type, config: Mapping[str, Any], build_config: Mapping[str, Any] | None) -> Any:
    """Return a built object of a class from its configuration, without arguments that it does not take.

    Parameters
    ----------
    native : type
        The class.
    config, build_config : mapping
        From ``get_config`` and ``get_build_config``.
    """
    wanted = inspect.signature(native.__init__).parameters  # type: ignore[misc]
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in wanted.values())
    kind: Any = native
    if takes_all or "from_config" in vars(native):
        result = kind.from_config(dict(config))
    else:
        result = kind(**{name: value for name, value in config.items() if name in wanted})
    if build_config and not result.built:
        result.build_from_config(build_config)
    if build_config and not result.built:
        _call_once(result, build_config)
    return result


def _call_once(model: Any, built: Mapping[str, Any]) -> None:
    """Call a model with zeros of the shapes that another one was built for, so that it has its weights."""

    def zeros(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: zeros(each) for name, each in shape.items()}
        if isinstance(shape, list | tuple) and any(isinstance(each, list | tuple) for each in shape):
            return [zeros(each) for each in shape]
        return np.zeros([1 if length is None else length for length in shape], model.compute_dtype)

    shapes = built.get("shapes_dict")
    try:
        if shapes is None:
            model(zeros(built["input_shape"]), training=False)
        else:
            given = {name.removesuffix("_shape"): zeros(each) for name, each in shapes.items()}
            model(**given, training=False)
    except Exception as error:  # the user's own code may fail in any way
        raise ConfigError(
            f"model: a {type(model).__name__} cannot be called with inputs of shapes "
            f"{shapes or built['input_shape']}, which is what Keras tells of them ({cause(error)}); have it "
            "take all inputs as one argument, a list or dict, or give the class get_build_config and "
            "build_from_config"
        ) from error


def cause(error: Exception) -> str:
    """Return the line of an error that tells what happened: Keras frames it in others, and in colours."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception encountered when calling", "{{"))]
    return f"{type(error).__name__}: {next(iter(told or lines), '')}"


def with_layers(model: Any, replaced: Mapping[int, Any]) -> Any:
    """Put layers into the places of others; where that puts any on crossbars, have Keras save it.

    Parameters
    ----------
    model : Layer
        Of a user's class; it is changed.
    replaced : mapping of int to Layer
        The new layers by the ids of those that are there now.
    """
    names = [name for name, layer in _named(model).items() if id(layer) in replaced]
    if replaced:
        for _, layer in list(walk(model)):
            _swap(layer, replaced)
        _require_all_swapped(model, replaced)
    if any(True for _ in crossbars_of(model)):
        object.__setattr__(model, "__class__", _converted(class_of(model)))
        model.__dict__["swapped"] = tuple(names)
    return model


def _named(model: Any) -> dict[str, Any]:
    """Return the layers in a model by names that depend on the model alone; wrappers hide what they wrap."""
    found: dict[str, Any] = {}
    for name, layer in walk(model, counted=True):
        found.setdefault(name, layer)
    return found


def _swap(layer: Any, replaced: Mapping[int, Any]) -> None:
    """Put layers into the places of others, wherever the attributes of a layer hold them."""
    if not any(id(each) in replaced for each in layer._layers):
        return
    locked = layer._tracker.locked
    layer._tracker.unlock()
    seen: set[int] = set()
    for name, value in list(vars(layer).items()):
        if name != "_layers" and (now := _swapped(value, replaced, seen)) is not value:
            setattr(layer, name, now)
    there: dict[int, Any] = {}
    for each in layer._layers:
        now = replaced.get(id(each), each)
        there[id(now)] = now
    layer._layers[:] = list(there.values())
    if locked:
        layer._tracker.lock()


def _swapped(value: Any, replaced: Mapping[int, Any], seen: set[int]) -> Any:
    """Return what stands for a value: lists, dicts and sets are changed, tuples made anew.

    `seen` are the ids of what was changed already: a list may hold itself.
    """
    if id(value) in replaced:
        return replaced[id(value)]
    if isinstance(value, list | dict | set):
        if id(value) in seen:
            return value
        seen.add(id(value))
    if isinstance(value, list | dict):
        for key, each in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if (now := _swapped(each, replaced, seen)) is not each:
                value[key] = now
    elif isinstance(value, set):
        for each in list(value):
            if (now := _swapped(each, replaced, seen)) is not each:
                value.remove(each)
                value.add(now)
    elif isinstance(value, tuple):
        found = [_swapped(each, replaced, seen) for each in value]
        if any(now is not each for now, each in zip(found, value, strict=True)):
            return value._make(found) if hasattr(value, "_make") else type(value)(found)
    return value


def _require_all_swapped(model: Any, replaced: Mapping[int, Any]) -> None:
    """Raise where an object that Keras does not look into still holds a layer that was replaced."""
    for name, layer in walk(model):
        if type(layer).__module__.startswith("keras."):
            continue
        for attribute, value in vars(layer).items():
            if (left := _left(value, replaced)) is not None:
                where = f"{name}.{attribute}" if name else attribute
                raise ConfigError(
                    f"model: {where} (a {type(value).__name__}) still holds layer {left.name!r}, which was "
                    "replaced; keep layers in attributes, lists, tuples or dicts of the model or of a layer"
                )


def _left(value: Any, replaced: Mapping[int, Any]) -> Any:
    """Return a replaced layer that a value holds at any depth, or None; layers are looked into one by one."""
    waiting, seen = [value], set()
    while waiting:
        each = waiting.pop()
        if id(each) in replaced:
            return each
        if id(each) not in seen and not isinstance(each, keras.layers.Layer):
            seen.add(id(each))
            waiting += _inside(each)
    return None


def _inside(value: Any) -> list[Any]:
    """Return what containers, functions and objects of the user's own hold."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset | deque):
        return list(value)
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, FunctionType):
        return [each for cell in value.__closure__ or () for each in _content(cell)]
    foreign = ("builtins", "keras.", "tensorflow.", "numpy")
    if isinstance(value, type | ModuleType) or type(value).__module__.startswith(foreign):
        return []
    return list(getattr(value, "__dict__", {}).values())


def _content(cell: CellType) -> list[Any]:
    """Return what a variable of a closure holds, which may be nothing yet."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []
