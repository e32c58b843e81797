"""A copy of a model in which some layers have another form: on crossbars, or native again.

Functional and sequential models are cloned with their layers replaced, models of the user's own classes are
made anew from their configuration and have the layers in their attributes replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import keras

from xbar_core.errors import ConfigError
from xbar_tf._plan import children, is_container, is_wrapper, own_weights, walk
from xbar_tf.native import native_class, on_crossbars
from xbar_tf.own_classes import cause, class_of, fresh, own_config, with_layers

Made = Callable[[Any], Any]
"""A function that returns the new form of a layer, or None where it stays what it is."""


def remade(model: Any, form: Made, load: Callable[[Any, Any], None]) -> Any:
    """Return a copy of a model in which layers have another form, all weights with it.

    A layer that is used in several places, in wrappers and inner models as well, stays one layer.

    Parameters
    ----------
    model : Model
        Any model.
    form : callable
        Returns the new, unbuilt form of a layer, or None.
    load : callable
        ``load(new, old)`` builds the new form and gives it the weights of the old one.
    """
    return _Copy(form, load).of_model(model)


class _Copy:
    """One copy on its way: every layer is made once, wherever it is met."""

    def __init__(self, form: Made, load: Callable[[Any, Any], None]) -> None:
        self.form, self.load = form, load
        self.made: dict[int, Any] = {}  # by the ids of the old layers

    def of_model(self, model: Any) -> Any:
        """Return the copy of a model."""
        if not is_container(model):
            return self._of_subclass(model)
        compiled, model.compiled = model.compiled, False
        try:
            result = keras.models.clone_model(model, clone_function=self.of_layer)
        finally:
            model.compiled = compiled
        if not result.built:
            result.build(model._build_shapes_dict or model.input_shape)
        return result

    def of_layer(self, layer: Any) -> Any:
        """Return the copy of a layer, model or wrapper, in its new form if it has one."""
        if id(layer) not in self.made:
            self.made[id(layer)] = self._of_layer(layer)
        return self.made[id(layer)]

    def _of_layer(self, layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.layers.Lambda):
            return layer  # nothing in it to copy
        new = self.form(layer)
        if new is not None:
            self.load(new, layer)
            return new
        if is_wrapper(layer):
            return self._of_wrapper(layer)
        if is_container(layer) or children(layer):
            return self.of_model(layer)
        new = layer.__class__.from_config(layer.get_config())
        _build_like(new, layer)
        new.set_weights(layer.get_weights())
        return new

    def _of_wrapper(self, layer: Any) -> Any:
        config = {key: value for key, value in layer.get_config().items() if not key.endswith("layer")}
        if isinstance(layer, keras.layers.TimeDistributed):
            new = layer.__class__(self.of_layer(layer.layer), **config)
            _build_like(new, layer)
            return new
        # Bidirectional makes the forward layer anew, so both get their weights when it is there.
        pairs = (layer.forward_layer, layer.backward_layer)
        ahead, back = (self.form(each) or each.__class__.from_config(each.get_config()) for each in pairs)
        new = layer.__class__(ahead, backward_layer=back, **config)
        for inner, old in zip((new.forward_layer, new.backward_layer), pairs, strict=True):
            if type(inner) is type(old):
                _build_like(inner, old)
                inner.set_weights(old.get_weights())
            else:
                self.load(inner, old)
        _build_like(new, layer)
        return new

    def _of_subclass(self, model: Any) -> Any:
        result = _made_anew(model)
        old, new = list(walk(model)), [layer for _, layer in walk(result)]
        if [_native_type(layer) for _, layer in old] != [class_of(layer) for layer in new]:
            raise ConfigError(
                f"model: a {type(model).__name__} made anew from get_config has other layers than this one; "
                "have get_config return all arguments, make all layers in __init__, and call the model once"
            )
        replaced: dict[int, Any] = {}
        pairs = zip(old, new, strict=True)
        for (_, layer), anew in pairs:
            now = anew if layer is model else self._in_place_of(anew, layer)
            if now is not anew:
                replaced[id(anew)] = now
                for _ in islice(pairs, len(list(walk(layer))) - 1):
                    pass  # what is in it has come with it
                continue
            _build_like(anew, layer)  # a call with fewer inputs than the model's own leaves layers out
            if children(layer):
                _copy_weights(own_weights(layer), own_weights(anew))
            else:
                anew.set_weights(layer.get_weights())
        return with_layers(result, replaced)

    def _in_place_of(self, anew: Any, layer: Any) -> Any:
        """Return what stands for a layer in a copy of a user's class, where its code has made `anew`."""
        if id(layer) not in self.made and not (is_container(layer) or is_wrapper(layer)):
            changed = self.form(layer)
            if changed is not None:
                self.load(changed, layer)
            self.made[id(layer)] = anew if changed is None else changed
        return self.of_layer(layer)


def _made_anew(model: Any) -> Any:
    """Return a new object of a user's class, made from its configuration."""
    try:
        built = model.get_build_config() if model.built else None
        return fresh(class_of(model), own_config(model), built)
    except ConfigError:
        raise
    except Exception as error:  # the user's own code may fail in any way
        raise ConfigError(
            f"model: a {type(model).__name__} cannot be made anew from its configuration ({cause(error)}); "
            "give the class get_config and from_config"
        ) from error


def _build_like(new: Any, old: Any) -> None:
    """Build a layer for the inputs that another one has."""
    if not old.built or new.built:
        return
    config = old.get_build_config()
    if config:
        new.build_from_config(config)


def _native_type(layer: Any) -> type:
    return native_class(layer) if on_crossbars(layer) else class_of(layer)


def _copy_weights(source: list[Any], target: list[Any]) -> None:
    for old, new in zip(source, target, strict=True):
        new.assign(old)
