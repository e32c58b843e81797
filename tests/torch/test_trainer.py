"""The torch trainer keeps the rules of `xbar_core.lab.trainer`: going on bit by bit, programming, looking."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from xbar_core.config import Chip, preset
from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab.data import DataSet
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import Trainer
from xbar_torch.trainer import make_trainer

CLASSES, SIDE = 4, 16
NOISY = preset("txsim-8bit").with_values(
    {"device.read_noise": {"sigma": 0.01}, "device.variation": {"sigma": 0.02}}
)
EXACT = preset("txsim-8bit").with_("backward.mode", "exact")
CHIPS: dict[str, tuple[Chip | None, Recipe]] = {
    "native": (None, Recipe("lenet5", weight_decay=1e-4)),
    "noisy": (NOISY, Recipe("lenet5", clip=1.0)),
    "per call": (NOISY.with_("device.read_noise.kind", "per_batch"), Recipe("mlp")),
    "interpolated": (
        preset("txsim-8bit").with_values({"circuit": {"kind": "interpolated", "period": 3}}),
        Recipe("mlp"),
    ),
    "pulses": (
        preset("txsim-8bit").with_values({"update.encoding": "stochastic", "update.stream_length": 7}),
        Recipe("mlp", momentum=0.0),
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


@pytest.mark.parametrize("name", CHIPS)
def test_goes_on_bit_by_bit(name: str) -> None:
    """A fresh trainer that loads a state does what the first one does, looks in between or not."""
    chip, recipe = CHIPS[name]
    steps = 4
    first = make_trainer(recipe, DATA, chip)
    train(first, 0, steps)
    first.finish_epoch()
    held = first.state()
    frozen = {key: array.copy() for key, array in held.items()}
    first.health(batch(0)[0])
    assert first.diagnose(*batch(0)) == ""
    wanted = train(first, steps, 2 * steps), first.evaluate([batch(0)])
    second = make_trainer(recipe, DATA, chip)
    second.load(held)
    assert (train(second, steps, 2 * steps), second.evaluate([batch(0)])) == wanted
    assert_equal(first.state(), second.state())
    assert_equal(held, frozen)


def test_global_generator_is_left_alone() -> None:
    """Dropout is keyed by seed and step: it neither reads nor moves torch's global generator."""
    chip, recipe = CHIPS["dropout"]
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses.append(train(make_trainer(recipe, DATA, chip), 0, 1))
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", ["noisy", "interpolated"])
def test_evaluation_changes_nothing_that_training_reads(name: str) -> None:
    """Training with evaluations in between takes the same steps as without."""
    chip, recipe = CHIPS[name]
    first, second = (make_trainer(recipe, DATA, chip) for _ in range(2))
    for step in range(4):
        first.evaluate([batch(step)])
        assert train(first, step, step + 1) == train(second, step, step + 1)


def test_weights_of_one_trainer_in_another() -> None:
    """Native weights programmed into an ideal chip of wide range give the native scores."""
    native = make_trainer(Recipe("lenet5"), DATA, None)
    train(native, 0, 4)
    chip = make_trainer(Recipe("lenet5", seed=1), DATA, preset("ideal"))
    chip.program(native.weights())
    for name, array in chip.weights().items():
        np.testing.assert_allclose(array, native.weights()[name], rtol=0, atol=1e-6)
    wanted, found = native.evaluate([batch(0)]), chip.evaluate([batch(0)])
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert (found.accuracy, found.samples) == (wanted.accuracy, 8)


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
    losses = {}
    for seconds in (None, 1.0, 3e7, None):
        trainer.age(seconds)
        losses.setdefault(seconds, []).append(trainer.evaluate([batch(0)]).loss)
    assert losses[None][0] == losses[None][1] == losses[1.0][0] != losses[3e7][0]


@pytest.mark.parametrize("change", ["missing", "unknown", "shape", "dtype", "moment"])
def test_state_that_does_not_fit(change: str) -> None:
    """A state of another network is refused by name, and the trainer is as it was."""
    trainer = make_trainer(Recipe("mlp"), DATA, preset("txsim-8bit"))
    train(trainer, 0, 1)
    before = trainer.state()
    state = dict(before)
    name = "optimizer/layers.1.bias/momentum_buffer" if change == "moment" else "model/layers.1.state"
    if change == "missing":
        del state[name]
    elif change == "unknown":
        name = "model/layers.1.stat"
        state[name] = np.zeros(3)
    elif change == "dtype":
        state[name] = state[name].astype(np.float64)
    else:
        state[name] = np.zeros(3, np.float32)
    with pytest.raises(ConfigError, match=name):
        trainer.load(state)
    assert_equal(trainer.state(), before)


def test_moment_without_parameter() -> None:
    """A moment of a parameter that the network has not is refused, before the first step, too."""
    trainer = make_trainer(Recipe("mlp"), DATA, None)
    state = {**trainer.state(), "optimizer/layers.9.bias/momentum_buffer": np.zeros(3, np.float32)}
    with pytest.raises(ConfigError, match=r"layers\.9\.bias"):
        trainer.load(state)


