"""Aged chips and new chips do to a real network what the equations of devices say."""

from __future__ import annotations

import numpy as np
import pytest

from xbar_core.config import preset
from xbar_core.lab.data import Batches, evaluation_batches, limited, load_data
from xbar_core.lab.evaluation import deployed, evaluate_chips
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import Arrays
from xbar_torch.trainer import make_trainer

DATA = limited(load_data("digits"), 150)
RECIPE = Recipe("mlp", batch=50, dtype="float64")


@pytest.fixture(scope="module")
def weights() -> Arrays:
    """Weights of an MLP after one epoch."""
    trainer = make_trainer(RECIPE, DATA, None)
    for x, y in Batches(DATA, 50).epoch(0):
        trainer.step(x, y, 0.1)
    return trainer.weights()


def native_loss(weights: Arrays) -> float:
    trainer = make_trainer(RECIPE, DATA, None)
    trainer.program(weights)
    return trainer.evaluate(evaluation_batches(DATA, 150)).loss


def test_common_drift_scales_every_weight(weights: Arrays) -> None:
    """Without spread g(t) = g (t/t0)^-nu takes the same share of every weight, and nothing of a bias."""
    chip = deployed(preset("ideal")).with_values({"device.drift.nu": 0.02, "device.drift.t0": 5.0})
    found = evaluate_chips(make_trainer, RECIPE, DATA, chip, weights, chips=1, ages=(5.0, 500.0, 5e6))
    losses = []
    for reading in found.readings:
        factor = (reading.age / 5.0) ** -0.02
        aged = {name: value * factor if value.ndim == 2 else value for name, value in weights.items()}
        assert reading.loss == pytest.approx(native_loss(aged), rel=1e-9)
        losses.append(reading.loss)
    assert len(set(losses)) == 3


def test_differential_pairs_outlive_balanced_ones(weights: Arrays) -> None:
    """Where exponents scatter, a pair whose second device is at g_min loses less than one about g_mid."""
    losses = {}
    for kind in ("balanced", "differential"):
        chip = deployed(preset("ideal")).with_values(
            {"mapping.kind": kind, "device.drift.nu": 0.0, "device.drift.nu_spread": 0.03}
        )
        found = evaluate_chips(make_trainer, RECIPE, DATA, chip, weights, chips=2, ages=(3e7,))
        losses[kind] = np.mean([reading.loss for reading in found.readings])
    lost = {kind: loss - native_loss(weights) for kind, loss in losses.items()}
    assert lost["differential"] < 0.5 * lost["balanced"]


def test_chips_differ_and_are_the_same_every_time(weights: Arrays) -> None:
    """Each seed is another chip, and the same seed the same one, to the bit."""
    chip = deployed(preset("ideal")).with_("device.variation", {"kind": "lognormal", "sigma": 0.3})
    runs = [evaluate_chips(make_trainer, RECIPE, DATA, chip, weights, chips=2) for _ in range(2)]
    assert runs[0].readings == runs[1].readings
    assert len({reading.loss for reading in runs[0].readings}) == 2
    assert runs[0].digital is not None
