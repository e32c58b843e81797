"""Tells early when a training has stopped learning, and where that shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core.lab.trainer import LayerHealth, Step

_FIRST = 20  # steps of the first loss
_LONG, _SHORT, _EPOCHS = 100, 25, 2.5  # a window: so many epochs, but no more and no fewer steps
_SURE = 200  # steps after which one sign is enough
_FALLS = 0.998  # the share of the last window's loss that a slow start, too, comes below
_LEARNED, _LOST = 0.9, 0.75  # a loss that fell below this share of the first one, and gave so much of it back
_SATURATED, _CLIPPED, _DISTORTION = 0.25, 0.1, 0.3  # a layer above one of them stands out
_STILL = 1e-6  # relative change of weights in a step


class Watch:
    """Compares the losses of the last steps with the first and the best ones, and the accuracy with chance.

    It looks at windows of 100 steps, in short epochs at two and a half of them (25 steps at least), from
    the second one on. In the first 200 steps a slow start is no sign: the accuracy must be chance and the
    loss have stayed since the window before, or what was learned be lost.

    Parameters
    ----------
    labels : array (samples,)
        Of the training samples: chance is the share of the most frequent one.
    steps : int
        Steps of an epoch.
    """

    def __init__(self, labels: NDArray[np.int64], steps: int) -> None:
        self.chance = float(np.bincount(labels).max() / len(labels))
        self._window = min(_LONG, max(_SHORT, int(_EPOCHS * steps)))
        self._steps, self._said = 0, False
        self._first: list[float] = []
        self._windows: list[float] = []  # the lowest mean loss of a window, and that of the last one
        self._last: deque[tuple[float, int, int]] = deque(maxlen=self._window)

    @property
    def doubts(self) -> bool:
        """Whether the next step may bring a word: then the weights before it are worth keeping."""
        return not self._said and self._due(self._steps + 1) and bool(self._why(self._steps + 1))

    def see(self, step: Step, samples: int) -> str:
        """Take note of a step; return one line when learning turns out to have stopped, else nothing.

        It is said once, and again only after the network has learned in between.
        """
        self._steps += 1
        if len(self._first) < _FIRST:
            self._first.append(step.loss)
        self._last.append((step.loss, step.right, samples))
        why = self._why(self._steps) if self._due(self._steps) else ""
        if self._steps % self._window == 0:
            self._windows = [min([*self._windows[:1], self._loss()]), self._loss()]
        if not self._due(self._steps):
            return ""
        said, self._said = self._said, bool(why)
        return "" if said else why

    def _due(self, steps: int) -> bool:
        return steps >= 2 * self._window and steps % self._window == 0

    def _loss(self) -> float:
        return float(np.mean([each[0] for each in self._last]))

    def _why(self, steps: int) -> str:
        loss, first, (best, before) = self._loss(), float(np.mean(self._first)), self._windows
        seen = sum(each[2] for each in self._last)
        accuracy = sum(each[1] for each in self._last) / seen
        lost = best < _LEARNED * first and loss > first - (1.0 - _LOST) * (first - best)
        flat = loss >= 0.99 * first
        at_chance = accuracy <= self.chance + 3.0 * (self.chance * (1.0 - self.chance) / seen) ** 0.5
        stays = loss >= _FALLS * before
        if not (lost or (stays and at_chance) or (steps >= _SURE and (flat or at_chance))):
            return ""
        found = []
        if lost:
            found.append(
                f"the loss {loss:.4g} was {best:.4g} and is near its first values ({first:.4g}) again"
            )
        elif flat:
            found.append(f"the loss {loss:.4g} is not below its first values ({first:.4g})")
        if at_chance:
            found.append(f"the accuracy {accuracy:.1%} is chance ({self.chance:.1%})")
        return f"over the last {len(self._last)} of {steps} steps " + " and ".join(found)

    def to_dict(self) -> dict[str, Any]:
        """Return what `load` takes, for a checkpoint."""
        last = [list(each) for each in self._last]
        windows = {"windows": self._windows, "first": self._first, "last": last}
        return {"steps": self._steps, "said": self._said, **windows}

    def load(self, table: dict[str, Any]) -> None:
        """Go on from where `to_dict` was taken."""
        self._steps, self._said, self._first = table["steps"], table["said"], list(table["first"])
        self._windows = list(table["windows"])
        self._last.clear()
        self._last.extend((loss, right, samples) for loss, right, samples in table["last"])


def suspect(layers: Sequence[LayerHealth], still: str = "") -> str:
    """Return the first layer that a chip harms conspicuously, and in which stage; else what stands still.

    Parameters
    ----------
    layers : sequence of LayerHealth
        What the chip does to each layer; empty natively.
    still : str
        From `standing_still`.
    """
    for layer in layers:
        if layer.saturated > _SATURATED:
            return (
                f"layer {layer.name!r}, states: {layer.saturated:.0%} of its devices are at an end of "
                "their range"
            )
        if layer.clipped > _CLIPPED:
            return (
                f"layer {layer.name!r}, read: {layer.clipped:.0%} of its conversions exceed their full scale"
            )
        if layer.distortion > _DISTORTION:
            return f"layer {layer.name!r}, read: wires change its matrix by {layer.distortion:.0%}"
    if still:
        return still
    if not layers:
        return "try another learning rate"
    return "no layer's devices, converters or wires stand out; try another learning rate"


def standing_still(before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]]) -> str:
    """Return the first layer whose weights a step has not moved: no gradient reached them, or it is frozen.

    Parameters
    ----------
    before, after : mapping of str to array
        Weights by their native names, as from `Trainer.weights`, around the step; vectors are left out.
    """
    moved = {
        name: float(np.linalg.norm(after[name] - array)) > _STILL * float(np.linalg.norm(array))
        for name, array in before.items()
        if array.ndim > 1
    }
    still = [name for name, moves in moved.items() if not moves]
    if not still:
        return ""
    if len(still) == len(moved):
        return "no layer's weights move: outputs of one are dead, or the learning rate is too small"
    layer = still[0].replace("/", ".").rpartition(".")[0] or still[0]
    others = f", nor those of {len(still) - 1} more" if len(still) > 1 else ""
    return (
        f"layer {layer!r}, gradient: a step does not move its weights{others}; a layer's outputs are "
        "dead, or it is frozen"
    )
