"""Rank-1 writes of a step: the inputs and errors that a layer kept, in time and sample order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xbar_core._arrays import namespace
from xbar_core.engine.call import Call
from xbar_core.engine.layout import Layout
from xbar_core.engine.update import Updated, pulse_update
from xbar_core.errors import ConfigError


class Pulses(NamedTuple):
    """What one backward call leaves for a pulsed update.

    Attributes
    ----------
    part : int
        Array set (group of a convolution).
    x : array (samples, places, in)
        Inputs as the DAC decoded them.
    dy : array (samples, places, out)
        Errors as the DAC decoded them.
    call : Call
        Identity of the forward call.
    """

    part: int
    x: Any
    dy: Any
    call: Call


def gather_pulses(layouts: Sequence[Layout], pulses: Sequence[Pulses]) -> list[Pulses]:
    """Return the pulses of a step as one for every array set.

    Several calls of one step (time steps, accumulated batches) become several places of the same samples, in
    the order of the calls. Samples that a shorter batch has not are zeros: they write nothing.

    Raises
    ------
    ConfigError
        There are none.
    """
    if not pulses:
        layout = layouts[0]
        raise ConfigError(
            f"layer {layout.name!r}: a gradient but no pulses; update.encoding = "
            f"{layout.chip.update.encoding!r} needs a backward pass of the layer before every step"
        )
    return [_joined([each for each in pulses if each.part == part]) for part in range(len(layouts))]


def _joined(pulses: Sequence[Pulses]) -> Pulses:
    ordered = sorted(pulses, key=lambda each: each.call.step)
    first = ordered[0]
    xp = namespace(first.x)
    samples = max(each.x.shape[0] for each in ordered)
    x = xp.concat([_padded(each.x, samples) for each in ordered], axis=1)
    dy = xp.concat([_padded(each.dy, samples) for each in ordered], axis=1)
    return first._replace(x=x, dy=dy)


def _padded(values: Any, samples: int) -> Any:
    missing = samples - values.shape[0]
    if not missing:
        return values
    xp = namespace(values)
    return xp.concat([values, xp.zeros_like(xp.broadcast_to(values[:1, ...], (missing, *values.shape[1:])))])


def write_parts(
    layouts: Sequence[Layout],
    states: Sequence[Any],
    buffers: Sequence[Mapping[str, Any]],
    pulses: Sequence[Pulses],
    *,
    rate: float,
    count: int = 0,
    w_max: float | None = None,
    dw_max: float | None = None,
) -> list[Updated]:
    """Write the pulses of a step into every array set: w moves towards ``w - rate x^T dy``.

    Parameters
    ----------
    layouts, states, buffers, pulses
        One for every array set (see `gather_pulses`).
    rate, count, w_max
        As in `pulse_update`.
    dw_max : float or None
        Weight step of a full-scale product. None: the largest x and dy of the step are full scale.
    """
    results = []
    for layout, state, held, (_, x, dy, call) in zip(layouts, states, buffers, pulses, strict=True):
        xp = namespace(x)
        x_max, dy_max = xp.max(xp.abs(x)), xp.max(xp.abs(dy))
        if dw_max is not None and rate > 0.0:
            dy_max = dw_max / xp.clip(rate * x_max, min=xp.finfo(x.dtype).smallest_normal)
        results.append(
            pulse_update(
                layout,
                state,
                held,
                x,
                dy,
                rate=rate,
                x_max=x_max,
                dy_max=dy_max,
                count=count,
                call=Call(first=call.first),
                w_max=w_max,
            )
        )
    return results
