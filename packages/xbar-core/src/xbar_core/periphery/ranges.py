"""Full scales of the converters: found from data, averaged, frozen.

Rules: ``dynamic`` takes the statistic of the call at hand; ``tracked`` averages a statistic over the first
batches (or epochs) of training and keeps it, so that a result does not depend on its batch mates;
``fixed`` is a number. The state is two numbers and belongs to the caller, who saves it with the model.

While a tracked range learns, a training call never clips: it takes the larger of the average and its own
statistic. Early in training activations grow tenfold within an epoch, and a range that lags behind them
keeps a network from learning (the crossbar backward pass does not see the clipping). For the same reason
the average forgets: it covers the last `WINDOW` batches.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from xbar_core._arrays import namespace
from xbar_core.config.ranges import AnyRange, FixedRange, TrackedRange

WINDOW = 100
"""Batches that a tracked average covers, the last ones observed."""


class RangeState(NamedTuple):
    """What a range has learned.

    Attributes
    ----------
    value : float
        Mean statistic of the last `WINDOW` batches observed.
    batches : int
        Number of batches observed; 0 means not calibrated.
    """

    value: float = 0.0
    batches: int = 0


def statistic(values: Any, rule: AnyRange) -> Any:
    """Return the statistic of one call, a 0-d array: the largest magnitude, or a percentile of it.

    Parameters
    ----------
    values : array
        Activations, errors or currents; not empty.
    rule : DynamicRange, TrackedRange or FixedRange
        The rule in force.

    Notes
    -----
    The percentile is the smallest magnitude that is not exceeded by that share of all magnitudes.
    """
    xp = namespace(values)
    if isinstance(rule, TrackedRange) and rule.percentile is not None:
        size = math.prod(values.shape)
        ordered = xp.sort(xp.reshape(xp.abs(values), (-1,)))
        return ordered[max(math.ceil(rule.percentile / 100.0 * size), 1) - 1]
    return xp.maximum(xp.max(values), -xp.min(values))


def is_frozen(state: RangeState, rule: AnyRange, epoch: int = 0) -> bool:
    """Return whether training calls no longer change the range, so that no statistic is needed.

    Parameters
    ----------
    state : RangeState
        Its present state.
    rule : DynamicRange, TrackedRange or FixedRange
        The rule in force.
    epoch : int
        Number of finished training epochs.
    """
    if isinstance(rule, FixedRange):
        return True
    if not isinstance(rule, TrackedRange):
        return False
    if rule.epochs is not None:
        return state.batches > 0 and epoch >= rule.epochs
    assert rule.batches is not None
    return state.batches >= rule.batches


def needs_statistic(state: RangeState, rule: AnyRange, *, training: bool, epoch: int = 0) -> bool:
    """Return whether a call must measure its data: it learns from them, or nothing is known yet."""
    if isinstance(rule, TrackedRange) and not training:
        return state.batches == 0
    return not is_frozen(state, rule, epoch)


def observe(state: RangeState, rule: AnyRange, value: float, epoch: int = 0) -> RangeState:
    """Return the state after one training batch whose statistic is `value`.

    A batch of zeros says nothing of the scale and is not counted.
    """
    if is_frozen(state, rule, epoch) or not isinstance(rule, TrackedRange) or value <= 0.0:
        return state
    batches = state.batches + 1
    return RangeState(state.value + (value - state.value) / min(batches, WINDOW), batches)


def full_scale(state: RangeState, rule: AnyRange, value: Any = None, *, unit: float = 1.0) -> Any:
    """Return the full scale to convert with.

    Parameters
    ----------
    state : RangeState
        After `observe`, in training.
    rule : DynamicRange, TrackedRange or FixedRange
        The rule in force.
    value : float, 0-d array or None
        Statistic of the call. ``dynamic`` returns it as it came, so a device array costs no transfer;
        ``tracked`` takes it where it is larger than what was learned, or nothing was learned yet.
    unit : float
        What one unit of the statistic is worth in the unit of a fixed range: ampere for an ADC, else 1.
    """
    if isinstance(rule, FixedRange):
        return rule.value / unit
    if isinstance(rule, TrackedRange) and state.batches > 0:
        return state.value if value is None else max(state.value, float(value))
    assert value is not None, "a range that has learned nothing needs the statistic of the call"
    return value
