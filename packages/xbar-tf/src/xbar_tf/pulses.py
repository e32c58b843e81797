"""Rank-1 writes of a step: the inputs and errors that a layer kept, in time and sample order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xbar_core.engine import Call, Updated, pulse_update
from xbar_core.errors import ConfigError
from xbar_tf._bridge import Array
from xbar_tf.crossbar import Crossbar, Held, Pulses


def write_pulses(
    crossbar: Crossbar,
    gradient: Array,
    held: Held,
    rate: float,
    w_max: float | None = None,
    dw_max: float | None = None,
) -> list[Updated]:
    """Return what the pulses of a step make of every array set: w moves towards ``w - rate x^T dy``.

    Several calls of one step (time steps, accumulated batches) are written as several places of the same
    samples, in the order of the calls.

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
    if not crossbar.pulses:
        raise ConfigError(
            f"layer {crossbar.name!r}: a gradient but no pulses; update.encoding = "
            f"{crossbar.chip.update.encoding!r} needs a backward pass of the layer before every step"
        )
    gathered = [
        gather_pulses([pulse for pulse in crossbar.pulses if pulse.part == part])
        for part in range(crossbar.parts)
    ]
    scale = _scale(gradient, [(x, dy) for x, dy, _ in gathered])
    results = []
    states = crossbar.states(held.state)
    for part, (layout, state, (x, dy, first)) in enumerate(
        zip(crossbar.layouts, states, gathered, strict=True)
    ):
        dy = dy if scale == 1.0 else dy * dy.dtype.type(scale)
        x_max, dy_max = np.abs(x).max(), np.abs(dy).max()
        if dw_max is not None and rate > 0.0:
            dy_max = dw_max / max(rate * x_max, np.finfo(x.dtype).tiny)
        results.append(
            pulse_update(
                layout,
                state,
                crossbar.parts_of(held.buffers, part),
                x,
                dy,
                rate=rate,
                x_max=x_max,
                dy_max=dy_max,
                count=int(held.counters[2]),
                call=Call(first=first),
                w_max=w_max,
            )
        )
    return results


def gather_pulses(pulses: Sequence[Pulses]) -> tuple[Array, Array, int]:
    """Return x (samples, places, in), dy (samples, places, out) and the first sample's index of a step."""
    ordered = sorted(pulses, key=lambda each: each.call.step)
    samples = max(each.x.shape[0] for each in ordered)
    x = np.concatenate([_padded(each.x, samples) for each in ordered], axis=1)
    dy = np.concatenate([_padded(each.dy, samples) for each in ordered], axis=1)
    return x, dy, ordered[0].call.first


def _padded(values: Array, samples: int) -> Array:
    """Return values of as many samples, zeros behind those of a shorter batch: they write nothing."""
    missing = samples - values.shape[0]
    return np.pad(values, ((0, missing), (0, 0), (0, 0))) if missing else values


def _scale(gradient: Array, products: Sequence[tuple[Array, Array]]) -> float:
    """Return what the gradient was multiplied by since x and dy were kept."""
    blocks = [np.tensordot(x, dy, ((0, 1), (0, 1))) for x, dy in products]
    computed: Any = np.concatenate(blocks, axis=-1).astype(np.float64)
    power = float(np.vdot(computed, computed))
    if power == 0.0:
        return 1.0
    found = float(np.vdot(computed, gradient.astype(np.float64))) / power
    # Rounding of the two products is no scale.
    return 1.0 if abs(found - 1.0) < 100 * np.finfo(gradient.dtype).eps else found
