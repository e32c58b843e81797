"""Layers on crossbars inside of a loop that TensorFlow makes a part of its graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf

from xbar_core.config import Chip, preset
from xbar_tf import XbarConv1D, XbarDense

STEPS = 3
CLEAN = preset("ideal").with_("input.range", {"rule": "fixed", "value": 1e3})
CHIPS: dict[str, Chip] = {
    "ideal": preset("ideal"),
    "faulty": preset("ideal").with_("device.faults", {"stuck_at_g_min": 0.1}),
    "wired": preset("ideal").with_values({"circuit": {"kind": "fcm"}, "wires": {"r_row": 1.0}}),
    "reads": CLEAN,
    "exact": CLEAN.with_("backward", {"mode": "exact"}),
}


class Cell(keras.layers.Layer):
    """A cell of one's own around a layer on crossbars."""

    def __init__(self, dense: Any) -> None:
        super().__init__(dtype="float64")
        self.dense, self.state_size = dense, 4

    def call(self, x: Any, states: Any) -> Any:
        h = tf.tanh(x + self.dense(states[0]))
        return h, [h]


def in_range(layer: Any, x: tf.Tensor) -> tf.Tensor:
    for _ in tf.range(STEPS):
        x = tf.tanh(layer(x))
    return x


def mapped(layer: Any, x: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(lambda row: layer(row[None])[0], x)


def recurrent(layer: Any, x: tf.Tensor) -> tf.Tensor:
    sequence = tf.stack([x * k for k in range(STEPS)], axis=1)
    return keras.layers.RNN(Cell(layer), dtype="float64")(sequence)


def convolved(layer: Any, x: tf.Tensor) -> tf.Tensor:
    for _ in tf.range(STEPS):
        x = tf.tanh(layer(x[..., None])[..., 0])
    return x


def looked_at(layer: Any, x: tf.Tensor) -> tf.Tensor:
    """The weights that states stand for, in a loop: a regularizer of one's own."""
    for _ in tf.range(STEPS):
        x = tf.tanh(x @ layer.kernel)
    return x


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("loop", [in_range, mapped, recurrent, convolved, looked_at])
def test_gradients_pass_through_loops(loop: Callable[..., Any], chip: str) -> None:
    """Outputs and gradients of x and of the states are those of the same steps taken one by one."""
    options: dict[str, Any] = {"config": CHIPS[chip], "key": "a", "use_bias": False, "dtype": "float64"}
    layer = XbarConv1D(1, 3, padding="same", **options) if loop is convolved else XbarDense(4, **options)
    layer.build((None, 4, 1) if loop is convolved else (None, 4))
    x = tf.constant(np.random.default_rng(0).standard_normal((2, 4)))

    def step(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(loop(layer, x) ** 2)
        return loss, *tape.gradient(loss, [x, layer.state.value])

    for found, wanted in zip(tf.function(step)(x), step(x), strict=True):
        assert np.any(wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
