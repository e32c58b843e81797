"""Runs of a tiny network in child processes that are killed at random moments; see `test_train_killed.py`.

The parent imports everything and compiles the kernels once, then forks for each try: a child that only
trains is killed within its steps, not within its imports.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from xbar_core.config import preset
from xbar_core.lab.data import DataSet
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.run import Options, resume, run
from xbar_core.lab.run_spec import RunSpec

NOISY = preset("txsim-8bit").with_values(
    {"device.read_noise": {"sigma": 0.01}, "device.variation": {"sigma": 0.02}}
)
CHIPS = {
    "noisy": NOISY,
    "interpolated": NOISY.with_values({"circuit": {"kind": "interpolated", "period": 7}}),
}


def squares(folder: Path) -> DataSet:
    """Bright squares whose place is the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 64)
    x = rng.integers(0, 60, (64, 1, 8, 8)).astype(np.uint8)
    for k, label in enumerate(y):
        x[k, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 150
    return DataSet("squares", x, y, x[:16], y[:16], 4)


def network(classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """Normalisation, dropout, a convolution and a linear layer: everything that has a state."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(27, classes),
    )


def wide(classes: int, image_shape: tuple[int, ...]) -> nn.Module:
    """Large enough that torch and the circuit's kernels share its work among threads."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 64, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, classes),
    )


def spec() -> RunSpec:
    recipe = Recipe("killed_run:network", epochs=4, batch=8, rate=0.05, augment="crop-flip")
    return RunSpec(recipe, "killed_run:squares", CHIPS)


def child(work: Callable[[], object]) -> int:
    """Return the process id of a child that does some work and ends."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return number


def train(folder: Path, options: Options) -> None:
    if (folder / "run.json").exists():
        resume(folder, options)
    else:
        run(spec(), folder, options)


def main(folder: Path, kills: int, seed: int) -> None:
    """Train once in peace, then once with so many kills; print how many struck while it trained."""
    torch.set_num_threads(1)
    run(dataclasses.replace(spec(), recipe=dataclasses.replace(spec().recipe, epochs=1)), folder / "warm")
    start = time.monotonic()
    assert os.waitpid(child(lambda: run(spec(), folder / "whole", Options(minutes=0.0))), 0)[1] == 0
    took = time.monotonic() - start
    rng, struck = random.Random(seed), 0
    for attempt in range(20 * kills):
        number = child(lambda: train(folder / "parts", Options(minutes=0.0)))
        if struck < kills:
            time.sleep(rng.uniform(0.02, 1.5) * took / max(kills // 2, 1))
            os.kill(number, signal.SIGKILL)
        status = os.waitpid(number, 0)[1]
        if os.WIFSIGNALED(status):
            struck += 1
        elif os.WEXITSTATUS(status):
            sys.exit(f"attempt {attempt} failed")
        else:
            break
    print(struck)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
