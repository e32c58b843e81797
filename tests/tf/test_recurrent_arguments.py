"""What recurrent layers on crossbars are made of, saved as, and refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf
from tf.recurrent_cases import KINDS, pair, random

from xbar_core.config import preset
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf.recurrent import XbarGRU, XbarLSTM


@pytest.mark.parametrize("kind", KINDS)
def test_saved_cloned_and_configured(kind: str, tmp_path: Path) -> None:
    """A `.keras` file carries chip, states, ranges and counters; a clone draws its own first weights."""
    twin, native_type, extra = KINDS[kind]
    options = {"return_sequences": True, "dropout": 0.1, "seed": 5, "recurrent_initializer": "glorot_normal"}
    layer = twin(4, config="txsim-8bit", key="k", w_max={"kernel": 2.5}, **extra, **options)
    model = keras.Sequential([keras.Input((5, 3)), layer])
    x = np.asarray(random(2, 5, 3), np.float32)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[0].get_config() == layer.get_config()
    assert float(layer.crossbar("kernel").w_max.value) == 2.5
    clone = keras.models.clone_model(model)
    assert np.any(clone.layers[0].kernel != layer.kernel)
    native = layer.to_native()
    assert type(native) is native_type
    for mine, wanted in zip((layer.kernel, layer.recurrent_kernel, layer.bias), native.weights, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-6, atol=1e-7)
    for name, value in native.get_config().items():
        if name not in ("name", "dtype", "kernel_constraint", "recurrent_constraint"):
            assert layer.get_config()[name] == value, name


def test_half_precision() -> None:
    """Under a mixed policy states and the loop are float32, outputs float16."""
    layer = XbarGRU(4, config="txsim-8bit", dtype="mixed_float16", return_state=True)
    output, state = layer(np.asarray(random(2, 5, 3), np.float16))
    assert layer.state_hh_l0.dtype == "float32"
    assert output.dtype == state.dtype == tf.float16


@pytest.mark.parametrize("chip", ["txsim-8bit", "ideal"])
def test_not_a_number_names_the_layer(chip: str) -> None:
    """NaN in an input says which layer met it, also where TensorFlow multiplies by itself, and in a graph."""
    layer = XbarLSTM(4, config=chip, key="memory", dtype="float64")
    x = tf.fill((2, 1, 3), tf.constant(np.nan, "float64"))
    with pytest.raises(FloatingPointError, match=r"layer 'memory_ih_l0'.*input holds NaN"):
        layer(x)
    with pytest.raises(tf.errors.OpError, match=r"layer 'memory_ih_l0'.*input.* NaN"):
        tf.function(layer)(x)


@pytest.mark.parametrize("chip", ["txsim-8bit", "ideal"])
def test_not_a_number_in_an_initial_state_names_the_weight(chip: str) -> None:
    """An initial hidden state is checked as inputs are, on every road."""
    layer = XbarGRU(4, config=chip, key="memory", dtype="float64")
    x, held = random(2, 3, 3), tf.fill((2, 4), tf.constant(np.nan, "float64"))
    with pytest.raises(FloatingPointError, match=r"layer 'memory_hh_l0'.*input holds NaN"):
        layer(x, initial_state=held)
    with pytest.raises(tf.errors.OpError, match=r"layer 'memory_hh_l0'.*input.* NaN"):
        tf.function(layer)(x, initial_state=held)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: XbarLSTM(0), ShapeError, "units: 0; give an integer above 0"),
        (lambda: XbarLSTM(4, kernel_constraint="non_neg"), ConfigError, "kernel_constraint: 'non_neg'"),
        (lambda: XbarLSTM(4, recurrent_constraint="non_neg"), ConfigError, "recurrent_constraint: 'non_neg'"),
        (lambda: XbarGRU(4, use_cudnn=True), ConfigError, "use_cudnn: True; a chip has no such kernel"),
        (lambda: XbarLSTM(4).kernel, AttributeError, "no kernel before the layer is built"),
        (
            lambda: XbarLSTM(4)(tf.zeros((2, 3, 5)), initial_state=[tf.zeros((2, 3))]),
            ShapeError,
            r"initial states of widths \[3\]; they are \[4, 4\]",
        ),
        (
            lambda: tf.function(XbarGRU(4, unroll=True)).get_concrete_function(
                tf.TensorSpec((2, None, 3), "float32")
            ),
            Exception,  # TensorFlow has its own for what happens while it makes a graph
            "ShapeError(.|\n)*unroll=True needs a known length",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    """What does not fit is one clear line with the fix."""
    with pytest.raises(kind, match=message):
        make()


def test_native_weights_of_another_size_are_refused() -> None:
    """load_native names both shapes and changes nothing."""
    layer, _ = pair("gru", preset("ideal"))
    other = keras.layers.GRU(5, dtype="float64")
    other.build((None, None, 3))
    before = layer.get_weights()
    with pytest.raises(ShapeError, match=r"\[\(3, 15\), .*this layer's are \[\(3, 12\)"):
        layer.load_native(other)
    for mine, wanted in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, wanted)
