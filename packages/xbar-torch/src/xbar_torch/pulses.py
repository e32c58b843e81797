"""Rank-1 writes of a step: the inputs and errors that a layer kept, in time and sample order."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from xbar_core.engine.pulses import Pulses, gather_pulses, write_parts
from xbar_torch.crossbar import Crossbar
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
    pulses = gather_pulses(crossbar.layouts, crossbar.pulses)
    place = data_parallel(crossbar.owner)
    if place is not None:
        pulses = [_of_all(each, place.processes) for each in pulses]
    results = write_parts(
        crossbar.layouts,
        crossbar.states(crossbar.state.detach()),
        [crossbar.buffers(part) for part in range(crossbar.parts)],
        pulses,
        rate=rate,
        count=crossbar.counters.updates,
        w_max=w_max,
        dw_max=dw_max,
    )
    return crossbar.take(results)


def _of_all(pulses: Pulses, processes: int) -> Pulses:
    """Return the pulses of all processes.

    The loss of a process is a mean over its own samples: the mean over processes is what is trained on.
    """
    dy = _everywhere(pulses.dy, processes) / processes
    return pulses._replace(x=_everywhere(pulses.x, processes), dy=dy, call=pulses.call._replace(first=0))


def _everywhere(values: Tensor, processes: int) -> Tensor:
    """Return the samples of all processes, in the order of their ranks."""
    parts = [torch.empty_like(values) for _ in range(processes)]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)
