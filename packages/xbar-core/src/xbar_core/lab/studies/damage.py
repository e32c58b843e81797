"""Tasks of their own: what a chip loses of one trained network, in its reads and in its updates."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_core.lab.data import Batches, DataSet, evaluation_batches
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.trainer import Arrays, Factory, Trainer, trainer_factory

LINEAR: Mapping[str, Any] = {"update.v_up": 0.0, "update.v_down": 0.0, "update.noise.law": "none"}
"""An update without non-linearity and noise, at the stage that it has."""
_SAMPLES = 256  # for reads
_CALIBRATION = 4  # batches
_EVALUATED = 500  # samples at a time


def reads(setup: Setup) -> dict[str, float]:
    """Train natively, write the weights into the chip and measure what its reads lose.

    Returns
    -------
    dict
        ``error``: root mean square of the error of a layer's output relative to that of x @ W, from the
        stored weights and from the read together, root mean square over the layers; ``accuracy`` and
        ``test_loss`` of the network on the chip.
    """
    chip, recipe, data, factory = _parts(setup)
    wanted = _trained(factory, recipe, data).weights()
    written = _written(factory, recipe, data, chip, wanted)
    stored = _relative(written, written.weights(), wanted)
    looked_at = data.normalised(data.test_x[:_SAMPLES])
    ratios = [layer.stages[-1].snr_db for layer in written.inspect(looked_at).layers]
    power = float(np.mean([10 ** (-ratio / 10) for ratio in ratios]))
    scores = written.evaluate(evaluation_batches(data, _EVALUATED))
    return {
        "error": float(np.sqrt(stored**2 + power)),
        "accuracy": scores.accuracy,
        "test_loss": scores.loss,
    }


def updates(setup: Setup) -> dict[str, float]:
    """Train natively, write the weights into the chip and measure what its first update loses.

    Returns
    -------
    dict
        ``error``: of the change of the weights in the first step of training, relative to the change
        that the same chip would make without non-linearity and noise of updates.
    """
    chip, recipe, data, factory = _parts(setup)
    wanted = _trained(factory, recipe, data).weights()
    x, y = next(iter(Batches(data, recipe.batch, recipe.seed).epoch(recipe.epochs)))
    changes: list[Arrays] = []
    for each in (chip, chip.with_values(LINEAR)):
        trainer = _written(factory, recipe, data, each, wanted)
        before = trainer.weights()
        trainer.step(x, y, recipe.rate)
        after = trainer.weights()
        changes.append({name: after[name] - before[name] for name in after})
    return {"error": _relative(trainer, *changes)}


def _parts(setup: Setup) -> tuple[Chip, Recipe, DataSet, Factory]:
    if setup.chip is None or setup.recipe is None:
        raise ConfigError("task: needs a chip and a recipe")
    return setup.chip, setup.recipe, setup.load_data(), trainer_factory(setup.framework)


def _trained(factory: Factory, recipe: Recipe, data: DataSet) -> Trainer:
    native = factory(recipe, data, None)
    batches = Batches(data, recipe.batch, recipe.seed)
    for epoch in range(recipe.epochs):
        for x, y in batches.epoch(epoch):
            native.step(x, y, recipe.rate_at(epoch))
        native.finish_epoch()
    return native


def _written(factory: Factory, recipe: Recipe, data: DataSet, chip: Chip, weights: Arrays) -> Trainer:
    """Return a trainer whose chip holds the weights, the ranges of its converters learned."""
    trainer = factory(recipe, data, chip)
    trainer.program(weights)
    trainer.calibrate(islice(Batches(data, recipe.batch, recipe.seed).epoch(0), _CALIBRATION))
    return trainer


def _relative(trainer: Trainer, found: Arrays, wanted: Arrays) -> float:
    """Return |found - wanted| / |wanted|, root mean square over the matrices on crossbars."""
    errors = []
    for layer in trainer.footprint():
        if layer.shape:
            name = layer.name if layer.name in wanted else f"{layer.name}.weight"
            size = float(np.linalg.norm(wanted[name]))
            if size > 0.0:
                errors.append(float(np.linalg.norm(found[name] - wanted[name])) / size)
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0
