"""What a framework adapter must offer so that the training program can use it.

An adapter registers a factory under the entry-point group ``xbar.trainers``, by the framework's name:

    [project.entry-points."xbar.trainers"]
    torch = "xbar_torch.trainer:make_trainer"

The factory takes a `Recipe`, the data set and a chip (None trains natively) and returns a `Trainer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_choice, check_integer, check_number, nearest
from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_core.lab.data import DataSet

GROUP = "xbar.trainers"
Schedule = Literal["cosine", "constant"]
Batch = tuple[NDArray[np.float32], NDArray[np.int64]]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    network : str
        Name of a network of the adapter.
    epochs, batch : int
        Passes over the training samples, and samples in a batch.
    rate, momentum : float
        Of stochastic gradient descent, in weight units.
    schedule : {"cosine", "constant"}
        How the rate falls from epoch to epoch; the cosine reaches 0 after the last one.
    seed : int
        Seeds first weights and order of the samples; the chip has a seed of its own.
    """

    network: str = "lenet5"
    epochs: int = 20
    batch: int = 128
    rate: float = 0.05
    momentum: float = 0.9
    schedule: Schedule = "cosine"
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, minimum=1)
        check_integer("batch", self.batch, minimum=1)
        check_integer("seed", self.seed, minimum=0)
        check_number("rate", self.rate, minimum=0.0, open_minimum=True)
        check_number("momentum", self.momentum, minimum=0.0, maximum=1.0)
        check_choice("schedule", self.schedule, ("cosine", "constant"))

    def rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        if self.schedule == "constant":
            return self.rate
        return 0.5 * self.rate * (1.0 + float(np.cos(np.pi * epoch / self.epochs)))


class Trained(NamedTuple):
    """What one epoch of training did.

    Attributes
    ----------
    loss : float
        Mean loss over the samples, while the weights moved.
    samples : int
        Samples seen.
    saturated : int
        Writes that asked a device to go beyond its range.
    """

    loss: float
    samples: int
    saturated: int = 0


class Trainer(Protocol):
    """One network, natively or on a chip, with its optimizer."""

    def train(self, batches: Iterable[Batch], rate: float) -> Trained:
        """Train on the batches of one epoch at a learning rate."""
        ...

    def accuracy(self, batches: Iterable[Batch]) -> float:
        """Return the share of samples that the network labels rightly."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights or device states, and what else a reader of them needs, into a folder."""
        ...


Factory = Callable[[Recipe, DataSet, Chip | None], Trainer]


def trainer_factory(framework: str) -> Factory:
    """Return the factory that an installed adapter registered.

    Raises
    ------
    ConfigError
        No adapter of this name is installed; the text says how to install it.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if framework not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(
            f"framework: no adapter for {framework!r} is installed{nearest(framework, found)} (installed: "
            f"{known}); pip install packages/xbar-{framework}"
        )
    factory: Any = found[framework].load()
    made: Factory = factory
    return made
