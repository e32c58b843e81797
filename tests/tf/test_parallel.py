"""Replicas whose shares of a batch differ."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")


def test_mirrored_replicas_with_remainders_are_one_chip() -> None:
    """Batches of 8, 5 and 1 samples: states and draws are those of one device, ranges alike in both."""
    code = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
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
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
