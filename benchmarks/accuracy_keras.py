"""Accuracy of LeNet-5 on MNIST through `model.fit` of Keras, natively and on chips, for several seeds.

    python benchmarks/accuracy_keras.py --data folder [--seeds 0 1 2] [--epochs 5]

The recipe of docs/results/lenet5.md: batches of 128, SGD with rate 0.05 and momentum 0.9, cosine schedule,
normalised inputs. All variants of a seed start from the same weights and see the same order of samples.
"""

from __future__ import annotations

import argparse
import math
import time

import keras
import numpy as np
import tensorflow as tf
from machine import describe

import xbar_tf
from xbar_core.config import preset
from xbar_core.lab.data import load_data
from xbar_tf import zoo

CHIPS = {
    "native": None,
    "ideal": preset("ideal"),
    "txsim-8bit, quiet": preset("txsim-8bit").with_("update.noise.gamma", 0.0),
    "txsim-8bit": preset("txsim-8bit"),
}


def accuracy(name: str, seed: int, epochs: int, samples: dict[str, np.ndarray]) -> float:
    """Train one variant by `fit` and return its test accuracy."""
    chip = CHIPS[name]
    model = zoo.build("lenet5", 10, (1, 28, 28), seed=seed)
    optimizer: keras.optimizers.Optimizer = keras.optimizers.SGD(0.05, 0.9)
    if chip is not None:
        model, optimizer = xbar_tf.convert(model, chip), xbar_tf.PulseSGD(0.05, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    order = tf.data.Dataset.from_tensor_slices((samples["train_x"], samples["train_y"]))
    order = order.shuffle(len(samples["train_y"]), seed=seed).batch(128).prefetch(2)

    def rate(epoch: int) -> float:
        return 0.025 * (1.0 + math.cos(math.pi * epoch / epochs))

    model.fit(
        order,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=[keras.callbacks.LearningRateScheduler(rate)],
    )
    return float(model.evaluate(samples["test_x"], samples["test_y"], batch_size=1000, verbose=0)[1])


def main() -> None:
    """Print a line for each variant and seed, and the means."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="folder of data files; default $XBAR_DATA, else ./data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    data = load_data("mnist", args.data)
    samples = {
        "train_x": np.moveaxis(data.normalised(data.train_x), 1, -1),
        "test_x": np.moveaxis(data.normalised(data.test_x), 1, -1),
        "train_y": data.train_y,
        "test_y": data.test_y,
    }
    print(describe("tensorflow", "keras", "numpy"))
    found: dict[str, list[float]] = {name: [] for name in CHIPS}
    for seed in args.seeds:
        for name, reached in found.items():
            start = time.perf_counter()
            reached.append(accuracy(name, seed, args.epochs, samples))
            seconds = time.perf_counter() - start
            print(f"seed {seed}  {name:18s} {reached[-1]:.2%}  {seconds:6.1f} s", flush=True)
    native = np.mean(found["native"])
    for name, reached in found.items():
        mean = np.mean(reached)
        print(f"mean    {name:18s} {mean:.2%}, against native {mean - native:+.2%}")


if __name__ == "__main__":
    main()
