"""The last batch of an epoch: tried before training where it leaves a process one sample only."""

from __future__ import annotations

import contextlib

import numpy as np

from xbar_core.errors import ConfigError, ConvergenceError, ShapeError
from xbar_core.lab.data import Batches
from xbar_core.lab.importing import own_code
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import Trainer


def check_last_batch(trainer: Trainer, recipe: Recipe, batches: Batches) -> None:
    """Raise where a network cannot train on a batch of one sample and would meet one.

    Batch normalisation is such a network: one sample has no deviation. A batch of two is tried first: a
    network that fails on that, too, is not to be blamed on the size of the batch.

    Parameters
    ----------
    trainer : Trainer
        A fresh one, which takes the step and is of no use afterwards.
    recipe : Recipe
        How it is trained.
    batches : Batches
        Of this process.

    Raises
    ------
    ConfigError
        The step on one sample failed; the text says how.
    OwnCodeError
        The user's own network failed on two samples.
    """
    x, y = next(batches.epoch(0, start=len(batches) - 1))
    if len(y) != 1:
        return
    rate = recipe.rate_at(0)
    finite = contextlib.suppress(FloatingPointError)  # the training itself says where that begins
    with finite, own_code("network", recipe.network, "a first step, a batch of two samples"):
        trainer.step(np.concatenate([x, x]), np.concatenate([y, y]), rate)
    try:
        with finite:
            trainer.step(x, y, rate)
    except (ConfigError, ShapeError, ConvergenceError, OSError, MemoryError):
        raise
    except Exception as error:  # the network's code may fail in any way
        each = " for each process" if batches.ranks > 1 else ""
        raise ConfigError(
            f"batch: {batches.size} leaves one sample{each} for the last batch of an epoch of "
            f"{len(batches.data.train_x)}, on which {recipe.network} cannot train "
            f"({type(error).__name__}: {error}); choose another --batch or --limit"
        ) from error
