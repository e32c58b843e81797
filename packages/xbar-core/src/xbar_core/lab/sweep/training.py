"""The task ``train``: one network trained on one chip; the only place of a sweep that trains."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any

from xbar_core.errors import ConfigError
from xbar_core.lab.data import Batches, DataSet, augmentation, evaluation_batches
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.sweep.tasks import Progress
from xbar_core.lab.trainer import Scores, Trainer, check_network, trainer_factory
from xbar_core.lab.training import EVALUATED, Diverged, Event, Training
from xbar_core.lab.training import Progress as StepDone


def train(setup: Setup, progress: Progress) -> dict[str, Any]:
    """Train the recipe's network on the chip, natively without one.

    A gradient or an input that is not finite ends the training: ``diverged`` is 1 then, and the
    accuracy is that of the weights that are left: those before the step, or, where a step that seemed
    sound made them NaN, none, with an accuracy of 0.

    Returns
    -------
    dict
        ``accuracy`` (test samples, after the last epoch), ``best`` (after any epoch), ``loss``
        (training, last epoch), ``test_loss`` (after the last epoch), ``saturated`` (writes beyond a
        device's range, all epochs), ``diverged`` (0 or 1), ``seconds`` (training without evaluation),
        and lists over the epochs: ``accuracies``, ``losses``, ``epoch_seconds``.
    """
    recipe = setup.recipe
    if recipe is None:
        raise ConfigError("recipe: missing; the task 'train' needs one")
    data = setup.load_data()
    batches = Batches(data, recipe.batch, recipe.seed, augmentation(recipe.augment))
    trainer = trainer_factory(setup.framework)(recipe, data, setup.chip)

    def report(event: Event) -> None:
        if isinstance(event, StepDone):
            done = (event.epoch - 1 + event.step / event.steps) / event.epochs
            progress(done, f"epoch {event.epoch} of {event.epochs}")

    name = "native" if setup.chip is None else setup.chip.name
    training = Training(name, trainer, data, recipe, batches, report=report)
    diverged = 0
    try:
        training.run()
    except Diverged:
        diverged = 1
    accuracies = [epoch.accuracy for epoch in training.log]
    test_losses = [epoch.test_loss for epoch in training.log]
    if diverged:
        scores = _last_scores(trainer, data)
        accuracies.append(scores.accuracy)
        test_losses.append(scores.loss)
    losses = [epoch.loss for epoch in training.log]
    seconds = [epoch.seconds for epoch in training.log]
    return {
        "accuracy": accuracies[-1],
        "best": max(accuracies),
        "loss": losses[-1] if losses and not diverged else float("nan"),
        "test_loss": test_losses[-1],
        "saturated": sum(epoch.saturated for epoch in training.log),
        "diverged": diverged,
        "seconds": sum(seconds),
        "accuracies": accuracies,
        "losses": losses,
        "epoch_seconds": seconds,
    }


def _last_scores(trainer: Trainer, data: DataSet) -> Scores:
    """Evaluate what a diverged training has left: outputs that are NaN label nothing rightly."""
    with contextlib.suppress(FloatingPointError):
        scores = trainer.evaluate(evaluation_batches(data, EVALUATED))
        if not math.isnan(scores.loss):
            return scores
    return Scores(math.nan, 0.0, len(data.test_x))


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
        if setup.recipe is None or setup.task != "train":
            continue
        source = (setup.dataset, setup.limit)
        kind = (*source, setup.framework, setup.recipe.network, setup.recipe.batch)
        if kind in seen:
            continue
        seen.add(kind)
        check_network(setup.framework, setup.recipe.network)
        if source not in data:
            data[source] = setup.load_data()
        Batches(data[source], setup.recipe.batch)
        trainer_factory(setup.framework)(setup.recipe, data[source], None)
