"""Rank-1 writes of a step: the inputs and errors that a layer kept, in time and sample order."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from xbar_core.engine import Call, pulse_update
from xbar_core.errors import ConfigError
from xbar_torch.crossbar import Crossbar, Pulses
from xbar_torch.parallel import data_parallel


def write_pulses(
    crossbar: Crossbar, rate: float, w_max: float | None = None, dw_max: float | None = None
) -> tuple[int, int]:
    """Write the pulses of a step: w moves towards ``w - rate x^T dy``.

    Several calls of one step (time steps, accumulated batches) are written as several places of the same
    samples, in the order of the calls. Data-parallel processes write the samples of all of them.

    Parameters
    ----------
    crossbar : Crossbar
        The weight, with the pulses that its backward calls left.
    rate : float
        Learning rate.
    w_max : float or None
        Native maximum of the weights, for ``update.scale.rule = "native"``.
    dw_max : float or None
        Weight step of a full-scale product. None: the largest x and dy of the step are full scale.

    Returns
    -------
    tuple of int
        Devices asked to go beyond their range, and pairs that were refreshed.
    """
    if not crossbar.pulses:
        raise ConfigError(
            f"layer {crossbar.name!r}: a gradient but no pulses; update.encoding = "
            f"{crossbar.chip.update.encoding!r} needs a backward pass of the layer before every step"
        )
    results = []
    for part, (layout, state) in enumerate(
        zip(crossbar.layouts, crossbar.states(crossbar.state.detach()), strict=True)
    ):
        x, dy, first = gather_pulses(crossbar, [p for p in crossbar.pulses if p.part == part])
        x_max, dy_max = x.abs().amax(), dy.abs().amax()
        if dw_max is not None and rate > 0.0:
            dy_max = dw_max / (rate * x_max).clamp_min(torch.finfo(x.dtype).tiny)
        results.append(
            pulse_update(
                layout,
                state,
                crossbar.buffers(part),
                x,
                dy,
                rate=rate,
                x_max=x_max,
                dy_max=dy_max,
                count=crossbar.counters.updates,
                call=Call(first=first),
                w_max=w_max,
            )
        )
    return crossbar.take(results)


def gather_pulses(crossbar: Crossbar, pulses: list[Pulses]) -> tuple[Tensor, Tensor, int]:
    """Return x (samples, places, in), dy (samples, places, out) and the first sample's index of a step."""
    ordered = sorted(pulses, key=lambda each: each.call.step)
    samples = max(each.x.shape[0] for each in ordered)
    x = torch.cat([_padded(each.x, samples) for each in ordered], dim=1)
    dy = torch.cat([_padded(each.dy, samples) for each in ordered], dim=1)
    place = data_parallel(crossbar.owner)
    if place is None:
        return x, dy, ordered[0].call.first
    # The loss of a process is a mean over its own samples: the mean over processes is what is trained on.
    return _everywhere(x, place.processes), _everywhere(dy, place.processes) / place.processes, 0


def _padded(values: Tensor, samples: int) -> Tensor:
    """Return values of as many samples, zeros behind those of a shorter batch: they write nothing."""
    missing = samples - values.shape[0]
    return torch.nn.functional.pad(values, (0, 0, 0, 0, 0, missing)) if missing else values


def _everywhere(values: Tensor, processes: int) -> Tensor:
    """Return the samples of all processes, in the order of their ranks."""
    parts = [torch.empty_like(values) for _ in range(processes)]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
