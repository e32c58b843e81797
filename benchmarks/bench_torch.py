"""Time of a training step against native torch: same run, interleaved, medians.

    python benchmarks/bench_torch.py [--model lenet5 mlp resnet20 lstm] [--chip ideal aam1 txsim-8bit]
        [--batch 128] [--repeats 30] [--device cuda]
    python benchmarks/bench_torch.py --model resnet56 vgg16 alexnet resnet18 --warm 1 --repeats 5 --only time

One step is forward, loss, backward and update (momentum 0.9), the matrices of the updated states included;
it is split into matrices, the rest of the forward, backward and update.
On a machine that does other work too, OMP_WAIT_POLICY=passive keeps threads from waiting for one another.
Converters learn their ranges meanwhile, as they do in the first 1000 batches of training.

Memory is what a training step adds to a process that has done one of two samples, at its peak; each number
comes from a process of its own (on a GPU: from torch's allocator, the network included).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from torch import Tensor, nn

from xbar_core.config import Chip, preset
from xbar_core.engine import group
from xbar_torch import PulseSGD, convert
from xbar_torch.zoo import build

Step = Callable[[Tensor, Tensor], list[float]]
CHIPS: dict[str, Callable[[], Chip]] = {
    "ideal": lambda: preset("ideal"),
    "aam1": lambda: preset("txsim-8bit").with_("circuit", {"kind": "aam", "order": 1}),
    "txsim-8bit": lambda: preset("txsim-8bit"),
}
USUAL = {"lenet5": (1, 28, 28), "mlp": (1, 28, 28), "resnet20": (3, 32, 32), "lstm": (1, 28, 28)}
LARGE = dict.fromkeys(("resnet56", "vgg16", "alexnet"), (3, 32, 32)) | {"resnet18": (3, 64, 64)}
MODELS = USUAL | LARGE


def native_step(model: nn.Module) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return training_step(model, optimizer)


def chip_step(model: nn.Module, chip: Chip) -> Step:
    model = convert(model, chip)
    return training_step(model, PulseSGD(model, lr=0.01, momentum=0.9))


def step_of(name: str, chip: str, device: str) -> Step:
    """Return the step of a network, natively or on a chip."""
    torch.manual_seed(0)
    model = build(name, 10, MODELS[name]).to(device)
    return native_step(model) if chip == "native" else chip_step(model, CHIPS[chip]())


def batch_of(name: str, size: int, device: str) -> tuple[Tensor, Tensor]:
    return torch.rand(size, *MODELS[name], device=device), torch.randint(10, (size,), device=device)


def wait(device: str) -> None:
    """Let a device finish what it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """Return a function of a batch that does one training step and returns the time of its stages, ms."""

    def step(x: Tensor, y: Tensor) -> list[float]:
        times: list[float] = []

        def mark() -> None:
            wait(x.device.type)
            times.append(time.perf_counter())

        mark()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        mark()
        loss.backward()
        mark()
        optimizer.step()
        mark()
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


def resident(what: str) -> int:
    """Return a number of this process from Linux' /proc, bytes: ``VmRSS``, or its peak ``VmHWM``."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


def memory_of_step(name: str, chip: str, batch: int, device: str) -> float:
    """Return the peak memory of training steps, MB; to be run in a process of its own."""
    step = step_of(name, chip, device)
    step(*batch_of(name, 2, device))
    before = resident("VmRSS")
    for _ in range(3):
        step(*batch_of(name, batch, device))
    peak = resident("VmHWM") - before if device == "cpu" else torch.cuda.max_memory_allocated(device)
    return peak / 1e6


def print_memory(name: str, chips: Sequence[str], batch: int, device: str) -> None:
    print(f"{name}, batch {batch}: peak memory of a step, MB")
    print(" " * 12 + f"{'MB':>10s}{'x native':>10s}")
    native = 0.0
    for chip in ("native", *chips):
        command = [sys.executable, __file__, "--memory-of", name, chip, str(batch), device]
        found = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        native = found if chip == "native" else native
        print(f"{chip:12s}{found:10.0f}{found / native:10.2f}")


def measure(name: str, chips: Sequence[str], batch: int, warm: int, repeats: int, device: str) -> None:
    x, y = batch_of(name, batch, device)
    steps = {chip: step_of(name, chip, device) for chip in ("native", *chips)}
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
    parser.add_argument("--model", nargs="+", default=list(USUAL), choices=MODELS)
    parser.add_argument("--chip", nargs="+", default=list(CHIPS), choices=CHIPS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--warm", type=int, default=101, help="steps before timing; ranges learn for 1000")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--device", default="cpu", help="where the networks are, e.g. cuda")
    parser.add_argument("--only", choices=["time", "memory"], help="measure one of the two")
    parser.add_argument("--memory-of", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        name, chip, batch, device = options.memory_of
        print(memory_of_step(name, chip, int(batch), device))
        return
    print(describe("numpy", "numba", "torch"))
    for name in options.model:
        if options.only != "memory":
            measure(name, options.chip, options.batch, options.warm, options.repeats, options.device)
        if options.only != "time":
            print_memory(name, options.chip, options.batch, options.device)


if __name__ == "__main__":
    main()
