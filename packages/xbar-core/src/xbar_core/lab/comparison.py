"""Train the same network from the same first weights natively and on chips, and compare."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.numpy import save_file

from xbar_core.config import Chip
from xbar_core.lab.data import Batches, DataSet, evaluation_batches
from xbar_core.lab.data.batches import ahead
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import Factory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Epoch:
    """One line of the log.

    Attributes
    ----------
    variant : str
        Name of the chip, or ``native``.
    epoch : int
        From 1 up.
    loss : float
        Mean training loss.
    accuracy : float
        Share of the test samples that are labelled rightly after the epoch.
    seconds : float
        Time spent training, without evaluation.
    rate : float
        Learning rate.
    saturated : int
        Writes that asked a device to go beyond its range.
    """

    variant: str
    epoch: int
    loss: float
    accuracy: float
    seconds: float
    rate: float
    saturated: int


@dataclass
class Comparison:
    """Everything that a comparison found.

    Attributes
    ----------
    data : str
        Name of the data set.
    recipe : Recipe
        How all variants were trained.
    epochs : list of Epoch
        In the order they were trained.
    """

    data: str
    recipe: Recipe
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def variants(self) -> list[str]:
        """Names in the order of their training."""
        return list(dict.fromkeys(epoch.variant for epoch in self.epochs))

    def of(self, variant: str) -> list[Epoch]:
        """Return the epochs of one variant."""
        return [epoch for epoch in self.epochs if epoch.variant == variant]


def compare(
    factory: Factory,
    data: DataSet,
    recipe: Recipe,
    chips: Mapping[str, Chip | None],
    folder: Path,
    report: Callable[[Epoch], None],
) -> Comparison:
    """Train every variant and write what it leaves into `folder` as soon as it is known.

    Parameters
    ----------
    factory : callable
        From `trainer_factory`.
    data : DataSet
        Training and test samples; every variant sees the same batches.
    recipe : Recipe
        How to train.
    chips : mapping of str to Chip or None
        Variants by name; None is native training.
    folder : Path
        Gets ``metrics.csv`` (a line after each epoch), a folder of the trained weights for each
        variant, and ``recipe.json``. It must exist.
    report : callable
        Called after each epoch.
    """
    batches = Batches(data, recipe.batch, recipe.seed)
    # Everything is built before anything trains: a chip that cannot hold the network fails here.
    trainers = {name: factory(recipe, data, chip) for name, chip in chips.items()}
    (folder / "recipe.json").write_text(json.dumps({"data": data.name, **asdict(recipe)}, indent=2) + "\n")
    result = Comparison(data.name, recipe)
    with (folder / "metrics.csv").open("w", newline="") as file:
        log = csv.DictWriter(file, list(Epoch.__dataclass_fields__))
        log.writeheader()
        for name, trainer in trainers.items():
            for number in range(recipe.epochs):
                rate = recipe.rate_at(number)
                start = time.perf_counter()
                loss, saturated = 0.0, 0
                for x, y in ahead(batches.epoch(number)):
                    done = trainer.step(x, y, rate)
                    loss += done.loss * len(y)
                    saturated += done.saturated
                trainer.finish_epoch()
                loss /= len(data.train_x)
                seconds = time.perf_counter() - start
                accuracy = trainer.evaluate(evaluation_batches(data, 1000)).accuracy
                epoch = Epoch(name, number + 1, loss, accuracy, seconds, rate, saturated)
                log.writerow(asdict(epoch))
                file.flush()
                result.epochs.append(epoch)
                report(epoch)
            (folder / name).mkdir(exist_ok=True)
            chip = chips[name]
            if chip is not None:
                (folder / name / "chip.toml").write_text(chip.to_toml(), encoding="utf-8")
            save_file(trainer.state(), folder / name / "weights.safetensors")
    return result


def curves(result: Comparison) -> Figure:
    """Return a figure of test accuracy and training loss against epochs, a line for each variant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    right, left = figure.subplots(1, 2)
    for style, name in zip(_styles(result.variants), result.variants, strict=True):
        epochs = result.of(name)
        number = [e.epoch for e in epochs]
        right.plot(number, [100 * e.accuracy for e in epochs], style, label=name)
        left.plot(number, [e.loss for e in epochs], style, label=name)
    right.set(xlabel="epoch", ylabel="test accuracy [%]", title="Accuracy")
    left.set(xlabel="epoch", ylabel="training loss", yscale="log", title="Loss")
    for axes in (right, left):
        axes.grid(alpha=0.3)
    right.legend()
    figure.suptitle(f"{result.recipe.network} on {result.data}, trained natively and on chips")
    return figure


def _styles(variants: Sequence[str]) -> list[str]:
    marks = ("k-", "C0--", "C1-", "C2-.", "C4:", "C5-")
    return [marks[k % len(marks)] for k in range(len(variants))]
