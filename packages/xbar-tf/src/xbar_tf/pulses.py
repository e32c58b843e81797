"""Rank-1 writes of a step: the inputs and errors that a layer kept, in time and sample order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from xbar_core.engine import Updated
from xbar_core.engine.pulses import Pulses, gather_pulses, write_parts
from xbar_core.errors import ConfigError
from xbar_tf._bridge import Array, host_call
from xbar_tf.crossbar import Crossbar, Held

_ROUNDING = 1e-3
"""Two gradients that differ by less than this share are one, up to rounding."""


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
        dL/dw as the optimizer got it, weight units. It tells which pulses are meant, and by how much their
        gradient was scaled since (clipping, mean over accumulated batches, scale of the loss): errors are
        scaled by as much.
    held : Held
        What the weight holds.
    rate : float
        Learning rate.
    w_max : float or None
        Native maximum of the weights, for ``update.scale.rule = "native"``.
    dw_max : float or None
        Weight step of a full-scale product. None: the largest x and dy of the step are full scale.

    Raises
    ------
    ConfigError
        There are no pulses, or the gradient is not theirs.
    """
    passes = [crossbar.accumulated] if crossbar.accumulated else crossbar.pulses
    return write_parts(
        crossbar.layouts,
        crossbar.states(held.state),
        [crossbar.parts_of(held.buffers, part) for part in range(crossbar.parts)],
        gather_pulses(crossbar.layouts, _meant(crossbar, passes, gradient)),
        rate=rate,
        count=int(held.counters[2]),
        w_max=w_max,
        dw_max=dw_max,
    )


def accumulate_pulses(crossbar: Crossbar, gradient: tf.Tensor) -> tf.Tensor:
    """Set the pulses of a gradient dL/dw (in, out) aside for a later write, now or in a graph; return it.

    Later a gradient is a mean over several scales of the loss, so pulses are scaled here.
    """

    def accumulated(gradient: Array) -> list[Array]:
        crossbar.accumulated += _meant(crossbar, crossbar.pulses, gradient)
        crossbar.pulses = []
        return [gradient]

    (same,) = host_call(accumulated, [gradient], [tf.TensorSpec(gradient.shape, gradient.dtype)])
    return same


def _meant(crossbar: Crossbar, passes: Sequence[Sequence[Pulses]], gradient: Array) -> list[Pulses]:
    """Return the pulses of a gradient, of the last backward passes as few as it takes, scaled as it is.

    Those before them are of steps that were left out, because a gradient overflowed or for a look.
    """
    wanted = gradient.astype(np.float64)
    found: list[Pulses] = []
    computed = np.zeros_like(wanted)
    for each in reversed([each for each in passes if each]):
        found = [*each, *found]
        computed = computed + _product(crossbar, each)
        power = float(np.vdot(computed, computed))
        scale = float(np.vdot(computed, wanted)) / power if power > 0.0 else 1.0
        if np.linalg.norm(wanted - scale * computed) <= _ROUNDING * np.linalg.norm(wanted):
            # Rounding of the two products is no scale.
            if abs(scale - 1.0) < 100 * np.finfo(gradient.dtype).eps:
                return found
            return [each._replace(dy=each.dy * each.dy.dtype.type(scale)) for each in found]
    if not found:
        return []
    raise ConfigError(
        f"layer {crossbar.name!r}: the gradient of the state is not that of the kept pulses, nor a multiple "
        "of it; use update.encoding = 'ideal' for penalties on weights or clipped values"
    )


def _product(crossbar: Crossbar, pulses: Sequence[Pulses]) -> Array:
    """Return the gradient (in, out) that pulses are the factors of, array sets side by side."""
    blocks = [
        np.tensordot(each.x, each.dy, ((0, 1), (0, 1))) for each in gather_pulses(crossbar.layouts, pulses)
    ]
    product: Array = np.concatenate(blocks, axis=-1).astype(np.float64)
    return product
