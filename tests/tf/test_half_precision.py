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
    """The scale of the loss is halved, nothing is written, no range is kept; then it trains."""
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


def beside_a_digital_layer(eager: bool, **options: Any) -> Any:
    """A network whose first layer, digital, has gradients beyond half precision for large inputs."""
    keras.utils.set_random_seed(0)
    stack = [keras.Input((6,)), layers.Dense(8), layers.Dense(3), layers.Dense(2)]
    chip = preset("ideal").with_values({"update.encoding": "deterministic", "update.bits": 20})
    model = convert(keras.Sequential(stack), chip, {"<first>": None})
    model.compile(PulseSGD(0.1, **options), "mse", run_eagerly=eager)
    return model


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("accumulated", [None, 2])
def test_pulses_of_a_step_that_was_left_out_are_not_written(accumulated: int | None, eager: bool) -> None:
    """Only a digital gradient overflows: crossbars write what they do without that batch."""
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((8, 6)), rng.standard_normal((8, 2))) for _ in range(3)]
    large = (300 * batches[0][0], batches[0][1])
    found = []
    for steps in ([large, batches[1], large, batches[2]], batches[1:]):
        model = beside_a_digital_layer(eager, gradient_accumulation_steps=accumulated)
        model.layers[0].kernel.assign(model.layers[0].kernel / 300)
        model.layers[0].bias.assign(np.linspace(-1.0, 1.0, 8))
        before = [weight.numpy() for weight in model.trainable_variables]
        for x, y in steps:
            model.train_on_batch(x, y)
        assert int(model.optimizer.inner_optimizer._iterations) == 2
        assert not any(crossbar.pulses for _, crossbar in crossbars_of(model))
        found.append([w.numpy() - b for w, b in zip(model.trainable_variables, before, strict=True)])
    assert float(model.optimizer.dynamic_scale) == 2.0**15
    for mine, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-3 * np.abs(wanted).max())
