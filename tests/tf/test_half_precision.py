"""Mixed float16: Keras tries out the scale of the loss, and steps whose gradients overflow are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
from keras import layers

from xbar_core.config import Chip, preset
from xbar_tf import PulseSGD, convert, crossbars_of

TRACKED = {"rule": "tracked", "batches": 50}
CHIP = preset("txsim-8bit")
CHIPS: dict[str, Chip] = {
    "crossbar": CHIP,
    "tracked": CHIP.with_("backward", {"error_range": TRACKED, "current_range": TRACKED}),
    "exact": CHIP.with_("backward", {"mode": "exact"}),
    "pulses": CHIP.with_values({"update.encoding": "stochastic", "update.stream_length": 7}),
    "wired": preset("ideal").with_values({"circuit": {"kind": "fcm"}, "wires": {"r_row": 1.0}}),
}
NETWORKS: dict[str, Any] = {
    "dense": lambda: [keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(2)],
    "conv": lambda: [
        keras.Input((6,)),
        layers.Reshape((6, 1)),
        layers.Conv1D(3, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(2),
    ],
    "lstm": lambda: [keras.Input((6,)), layers.Reshape((3, 2)), layers.LSTM(4), layers.Dense(2)],
}


@pytest.fixture(autouse=True)
def policy() -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize(
    ("network", "chip"),
    [*(("dense", chip) for chip in CHIPS), ("conv", "crossbar"), ("conv", "exact"), ("lstm", "crossbar")],
)
def test_steps_that_overflow_are_left_out(network: str, chip: str) -> None:
    """The scale of the loss is halved, nothing is written, no range and no pulse is kept; then it trains."""
    keras.utils.set_random_seed(0)
    model = convert(keras.Sequential(NETWORKS[network]()), CHIPS[chip])
    optimizer = PulseSGD(1e-3)
    model.compile(optimizer, "mse")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 6)).astype("float32"), 100 * rng.standard_normal((8, 2)).astype("float32")
    crossbars = [crossbar for _, crossbar in crossbars_of(model)]
    scales, moved = [], []
    for _ in range(20):
        before = [crossbar.state.numpy() for crossbar in crossbars]
        model.train_on_batch(x, y)
        scales.append(float(model.optimizer.dynamic_scale.numpy()))
        moved.append(any(np.any(c.state.numpy() != b) for c, b in zip(crossbars, before, strict=True)))
        assert all(np.isfinite(c.variables["ranges"].numpy()).all() for c in crossbars)
        assert not any(c.pulses for c in crossbars), "left for the next step"
    assert scales[0] < 2.0**15
    assert not moved[0]
    assert moved[-1]
    first = moved.index(True)
    assert scales[first] == scales[first - 1]
    assert all(int(c.counter("updates")) == sum(moved) for c in crossbars)


def test_without_half_precision_it_is_an_error() -> None:
    """In float32 no scale of the loss is tried out: infinite errors are one line."""
    keras.config.set_dtype_policy("float32")
    model = convert(keras.Sequential(NETWORKS["dense"]()), CHIPS["tracked"])
    model.compile(PulseSGD(1e-3), "mse", run_eagerly=True)
    with pytest.raises(FloatingPointError, match="gradient of the output holds NaN or infinity"):
        model.train_on_batch(np.ones((8, 6), "float32"), np.full((8, 2), 1e39))
