"""The task ``train``: one network trained on one chip; the only place of a sweep that trains."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from xbar_core.errors import ConfigError
from xbar_core.lab.data import Batches, DataSet, ahead, augmentation, evaluation_batches
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.sweep.tasks import Progress
from xbar_core.lab.trainer import trainer_factory

_EVALUATED = 500  # samples at a time


def train(setup: Setup, progress: Progress) -> dict[str, Any]:
    """Train the recipe's network on the chip, natively without one.

    A gradient or an input that is not finite ends the training: ``diverged`` is 1 then, and the
    accuracy is that of the weights before it.

    Returns
    -------
    dict
        ``accuracy`` (test samples, after the last epoch), ``best`` (after any epoch), ``loss``
        (training, last epoch), ``saturated`` (writes beyond a device's range, all epochs),
        ``diverged`` (0 or 1), ``seconds`` (training without evaluation), and lists over the epochs:
        ``accuracies``, ``losses``, ``epoch_seconds``.
    """
    recipe = setup.recipe
    if recipe is None:
        raise ConfigError("recipe: missing; the task 'train' needs one")
    data = setup.load_data()
    batches = Batches(data, recipe.batch, recipe.seed, augmentation(recipe.augment))
    trainer = trainer_factory(setup.framework)(recipe, data, setup.chip)
    accuracies: list[float] = []
    losses: list[float] = []
    seconds: list[float] = []
    saturated, diverged = 0, 0
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        total = samples = 0.0
        try:
            for number, (x, y) in enumerate(ahead(batches.epoch(epoch))):
                step = trainer.step(x, y, recipe.rate_at(epoch))
                total += step.loss * len(y)
                samples += len(y)
                saturated += step.saturated
                done = (epoch + (number + 1) / len(batches)) / recipe.epochs
                progress(done, f"epoch {epoch + 1} of {recipe.epochs}")
            trainer.finish_epoch()
        except FloatingPointError:
            diverged = 1
        seconds.append(time.perf_counter() - start)
        losses.append(total / samples if samples else float("nan"))
        accuracies.append(trainer.evaluate(evaluation_batches(data, _EVALUATED)).accuracy)
        if diverged:
            break
    return {
        "accuracy": accuracies[-1],
        "best": max(accuracies),
        "loss": losses[-1],
        "saturated": saturated,
        "diverged": diverged,
        "seconds": sum(seconds),
        "accuracies": accuracies,
        "losses": losses,
        "epoch_seconds": seconds,
    }


def check_training(setups: Iterable[Setup]) -> None:
    """Load every data set and build every network natively once, so that no point fails for them.

    Raises
    ------
    ConfigError, ShapeError
        An unknown adapter, data set or network, missing files, a network that does not fit.
    """
    seen: set[tuple[object, ...]] = set()
    data: dict[tuple[str, int | None], DataSet] = {}
    for setup in setups:
        if setup.recipe is None:
            continue
        source = (setup.dataset, setup.limit)
        kind = (*source, setup.framework, setup.recipe.network, setup.recipe.batch)
        if kind in seen:
            continue
        seen.add(kind)
        factory = trainer_factory(setup.framework)
        if source not in data:
            data[source] = setup.load_data()
        Batches(data[source], setup.recipe.batch)
        factory(setup.recipe, data[source], None)
