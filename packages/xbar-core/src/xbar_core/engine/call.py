"""Which call of a layer this is, what keys its draws, and how it may learn from its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

EVALUATION = 1 << 40
"""First step number of evaluation calls: their draws are not those of training."""


class Call(NamedTuple):
    """Identity of one call.

    Attributes
    ----------
    step : int
        Counter of the layer's training calls; it keys the draws that are fresh in every call.
    first : int
        Index of the batch's first sample in the global batch (data-parallel processes differ in it).
    training : bool
        Tracked ranges learn from this call.
    epoch : int
        Number of finished training epochs, for ranges tracked over epochs.
    reduce : callable or None
        Takes the statistic of a range, a 0-d array, to its maximum over all processes.
    """

    step: int = 0
    first: int = 0
    training: bool = False
    epoch: int = 0
    reduce: Callable[[Any], Any] | None = None


@dataclass
class Counters:
    """What a crossbar weight counts; saved with the model.

    Attributes
    ----------
    calls, evaluations : int
        Forward calls in training and in evaluation; they key the draws that are fresh in every call.
    updates : int
        Writes of an optimizer.
    programmings : int
        Times that the devices were programmed.
    epochs : int
        Finished training epochs, for ranges that are tracked over epochs.
    """

    calls: int = 0
    evaluations: int = 0
    updates: int = 0
    programmings: int = 0
    epochs: int = 0

    def step(self, training: bool) -> int:
        """Return the number of the next call, which keys its draws."""
        return self.calls if training else EVALUATION + self.evaluations

    def to_array(self) -> NDArray[np.int64]:
        """Return the counters for a checkpoint."""
        return np.array(astuple(self), np.int64)

    @classmethod
    def from_array(cls, values: Any) -> Counters:
        """Return the counters that `to_array` wrote."""
        return cls(*(int(value) for value in values))
