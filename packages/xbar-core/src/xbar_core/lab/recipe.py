"""How a network is trained: everything but the network, the data and the chip themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.config import Chip
from xbar_core.errors import ConfigError

Optimizer = Literal["sgd", "adam", "adamw"]
Schedule = Literal["cosine", "constant", "step"]
DType = Literal["float32", "float64"]
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "adam", "adamw")
SCHEDULES: tuple[Schedule, ...] = ("cosine", "constant", "step")
AUGMENTATIONS = ("none", "crop-flip")
DTYPES: tuple[DType, ...] = ("float32", "float64")
_HIGHEST = 1e30  # the factors that optimizers make of a number stay within float32


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    network : str
        Name of a network of the adapter, or the import path of the user's own,
        ``package.module:function``, called with the number of classes and the shape of a sample.
    epochs, batch : int
        Passes over the training samples, and samples in a batch (of all processes together).
    rate, momentum : float
        Learning rate in weight units, at most 1e30; momentum of ``sgd``, below 1.
    optimizer : {"sgd", "adam", "adamw"}
        On a chip ``sgd`` writes its steps into the devices; the others need a chip with
        ``backward.mode = "exact"`` (hardware-aware training).
    weight_decay : float
        Weight units, at most 1e30; decoupled from the gradient for ``adamw``.
    schedule : {"cosine", "constant", "step"}
        How the rate falls from epoch to epoch: the cosine reaches 0 after the last one, ``step``
        takes a tenth after half and again after three quarters of the epochs.
    warmup : int
        Epochs over which the rate first rises in equal parts.
    clip : float or None
        Largest norm of all gradients together, at most 1e30; None leaves them as they are.
    augment : {"none", "crop-flip"}
        Random changes of the training images.
    seed : int
        Seeds first weights, order of the samples, augmentation and dropout; the chip has a seed of its own.
    device : str
        The framework's name of a device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    dtype : {"float32", "float64"}
        Of the weights and of everything computed with them.
    """

    network: str = "lenet5"
    epochs: int = 20
    batch: int = 128
    rate: float = 0.05
    momentum: float = 0.9
    optimizer: Optimizer = "sgd"
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    warmup: int = 0
    clip: float | None = None
    augment: str = "none"
    seed: int = 0
    device: str = "cpu"
    dtype: DType = "float32"

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, minimum=1)
        check_integer("batch", self.batch, minimum=1)
        check_integer("seed", self.seed, minimum=0)
        check_integer("warmup", self.warmup, minimum=0)
        check_number("rate", self.rate, minimum=0.0, maximum=_HIGHEST, open_minimum=True)
        check_number("weight_decay", self.weight_decay, minimum=0.0, maximum=_HIGHEST)
        check_number("momentum", self.momentum, minimum=0.0)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("augment", self.augment, AUGMENTATIONS)
        check_choice("dtype", self.dtype, DTYPES)
        if self.clip is not None:
            check_number("clip", self.clip, minimum=0.0, maximum=_HIGHEST, open_minimum=True)
        if self.momentum >= 1.0:
            raise ConfigError(f"momentum: {self.momentum!r} never forgets a gradient; it must be below 1")
        if self.warmup >= self.epochs and self.warmup > 0:
            raise ConfigError(
                f"warmup: {self.warmup} epochs leave none of {self.epochs} to train at the full rate; "
                "give fewer"
            )

    def rate_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        if epoch < self.warmup:
            return self.rate * (epoch + 1) / (self.warmup + 1)
        if self.schedule == "constant":
            return self.rate
        done = (epoch - self.warmup) / (self.epochs - self.warmup)
        if self.schedule == "step":
            return self.rate * (0.01 if done >= 0.75 else 0.1 if done >= 0.5 else 1.0)
        return 0.5 * self.rate * (1.0 + math.cos(math.pi * done))


def check_optimizer(recipe: Recipe, chip: Chip | None) -> None:
    """Raise unless the optimizer can train the chip: ``sgd`` writes into devices, others move states."""
    if chip is None or recipe.optimizer == "sgd":
        return
    if chip.backward.mode != "exact":
        raise ConfigError(
            f"optimizer: {recipe.optimizer!r} on chip {chip.name!r}, whose backward.mode is "
            f"{chip.backward.mode!r}; devices take steps of 'sgd': use it, or --set backward.mode=exact"
        )
    if recipe.weight_decay > 0.0:
        raise ConfigError(
            f"weight_decay: {recipe.weight_decay!r} with {recipe.optimizer!r} on a chip would pull device "
            "states, not weights; use 0, or 'sgd'"
        )
