"""Every network of the zoo trains on a chip, can be looked at, and moves to another chip."""

from __future__ import annotations

import numpy as np
import pytest

from xbar_core.config import preset
from xbar_core.lab.data import Batches, DataSet, evaluation_batches
from xbar_core.lab.recipe import Recipe
from xbar_torch.trainer import make_trainer
from xbar_torch.zoo import network_names

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
DATA = DataSet("noise", IMAGES, np.arange(12) % 5, IMAGES[:4], np.arange(4), 5)
HEAVY = ("alexnet", "vgg16", "resnet18", "resnet56")  # minutes on a small machine
CHIP = preset("txsim-8bit").with_("circuit", {"kind": "ideal"})

networks = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in HEAVY else []) for n in network_names()]
)


@networks
def test_it_trains_and_is_looked_at(name: str) -> None:
    """Two steps give finite losses; each layer on crossbars is counted, measured and inspected."""
    trainer = make_trainer(Recipe(name, batch=6), DATA, CHIP)
    losses = [trainer.step(x, y, 0.01).loss for x, y in Batches(DATA, 6).epoch(0)]
    assert np.isfinite(losses).all()
    placed = [layer.name for layer in trainer.footprint() if layer.arrays]
    x = DATA.normalised(DATA.test_x)
    assert [layer.name for layer in trainer.health(x)] == placed
    found = trainer.inspect(x).layers
    assert [layer.name for layer in found] == placed
    assert all(layer.stages and layer.clipped for layer in found)


@networks
def test_native_weights_move_to_a_chip(name: str) -> None:
    """Programmed into the ideal chip, natively trained weights label and lose as before."""
    native = make_trainer(Recipe(name, batch=6, dtype="float64"), DATA, None)
    for x, y in Batches(DATA, 6).epoch(0):
        native.step(x, y, 0.01)
    chip = make_trainer(Recipe(name, batch=6, dtype="float64", seed=1), DATA, preset("ideal"))
    chip.program(native.weights())
    wanted, got = (t.evaluate(evaluation_batches(DATA, 4)) for t in (native, chip))
    assert got.loss == pytest.approx(wanted.loss, rel=1e-6)
    assert got.accuracy == wanted.accuracy
