"""Recurrent layers on crossbars with their native twins, for the tests of several files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core.config import Chip, preset
from xbar_tf.recurrent import XbarGRU, XbarLSTM, XbarSimpleRNN

KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "rnn": (XbarSimpleRNN, keras.layers.SimpleRNN, {}),
    "lstm": (XbarLSTM, keras.layers.LSTM, {}),
    "gru": (XbarGRU, keras.layers.GRU, {}),
    "gru-reset-before": (XbarGRU, keras.layers.GRU, {"reset_after": False}),
}
ROADS: dict[str, Callable[[Any], Any]] = {"eager": lambda function: function, "graph": tf.function}


def stepwise() -> Chip:
    """Return an ideal chip whose input range makes it take the engine's reads rather than products."""
    return preset("ideal").with_("input.range", {"rule": "fixed", "value": 1e3})


def random(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).standard_normal(shape))


def pair(kind: str, chip: Chip, **options: Any) -> tuple[Any, Any]:
    """A layer with the weights of a native one, which are all different."""
    twin, native_type, extra = KINDS[kind]
    native = native_type(4, dtype="float64", **{"bias_initializer": "glorot_uniform", **extra, **options})
    native.build((2, 5, 3))
    generator = np.random.default_rng(1)
    native.set_weights([generator.standard_normal(weight.shape) for weight in native.get_weights()])
    layer = twin(4, config=chip, dtype="float64", name="memory", **{**extra, **options})
    layer.build((2, 5, 3))
    layer.load_native(native)
    return layer, native


def trainable(layer: Any) -> list[Any]:
    if not hasattr(layer, "crossbars"):
        return [weight.value for weight in layer.trainable_weights]
    states = [layer.crossbar(name).state.value for name in ("kernel", "recurrent_kernel")]
    return [*states, *([] if layer.bias is None else [layer.bias.value])]


def run(layer: Any, x: tf.Tensor, road: str, **options: Any) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Outputs and gradients of x, initial states and weights, in weight units."""
    held = options.get("initial_state", [])

    @ROADS[road]
    def step(x: tf.Tensor, held: list[tf.Tensor]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, *held])
            given = {**options, "initial_state": held} if held else options
            outputs = layer(x, **given)
            outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
            total = sum(tf.reduce_sum(tf.sin(3.0 * y)) for y in outputs)
        return outputs, tape.gradient(total, [x, *held, *trainable(layer)])

    outputs, gradients = step(x, held)
    if hasattr(layer, "crossbars"):
        at = 1 + len(held)
        for index, name in enumerate(("kernel", "recurrent_kernel")):
            bar = layer.crossbar(name).weight_gradient(gradients[at + index])
            gradients[at + index] = layer._ordered(bar)
    return outputs, gradients


def assert_equal(layer: Any, native: Any, x: tf.Tensor, road: str, **options: Any) -> None:
    """Outputs, final states and all gradients agree to 1e-12."""
    ours, theirs = (run(each, x, road, **options) for each in (layer, native))
    for mine, wanted in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-12)


def train(layer: Any, x: tf.Tensor, road: str) -> Callable[[], Any]:
    """A call that goes forward and backward."""

    @ROADS[road]
    def step(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            y = layer(x, training=True)
            total = tf.reduce_sum(y)
        return tape.gradient(total, trainable(layer))

    return lambda: step(x)
