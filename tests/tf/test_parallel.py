"""Replicas of a distribution strategy are one chip."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

TWO_DEVICES = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""


def run_on_two_devices(code: str) -> None:
    """Run code in a process of its own, where TensorFlow finds two virtual CPU devices."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES + code], check=False, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_mirrored_replicas_train_one_chip() -> None:
    """Two virtual CPU devices hold the same states and counters, those of one device with the whole batch."""
    run_on_two_devices("""
keras.config.set_floatx("float64")
from xbar_core.config import preset
from xbar_tf import PulseSGD, XbarDense, crossbars_of
def fixed(value):
    return {"rule": "fixed", "value": value}
chip = preset("txsim-8bit").with_values({"adc.noise": 1e-8, "input.range": fixed(4.0),
    "adc.range": fixed(1e-4), "backward.error_range": fixed(1.0), "backward.current_range": fixed(1e-4),
    "circuit": {"kind": "fcm", "rtol": 1e-12}})
exact = chip.with_("backward", {"mode": "exact"})
x = np.random.default_rng(0).standard_normal((16, 6))
y = np.random.default_rng(1).standard_normal((16, 3))
def made(chip, optimizer):
    keras.utils.set_random_seed(1)
    layers = [XbarDense(n, config=chip, key=str(n), dtype="float64") for n in (5, 3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(optimizer(0.1, momentum=0.9), "mse")
    return model
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for ways in ((exact, keras.optimizers.SGD), (chip, PulseSGD)):
    with strategy.scope():
        model = made(*ways)
    alone = made(*ways)
    begin = [c.state.numpy() for _, c in crossbars_of(model)]
    for each in (model, alone):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for (_, mine), (_, whole), first in zip(crossbars_of(model), crossbars_of(alone), begin, strict=True):
        parts = mine.state.value.values
        assert len(parts) == 2
        assert np.abs(mine.state.numpy() - first).max() > 1e-3
        np.testing.assert_array_equal(parts[0].numpy(), parts[1].numpy())
        np.testing.assert_array_equal(mine.variables["counters"].numpy(), whole.variables["counters"].numpy())
        np.testing.assert_allclose(mine.state.numpy(), whole.state.numpy(), rtol=1e-9, atol=1e-12)
""")


def test_mirrored_replicas_train_one_recurrent_chip() -> None:
    """Two virtual CPU devices hold the same states and counters, those of one device with the whole batch."""
    run_on_two_devices("""
from xbar_core.config import preset
from xbar_tf.recurrent import XbarLSTM
chip = preset("txsim-8bit").with_values({"adc.noise": 1e-8, "input.range": {"rule": "fixed", "value": 4.0},
    "adc.range": {"rule": "fixed", "value": 1e-4}, "backward": {"mode": "exact"}})
x = np.random.default_rng(0).standard_normal((16, 5, 3))
y = np.random.default_rng(1).standard_normal((16, 4))
def made():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5, 3)), XbarLSTM(4, config=chip, key="a", dtype="float64")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = made()
alone = made()
for each in (model, alone):
    each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
layer, other = model.layers[0], alone.layers[0]
parts = layer.state_hh_l0.value.values
assert len(parts) == 2
np.testing.assert_array_equal(parts[0].numpy(), parts[1].numpy())
for name in ("_ih_l0", "_hh_l0"):
    mine, whole = layer.crossbars[name].variables, other.crossbars[name].variables
    np.testing.assert_array_equal(mine["counters"].numpy(), whole["counters"].numpy())
    np.testing.assert_allclose(mine["state"].numpy(), whole["state"].numpy(), rtol=1e-6, atol=1e-9)
""")


def test_mirrored_replicas_with_remainders_are_one_chip() -> None:
    """Batches of 8, 5 and 1 samples: states and draws are those of one device, ranges alike in both."""
    run_on_two_devices("""
keras.config.set_floatx("float64")
from xbar_core.config import preset
from xbar_tf import PulseSGD, XbarDense, XbarLSTM, crossbars_of
def fixed(value):
    return {"rule": "fixed", "value": value}
fixed_chip = preset("txsim-8bit").with_values({"adc.noise": 1e-7, "input.range": fixed(4.0),
    "adc.range": fixed(1e-4), "backward.error_range": fixed(1.0), "backward.current_range": fixed(1e-4),
    "circuit": {"kind": "fcm", "rtol": 1e-12}})
tracked_chip = preset("txsim-8bit")
x = np.random.default_rng(0).standard_normal((13, 3, 6))
y = np.random.default_rng(1).standard_normal((13, 3))
class Summed(keras.losses.Loss):
    def call(self, wanted, found):
        return tf.reduce_sum((wanted - found) ** 2, -1)
def made(chip):
    keras.utils.set_random_seed(1)
    stack = [XbarLSTM(5, config=chip, key="a", dtype="float64"), XbarDense(3, config=chip, key="b")]
    model = keras.Sequential([keras.Input((3, 6)), *stack])
    model.compile(PulseSGD(0.01, momentum=0.9), Summed(reduction="sum"))
    return model
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for chip in (fixed_chip, tracked_chip):
    with strategy.scope():
        model = made(chip)
    alone = made(chip)
    begin = [c.state.numpy() for _, c in crossbars_of(model)]
    for count in (13, 9):
        for each in (model, alone):
            each.fit(x[:count], y[:count], batch_size=8, shuffle=False, verbose=0)
    for (_, mine), (_, whole), first in zip(crossbars_of(model), crossbars_of(alone), begin, strict=True):
        for name in ("state", "ranges", "counters"):
            parts = [np.asarray(part) for part in getattr(mine.variables[name].value, "values")]
            assert len(parts) == 2
            np.testing.assert_array_equal(parts[0], parts[1], err_msg=name)
        ranges = mine.variables["ranges"].numpy()
        assert np.isfinite(ranges).all()
        np.testing.assert_array_equal(mine.variables["counters"].numpy(), whole.variables["counters"].numpy())
        assert np.abs(mine.state.numpy() - first).max() > 1e-4
        if chip is fixed_chip:
            np.testing.assert_allclose(mine.state.numpy(), whole.state.numpy(), rtol=1e-9, atol=1e-12)
""")
