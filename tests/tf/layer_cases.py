"""Chips, and layers on them with their native twins, for the tests of several files."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core.config import Chip, preset
from xbar_tf import (
    XbarConv1D,
    XbarConv2D,
    XbarConv3D,
    XbarDense,
    XbarDepthwiseConv2D,
    link,
)

QUIET = preset("txsim-8bit").with_values({"update.noise.gamma": 0.0, "array.rows": 16, "array.cols": 8})
EXACT = QUIET.with_("backward", {"mode": "exact"})
# Read through converters that change nothing: the long road, with native results.
CLEAN = QUIET.with_values(
    {
        "circuit": {"kind": "ideal"},
        "input.bits": None,
        "input.nonlinearity": None,
        "adc.bits": None,
        "adc.nonlinearity": None,
        "adc.range": {"rule": "fixed", "value": 1.0},
        "backward.current_range": {"rule": "fixed", "value": 1.0},
    }
)
ROADS = {
    "ideal": preset("ideal"),
    "clean": CLEAN,
    "small": CLEAN.with_values({"array.rows": 4, "array.cols": 3}),
    "unfolded": CLEAN.with_values({"adc.gain_error": 1e-15, "array.rows": 10}),
    "exact": CLEAN.with_values({"backward": {"mode": "exact"}, "array.rows": 10}),
    "linear": preset("ideal").with_("backward", {"mode": "exact"}),
}
CASES: dict[str, tuple[Any, Any, dict[str, Any], tuple[int, ...]]] = {
    "dense": (XbarDense, keras.layers.Dense, {"units": 5, "activation": "tanh"}, (3, 7)),
    "dense of sequences": (XbarDense, keras.layers.Dense, {"units": 5}, (2, 3, 7)),
    "valid": (XbarConv2D, keras.layers.Conv2D, {"filters": 4, "kernel_size": 3}, (2, 7, 6, 2)),
    "same": (
        XbarConv2D,
        keras.layers.Conv2D,
        {"filters": 4, "kernel_size": (2, 3), "padding": "same"},
        (2, 7, 6, 2),
    ),
    "same strided": (
        XbarConv2D,
        keras.layers.Conv2D,
        {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "use_bias": False},
        (2, 7, 6, 2),
    ),
    "dilated": (
        XbarConv2D,
        keras.layers.Conv2D,
        {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "same"},
        (2, 7, 6, 2),
    ),
    "grouped": (XbarConv2D, keras.layers.Conv2D, {"filters": 4, "kernel_size": 3, "groups": 2}, (2, 6, 6, 4)),
    "causal": (
        XbarConv1D,
        keras.layers.Conv1D,
        {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2, "activation": "relu"},
        (2, 9, 3),
    ),
    "strided 1D": (
        XbarConv1D,
        keras.layers.Conv1D,
        {"filters": 4, "kernel_size": 4, "strides": 3},
        (2, 11, 3),
    ),
    "3D": (
        XbarConv3D,
        keras.layers.Conv3D,
        {"filters": 3, "kernel_size": 2, "padding": "same"},
        (2, 4, 4, 3, 2),
    ),
    "depthwise": (
        XbarDepthwiseConv2D,
        keras.layers.DepthwiseConv2D,
        {"kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2},
        (2, 7, 6, 3),
    ),
}


def smooth(rows: int, cols: int) -> Chip:
    """A chip that is smooth everywhere: curves, wires and devices, but no rounding and no clipping."""
    return preset("txsim-8bit").with_values(
        {
            "array.rows": rows,
            "array.cols": cols,
            "backward": {"mode": "exact"},
            "circuit": {"kind": "fcm", "rtol": 1e-12},
            "input.bits": None,
            "adc.bits": None,
            "input.range": {"rule": "fixed", "value": 10.0},
            "adc.range": {"rule": "fixed", "value": 1e-3},
            "device.variation": {"sigma": 0.05},
        }
    )


def draw(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def pair(case: str, chip: Chip, dtype: str = "float64") -> tuple[Any, Any, Any]:
    """A crossbar layer, its native twin of the same seed, and inputs."""
    twin, native, arguments, shape = CASES[case]
    layers = []
    for kind, more in ((twin, {"config": chip, "key": case}), (native, {})):
        keras.utils.set_random_seed(1)
        layers.append(kind(**arguments, **more, dtype=dtype))
        layers[-1].build((None, *shape[1:]))
    return layers[0], layers[1], tf.constant(draw(shape), dtype)


def gradients(layer: Any, x: Any, variables: list[Any]) -> tuple[Any, list[Any]]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.square(y))
    return y, tape.gradient(loss, [x, *variables])


def lenet(chip: Chip) -> Any:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            XbarConv2D(3, 3, activation="relu", config=chip, name="conv"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            XbarDense(4, config=chip, name="fc"),
        ]
    )
    link(model)
    return model
