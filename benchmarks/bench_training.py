"""Time the training program against the bare loop that a user would write, and watch its memory.

    python benchmarks/bench_training.py            # images per second, side by side
    python benchmarks/bench_training.py --loading  # how fast batches are made, and whether training waits
    python benchmarks/bench_training.py --memory   # resident memory over epochs

Both train the same network on the same batches of random images, 28x28, in alternating turns of one epoch.
The bare loop is the adapter's layers and optimizer with nothing around them: forward, cross-entropy,
backward, step, and batches that were made beforehand. The program makes its batches, normalises them,
counts what was labelled rightly, watches for NaN, reports every step and writes a checkpoint at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe
from torch import nn

from xbar_core.config import Chip, preset
from xbar_core.lab import run as run_module
from xbar_core.lab.comparison import Epoch
from xbar_core.lab.data import Batches, DataSet, augmentation
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.run import Options, Training
from xbar_core.lab.run_spec import RunSpec
from xbar_core.lab.trainer import trainer_factory
from xbar_torch import PulseSGD, convert
from xbar_torch.zoo import build

CHIPS: dict[str, Chip | None] = {
    "native": None,
    "ideal": preset("ideal"),
    "txsim-8bit": preset("txsim-8bit"),
}


def images(count: int, shape: tuple[int, ...] = (1, 28, 28)) -> DataSet:
    """Return random images with random labels: speed does not depend on what they show."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    y = rng.integers(0, 10, count)
    return DataSet("noise", x, y, x[:256], y[:256], 10)


def bare(network: str, data: DataSet, batch: int, chip: Chip | None) -> Callable[[], float]:
    """Return a function that trains one epoch in the bare loop and returns its seconds."""
    torch.manual_seed(0)
    model = build(network, data.classes, data.image_shape)
    optimizer: torch.optim.Optimizer
    if chip is None:
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)
    else:
        model = convert(model, chip)
        optimizer = PulseSGD(model, 0.01, 0.9)
    held = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in Batches(data, batch).epoch(0)]

    def epoch() -> float:
        model.train()
        start = time.perf_counter()
        for x, y in held:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            loss.item()
        return time.perf_counter() - start

    return epoch


def program(
    network: str, data: DataSet, batch: int, chip: Chip | None, augment: str = "none"
) -> Callable[[], float]:
    """Return a function that trains one epoch with the program's loop and returns its seconds."""
    recipe = Recipe(network, epochs=10**6, batch=batch, rate=0.01, schedule="constant")
    trainer = trainer_factory("torch")(recipe, data, chip)
    rows: list[Epoch] = []

    def stop() -> bool:
        return bool(rows)

    def report(event: object) -> None:
        if isinstance(event, Epoch):
            rows.append(event)

    batches = Batches(data, batch, augmentation=augmentation(augment))
    training = Training("x", trainer, data, recipe, batches, report=report, stop=stop)

    def epoch() -> float:
        rows.clear()
        with contextlib.suppress(run_module.Interrupted):
            training.run()
        return rows[-1].seconds

    return epoch


def speeds(network: str, count: int, batch: int, rounds: int) -> None:
    """Print images per second of both loops for every chip, medians over the rounds."""
    data = images(count)
    print(describe("torch", "numpy", "numba"))
    print(f"{network}, batch {batch}, {count} images an epoch, medians of {rounds} epochs\n")
    print("| chip | bare loop, images/s | xbar train, images/s | difference |")
    print("|---|---|---|---|")
    for name, chip in CHIPS.items():
        loops = [make(network, data, batch, chip) for make in (bare, program)]
        for loop in loops:
            loop()
        times = np.array([[loop() for loop in loops] for _ in range(rounds)])
        first, second = count / np.median(times, axis=0)
        change = float(np.median(times[:, 0] / times[:, 1])) - 1.0
        print(f"| {name} | {first:,.0f} | {second:,.0f} | {100 * change:+.1f}% |", flush=True)


def loading(batch: int, rounds: int) -> None:
    """Print how fast batches are made, and what waiting for them costs native training."""
    print(describe("torch", "numpy", "numba"))
    print(f"Images per second, 3x32x32, batch {batch}; medians of {rounds} epochs in alternating turns\n")
    print("| network | bare loop | xbar train | xbar train, crop-flip |")
    print("|---|---|---|---|")
    for network, count in (("lenet5", 6400), ("resnet20", 1280)):
        data = images(count, (3, 32, 32))
        loops = [
            bare(network, data, batch, None),
            program(network, data, batch, None),
            program(network, data, batch, None, "crop-flip"),
        ]
        for loop in loops:
            loop()
        times = np.median([[loop() for loop in loops] for _ in range(rounds)], axis=0)
        print(f"| {network} | " + " | ".join(f"{count / each:,.0f}" for each in times) + " |", flush=True)
    data = images(6400, (3, 32, 32))
    print()
    for augment in ("none", "crop-flip"):
        made, times_made = Batches(data, batch, augmentation=augmentation(augment)), []
        for epoch in range(rounds):
            start = time.perf_counter()
            for _ in made.epoch(epoch):
                pass
            times_made.append(time.perf_counter() - start)
        rate = 6400 / np.median(times_made)
        print(f"batches alone, in one thread, augmentation {augment}: {rate:,.0f} images/s")


def memory(network: str, count: int, batch: int, epochs: int) -> None:
    """Print the resident memory after epochs of a whole run, checkpoints and curves included."""
    data = images(count)
    print(describe("torch", "numpy", "numba"))
    print(f"{network} on txsim-8bit, batch {batch}, {count} images an epoch\n")
    print("| epoch | resident memory, MiB |")
    print("|---|---|")
    shown = {1, 2, 5, *range(10, epochs + 1, 10)}

    def report(event: object) -> None:
        if isinstance(event, Epoch) and event.epoch in shown:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"| {event.epoch} | {pages * 4096 / 2**20:.1f} |", flush=True)

    recipe = Recipe(network, epochs=epochs, batch=batch, rate=0.001)
    with tempfile.TemporaryDirectory() as folder:
        spec = RunSpec(recipe, "noise", {"txsim-8bit": preset("txsim-8bit")})
        run_module.run(spec, Path(folder) / "run", Options(report), data=data)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--loading", action="store_true")
    parser.add_argument("--network", default="lenet5")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=50)
    given = parser.parse_args()
    if given.memory:
        memory(given.network, min(given.images, 1280), given.batch, given.epochs)
    elif given.loading:
        loading(given.batch, given.rounds)
    else:
        speeds(given.network, given.images, given.batch, given.rounds)


if __name__ == "__main__":
    main()
