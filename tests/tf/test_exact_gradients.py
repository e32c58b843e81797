"""`tf.test.compute_gradient` of every kind of layer, in `exact` mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as tf
from tf.layer_cases import CASES, pair, smooth

from xbar_tf import XbarEinsumDense, XbarGRU, XbarLSTM, XbarMultiHeadAttention, XbarSimpleRNN

SMOOTH = smooth(4, 4)
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
def test_exact_mode_is_the_derivative_in_every_weight(name: str) -> None:
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


@pytest.mark.parametrize("case", CASES)
def test_exact_mode_is_the_derivative_of_products(case: str) -> None:
    """`tf.test.compute_gradient` agrees with the backward pass, against inputs and states."""
    layer, _, x = pair(case, smooth(16, 8))
    x = x[:1]
    rng = np.random.default_rng(1)
    layer.state.assign(rng.uniform(0.3, 0.7, layer.state.shape))

    def of_x(x: Any) -> Any:
        return layer(x)

    def of_state(state: Any) -> Any:
        @tf.custom_gradient
        def replaced(state: Any) -> Any:
            layer.state.assign(state)
            with tf.GradientTape() as tape:
                y = layer(x)

            def gradient(dy: Any, variables: Any = ()) -> Any:
                return tape.gradient(y, layer.state.value, dy), [None for _ in variables]

            return y, gradient

        return replaced(state)

    for function, at in ((of_x, x), (of_state, tf.constant(layer.state.numpy()[:, :4, :2]))):
        if function is of_state:
            whole = layer.state.numpy()

            def function(part: Any, whole: Any = whole) -> Any:
                rest = tf.concat([part, whole[:, :4, 2:]], -1)
                return of_state(tf.concat([rest, whole[:, 4:]], 1))

        theoretical, numerical = tf.test.compute_gradient(function, [at], delta=1e-4)
        scale = np.abs(numerical[0]).max()
        np.testing.assert_allclose(theoretical[0], numerical[0], rtol=1e-5, atol=1e-6 * scale)
