"""What the processes of a data-parallel training tell each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _NormBase


class Processes(NamedTuple):
    """A process among those that train one network together, each on its share of every batch.

    Attributes
    ----------
    rank, processes : int
        Which of how many; alone it is 0 of 1.
    """

    rank: int = 0
    processes: int = 1

    @classmethod
    def present(cls) -> Processes:
        """Return this process' place in the default process group."""
        if not dist.is_available() or not dist.is_initialized():
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def totals(self, loss: Tensor, right: Tensor) -> tuple[float, int]:
        """Return the mean loss and the sum of `right` over all processes."""
        if self.processes == 1:
            return float(loss), int(right)
        both = torch.stack([loss.double() / self.processes, right.double()])
        dist.all_reduce(both)
        return float(both[0]), round(float(both[1]))

    def average_gradients(self, network: nn.Module) -> None:
        """Put the mean over all processes in the place of every gradient."""
        if self.processes > 1:
            self._average([p.grad for p in network.parameters() if p.grad is not None])

    def average_statistics(self, network: nn.Module) -> None:
        """Put the mean over all processes in the place of running statistics of normalisation."""
        if self.processes > 1:
            layers = [module for module in network.modules() if isinstance(module, _NormBase)]
            kept = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
            self._average([buffer for buffer in kept if buffer is not None])

    @torch.no_grad()
    def _average(self, tensors: list[Tensor]) -> None:
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.processes
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
