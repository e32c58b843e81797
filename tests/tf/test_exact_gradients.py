"""`tf.test.compute_gradient` of recurrent and attention layers and Einstein sums, in `exact` mode.

(`test_layers` has those of dense and convolution layers.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as tf

from xbar_core.config import preset
from xbar_tf import XbarEinsumDense, XbarGRU, XbarLSTM, XbarMultiHeadAttention, XbarSimpleRNN

# Smooth everywhere: curves, wires and devices, but no rounding and no clipping.
SMOOTH = preset("txsim-8bit").with_values(
    {
        "array.rows": 4,
        "array.cols": 4,
        "backward": {"mode": "exact"},
        "circuit": {"kind": "fcm", "rtol": 1e-12},
        "input.bits": None,
        "adc.bits": None,
        "input.range": {"rule": "fixed", "value": 10.0},
        "adc.range": {"rule": "fixed", "value": 1e-3},
        "device.variation": {"sigma": 0.05},
    }
)
OPTIONS: dict[str, Any] = {"config": SMOOTH, "key": "a", "dtype": "float64"}
LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "rnn": (lambda: XbarSimpleRNN(2, **OPTIONS), (1, 3, 2)),
    "lstm": (lambda: XbarLSTM(2, **OPTIONS), (1, 2, 2)),
    "gru": (lambda: XbarGRU(2, **OPTIONS), (1, 2, 2)),
    "gru reset before": (lambda: XbarGRU(2, reset_after=False, **OPTIONS), (1, 2, 2)),
    "attention": (lambda: XbarMultiHeadAttention(2, 2, **OPTIONS), (1, 2, 3)),
    "einsum": (lambda: XbarEinsumDense("abc,cd->abd", (None, 2), bias_axes="d", **OPTIONS), (1, 2, 3)),
    "einsum of heads": (lambda: XbarEinsumDense("abhc,hcd->abhd", (None, 2, 2), **OPTIONS), (1, 2, 2, 2)),
}


def of_variable(call: Callable[[], tf.Tensor], variable: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return what a call gives as a function of what a variable holds."""

    @tf.custom_gradient
    def function(value: tf.Tensor) -> Any:
        variable.assign(value)
        with tf.GradientTape() as tape:
            y = call()

        def gradient(dy: tf.Tensor, variables: Any = ()) -> Any:
            return tape.gradient(y, variable, dy), [None for _ in variables]

        return y, gradient

    return function


@pytest.mark.parametrize("name", LAYERS)
def test_exact_mode_is_the_derivative(name: str) -> None:
    """Of the inputs, of every state and of the biases."""
    make, shape = LAYERS[name]
    layer, rng = make(), np.random.default_rng(0)
    x = tf.constant(rng.standard_normal(shape))

    def call(x: tf.Tensor = x) -> tf.Tensor:
        return layer(x, x) if name == "attention" else layer(x)

    call()
    points: list[tuple[Any, tf.Tensor]] = [(call, x)]
    for weight in layer.trainable_weights:
        if "state" in weight.path:
            weight.assign(rng.uniform(0.3, 0.7, weight.shape))
        points.append((of_variable(call, weight.value), tf.constant(weight.numpy())))
    for function, at in points:
        (found,), (wanted,) = tf.test.compute_gradient(function, [at], delta=1e-4)
        # Of the bias of attention's keys it is 0: a softmax does not see it.
        scale = max(np.abs(wanted).max(), 1e-6)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * scale)
