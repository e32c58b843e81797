"""Time of a training step against native torch: same run, interleaved, medians.

    python benchmarks/bench_torch.py [--model lenet5 mlp resnet20] [--batch 128] [--repeats 30]

One step is forward, loss, backward and update (momentum 0.9), the matrices of the updated states included;
it is split into matrices, the rest of the forward, backward and update.
On a machine that does other work too, OMP_WAIT_POLICY=passive keeps threads from waiting for one another.
Converters learn their ranges meanwhile, as they do in the first 1000 batches of training.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from machine import describe
from torch import Tensor, nn

from xbar_core.config import Chip, preset
from xbar_torch import PulseSGD, convert, group
from xbar_torch.zoo import build

Step = Callable[[Tensor, Tensor], list[float]]
CHIPS: dict[str, Callable[[], Chip]] = {
    "ideal": lambda: preset("ideal"),
    "aam1": lambda: preset("txsim-8bit").with_("circuit", {"kind": "aam", "order": 1}),
    "txsim-8bit": lambda: preset("txsim-8bit"),
}


MODELS = {"lenet5": (1, 28, 28), "mlp": (1, 28, 28), "resnet20": (3, 32, 32)}


def native_step(model: nn.Module) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return training_step(model, optimizer)


def chip_step(model: nn.Module, chip: Chip) -> Step:
    model = convert(model, chip)
    return training_step(model, PulseSGD(model, lr=0.01, momentum=0.9))


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """Return a function of a batch that does one training step and returns the time of its stages, ms."""

    def step(x: Tensor, y: Tensor) -> list[float]:
        times = [time.perf_counter()]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        times.append(time.perf_counter())
        loss.backward()
        times.append(time.perf_counter())
        optimizer.step()
        times.append(time.perf_counter())
        return list(1e3 * np.diff(times))

    return step


@contextmanager
def refresh_times(found: list[float]) -> Iterator[None]:
    """Note the time that the matrices of updated states take, ms."""
    real = group.read_matrices

    def timed(requests: Any) -> Any:
        start = time.perf_counter()
        result = real(requests)
        found.append(1e3 * (time.perf_counter() - start))
        return result

    group.read_matrices = timed
    try:
        yield
    finally:
        group.read_matrices = real


def measure(name: str, chips: Sequence[str], batch: int, warm: int, repeats: int) -> None:
    torch.manual_seed(0)
    shape = MODELS[name]
    x, y = torch.rand(batch, *shape), torch.randint(10, (batch,))
    steps = {"native": native_step(build(name, 10, shape))}
    for chip in chips:
        steps[chip] = chip_step(build(name, 10, shape), CHIPS[chip]())
    for step in steps.values():
        for _ in range(warm):
            step(x, y)
    times: dict[str, list[list[float]]] = {key: [] for key in steps}
    refresh: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(repeats):
        for key, step in steps.items():
            with refresh_times(refresh[key]):
                times[key].append(step(x, y))
    print(f"{name}, batch {batch}: medians of {repeats} interleaved steps, ms")
    titles = "step", "x native", "matrices", "forward", "backward", "update"
    print(" " * 12 + "".join(f"{title:>10s}" for title in titles))
    native = np.median(np.sum(times["native"], axis=1))
    for key, found in times.items():
        stages, total = np.median(found, axis=0), np.median(np.sum(found, axis=1))
        solve = np.median(refresh[key]) if refresh[key] else 0.0
        print(
            f"{key:12s}{total:10.2f}{total / native:10.2f}{solve:10.2f}{stages[0] - solve:10.2f}"
            f"{stages[1]:10.2f}{stages[2]:10.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["lenet5", "mlp"], choices=MODELS)
    parser.add_argument("--chip", nargs="+", default=list(CHIPS), choices=CHIPS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--warm", type=int, default=101, help="steps before timing; ranges learn for 1000")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    for name in options.model:
        measure(name, options.chip, options.batch, options.warm, options.repeats)


if __name__ == "__main__":
    print(describe("numpy", "numba", "torch"))
    main()
