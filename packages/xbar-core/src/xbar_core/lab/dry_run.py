"""What a run would take, before anything trains: arrays, devices, memory, seconds.

Sizes are counted. Times are measured: a few steps and one batch of evaluation, on trainers that are thrown
away.
"""

from __future__ import annotations

import gc
import importlib
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from xbar_core.circuit.base import Interpolated
from xbar_core.config import Chip
from xbar_core.lab.data import Batches, DataSet, augmentation, evaluation_batches
from xbar_core.lab.last_batch import check_last_batch
from xbar_core.lab.trainer import Factory, Footprint, Recipe
from xbar_core.lab.training import EVALUATED, SLOWER, watched

_STEPS = 3  # timed, after a first one that compiles and calibrates
_MOST_STEPS = 12


@dataclass(frozen=True)
class DryRun:
    """What one variant of a run would take.

    Attributes
    ----------
    variant : str
        Name of the chip, or ``native``.
    layers : tuple of Footprint
        What every layer occupies.
    state_bytes : int
        Memory of everything that a checkpoint holds, optimizer included.
    step_seconds : float
        Mean time of the timed steps; batches are made by another thread meanwhile and not in it.
    timed : int
        Number of these steps; a first one came before them and is left out.
    steps, epochs : int
        Steps of an epoch, and epochs of the run.
    evaluation_seconds : float
        One evaluation of the test samples, from the time of one batch of them.
    peak_bytes : int or None
        Largest memory of the process on the host so far, this variant's steps included, without what it
        holds on another device; None where the operating system does not tell.
    """

    variant: str
    layers: tuple[Footprint, ...]
    state_bytes: int
    step_seconds: float
    timed: int
    steps: int
    epochs: int
    evaluation_seconds: float
    peak_bytes: int | None

    @property
    def arrays(self) -> int:
        """Physical arrays of all layers."""
        return sum(layer.arrays for layer in self.layers)

    @property
    def devices(self) -> int:
        """Devices that hold weights."""
        return sum(layer.devices for layer in self.layers)

    @property
    def epoch_seconds(self) -> float:
        """One epoch with its evaluation."""
        return self.steps * self.step_seconds + self.evaluation_seconds

    @property
    def seconds(self) -> float:
        """The whole run of this variant."""
        return self.epochs * self.epoch_seconds


def dry_run(
    factory: Factory, recipe: Recipe, data: DataSet, chips: Mapping[str, Chip | None]
) -> Iterator[DryRun]:
    """Yield what each variant of a run would take; nothing is written and no trainer is kept.

    Parameters
    ----------
    factory : callable
        From `xbar_core.lab.trainer.trainer_factory`.
    recipe : Recipe
        How to train.
    data : DataSet
        What to train on.
    chips : mapping of str to Chip or None
        Variants by name; None is native training.

    Raises
    ------
    ConfigError
        The last batch of an epoch is one that the network cannot train on.
    Diverged
        One of the few steps, or the evaluation after them, turned to NaN or infinity.
    OwnCodeError
        The user's own network raised something in one of them.
    """
    batches = Batches(data, recipe.batch, recipe.seed, augmentation(recipe.augment))
    for name, chip in chips.items():
        trainer = factory(recipe, data, chip)
        layers = tuple(trainer.footprint())
        times = []
        for number, (x, y) in enumerate(_repeated(batches, 1 + _timed_steps(chip))):
            start = time.perf_counter()
            with _watched(recipe, name, f"step {number + 1}"):
                trainer.step(x, y, recipe.rate_at(0))
            times.append(time.perf_counter() - start if number else 0.0)
        held = sum(array.nbytes for array in trainer.state().values())
        start = time.perf_counter()
        with _watched(recipe, name, "the evaluation"):
            scores = trainer.evaluate(islice(evaluation_batches(data, EVALUATED), 1))
            if not math.isfinite(scores.loss):
                raise FloatingPointError(f"the loss of the test samples is {scores.loss}")
        evaluation = (time.perf_counter() - start) * len(data.test_x) / scores.samples
        peak = peak_memory()
        check_last_batch(trainer, recipe, batches)
        yield DryRun(
            name,
            layers,
            held,
            sum(times) / (len(times) - 1),
            len(times) - 1,
            len(batches),
            recipe.epochs,
            evaluation,
            peak,
        )
        del trainer
        gc.collect()  # modules refer to each other in rings: large ones must not wait for the collector


def _watched(recipe: Recipe, name: str, when: str) -> AbstractContextManager[None]:
    """Say in one line which variant failed or turned to NaN or infinity, and when."""
    broken = f"{name} turned to NaN or infinity in {when} of the dry run"
    return watched(recipe.network, f"{when} of the dry run of {name}", broken, SLOWER)


def peak_memory() -> int | None:
    """Return the largest memory that this process has held, bytes; None where nobody tells."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:
        return None
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak if sys.platform == "darwin" else 1024 * peak


def _timed_steps(chip: Chip | None) -> int:
    """Return enough steps to meet the exact solutions of an interpolated circuit as often as in a run."""
    circuit = chip.circuit if chip is not None else None
    if not isinstance(circuit, Interpolated):
        return _STEPS
    period = min(circuit.period, _MOST_STEPS)
    return max(_STEPS // period, 1) * period


def _repeated(batches: Batches, count: int) -> Iterator[Any]:
    """Yield so many batches, from as many epochs as that takes."""
    epoch = 0
    while count > 0:
        for batch in islice(batches.epoch(epoch), count):
            yield batch
            count -= 1
        epoch += 1
