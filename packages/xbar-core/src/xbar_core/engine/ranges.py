"""The four full scales of a layer: inputs, forward currents, errors, backward currents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbar_core._arrays import namespace
from xbar_core.config.ranges import AnyRange, TrackedRange
from xbar_core.engine.call import Call
from xbar_core.periphery.ranges import RangeState, full_scale, needs_statistic, observe, statistic


class Ranges(NamedTuple):
    """What the converters of a layer have learned; save it with the model.

    Attributes
    ----------
    input_range, error_range : RangeState
        Full scales of the DAC, in units of x and of dL/dy.
    current_range, error_current_range : RangeState
        Full scales of the ADC in the forward and the backward read, in units of R v_read.
    """

    input_range: RangeState = RangeState()
    current_range: RangeState = RangeState()
    error_range: RangeState = RangeState()
    error_current_range: RangeState = RangeState()

    def to_array(self) -> NDArray[np.float64]:
        """Return the ranges as an array (4, 2) of (value, batches), for a checkpoint."""
        return np.asarray(self, dtype=np.float64)

    @classmethod
    def from_array(cls, values: Any) -> Ranges:
        """Return the ranges that `to_array` wrote."""
        rows = np.asarray(values, dtype=np.float64).tolist()
        return cls(*(RangeState(value, int(batches)) for value, batches in rows))

    @classmethod
    def largest(cls, learned: Sequence[Ranges]) -> Ranges:
        """Return what the calls of one sequence learned, as one observation: the largest of them."""
        every = zip(*learned, strict=True)
        return cls(*(max(states, key=lambda s: (s.batches, s.value)) for states in every))


def settle(
    ranges: Ranges, name: str, rule: AnyRange, values: Sequence[Any], call: Call, unit: float = 1.0
) -> tuple[Any, Ranges]:
    """Return the full scale of a call and the ranges after it.

    Parameters
    ----------
    ranges : Ranges
        Before the call.
    name : str
        Which of the four.
    rule : range rule
        How it is found.
    values : sequence of array
        Numbers or currents of the call; looked at only where the rule needs them.
    call : Call
        Whether the call trains, and how a statistic is shared between processes.
    unit : float
        As in `xbar_core.periphery.ranges.full_scale`.
    """
    state: RangeState = getattr(ranges, name)
    value = None
    if needs_statistic(state, rule, training=call.training, epoch=call.epoch):
        value = _statistic(values, rule)
        if call.reduce is not None:
            value = call.reduce(value)
        if call.training and isinstance(rule, TrackedRange):
            state = observe(state, rule, float(value), call.epoch)
            ranges = ranges._replace(**{name: state})
    return full_scale(state, rule, value, unit=unit), ranges


def measures(ranges: Ranges, name: str, rule: AnyRange, call: Call) -> bool:
    """Return whether `settle` will look at the values."""
    return needs_statistic(getattr(ranges, name), rule, training=call.training, epoch=call.epoch)


def _statistic(values: Sequence[Any], rule: AnyRange) -> Any:
    if len(values) == 1:
        return statistic(values[0], rule)
    xp = namespace(*values)
    if isinstance(rule, TrackedRange) and rule.percentile is not None:
        return statistic(xp.concat([xp.reshape(v, (-1,)) for v in values]), rule)
    return xp.max(xp.stack([statistic(v, rule) for v in values]))
