"""Tells early when a training has stopped learning, and where that shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core.lab.trainer import LayerHealth, Step

_FIRST, _WINDOW, _AFTER = 20, 100, 200  # steps: of the first loss, of the present one, before any word
_SATURATED, _CLIPPED, _DISTORTION = 0.25, 0.1, 0.3  # a layer above one of them stands out


class Watch:
    """Compares the losses of the last steps with the first ones, and the accuracy with chance.

    Parameters
    ----------
    labels : array (samples,)
        Of the training samples: chance is the share of the most frequent one.
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self.chance = float(np.bincount(labels).max() / len(labels))
        self._steps, self._said = 0, False
        self._first: list[float] = []
        self._last: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW)

    def see(self, step: Step, samples: int) -> str:
        """Take note of a step; return one line when learning turns out to have stopped, else nothing.

        It is said once, and again only after the network has learned in between.
        """
        self._steps += 1
        if len(self._first) < _FIRST:
            self._first.append(step.loss)
        self._last.append((step.loss, step.right, samples))
        if self._steps < _AFTER or self._steps % _WINDOW:
            return ""
        why = self._why()
        said, self._said = self._said, bool(why)
        return "" if said else why

    def _why(self) -> str:
        loss = float(np.mean([each[0] for each in self._last]))
        seen = sum(each[2] for each in self._last)
        accuracy = sum(each[1] for each in self._last) / seen
        first = float(np.mean(self._first))
        found = []
        if loss >= 0.99 * first:
            found.append(f"the loss {loss:.4g} is not below its first values ({first:.4g})")
        if accuracy <= self.chance + 3.0 * (self.chance * (1.0 - self.chance) / seen) ** 0.5:
            found.append(f"the accuracy {accuracy:.1%} is chance ({self.chance:.1%})")
        return (
            f"over the last {len(self._last)} of {self._steps} steps " + " and ".join(found) if found else ""
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what `load` takes, for a checkpoint."""
        last = [list(each) for each in self._last]
        return {"steps": self._steps, "said": self._said, "first": self._first, "last": last}

    def load(self, table: dict[str, Any]) -> None:
        """Go on from where `to_dict` was taken."""
        self._steps, self._said, self._first = table["steps"], table["said"], list(table["first"])
        self._last.clear()
        self._last.extend((loss, right, samples) for loss, right, samples in table["last"])


def suspect(layers: Sequence[LayerHealth]) -> str:
    """Return the first layer that a chip harms conspicuously, and in which stage."""
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
    if not layers:
        return "try another learning rate"
    return "no layer's devices, converters or wires stand out; try another learning rate"
