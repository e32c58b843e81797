"""The last batch of an epoch: tried before training where it leaves a process one sample only."""

from __future__ import annotations

from xbar_core.errors import ConfigError, ConvergenceError, ShapeError
from xbar_core.lab.data import Batches
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import Trainer


def check_last_batch(trainer: Trainer, recipe: Recipe, batches: Batches) -> None:
    """Raise where a network cannot train on a batch of one sample and would meet one.

    Batch normalisation is such a network: one sample has no deviation.

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
        The step failed; the text says how.
    """
    x, y = next(batches.epoch(0, start=len(batches) - 1))
    if len(y) != 1:
        return
    try:
        trainer.step(x, y, recipe.rate_at(0))
    except FloatingPointError:
        return  # the training itself says where that begins
    except (ConfigError, ShapeError, ConvergenceError, OSError, MemoryError):
        raise
    except Exception as error:  # the network's code may fail in any way
        raise ConfigError(
            f"batch: {batches.size} leaves one sample of {len(batches.data.train_x)} for the last batch of "
            f"an epoch, on which {recipe.network} cannot train ({type(error).__name__}: {error}); choose "
            "another --batch or --limit"
        ) from error
