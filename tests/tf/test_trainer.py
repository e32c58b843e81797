"""The Keras trainer keeps the rules of `xbar_core.lab.trainer`: going on bit by bit, programming, looking."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf
from keras import layers

from xbar_core.cli import main
from xbar_core.config import Chip, preset
from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab.checkpoint import read_checkpoint
from xbar_core.lab.comparison import from_csv
from xbar_core.lab.data import DataSet
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import Trainer, trainer_factory
from xbar_tf.trainer import KerasTrainer, make_trainer

CLASSES, SIDE = 4, 16
NOISY = preset("txsim-8bit").with_values(
    {"device.read_noise": {"sigma": 0.01}, "device.variation": {"sigma": 0.02}}
)
EXACT = preset("txsim-8bit").with_("backward.mode", "exact")
CHIPS: dict[str, tuple[Chip | None, Recipe]] = {
    "native": (None, Recipe("lenet5", weight_decay=1e-4)),
    "noisy": (NOISY, Recipe("lenet5", clip=1.0)),
    "pulses": (
        preset("txsim-8bit").with_values({"update.encoding": "stochastic", "update.stream_length": 7}),
        Recipe("mlp", momentum=0.0),
    ),
    "interpolated": (
        preset("txsim-8bit").with_("circuit", {"kind": "interpolated", "period": 2}),
        Recipe("mlp"),
    ),
    "adam": (EXACT, Recipe(f"{__name__}:own", optimizer="adam", rate=1e-3)),
    "dropout": (None, Recipe(f"{__name__}:drops", optimizer="adamw", weight_decay=0.01, rate=1e-3)),
    "dropout on a chip": (preset("txsim-8bit"), Recipe(f"{__name__}:drops")),
}


def samples(count: int = 48) -> DataSet:
    """Bright squares whose place is the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, count)
    x = rng.integers(0, 60, (count, 1, SIDE, SIDE)).astype(np.uint8)
    for k, label in enumerate(y):
        top, left = 8 * (label // 2), 8 * (label % 2)
        x[k, 0, top : top + 6, left : left + 6] += 150
    return DataSet("squares", x, y, x[:16], y[:16], CLASSES)


DATA = samples()


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    at = slice(8 * (step % 6), 8 * (step % 6) + 8)
    return DATA.normalised(DATA.train_x[at]), DATA.train_y[at]


def train(trainer: Trainer, first: int, last: int) -> list[float]:
    return [trainer.step(*batch(k), 0.02).loss for k in range(first, last)]


def assert_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.dtype == second[name].dtype
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def own(classes: int, image_shape: tuple[int, ...]) -> keras.Model:
    channels, height, width = image_shape
    stack = [keras.Input((height, width, channels)), layers.Flatten(), layers.Dense(classes)]
    return keras.Sequential(stack)


class Linear(keras.Model):
    def __init__(self, classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.classes, self.flat, self.fc = classes, layers.Flatten(), layers.Dense(classes)

    def call(self, x: Any) -> Any:
        return self.fc(self.flat(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes}


def subclass(classes: int, image_shape: tuple[int, ...]) -> keras.Model:
    return Linear(classes)


def drops(classes: int, image_shape: tuple[int, ...]) -> keras.Model:
    channels, height, width = image_shape
    stack = [layers.Conv2D(4, 3, strides=2), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.5)]
    stack += [layers.Flatten(), layers.Dense(classes)]
    return keras.Sequential([keras.Input((height, width, channels)), *stack])


@pytest.mark.parametrize("name", CHIPS)
def test_goes_on_bit_by_bit(name: str) -> None:
    """A fresh trainer that loads a state does what the first one does, looks in between or not."""
    chip, recipe = CHIPS[name]
    steps = 3
    first = make_trainer(recipe, DATA, chip)
    train(first, 0, steps)
    first.finish_epoch()
    held = first.state()
    frozen = {key: array.copy() for key, array in held.items()}
    first.health(batch(0)[0])
    first.inspect(batch(0)[0])
    first.evaluate([batch(0)])
    assert first.diagnose(*batch(0)) == ""
    wanted = train(first, steps, 2 * steps)
    second = make_trainer(recipe, DATA, chip)
    second.load(held)
    assert train(second, steps, 2 * steps) == wanted
    first_state, second_state = first.state(), second.state()
    for state in (first_state, second_state):  # evaluations are counted apart, and key no training call
        for key in [key for key in state if "counters" in key]:
            state[key] = np.delete(state[key], 1)
    assert_equal(first_state, second_state)
    assert_equal(held, frozen)


@pytest.mark.parametrize(
    ("network", "chip"),
    [
        ("lstm", NOISY),
        ("resnet20", preset("txsim-8bit")),
        pytest.param("alexnet", preset("txsim-8bit"), marks=pytest.mark.slow),
        ("alexnet", None),
    ],
)
def test_networks_of_the_zoo_go_on_bit_by_bit(network: str, chip: Chip | None) -> None:
    """One step, a fresh trainer with its state, one more: the same loss and the same states."""
    recipe = Recipe(network)
    first = make_trainer(recipe, DATA, chip)
    train(first, 0, 1)
    second = make_trainer(recipe, DATA, chip)
    second.load(first.state())
    (wanted,), (found,) = (train(each, 1, 2) for each in (first, second))
    assert np.isfinite(wanted)
    assert found == wanted
    assert_equal(first.state(), second.state())


def test_global_generators_and_settings_are_left_alone() -> None:
    """First weights and dropout are keyed by the seed; nothing global is read or moved."""
    chip, recipe = CHIPS["dropout"]
    losses = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        before = random.getstate(), keras.config.floatx(), keras.config.dtype_policy().name
        losses.append(train(make_trainer(recipe, DATA, chip), 0, 1))
        assert before == (random.getstate(), keras.config.floatx(), keras.config.dtype_policy().name)
    assert losses[0] == losses[1]


def test_weights_of_one_trainer_in_another() -> None:
    """Native weights programmed into an ideal chip of wide range give the native scores."""
    native = make_trainer(Recipe("lenet5"), DATA, None)
    train(native, 0, 3)
    chip = make_trainer(Recipe("lenet5", seed=1), DATA, preset("ideal"))
    chip.program(native.weights())
    for name, array in chip.weights().items():
        np.testing.assert_allclose(array, native.weights()[name], rtol=0, atol=1e-6)
    wanted, found = native.evaluate([batch(0)]), chip.evaluate([batch(0)])
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert (found.accuracy, found.samples) == (wanted.accuracy, 8)


def test_native_and_ideal_training_are_one() -> None:
    """In float64 an ideal chip takes the native steps, at changing rates, with decay."""
    recipe = Recipe(f"{__name__}:own", weight_decay=0.01, dtype="float64")
    losses = []
    for chip in (None, preset("ideal")):
        trainer = make_trainer(recipe, DATA, chip)
        losses.append([trainer.step(*batch(k), 0.02 / (1 + k)).loss for k in range(8)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-11)


def test_calibrated_ranges_do_not_move() -> None:
    """After calibration a programmed chip labels a sample the same alone and beside others."""
    trainer = make_trainer(Recipe("mlp"), DATA, preset("txsim-8bit"))
    trainer.calibrate([batch(k) for k in range(6)])
    x, y = batch(0)
    alone = [trainer.evaluate([(x[k : k + 1], y[k : k + 1])]).loss for k in range(8)]
    assert trainer.evaluate([(x, y)]).loss == pytest.approx(np.mean(alone), rel=1e-5)


def test_aged_devices_drift() -> None:
    """With drift the loss depends on the age of the chip, and the reference time is the age None."""
    chip = preset("txsim-8bit").with_values({"device.drift": {"nu": 0.05, "nu_spread": 0.02, "t0": 1.0}})
    trainer = make_trainer(Recipe("mlp"), DATA, chip)
    trainer.calibrate([batch(0)])
    losses: dict[Any, list[float]] = {}
    for seconds in (None, 1.0, 3e7, None):
        trainer.age(seconds)
        losses.setdefault(seconds, []).append(trainer.evaluate([batch(0)]).loss)
    assert losses[None][0] == losses[None][1] == losses[1.0][0] != losses[3e7][0]


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "dtype"])
def test_state_that_does_not_fit(change: str) -> None:
    """A state of another network is refused by name, and the trainer is as it was."""
    trainer = make_trainer(Recipe("mlp"), DATA, preset("txsim-8bit"))
    before = trainer.state()
    state, name = dict(before), "model/layers.1/state"
    if change == "missing":
        del state[name]
    elif change == "unknown":
        name = "model/layers.1/stat"
        state[name] = np.zeros(3)
    else:
        state[name] = state[name].astype(np.float64) if change == "dtype" else np.zeros(3, np.float32)
    with pytest.raises(ConfigError, match=name):
        trainer.load(state)
    assert_equal(trainer.state(), before)
    with pytest.raises(ConfigError, match="weights: 'layers.1/kernel' is missing"):
        trainer.program(make_trainer(Recipe("lenet5"), DATA, None).weights())


def test_health_footprint_and_inspection_name_layers_alike() -> None:
    """Saturated devices, clipped conversions and wires each show in their own number."""
    trainer = make_trainer(Recipe("lenet5"), DATA, preset("txsim-8bit"))
    health, rows, found = trainer.health(batch(0)[0]), trainer.footprint(), trainer.inspect(batch(0)[0])
    names = ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert [row.name for row in rows] == [layer.name for layer in health] == names
    assert [layer.name for layer in found.layers] == names
    assert all(layer.saturated < 0.01 and 0.0 < layer.distortion < 0.3 for layer in health)
    assert rows[0][:4] == ("conv1", (25, 6), 2, 300)
    assert (rows[0].weights, rows[0].bytes) == (25 * 6 + 6, 4 * (300 + 1 + 6))
    ideal = make_trainer(Recipe("mlp"), DATA, preset("ideal")).health(batch(0)[0])
    assert all(layer[1:] == (0.0, 0.0, 0.0) for layer in ideal)
    native = make_trainer(Recipe("lenet5"), DATA, None)
    assert native.health(batch(0)[0]) == []
    assert native.inspect(batch(0)[0]).layers == ()
    assert [(row.name, row.weights) for row in native.footprint()] == [(r.name, r.weights) for r in rows]


@pytest.mark.parametrize("chip", [None, preset("txsim-8bit")], ids=["native", "chip"])
@pytest.mark.parametrize("stage", ["input", "weights", "output", "gradient"])
def test_diagnosis_names_layer_and_stage(chip: Chip | None, stage: str) -> None:
    """What is not finite is found in the layer and stage where it begins."""
    trainer: KerasTrainer = make_trainer(Recipe("mlp"), DATA, chip)
    x, y = batch(0)
    layer, wanted, name = trainer.network.get_layer("layers.3"), stage, "'layers.3'"
    if stage == "input":
        x[0, 0, 0, 0] = np.nan
        name = "the network"
    elif stage == "weights":
        variable = layer.kernel if chip is None else layer.state
        value = np.array(variable)
        value.flat[0] = np.nan
        variable.assign(value)
        wanted = "weights" if chip is None else "states"
    elif stage == "output":
        layer.activation = lambda value: value * np.inf
    else:
        after = trainer.network.layers[trainer.network.layers.index(layer) + 1]
        vars(after)["call"] = _explosive
    before = trainer.state()
    found = trainer.diagnose(x, y)
    assert name in found
    assert wanted in found
    assert_equal(trainer.state(), before)
    with pytest.raises((ConfigError, FloatingPointError)):
        trainer.step(x, y, 0.1)


@tf.custom_gradient
def _explosive(value: Any) -> Any:
    return tf.identity(value), lambda bar: bar * np.inf


@pytest.mark.parametrize("chip", [None, preset("txsim-8bit")], ids=["native", "chip"])
def test_step_with_nan_writes_nothing(chip: Chip | None) -> None:
    """A batch with NaN ends with FloatingPointError; weights, devices and moments are as before."""
    trainer = make_trainer(Recipe("mlp"), DATA, chip)
    train(trainer, 0, 1)
    before = trainer.weights()
    x, y = batch(0)
    x[0] = np.nan
    with pytest.raises(FloatingPointError):
        trainer.step(x, y, 0.1)
    assert_equal(trainer.weights(), before)


@pytest.mark.parametrize("chip", [None, preset("ideal")], ids=["native", "chip"])
def test_subclass_of_a_model_trains(chip: Chip | None) -> None:
    """A user's network that computes in `call` and does not tell its input shape learns, and goes on."""
    recipe = Recipe(f"{__name__}:subclass")
    trainer, other = (make_trainer(recipe, DATA, chip) for _ in range(2))
    losses = train(trainer, 0, 12)
    assert losses[-1] < losses[0]
    other.load(trainer.state())
    assert train(other, 12, 14) == train(trainer, 12, 14)


@pytest.mark.parametrize(
    ("recipe", "chip", "message"),
    [
        (Recipe("mlp", optimizer="adam"), preset("txsim-8bit"), "backward.mode=exact"),
        (Recipe("mlp", optimizer="adamw", weight_decay=0.1), EXACT, "weight_decay"),
        (Recipe("mlp"), CHIPS["pulses"][0], "momentum"),
        (Recipe("mlp", device="cuda:99"), None, "device: 'cuda:99'"),
        (Recipe("mlp", device="quantum"), None, "device: 'quantum'"),
        (Recipe("lenet6"), None, "did you mean 'lenet5'"),
        (Recipe(f"{__name__}:owm"), None, "did you mean 'own'"),
    ],
)
def test_what_cannot_work_is_said_first(recipe: Recipe, chip: Chip | None, message: str) -> None:
    """A recipe that fits neither network, data nor chip is refused before anything trains."""
    with pytest.raises((ConfigError, ShapeError), match=message) as caught:
        make_trainer(recipe, DATA, chip)
    assert "\n" not in str(caught.value)


def test_command_trains_and_goes_on(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`xbar train --framework tf` writes the run folder of the torch adapter, and resumes it."""
    monkeypatch.chdir(tmp_path)
    assert trainer_factory("tf") is make_trainer
    small = ["--network", "mlp", "--epochs", "1", "--batch", "64", "--preset", "txsim-8bit", "--compare", ""]
    assert main(["train", "--framework", "tf", "--out", "run", *small]) == 0
    held = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"metrics.csv", "run.json", "txsim-8bit"} <= held
    assert main(["train", "--resume", "run"]) == 0


def test_killed_in_the_middle_and_resumed(tmp_path: Any) -> None:
    """A run that is killed within an epoch and resumed ends bit by bit as one that was left in peace."""
    code = """
import os, signal, sys
from xbar_core.cli import main
from xbar_tf.trainer import KerasTrainer
step, done = KerasTrainer.step, []
def counted(self, *batch):
    done.append(0)
    if len(done) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *batch)
KerasTrainer.step = counted
sys.exit(main(sys.argv[2:]))
"""
    folders = tmp_path / "whole", tmp_path / "parts"
    small = ["--network", "mlp", "--epochs", "2", "--batch", "32", "--limit", "128", "--compare", ""]
    small += ["--framework", "tf", "--checkpoint-minutes", "0.00001"]
    given = [["train", "--out", str(folder), *small] for folder in folders]
    killed = subprocess.run([sys.executable, "-c", code, "7", *given[1]], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    newest = read_checkpoint(folders[1] / "txsim-8bit" / "last.safetensors")
    assert main(["train", "--resume", str(folders[1])]) == 0
    assert main(given[0]) == 0
    whole, parts = (read_checkpoint(each / "txsim-8bit" / "last.safetensors").state for each in folders)
    assert_equal(whole, parts)
    assert any(not np.array_equal(newest.state[name], array) for name, array in whole.items())
    logs = [from_csv((each / "metrics.csv").read_text()) for each in folders]
    first, second = ([replace(epoch, seconds=0.0) for epoch in log] for log in logs)
    assert first == second
