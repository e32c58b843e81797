"""Put the layers of a Keras network on crossbars, and read them back.

`convert` works in steps, so that nothing is changed when one fails: `xbar_tf._plan` decides what becomes of
every layer; `xbar_tf.remade` then makes the copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from xbar_core._checks import check_mapping, check_number, nearest
from xbar_core.config import Chip
from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab.conversion import ConversionReport, ModuleReport
from xbar_tf._bridge import require_backend, resolve_chip
from xbar_tf._plan import Entry, children, own_weights, plan
from xbar_tf.group import link
from xbar_tf.host import crossbars_of
from xbar_tf.native import fill, fill_native, on_crossbars, unbuilt_native, unbuilt_twin
from xbar_tf.remade import remade

Config = str | Path | Mapping[str, Any] | Chip


def convert(
    model: keras.Model,
    config: Config = "ideal",
    overrides: Mapping[str, Config | None] | None = None,
    *,
    seed: int | None = None,
    unsigned: str | Iterable[str] = (),
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
    unsigned : str or iterable of str
        Patterns of layers whose inputs cannot be negative (after a ReLU): their words have no sign bit.
    w_max : mapping of str to float, or None
        Ranges of weights by layer and native weight (``"fc1/kernel"``), weight units; the others follow the
        chip's rule.

    Returns
    -------
    Model
        The converted network, to be compiled. `conversion_report` tells what became of every layer,
        `to_native` goes back. A subclass of Sequential, or of Model that makes itself of inputs and outputs,
        comes back as a plain model of its layers: methods of its own, as a ``train_step``, are lost.

    Raises
    ------
    ConfigError, ShapeError
        The model is not built, or converted already, or nothing in it can be, or its class cannot be made
        anew; an argument is of another type or out of range; a pattern matches nothing or names what cannot
        be converted; a weight is not finite; the chip cannot hold a layer.

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
        for pattern, choice in check_mapping("overrides", overrides, "pattern to chip or None").items()
    }
    entries = plan(model, default, chips, unsigned)
    ranges = _ranges(entries, check_mapping("w_max", w_max, "native weight to range"))
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

    result = remade(model, twin_of, program)
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

    return remade(model, native_of, fill_native)


def _require_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"model: a {type(model).__name__}; hand in a keras.Model (keras.Sequential([layer]))"
        )
    if not model.built:
        raise ConfigError(
            f"model: {model.name!r} has no weights yet; call it once, or give its first layer an Input"
        )


def _ranges(entries: list[Entry], w_max: Mapping[str, object]) -> dict[str, float]:
    known = [name for entry in entries if entry.on_chip for name in entry.weight_names]
    for name in w_max:
        if name not in known:
            raise ConfigError(
                f"w_max: {name!r} is no weight that goes on crossbars{nearest(name, known)}; "
                f"they are {', '.join(known) or 'none'}"
            )
    # Checked here: what the constructor of a layer raises, Keras wraps in a TypeError.
    return {
        name: check_number(f"w_max[{name!r}]", range_, minimum=0.0, open_minimum=True)
        for name, range_ in w_max.items()
    }


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
