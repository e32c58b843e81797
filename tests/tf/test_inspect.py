"""inspect: every stage of every layer, on the inputs that it meets, and nothing is disturbed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras

from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_tf import convert, inspect, to_native, zoo

WIRES = preset("txsim-8bit").with_values({"device.r_min": 5e3, "device.r_max": 5e4})


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("name", ["lenet5", "lstm", "mlp"])
def test_low_resistance_costs_by_wires(name: str) -> None:
    """With devices of a few kilohm wires are what every large layer suffers from most."""
    model = convert(zoo.build(name, 10, (1, 20, 20), seed=0), WIRES)
    found = inspect(model, images(8, 20, 20, 1), samples=64)
    large = [layer for layer in found.layers if layer.shape[0] > 100]
    assert large
    assert all(layer.costliest == "wires" for layer in large)
    assert all(layer.clipped is not None and len(layer.stages) == 6 for layer in found.layers)
    assert "wires" in str(found)


def test_nothing_changes() -> None:
    """Every variable is as before, to the bit."""
    model = convert(zoo.build("lenet5", 10, (1, 20, 20), seed=0), "txsim-8bit")
    before = {str(v.path): np.array(v) for v in model.variables}
    inspect(model, images(4, 20, 20, 1), samples=16)
    for variable in model.variables:
        np.testing.assert_array_equal(np.array(variable), before[str(variable.path)])


@pytest.mark.parametrize("exact", [False, True])
def test_ideal_chip_loses_nothing(exact: bool) -> None:
    """On an ideal chip no stage adds anything, whatever road its reads take."""
    chip = preset("ideal").with_("backward", {"mode": "exact" if exact else "crossbar"})
    found = inspect(convert(zoo.build("lenet5", 10, (1, 20, 20), seed=0), chip), images(4, 20, 20, 1))
    for layer in found.layers:
        assert layer.clipped is not None
        assert all(stage.error < 1e-6 for stage in layer.stages)
        assert layer.distortion.max() == 0.0


def test_hidden_states_and_attention_are_looked_at_on_an_ideal_chip() -> None:
    """Where TensorFlow multiplies by itself every weight is seen with all its inputs, too."""
    x = keras.Input((6, 8))
    h = keras.layers.LSTM(5, return_sequences=True, name="lstm")(x)
    h = keras.layers.GRU(4, return_sequences=True, name="gru")(h)
    model = convert(keras.Model(x, keras.layers.MultiHeadAttention(2, 4, name="mixer")(h, h)), "ideal")
    seen = {layer.name: layer.clipped for layer in inspect(model, images(3, 6, 8)).layers}
    for name, clipped in seen.items():
        assert clipped is not None, name
        width = {"lstm/state_ih_l0": 8, "lstm/state_hh_l0": 5, "gru/state_ih_l0": 5}.get(name, 4)
        assert clipped.of_inputs == 3 * 6 * (8 if name == "mixer/attention_output/state" else width), name


def test_programming_errors_count_against_the_native_network() -> None:
    """With the native twin beside it, the stage of the weights shows what programming lost."""
    native = zoo.build("lstm", 10, (1, 8, 8), seed=0)
    coarse = preset("txsim-8bit").with_values({"mapping.weight_bits": 3, "mapping.cell_bits": 3})
    model = convert(native, coarse)
    x = images(4, 8, 8, 1)
    for layer in inspect(model, x, native=native).layers:
        assert layer.stages[0].error > 0.01
    for layer in inspect(model, x, native=to_native(model)).layers:
        assert layer.stages[0].error < 1e-5


def test_what_cannot_be_inspected() -> None:
    """A native network, and a native twin of another shape, are refused."""
    native: Any = zoo.build("mlp", 10, (1, 8, 8), seed=0)
    with pytest.raises(ConfigError, match="no crossbar weights"):
        inspect(native, images(2, 8, 8, 1))
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="layers.1")])
    with pytest.raises(ConfigError, match=r"native: has no weight 'layers.1/kernel'"):
        inspect(convert(native, "ideal"), images(2, 8, 8, 1), native=other)
