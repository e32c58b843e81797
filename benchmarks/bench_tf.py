"""Ratio of a training step on a chip to a native one, in Keras and in torch: same run, interleaved, medians.

    python benchmarks/bench_tf.py [--model lenet5] [--chip txsim-8bit ideal] [--batch 128] [--rounds 30]

Each framework has a process of its own, as a user's training has: in one process they share the cores with
each other's idle threads, which nearly doubles a native step of torch. The processes take turns, a few steps
at a time. The first step of a turn is not counted (it finds the other's data in the caches), and before each
turn everybody rests until the threads of the last one sleep. On a machine that does other work too,
OMP_WAIT_POLICY=passive keeps torch's threads from waiting for one another.

One step is forward, loss, backward and update (momentum 0.9), the matrices of the updated states included.
Keras steps are compiled by `tf.function`, torch steps are eager, as both are used. Converters learn their
ranges meanwhile, as they do in the first 1000 batches of training. The last column is the ratio of the two
ratios; it should be 1.3 at most for LeNet-5 on txsim-8bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from machine import describe

from xbar_core.config import Chip, preset

MODELS = {"lenet5": (1, 28, 28), "mlp": (1, 28, 28), "lstm": (1, 28, 28), "resnet20": (3, 32, 32)}
CHIPS: dict[str, Callable[[], Chip]] = {
    "ideal": lambda: preset("ideal"),
    "aam1": lambda: preset("txsim-8bit").with_("circuit", {"kind": "aam", "order": 1}),
    "txsim-8bit": lambda: preset("txsim-8bit"),
}
REST = 0.03
"""Seconds before a turn: threads of OpenMP wait actively for some milliseconds."""


def keras_step(name: str, chip: Chip | None, x: Any, y: Any) -> Callable[[], None]:
    """Return a function that does one training step in Keras."""
    import keras
    import tensorflow as tf

    import xbar_tf
    from xbar_tf import zoo

    model = zoo.build(name, 10, MODELS[name], seed=0)
    optimizer: Any = keras.optimizers.SGD(0.01, 0.9)
    if chip is not None:
        model, optimizer = xbar_tf.convert(model, chip), xbar_tf.PulseSGD(0.01, 0.9)
    inputs, labels = tf.constant(np.moveaxis(x, 1, -1)), tf.constant(y)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    return lambda: float(step())  # type: ignore[return-value]


def torch_step(name: str, chip: Chip | None, x: Any, y: Any) -> Callable[[], None]:
    """Return a function that does one training step in torch."""
    import torch

    import xbar_torch
    from xbar_torch import zoo

    torch.manual_seed(0)
    model = zoo.build(name, 10, MODELS[name])
    if chip is None:
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    else:
        model = xbar_torch.convert(model, chip)
        optimizer = xbar_torch.PulseSGD(model, lr=0.01, momentum=0.9)
    inputs, labels = torch.from_numpy(x), torch.from_numpy(y)

    def step() -> None:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


MAKERS = {"keras": keras_step, "torch": torch_step}


def work(
    framework: str, name: str, variants: Sequence[str], batch: int, warm: int, turns: Connection
) -> None:
    """Hold the steps of one framework and time those that are asked for, until asked for none."""
    rng = np.random.default_rng(0)
    x = rng.random((batch, *MODELS[name]), dtype=np.float32)
    y = rng.integers(10, size=batch)
    steps = {
        variant: MAKERS[framework](name, None if variant == "native" else CHIPS[variant](), x, y)
        for variant in variants
    }
    for step in steps.values():
        for _ in range(warm):
            step()
    turns.send(None)
    while (asked := turns.recv()) is not None:
        variant, count = asked
        times = []
        for _ in range(count + 1):
            start = time.perf_counter()
            steps[variant]()
            times.append(1e3 * (time.perf_counter() - start))
        turns.send(times[1:])


def measure(name: str, chips: Sequence[str], batch: int, warm: int, rounds: int, steps: int) -> None:
    """Print the medians of interleaved steps and their ratios."""
    variants, processes = ("native", *chips), get_context("spawn")
    turns: dict[str, Connection] = {}
    for framework in MAKERS:
        turns[framework], theirs = processes.Pipe()
        processes.Process(
            target=work, args=(framework, name, variants, batch, warm, theirs), daemon=True
        ).start()
        theirs.close()
        turns[framework].recv()
    times: dict[tuple[str, str], list[float]] = {(f, v): [] for v in variants for f in MAKERS}
    for _ in range(rounds):
        for (framework, variant), found in times.items():
            time.sleep(REST)
            turns[framework].send((variant, steps))
            found += turns[framework].recv()
    for each in turns.values():
        each.send(None)
    median = {key: float(np.median(found)) for key, found in times.items()}
    print(f"{name}, batch {batch}: medians of {rounds} turns of {steps} steps, ms")
    titles = ("keras", "x native", "torch", "x native", "ratio of both")
    print(" " * 12 + "".join(f"{title:>14s}" for title in titles))
    for variant in variants:
        own = [median[framework, variant] for framework in MAKERS]
        ratios = [median[framework, variant] / median[framework, "native"] for framework in MAKERS]
        cells = (own[0], ratios[0], own[1], ratios[1], ratios[0] / ratios[1])
        print(f"{variant:12s}" + "".join(f"{cell:14.2f}" for cell in cells))


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["lenet5"], choices=MODELS)
    parser.add_argument("--chip", nargs="+", default=list(CHIPS), choices=CHIPS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--warm", type=int, default=20, help="steps before timing; ranges learn for 1000")
    parser.add_argument("--rounds", type=int, default=30, help="turns of every step")
    parser.add_argument("--steps", type=int, default=5, help="steps of a turn that count")
    options = parser.parse_args()
    for name in options.model:
        measure(name, options.chip, options.batch, options.warm, options.rounds, options.steps)


if __name__ == "__main__":
    print(describe("numpy", "numba", "torch", "tensorflow", "keras"))
    main()
