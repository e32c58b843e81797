"""The log of a run: what every epoch of every variant did, as a table, a file and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from xbar_core.lab.recipe import Recipe

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
        Mean training loss, while the weights moved.
    train_accuracy : float
        Share of the training samples that were labelled rightly, while the weights moved.
    accuracy, test_loss : float
        Share of the test samples that are labelled rightly after the epoch, and their mean loss.
    seconds : float
        Time spent training, without evaluation and checkpoints.
    rate : float
        Learning rate.
    saturated : int
        Writes of the epoch that asked a device to go beyond its range.
    at_end : float
        Share of the devices at an end of their range, in the layer that has most of them.
    clipped : float
        Share of conversions beyond their full scale, in the layer that has most of them, on a fixed batch.
    distortion : float
        Relative change of a read matrix by wires, root mean square, in the layer where it is largest.
    """

    variant: str
    epoch: int
    loss: float
    train_accuracy: float
    accuracy: float
    test_loss: float
    seconds: float
    rate: float
    saturated: int
    at_end: float = 0.0
    clipped: float = 0.0
    distortion: float = 0.0


@dataclass
class Comparison:
    """Everything that a run found.

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

    def best(self, variant: str) -> Epoch:
        """Return the first epoch of a variant with its highest accuracy on test samples."""
        return max(self.of(variant), key=lambda epoch: epoch.accuracy)


def to_csv(epochs: Iterable[Epoch]) -> str:
    """Return the log as CSV, every digit kept."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [each.name for each in fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in epochs)
    return text.getvalue()


def from_csv(text: str) -> list[Epoch]:
    """Return the log that `to_csv` wrote."""
    kinds: dict[str, Any] = {"str": str, "int": int, "float": float}
    known = {each.name: kinds[str(each.type)] for each in fields(Epoch)}
    return [
        Epoch(**{name: known[name](value) for name, value in row.items() if name in known})
        for row in csv.DictReader(io.StringIO(text))
    ]


def curves(result: Comparison) -> Figure:
    """Return a figure of test accuracy and training loss against epochs, a line for each variant."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    right, left = figure.subplots(1, 2)
    for style, name in zip(_styles(result.variants), result.variants, strict=True):
        epochs = result.of(name)
        number = [e.epoch for e in epochs]
        right.plot(number, [100 * e.accuracy for e in epochs], style, marker=".", label=name)
        left.plot(number, [e.loss for e in epochs], style, marker=".", label=name)
    right.set(xlabel="epoch", ylabel="test accuracy [%]", title="Accuracy")
    left.set(xlabel="epoch", ylabel="training loss", yscale="log", title="Loss")
    for axes in (right, left):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if result.epochs:
        right.legend()
    figure.suptitle(f"{result.recipe.network} on {result.data}")
    return figure


def _styles(variants: Sequence[str]) -> list[str]:
    marks = ("k-", "C0--", "C1-", "C2-.", "C4:", "C5-")
    return [marks[k % len(marks)] for k in range(len(variants))]
