"""What the Keras layers on crossbars are made of and programmed with, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
from tf.layer_cases import QUIET

from xbar_core.errors import ConfigError, ShapeError
from xbar_tf import (
    XbarConv2D,
    XbarDense,
    XbarDepthwiseConv2D,
    XbarLSTM,
    XbarMultiHeadAttention,
)


def test_programming_and_reading_back() -> None:
    """`load_native` programs another layer's weights; `reprogram` keeps them and takes a fresh range."""
    native = keras.layers.Conv2D(4, 3, groups=2)
    native.build((None, 8, 8, 4))
    layer = XbarConv2D(4, 3, groups=2, config=QUIET)
    layer.build((None, 8, 8, 4))
    layer.load_native(native)
    np.testing.assert_allclose(layer.kernel, native.kernel, rtol=1e-5, atol=1e-6)
    g = layer.conductances()
    assert g.shape == layer.state.shape
    assert g.min() >= 1e-6 * (1 - 1e-6)
    assert g.max() <= 1e-5 * (1 + 1e-6)
    layer.reprogram()
    np.testing.assert_allclose(layer.kernel, native.kernel, rtol=1e-5, atol=1e-6)
    assert layer.counters.numpy()[3] == 3


def test_wrong_arguments_say_what_to_change() -> None:
    """Constraints of kernels, wrong shapes and NaN are one clear line."""
    with pytest.raises(ConfigError, match="kernel_constraint"):
        XbarDense(3, kernel_constraint="max_norm")
    with pytest.raises(ShapeError, match="groups"):
        XbarConv2D(4, 3, groups=3)
    with pytest.raises(ConfigError, match="padding"):
        XbarConv2D(4, 3, padding="causal")
    layer = XbarDense(3, config=QUIET)
    layer.build((None, 4))
    with pytest.raises(FloatingPointError, match="input holds NaN"):
        layer(np.full((2, 4), np.nan, "float32"))
    with pytest.raises(ShapeError, match="step"):
        layer.crossbars[""].write(np.zeros((2, 2), "float32"))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: XbarDense(3, w_max={"kernal": 1.0}),
            ConfigError,
            "w_max: 'kernal' is no weight, did you mean 'kernel'",
        ),
        (lambda: XbarDense(3, w_max={"kernel": 0.0}), ConfigError, r"w_max\['kernel'\]: 0.0 .* above 0"),
        (
            lambda: XbarDepthwiseConv2D(3, w_max={"kernel": 1.0}),
            ConfigError,
            "did you mean 'depthwise_kernel'",
        ),
        (
            lambda: XbarLSTM(3, w_max={"kernle": 1.0}),
            ConfigError,
            "'kernle' is no weight, did you mean 'kernel'.*they are kernel, recurrent_kernel",
        ),
        (lambda: XbarLSTM(3, w_max=1.0), ConfigError, "w_max: 1.0 is a float; give a mapping of weight"),
        (lambda: XbarMultiHeadAttention(2, 2, w_max={"qery": 1.0}), ConfigError, "did you mean 'query'"),
        (
            lambda: XbarMultiHeadAttention(2, 2, w_max=1.0),
            ConfigError,
            "w_max: 1.0 is a float; give a mapping",
        ),
        (lambda: XbarDense(3).build((None, None)), ShapeError, "the channels of inputs .* are not known"),
        (lambda: XbarLSTM(3).build((2, 5, None)), ShapeError, "the channels of inputs .* are not known"),
        (
            lambda: XbarDepthwiseConv2D(3).build((None, 8, 8, None)),
            ShapeError,
            "the channels of inputs .* are not known",
        ),
        (lambda: XbarConv2D(3, 3).build((None, 8, 8, None)), ShapeError, "the channels of inputs .* are not"),
    ],
)
def test_ranges_of_weights_and_channels_are_checked(make: Any, kind: Any, message: str) -> None:
    """A range by a wrong name, and inputs without a known number of channels, are one clear line."""
    with pytest.raises(kind, match=message):
        make()


def test_ranges_of_weights_go_by_native_names() -> None:
    """The name may be left out where there is one weight; the configuration makes the same layer."""
    for given in (0.75, {"kernel": 0.75}):
        layer = XbarDense(3, w_max=given)
        again = XbarDense.from_config(layer.get_config())
        for each in (layer, again):
            each.build((None, 4))
            assert float(each.w_max.numpy()) == 0.75
    memory = XbarLSTM(3, w_max={"recurrent_kernel": 0.5})
    memory.build((None, 5, 2))
    assert float(memory.crossbar("recurrent_kernel").w_max.numpy()) == 0.5
    with pytest.raises(ConfigError, match="did you mean 'kernel'"):
        memory.load_native(keras.layers.LSTM(3), {"kernl": 1.0})


@pytest.mark.parametrize("biases", [(True, False), (False, True)])
def test_native_biases_that_do_not_fit_are_refused(biases: tuple[bool, bool]) -> None:
    """load_native neither drops a bias nor leaves one as it was; nothing is programmed."""
    native, layer = keras.layers.Dense(3, use_bias=biases[0]), XbarDense(3, use_bias=biases[1])
    for each in (native, layer):
        each.build((None, 4))
    before = layer.get_weights()
    with pytest.raises(ShapeError, match=r"bias of '.*' has shape .*, this layer's is .*give both use_bias"):
        layer.load_native(native)
    for mine, wanted in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, wanted)
