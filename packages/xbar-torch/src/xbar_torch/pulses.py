"""Rank-1 writes of a step: the inputs and errors that a layer kept, in time and sample order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch import distributed as dist

from xbar_core.engine.pulses import Pulses, gather_pulses, write_parts
from xbar_core.errors import ConfigError
from xbar_torch._bridge import analog
from xbar_torch.crossbar import Crossbar
from xbar_torch.parallel import data_parallel

_ROUNDING = 1e-3
"""Two gradients that differ by less than this share are one, up to rounding."""


def step_pulses(crossbar: Crossbar) -> list[Pulses]:
    """Return the pulses of a step, one for every array set.

    Several calls of one step (time steps, accumulated batches) are written as several places of the same
    samples, in the order of the calls. Data-parallel processes write the samples of all of them. What scaled
    ``state.grad`` since (clipping, a `torch.amp.GradScaler`) scales the pulses.

    Parameters
    ----------
    crossbar : Crossbar
        The weight, with the pulses that its backward calls left.

    Raises
    ------
    ConfigError
        There are no pulses, or ``state.grad`` is not theirs.
    """
    place = data_parallel(crossbar.owner)
    with analog(crossbar.state.device):
        pulses = gather_pulses(crossbar.layouts, crossbar.pulses)
        if place is not None:
            pulses = [_of_all(each, place.processes) for each in pulses]
        return _scaled(crossbar, pulses)


def write_pulses(
    crossbar: Crossbar,
    pulses: Sequence[Pulses],
    rate: float,
    w_max: float | None = None,
    dw_max: float | None = None,
) -> tuple[int, int]:
    """Write the pulses of a step: w moves towards ``w - rate x^T dy``.

    Parameters
    ----------
    crossbar : Crossbar
        The weight.
    pulses : sequence of Pulses
        From `step_pulses`.
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


def _scaled(crossbar: Crossbar, pulses: Sequence[Pulses]) -> list[Pulses]:
    """Return pulses whose gradient is the present one, which may be a multiple of theirs."""
    products = [each.x.flatten(0, 1).mT @ each.dy.flatten(0, 1) for each in pulses]
    kept, present = torch.cat(products, dim=-1), cast(Tensor, crossbar.weight_gradient())
    square = (kept * kept).sum()
    factor = (kept * present).sum() / torch.where(square > 0, square, 1.0)
    rest = torch.linalg.vector_norm(present - factor * kept)
    if not rest <= _ROUNDING * torch.linalg.vector_norm(present):
        raise ConfigError(
            f"layer {crossbar.name!r}: the gradient of the state is not that of the kept pulses, nor a "
            "multiple of it; clear both with the optimizer's zero_grad(), and use update.encoding = 'ideal' "
            "for penalties on weights or clipped values"
        )
    if abs(float(factor) - 1.0) < _ROUNDING:
        return list(pulses)
    return [each._replace(dy=each.dy * factor) for each in pulses]


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
