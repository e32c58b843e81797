"""What a chip does to a network in training, what it occupies, and where numbers stop being finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core.engine.inspect_parts import relative_distortion, saturated_share
from xbar_core.lab.trainer import Footprint, LayerHealth
from xbar_tf._bridge import host, is_finite
from xbar_tf._plan import children, own_weights, walk
from xbar_tf.calibration import native_path
from xbar_tf.crossbar import Crossbar
from xbar_tf.host import CrossbarLayer
from xbar_tf.inspect import count_clipped, inputs_of, untouched, vectors

_VECTORS = 256  # input vectors of a layer that health looks at


def native_name(crossbar: Crossbar) -> str:
    """Return a layer's native name; with that of the weight where it has several."""
    path, name = native_path(crossbar)
    return path if crossbar.suffix == "" else f"{path}/{name}"


def layer_health(network: keras.Model, x: tf.Tensor) -> list[LayerHealth]:
    """Return what the chip does to each of its layers on one batch."""
    with untouched(network) as crossbars:
        with inputs_of(crossbars) as seen:
            network(x, training=False)
        return [_health(crossbar, seen[name]) for name, crossbar in crossbars.items()]


def _health(crossbar: Crossbar, seen: list[Any]) -> LayerHealth:
    held = crossbar.present()
    found = vectors(crossbar, seen, _VECTORS)
    state, weight, w_max = (host(each) for each in (crossbar.state, crossbar.weight(), crossbar.w_max))
    return LayerHealth(
        native_name(crossbar),
        saturated_share(crossbar.layout, state, weight, float(w_max)),
        0.0 if found is None else count_clipped(crossbar, held, found).share,
        relative_distortion(crossbar.solved(held, training=False).requests),
    )


def footprints(network: keras.Model) -> list[Footprint]:
    """Return what every layer that has weights occupies, in the order of the network."""
    found: list[Footprint] = []
    for name, layer in walk(network):
        own = own_weights(layer) if children(layer) else list(layer.weights)
        crossbars = layer.crossbars if isinstance(layer, CrossbarLayer) else {}
        for crossbar in crossbars.values():
            mine = {id(variable) for variable in crossbar.variables.values()}
            own = [variable for variable in own if id(variable) not in mine]
            kept = [crossbar.variables[name] for name in ("state", *crossbar.buffer_names)]
            found.append(Footprint.on_crossbars(native_name(crossbar), crossbar.layouts, _bytes(kept)))
        if not own:
            continue
        weights = sum(_size(variable) for variable in own if variable.trainable)
        if crossbars:  # a bias goes with the layer's first matrix
            found[-len(crossbars)] = found[-len(crossbars)].grown(weights, _bytes(own))
        else:
            found.append(Footprint(name or "model", (), 0, 0, 0.0, weights, _bytes(own)))
    return found


def _size(variable: Any) -> int:
    return int(np.prod(variable.shape))


def _bytes(variables: list[Any]) -> int:
    return sum(host(variable).nbytes for variable in variables)


def first_bad(network: keras.Model, x: tf.Tensor, y: tf.Tensor) -> str:
    """Return where NaN or infinity first appears in one batch; an empty string if nowhere."""
    found = _bad("the network", "input", x)
    for name, layer in () if found else walk(network):
        states = {id(c.state) for c in getattr(layer, "crossbars", {}).values()}
        for variable in own_weights(layer) if children(layer) else layer.weights:
            stage = "states" if id(variable) in states else "weights"
            found = found or _bad(_named(name), stage, variable.value)
    if found:
        return found
    gradients: list[str] = []
    with untouched(network), _watched(network, gradients) as outputs, tf.GradientTape() as tape:
        try:
            logits = network(x, training=False)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        except FloatingPointError as error:
            return outputs[0] if outputs else str(error)
        if outputs:
            return outputs[0]
        if not is_finite(host(loss)):
            return f"the network, loss: it is {float(host(loss))}"
        variables = network.trainable_variables
        with tape.stop_recording():
            try:
                bars = tape.gradient(loss, variables)
            except FloatingPointError as error:
                return gradients[0] if gradients else str(error)
    for variable, bar in zip(variables, bars, strict=True):
        if bar is not None and not gradients:
            layer_path = str(variable.path).rpartition("/")[0]
            gradients += filter(None, [_bad(_named(layer_path), "gradient", tf.convert_to_tensor(bar))])
    return gradients[0] if gradients else ""


@contextmanager
def _watched(network: keras.Model, gradients: list[str]) -> Iterator[list[str]]:
    """Note where outputs, and on the way back their gradients, first stop being finite."""
    outputs: list[str] = []

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
        def passed(value: tf.Tensor) -> Any:
            def gradient(bar: tf.Tensor) -> tf.Tensor:
                gradients.extend(filter(None, [_bad(name, "gradient", bar)]))
                return bar

            return tf.identity(value), gradient

        def note(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            if not tf.is_tensor(result) or not result.dtype.is_floating:
                return result
            outputs.extend(filter(None, [_bad(name, "output", result)]))
            return passed(result)

        return note

    leaves = [(name, layer) for name, layer in walk(network) if not children(layer)]
    before = [vars(layer).get("call") for _, layer in leaves]
    try:
        for name, layer in leaves:
            vars(layer)["call"] = watched(_named(name), layer.call)
        yield outputs
    finally:
        for (_, layer), call in zip(leaves, before, strict=True):
            vars(layer).pop("call", None)
            if call is not None:
                vars(layer)["call"] = call


def _named(layer: str) -> str:
    return f"layer {layer!r}" if layer else "the network"


def _bad(layer: str, stage: str, values: Any) -> str:
    if not values.dtype.is_floating:
        return ""
    array = host(values)
    if is_finite(array):
        return ""
    return f"{layer}, {stage}: {int((~np.isfinite(array)).sum())} of {array.size} values are NaN or infinite"
