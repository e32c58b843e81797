"""Which call of a layer this is, and how it may learn from its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


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