def test_weights_that_do_not_fit() -> None:
    """Weights of another network are refused by name."""
    trainer = make_trainer(Recipe("mlp"), DATA, preset("ideal"))
    with pytest.raises(ConfigError, match=r"weights: 'layers\.1\.weight' is missing"):
        trainer.program(make_trainer(Recipe("lenet5"), DATA, None).weights())


def test_health_names_what_is_wrong() -> None:
    """Saturated devices, clipped conversions and wires each show in their own number."""
    good = make_trainer(Recipe("mlp"), DATA, preset("txsim-8bit"))
    layers = good.health(batch(0)[0])
    assert [layer.name for layer in layers] == ["layers.1", "layers.3", "layers.5"]
    assert all(layer.saturated < 0.01 and 0.0 < layer.distortion < 0.3 for layer in layers)
    ideal = make_trainer(Recipe("mlp"), DATA, preset("ideal")).health(batch(0)[0])
    assert all(layer[1:] == (0.0, 0.0, 0.0) for layer in ideal)
    narrow = preset("txsim-8bit").with_values(
        {"mapping.w_max": {"rule": "fixed", "value": 0.02}, "adc.range": {"rule": "fixed", "value": 1e-6}}
    )
    layers = make_trainer(Recipe("mlp"), DATA, narrow).health(batch(0)[0])
    assert layers[0].saturated > 0.2
    assert layers[0].clipped > 0.2
    assert make_trainer(Recipe("mlp"), DATA, None).health(batch(0)[0]) == []


def test_footprint_counts_arrays_and_memory() -> None:
    """LeNet-5's first convolution: 25 x 6 weights, a pair of devices each, two arrays."""
    rows = make_trainer(Recipe("lenet5"), DATA, preset("txsim-8bit")).footprint()
    first = rows[0]
    assert first[:4] == ("conv1", (25, 6), 2, 300)
    assert first.utilisation == pytest.approx(25 * 6 / 64**2)
    assert (first.weights, first.bytes) == (25 * 6 + 6, 4 * (300 + 1 + 6))
    native = make_trainer(Recipe("lenet5"), DATA, None).footprint()
    assert [row.name for row in native] == [row.name for row in rows]
    assert [row.weights for row in native] == [row.weights for row in rows]
    assert all(row.arrays == row.devices == 0 and row.shape == () for row in native)


@pytest.mark.parametrize("chip", [None, preset("txsim-8bit")], ids=["native", "chip"])
@pytest.mark.parametrize("stage", ["input", "weights", "output", "loss", "gradient"])
def test_diagnosis_names_layer_and_stage(chip: Chip | None, stage: str) -> None:
    """What is not finite is found in the layer and stage where it begins."""
    trainer = make_trainer(Recipe("mlp"), DATA, chip)
    x, y = batch(0)
    layers = dict(trainer.network.named_modules())
    layer, wanted = "'layers.3'", stage
    if stage == "input":
        x[0, 0, 0, 0] = np.nan
        layer = "the network"
    elif stage == "weights":
        with torch.no_grad():
            parameters = dict(layers["layers.3"].named_parameters())
            parameters["weight" if chip is None else "state"].view(-1)[0] = math.nan
        wanted = "weights" if chip is None else "states"
    elif stage == "output":
        layers["layers.3"].register_forward_hook(lambda module, given, result: result * math.inf)
    elif stage == "loss":
        layers["layers"].register_forward_hook(lambda module, given, result: result * math.inf)
        layer = "the network"
    else:
        layers["layers.4"].register_forward_hook(lambda module, given, result: _Explosive.apply(result))
    before = trainer.state()
    found = trainer.diagnose(x, y)
    assert layer in found
    assert wanted in found
    assert_equal(trainer.state(), before)
    with pytest.raises(FloatingPointError):
        trainer.step(x, y, 0.1)


class _Explosive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, bar):
        return bar * math.inf


def test_step_with_nan_writes_nothing() -> None:
    """A batch with NaN ends with FloatingPointError; weights and devices are as before."""
    for chip in (None, preset("txsim-8bit")):
        trainer = make_trainer(Recipe("mlp"), DATA, chip)
        before = trainer.weights()
        x, y = batch(0)
        x[0] = np.nan
        with pytest.raises(FloatingPointError):
            trainer.step(x, y, 0.1)
        assert_equal(trainer.weights(), before)


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


def own(classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), classes))


def drops(classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(image_shape[0], 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(4 * 49, classes),
    )


def test_own_network_trains() -> None:
    """A network by import path learns on a chip, in float64, too."""
    for dtype in ("float32", "float64"):
        recipe = dataclasses.replace(Recipe(f"{__name__}:own"), dtype=dtype)
        trainer = make_trainer(recipe, DATA, preset("txsim-8bit"))
        losses = train(trainer, 0, 12)
        assert np.mean(losses[6:]) < 0.7 * np.mean(losses[:6])
        assert trainer.weights()["1.weight"].dtype == dtype


def test_adam_moves_states() -> None:
    """Hardware-aware training: Adam on the states, projected to [0, 1]."""
    trainer = make_trainer(Recipe(f"{__name__}:own", optimizer="adam", rate=1e-3), DATA, EXACT)
    losses = train(trainer, 0, 12)
    assert np.mean(losses[6:]) < np.mean(losses[:6])
