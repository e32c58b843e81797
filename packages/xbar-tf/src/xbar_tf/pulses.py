"""Rank-1 writes of a step: the inputs and errors that a layer kept, in time and sample order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbar_core.engine import Updated
from xbar_core.engine.pulses import Pulses, gather_pulses, write_parts
from xbar_tf._bridge import Array
from xbar_tf.crossbar import Crossbar, Held


def write_pulses(
    crossbar: Crossbar,
    gradient: Array,
    held: Held,
    rate: float,
    w_max: float | None = None,
    dw_max: float | None = None,
) -> list[Updated]:
    """Return what the pulses of a step make of every array set: w moves towards ``w - rate x^T dy``.

    Parameters
    ----------
    crossbar : Crossbar
        The weight, with the pulses that its backward calls left.
    gradient : array (in, out)
        dL/dw as the optimizer got it, weight units. It tells by how much the gradient was scaled since it was
        computed (clipping, mean over accumulated batches, scale of the loss): errors are scaled by as much.
    held : Held
        What the weight holds.
    rate : float
        Learning rate.
    w_max : float or None
        Native maximum of the weights, for ``update.scale.rule = "native"``.
    dw_max : float or None
        Weight step of a full-scale product. None: the largest x and dy of the step are full scale.
    """
    pulses = gather_pulses(crossbar.layouts, crossbar.pulses)
    scale = _scale(gradient, pulses)
    if scale != 1.0:
        pulses = [each._replace(dy=each.dy * each.dy.dtype.type(scale)) for each in pulses]
    return write_parts(
        crossbar.layouts,
        crossbar.states(held.state),
        [crossbar.parts_of(held.buffers, part) for part in range(crossbar.parts)],
        pulses,
        rate=rate,
        count=int(held.counters[2]),
        w_max=w_max,
        dw_max=dw_max,
    )


def _scale(gradient: Array, pulses: Sequence[Pulses]) -> float:
    """Return what the gradient was multiplied by since x and dy were kept."""
    blocks = [np.tensordot(each.x, each.dy, ((0, 1), (0, 1))) for each in pulses]
    computed: Any = np.concatenate(blocks, axis=-1).astype(np.float64)
    power = float(np.vdot(computed, computed))
    if power == 0.0:
        return 1.0
    found = float(np.vdot(computed, gradient.astype(np.float64))) / power
    # Rounding of the two products is no scale.
    return 1.0 if abs(found - 1.0) < 100 * np.finfo(gradient.dtype).eps else found
