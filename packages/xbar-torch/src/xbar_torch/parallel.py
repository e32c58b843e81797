"""Data-parallel training: every process holds the same chip and agrees on ranges and draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

if TYPE_CHECKING:
    from xbar_torch.host import CrossbarModule


class Place(NamedTuple):
    """A process among its peers.

    Attributes
    ----------
    rank, processes : int
        Which of how many.
    """

    rank: int
    processes: int

    def largest(self, value: Tensor) -> Tensor:
        """Return the maximum of a 0-d tensor over all processes."""
        shared = torch.as_tensor(value).clone()
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return shared

    def agrees(self, values: Tensor) -> bool:
        """Return whether integers (n,) are the same in all processes."""
        extremes = torch.stack([values, -values])
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        return bool((extremes[0] == -extremes[1]).all())


def data_parallel(module: CrossbarModule) -> Place | None:
    """Return this process's place among its peers, None where it trains alone.

    A module takes part wherever a process group of several processes exists, unless its attribute
    ``data_parallel`` is False. All processes must make the same training calls with batches of one size
    (packed sequences: as many, and of the same longest length), none of them empty.
    """
    if not module.data_parallel or not dist.is_available() or not dist.is_initialized():
        return None
    processes = dist.get_world_size()
    return Place(dist.get_rank(), processes) if processes > 1 else None
