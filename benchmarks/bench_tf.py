"""Ratio of a training step on a chip to a native one, in Keras and in torch: same run, interleaved, medians.

    python benchmarks/bench_tf.py [--model lenet5] [--chip txsim-8bit ideal] [--batch 128] [--repeats 30]

One step is forward, loss, backward and update (momentum 0.9), the matrices of the updated states included.
Keras steps are compiled by `tf.function`, torch steps are eager, as both are used. Converters learn their
ranges meanwhile, as they do in the first 1000 batches of training. The last column is the ratio of the two
ratios; it should be 1.3 at most for LeNet-5 on txsim-8bit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch
from machine import describe

import xbar_tf
import xbar_torch
from xbar_core.config import Chip, preset
from xbar_tf import zoo as keras_zoo
from xbar_torch import zoo as torch_zoo

MODELS = {"lenet5": (1, 28, 28), "mlp": (1, 28, 28), "lstm": (1, 28, 28), "resnet20": (3, 32, 32)}
CHIPS: dict[str, Callable[[], Chip]] = {
    "ideal": lambda: preset("ideal"),
    "aam1": lambda: preset("txsim-8bit").with_("circuit", {"kind": "aam", "order": 1}),
    "txsim-8bit": lambda: preset("txsim-8bit"),
}


def keras_step(name: str, chip: Chip | None, x: Any, y: Any) -> Callable[[], None]:
    """Return a function that does one training step in Keras."""
    model = keras_zoo.build(name, 10, MODELS[name], seed=0)
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
    torch.manual_seed(0)
    model = torch_zoo.build(name, 10, MODELS[name])
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


def measure(name: str, chips: Sequence[str], batch: int, warm: int, repeats: int) -> None:
    """Print the medians of interleaved steps and their ratios."""
    rng = np.random.default_rng(0)
    x = rng.random((batch, *MODELS[name]), dtype=np.float32)
    y = rng.integers(10, size=batch)
    makers = {"keras": keras_step, "torch": torch_step}
    steps = {
        (framework, chip): make(name, None if chip == "native" else CHIPS[chip](), x, y)
        for framework, make in makers.items()
        for chip in ("native", *chips)
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for step in steps.values():
        for _ in range(warm):
            step()
    for _ in range(repeats):
        for key, step in steps.items():
            start = time.perf_counter()
            step()
            times[key].append(1e3 * (time.perf_counter() - start))
    median = {key: float(np.median(found)) for key, found in times.items()}
    print(f"{name}, batch {batch}: medians of {repeats} interleaved steps, ms")
    titles = ("keras", "x native", "torch", "x native", "ratio of both")
    print(" " * 12 + "".join(f"{title:>14s}" for title in titles))
    for chip in ("native", *chips):
        own = [median[framework, chip] for framework in makers]
        ratios = [median[framework, chip] / median[framework, "native"] for framework in makers]
        cells = (own[0], ratios[0], own[1], ratios[1], ratios[0] / ratios[1])
        print(f"{chip:12s}" + "".join(f"{cell:14.2f}" for cell in cells))


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["lenet5"], choices=MODELS)
    parser.add_argument("--chip", nargs="+", default=list(CHIPS), choices=CHIPS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--warm", type=int, default=20, help="steps before timing; ranges learn for 1000")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    for name in options.model:
        measure(name, options.chip, options.batch, options.warm, options.repeats)


if __name__ == "__main__":
    print(describe("numpy", "numba", "torch", "tensorflow", "keras"))
    main()
