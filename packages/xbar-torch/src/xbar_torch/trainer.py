"""The adapter's side of the training program: one network with its optimizer, natively or on a chip."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from xbar_core.config import Chip
from xbar_core.lab.data import DataSet
from xbar_core.lab.trainer import Batch, Recipe, Trained
from xbar_torch.convert import convert
from xbar_torch.host import finish_epoch
from xbar_torch.optim import PulseSGD
from xbar_torch.zoo import build


def make_trainer(recipe: Recipe, data: DataSet, chip: Chip | None) -> TorchTrainer:
    """Return a trainer of the recipe's network, its first weights drawn from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = build(recipe.network, data.classes, data.image_shape)
    return TorchTrainer(recipe, network, chip)


class TorchTrainer:
    """Cross-entropy training by SGD with momentum; see `xbar_core.lab.trainer.Trainer`.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    network : Module
        A native network.
    chip : Chip or None
        Where its weights are put; None trains natively.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, chip: Chip | None) -> None:
        self._chip = chip
        self._network = network if chip is None else convert(network, chip)
        parameters = self._network.parameters()
        self._optimizer: torch.optim.Optimizer
        if chip is None:
            self._optimizer = torch.optim.SGD(parameters, recipe.rate, recipe.momentum)
        else:
            self._optimizer = PulseSGD(self._network, recipe.rate, recipe.momentum)

    def train(self, batches: Iterable[Batch], rate: float) -> Trained:
        """Train on the batches of one epoch at a learning rate."""
        self._network.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        total, samples, saturated = 0.0, 0, 0
        for x, y in batches:
            self._optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self._network(torch.from_numpy(x)), torch.from_numpy(y))
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            self._optimizer.step()
            total += float(loss.detach()) * len(y)
            samples += len(y)
            if isinstance(self._optimizer, PulseSGD):
                saturated += sum(count.saturated for count in self._optimizer.counts.values())
        finish_epoch(self._network)
        return Trained(total / max(samples, 1), samples, saturated)

    @torch.no_grad()
    def accuracy(self, batches: Iterable[Batch]) -> float:
        """Return the share of samples that the network labels rightly."""
        self._network.eval()
        right = samples = 0
        for x, y in batches:
            guess = self._network(torch.from_numpy(x)).argmax(dim=1)
            right += int((guess == torch.from_numpy(y)).sum())
            samples += len(y)
        return right / max(samples, 1)

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` (states, ranges, counters) and the chip as ``chip.toml``."""
        tensors = {name: value.contiguous() for name, value in self._network.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")
        names = [type(module).__name__ for module in self._network.modules()]
        (folder / "network.json").write_text(json.dumps({"modules": names}, indent=2) + "\n")
        if self._chip is not None:
            (folder / "chip.toml").write_text(self._chip.to_toml(), encoding="utf-8")
