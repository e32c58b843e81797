"""Put the layers of a Keras network on crossbars, and read them back.

`convert` works in steps, so that nothing is changed when one fails: `xbar_tf._plan` decides what becomes of
every layer; functional and sequential models are then cloned with their layers replaced, subclassed models
are made anew from their configuration and have the layers in their attributes replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from xbar_core._checks import nearest
from xbar_core.config import Chip
from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab.conversion import ConversionReport, ModuleReport
from xbar_tf._bridge import require_backend, resolve_chip
from xbar_tf._plan import Entry, children, is_container, is_wrapper, own_weights, plan, walk
from xbar_tf.group import link
from xbar_tf.host import crossbars_of
from xbar_tf.native import fill, fill_native, native_class, on_crossbars, unbuilt_native, unbuilt_twin

Config = str | Path | Mapping[str, Any] | Chip
Made = Callable[[Any], Any]
"""A function that returns the new form of a layer, or None where it stays what it is."""


def convert(
    model: keras.Model,
    config: Config = "ideal",
    overrides: Mapping[str, Config | None] | None = None,
    *,
    seed: int | None = None,
    unsigned: Iterable[str] = (),
    w_max: Mapping[str, float] | None = None,
) -> keras.Model:
    """Return a network whose dense, convolution and recurrent layers are on crossbars.

    The weights are programmed into a chip that `config` and `seed` determine: the name of a layer keys its
    random draws, so the same network and seed give the same chip, in `xbar_torch` as well where layers bear
    the names of torch's modules. Biases, normalisation, pooling and activations stay digital. A layer that is
    used several times stays one layer, on one crossbar.

    Parameters
    ----------
    model : Model
        A native network, built, trained or not: sequential, functional, or a subclass whose configuration
        makes it anew. It is not changed.
    config : str, Path, mapping or Chip
        Preset's name, chip file, chip as a dict, or chip, for every layer.
    overrides : mapping of str to chip, or None
        Another chip, or None to keep a layer digital, for the layers that a pattern matches: names of layers
        with the wildcards of `fnmatch`, behind the names of the models that they are in
        (``"features.conv1"``); in a subclass the names of the attributes (``"blocks.0"``). A pattern that
        matches a model holds for everything in it; of several that match, the last one counts.
        ``"<first>"`` and ``"<last>"`` are the first and last layer that can go on crossbars.
    seed : int or None
        Takes the place of the chips' seeds.
    unsigned : iterable of str
        Patterns of layers whose inputs cannot be negative (after a ReLU): their words have no sign bit.
    w_max : mapping of str to float, or None
        Ranges of weights by layer and native weight (``"fc1/kernel"``), weight units; the others follow the
        chip's rule.

    Returns
    -------
    Model
        The converted network, to be compiled. `conversion_report` tells what became of every layer,
        `to_native` goes back.

    Raises
    ------
    ConfigError, ShapeError
        The model is not built, or converted already, or its class cannot be made anew; a pattern matches
        nothing or names what cannot be converted; a weight is not finite; the chip cannot hold a layer.

    Examples
    --------
    >>> import keras
    >>> from xbar_tf import convert
    >>> layers = [keras.Input((8,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)]
    >>> chip_net = convert(keras.Sequential(layers), "txsim-8bit", overrides={"<last>": None})
    >>> [type(layer).__name__ for layer in chip_net.layers]
    ['XbarDense', 'Dense']
    """
    require_backend()
    _require_model(model)
    default = resolve_chip(config, seed)
    chips = {
        pattern: None if choice is None else resolve_chip(choice, seed)
        for pattern, choice in (overrides or {}).items()
    }
    entries = plan(model, default, chips, tuple(unsigned))
    ranges = _ranges(entries, dict(w_max or {}))
    planned = {id(entry.native): entry for entry in entries if entry.on_chip}
    made: dict[int, Any] = {}

    def twin_of(layer: Any) -> Any:
        entry = planned.get(id(layer))
        if entry is None:
            return None
        given = {name.rpartition("/")[2]: ranges[name] for name in entry.weight_names if name in ranges}
        made[id(layer)] = unbuilt_twin(
            layer, entry.twin, entry.chip, key=entry.key, signed_input=entry.signed_input, w_max=given
        )
        return made[id(layer)]

    def program(twin: Any, layer: Any) -> None:
        entry = planned[id(layer)]
        made[id(layer)] = twin
        try:
            fill(twin, layer)
        except (ConfigError, ShapeError) as error:
            raise type(error)(f"layer {entry.key!r}: {error}") from error

    result = _remade(model, twin_of, program)
    link(result)
    report = tuple(_described(entry, made) for entry in entries if entry.listed)
    result.__dict__["conversion"] = ConversionReport(report)
    return result


def conversion_report(model: keras.Model) -> ConversionReport:
    """Return the report of the conversion that made a network.

    Raises
    ------
    ConfigError
        The network is not a result of `convert`.
    """
    report = vars(model).get("conversion")
    if not isinstance(report, ConversionReport):
        raise ConfigError("model: it was not made by convert, so there is no report; convert a native model")
    return report


def to_native(model: keras.Model) -> keras.Model:
    """Return a native copy of a network: the weights are those that the chip's devices stand for now.

    Raises
    ------
    ConfigError
        The model has no crossbar weights, or its class cannot be made anew.
    """
    _require_model(model)
    if not any(True for _ in crossbars_of(model)):
        raise ConfigError("model: has no crossbar weights; it is native already")

    def native_of(layer: Any) -> Any:
        return unbuilt_native(layer) if on_crossbars(layer) else None

    return _remade(model, native_of, fill_native)


def _require_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"model: a {type(model).__name__}; hand in a keras.Model (keras.Sequential([layer]))"
        )
    if not model.built:
        raise ConfigError(
            f"model: {model.name!r} has no weights yet; call it once, or give its first layer an Input"
        )


def _ranges(entries: list[Entry], w_max: dict[str, float]) -> dict[str, float]:
    known = [name for entry in entries if entry.on_chip for name in entry.weight_names]
    for name in w_max:
        if name not in known:
            raise ConfigError(
                f"w_max: {name!r} is no weight that goes on crossbars{nearest(name, known)}; "
                f"they are {', '.join(known) or 'none'}"
            )
    return w_max


# A model with some of its layers in another form.


def _remade(model: Any, form: Made, load: Callable[[Any, Any], None]) -> Any:
    """Return a copy of a model in which layers have another form, all weights with it.

    Parameters
    ----------
    model : Model
        Any model.
    form : callable
        Returns the new, unbuilt form of a layer, or None.
    load : callable
        ``load(new, old)`` builds the new form and gives it the weights of the old one.
    """
    if not is_container(model):
        return _remade_subclass(model, form, load)
    compiled, model.compiled = model.compiled, False
    try:
        result = keras.models.clone_model(
            model, clone_function=lambda layer: _remade_layer(layer, form, load), recursive=True
        )
    finally:
        model.compiled = compiled
    if not result.built:
        result.build(model._build_shapes_dict or model.input_shape)
    return result


def _remade_part(layer: Any, form: Made, load: Callable[[Any, Any], None]) -> Any:
    return (_remade if is_container(layer) else _remade_wrapper)(layer, form, load)


def _remade_layer(layer: Any, form: Made, load: Callable[[Any, Any], None]) -> Any:
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.layers.Lambda):
        return layer  # nothing in it to copy
    new = form(layer)
    if new is not None:
        load(new, layer)
        return new
    if is_wrapper(layer) or is_container(layer):
        return _remade_part(layer, form, load)
    if children(layer):
        return _remade_subclass(layer, form, load)
    new = layer.__class__.from_config(layer.get_config())
    _build_like(new, layer)
    new.set_weights(layer.get_weights())
    return new


def _remade_wrapper(layer: Any, form: Made, load: Callable[[Any, Any], None]) -> Any:
    config = {key: value for key, value in layer.get_config().items() if not key.endswith("layer")}
    if isinstance(layer, keras.layers.TimeDistributed):
        new = layer.__class__(_remade_layer(layer.layer, form, load), **config)
        _build_like(new, layer)
        return new
    # Bidirectional makes the forward layer anew, so both get their weights when it is there.
    pairs = (layer.forward_layer, layer.backward_layer)
    ahead, back = (form(each) or each.__class__.from_config(each.get_config()) for each in pairs)
    new = layer.__class__(ahead, backward_layer=back, **config)
    for inner, old in zip((new.forward_layer, new.backward_layer), pairs, strict=True):
        if type(inner) is type(old):
            _build_like(inner, old)
            inner.set_weights(old.get_weights())
        else:
            load(inner, old)
    _build_like(new, layer)
    return new


def _build_like(new: Any, old: Any) -> None:
    """Build a layer for the inputs that another one has."""
    if not old.built or new.built:
        return
    config = old.get_build_config()
    if config:
        new.build_from_config(config)


def _remade_subclass(model: Any, form: Made, load: Callable[[Any, Any], None]) -> Any:
    try:
        result = _from_config(model)
        _build_like(result, model)
        if not result.built:
            _call_once(result, model.get_build_config())
    except Exception as error:  # the user's own code may fail in any way
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"model: a {type(model).__name__} cannot be made anew from its configuration "
            f"({type(error).__name__}: {reason}); give the class get_config and from_config"
        ) from error
    old, new = list(walk(model)), [layer for _, layer in walk(result)]
    if [_native_type(layer) for _, layer in old] != [type(layer) for layer in new]:
        raise ConfigError(
            f"model: a {type(model).__name__} made anew from get_config has other layers than this one; have "
            "get_config return all arguments, make all layers in __init__, and call the model once"
        )
    replaced: dict[int, Any] = {}
    whole: list[str] = []  # names of models and wrappers that were replaced with all that is in them
    for (name, layer), fresh in zip(old, new, strict=True):
        if id(fresh) in replaced or any(name.startswith(f"{outer}.") or name == outer for outer in whole):
            continue
        if layer is not model and (changed := form(layer)) is not None:
            load(changed, layer)
            replaced[id(fresh)] = changed
        elif layer is not model and (is_container(layer) or is_wrapper(layer)):
            replaced[id(fresh)] = _remade_part(layer, form, load)
            whole.append(name)
        elif children(layer):
            _copy_weights(own_weights(layer), own_weights(fresh))
        else:
            fresh.set_weights(layer.get_weights())
    for layer in new:
        _swap(layer, replaced)
    return result


def _native_type(layer: Any) -> type:
    return native_class(layer) if on_crossbars(layer) else type(layer)


def _call_once(model: Any, built: Mapping[str, Any]) -> None:
    """Call a model with zeros of the shapes that another one was built for, so that it has its weights."""

    def zeros(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: zeros(each) for name, each in shape.items()}
        if isinstance(shape, list | tuple) and any(isinstance(each, list | tuple) for each in shape):
            return [zeros(each) for each in shape]
        return np.zeros([1 if length is None else length for length in shape], model.compute_dtype)

    shapes = built.get("shapes_dict")
    if shapes is None:
        model(zeros(built["input_shape"]), training=False)
    else:
        model(**{name.removesuffix("_shape"): zeros(each) for name, each in shapes.items()}, training=False)


def _from_config(model: Any) -> Any:
    """Return a fresh model of a subclass; arguments that its __init__ does not take are left out."""
    config, wanted = model.get_config(), inspect.signature(type(model).__init__).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in wanted.values())
    if takes_all or "from_config" in vars(type(model)):
        return type(model).from_config(config)
    return type(model)(**{name: value for name, value in config.items() if name in wanted})


def _copy_weights(source: list[Any], target: list[Any]) -> None:
    for old, new in zip(source, target, strict=True):
        new.assign(old)


def _swap(layer: Any, replaced: Mapping[int, Any]) -> None:
    """Put layers into the places of others, wherever the attributes of a layer hold them."""
    if not any(id(each) in replaced for each in layer._layers):
        return
    locked = layer._tracker.locked
    layer._tracker.unlock()
    for name, value in list(vars(layer).items()):
        if name == "_layers":
            continue
        if id(value) in replaced:
            setattr(layer, name, replaced[id(value)])
        elif isinstance(value, list | dict):
            _swap_items(value, replaced)
    seen: dict[int, Any] = {}
    for each in layer._layers:
        now = replaced.get(id(each), each)
        seen[id(now)] = now
    layer._layers[:] = list(seen.values())
    if locked:
        layer._tracker.lock()


def _swap_items(value: Any, replaced: Mapping[int, Any]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(items):
        if id(each) in replaced:
            value[key] = replaced[id(each)]
        elif isinstance(each, list | dict):
            _swap_items(each, replaced)


# The report.


def _described(entry: Entry, made: Mapping[int, Any]) -> ModuleReport:
    native = type(entry.native).__name__
    if not entry.on_chip:
        own = entry.native.weights if not children(entry.native) else own_weights(entry.native)
        count = sum(int(np.prod(weight.shape)) for weight in own)
        return ModuleReport(entry.name, native, None, None, count, 0, 0.0, entry.note)
    twin = made[id(entry.native)]
    layouts = [layout for crossbar in twin.crossbars.values() for layout in crossbar.layouts]
    weights = sum(layout.inputs * layout.outputs for layout in layouts)
    cells = sum(len(x.tiling.tiles) * x.tiling.rows * x.tiling.cols for x in layouts)
    return ModuleReport(
        entry.name,
        native,
        type(twin).__name__,
        entry.chip.name,
        weights,
        sum(layout.arrays for layout in layouts),
        weights / cells,
        entry.note,
    )
