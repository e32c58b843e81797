"""Time of a training step against native torch: same run, interleaved, medians.

    python benchmarks/bench_torch.py [--model lenet5 mlp resnet20] [--batch 128] [--repeats 30] [--profile]

One step is forward, loss, backward and update (momentum 0.9), the matrices of the updated states included.
Ranges of the converters are frozen first: that is the state in which training spends its time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import xbar_torch
from xbar_core.config import Chip, preset
from xbar_torch.optim import PulseSGD

CHIPS: dict[str, Callable[[], Chip]] = {
    "ideal": lambda: preset("ideal"),
    "aam1": lambda: preset("txsim-8bit").with_("circuit", {"kind": "aam", "order": 1}),
    "txsim-8bit": lambda: preset("txsim-8bit"),
}


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def mlp() -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in ((784, 300), (300, 100)):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(100, 10))


MODELS = {"lenet5": (lenet5, (1, 28, 28)), "mlp": (mlp, (1, 28, 28))}


def on_chip(model: nn.Module, chip: Chip) -> nn.Module:
    """Return the model with every layer that can be on crossbars on crossbars."""
    layers: list[nn.Module] = []
    for place, layer in enumerate(model):
        if isinstance(layer, nn.Linear):
            layers.append(xbar_torch.XbarLinear.from_native(layer, chip, name=place))
        elif isinstance(layer, nn.Conv2d):
            layers.append(xbar_torch.XbarConv2d.from_native(layer, chip, name=place))
        else:
            layers.append(layer)
    return nn.Sequential(*layers)


class Native:
    """One native training step."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(x), y).backward()
        self.optimizer.step()


class OnChip:
    """One training step on a chip."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.optimizer = PulseSGD(model, lr=0.01, momentum=0.9)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(x), y).backward()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["lenet5"], choices=MODELS)
    parser.add_argument("--chip", nargs="+", default=list(CHIPS), choices=CHIPS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for name in options.model:
        make, shape = MODELS[name]
        torch.manual_seed(0)
        x, y = torch.rand(options.batch, *shape), torch.randint(10, (options.batch,))
        steps: dict[str, Callable[[Tensor, Tensor], None]] = {"native": Native(make())}
        for chip in options.chip:
            steps[chip] = OnChip(on_chip(make(), CHIPS[chip]()))
        for step in steps.values():
            for _ in range(102):
                step(x, y)
        times: dict[str, list[float]] = {key: [] for key in steps}
        for _ in range(options.repeats):
            for key, step in steps.items():
                start = time.perf_counter()
                step(x, y)
                times[key].append(1e3 * (time.perf_counter() - start))
        native = np.median(times["native"])
        best = min(times["native"])
        for key, found in times.items():
            print(
                f"{name} {key:12s} median {np.median(found):7.2f} ms ({np.median(found) / native:5.2f} x native), "
                f"fastest {min(found):7.2f} ms ({min(found) / best:5.2f} x)"
            )


if __name__ == "__main__":
    main()
