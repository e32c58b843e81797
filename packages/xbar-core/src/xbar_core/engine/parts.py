"""Reads of several array sets that share their ranges: the groups of a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xbar_core._arrays import namespace
from xbar_core.engine.call import Call
from xbar_core.engine.encode import Encoded
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.engine.matrices import Buffers, Matrices
from xbar_core.engine.ranges import Ranges, measures
from xbar_core.engine.read import Reading, read_encoded


def read_parts(
    layouts: Sequence[Layout],
    plan: ReadPlan,
    matrices: Sequence[Matrices],
    buffers: Sequence[Buffers],
    ranges: Ranges,
    sent: Sequence[Encoded],
    call: Call,
) -> tuple[list[Reading], Ranges]:
    """Return the reading of every array set, all of them with one full scale, and the ranges after.

    Parameters
    ----------
    layouts, matrices, buffers, sent
        One for every array set.
    plan : ReadPlan
        Direction of read.
    ranges : Ranges
        Before the call.
    call : Call
        Identity of the call.
    """
    shared = len(sent) > 1 and plan.converts_current
    if shared and measures(ranges, plan.current_range, plan.current_rule, call):
        call = _shared(layouts, plan, matrices, buffers, ranges, sent, call)
    members = zip(layouts, matrices, buffers, sent, strict=True)
    readings = [read_encoded(layout, plan, m, b, ranges, numbers, call) for layout, m, b, numbers in members]
    return readings, readings[-1].ranges


def _shared(
    layouts: Sequence[Layout],
    plan: ReadPlan,
    matrices: Sequence[Matrices],
    buffers: Sequence[Buffers],
    ranges: Ranges,
    sent: Sequence[Encoded],
    call: Call,
) -> Call:
    """Return the call with a statistic that is the largest of all array sets; it takes a read of its own."""
    seen: list[Any] = []

    def note(value: Any) -> Any:
        seen.append(value)
        return value

    alone = call._replace(reduce=note)
    for layout, m, b, numbers in zip(layouts, matrices, buffers, sent, strict=True):
        read_encoded(layout, plan, m, b, ranges, numbers, alone)
    xp = namespace(*seen)
    largest = xp.max(xp.stack([xp.asarray(value) for value in seen]))
    if call.reduce is not None:
        largest = call.reduce(largest)
    return call._replace(reduce=lambda _: largest)
