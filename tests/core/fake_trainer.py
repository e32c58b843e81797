"""A trainer of NumPy alone: softmax regression with momentum, for tests of the training program."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_core.lab.data import DataSet
from xbar_core.lab.inspection import Inspection
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import Arrays, Batch, Footprint, LayerHealth, Scores, Step, check_arrays


class FakeTrainer:
    """Keeps the rules of `xbar_core.lab.trainer`; a chip adds noise to its steps, keyed by their number."""

    bad_step: int | None = None
    learns = True

    def __init__(self, recipe: Recipe, data: DataSet, chip: Chip | None) -> None:
        if recipe.network == "unknown":
            raise ConfigError("network: unknown name 'unknown'; use one of fake")
        self.recipe, self.chip = recipe, chip
        self.weight = np.zeros((int(np.prod(data.image_shape)), data.classes))
        self.velocity = np.zeros_like(self.weight)
        self.steps = self.epochs = 0

    def _forward(self, x: NDArray[Any]) -> NDArray[Any]:
        logits = x.reshape(len(x), -1) @ self.weight
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def step(self, x: NDArray[np.float32], y: NDArray[np.int64], rate: float) -> Step:
        if self.steps == self.bad_step:
            raise FloatingPointError("the loss is nan")
        p = self._forward(x)
        loss = float(-np.log(p[np.arange(len(y)), y]).mean())
        right = int((p.argmax(axis=1) == y).sum())
        p[np.arange(len(y)), y] -= 1.0
        gradient = x.reshape(len(x), -1).T @ p / len(y)
        if self.chip is not None:
            rng = np.random.default_rng([self.chip.seed, self.steps])
            gradient += rng.normal(0.0, 1e-3, gradient.shape)
        self.velocity = self.recipe.momentum * self.velocity + gradient
        self.weight -= (rate if self.learns else 0.0) * self.velocity
        self.steps += 1
        return Step(loss, right, 0 if self.chip is None else 2)

    def finish_epoch(self) -> None:
        self.epochs += 1

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        loss, right, samples = 0.0, 0, 0
        for x, y in batches:
            p = self._forward(x)
            loss -= float(np.log(p[np.arange(len(y)), y]).sum())
            right += int((p.argmax(axis=1) == y).sum())
            samples += len(y)
        return Scores(loss / samples, right / samples, samples)

    def state(self) -> Arrays:
        return {
            "model/weight": self.weight.copy(),
            "optimizer/velocity": self.velocity.copy(),
            "rng/steps": np.array([self.steps, self.epochs]),
        }

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        check_arrays("checkpoint", state, self.state())
        self.weight, self.velocity = state["model/weight"].copy(), state["optimizer/velocity"].copy()
        self.steps, self.epochs = (int(each) for each in state["rng/steps"])

    def weights(self) -> Arrays:
        return {"weight": self.weight.copy()}

    def program(self, weights: Mapping[str, NDArray[Any]]) -> None:
        self.weight = weights["weight"].copy()

    def calibrate(self, batches: Iterable[Batch]) -> None:
        pass

    def age(self, seconds: float | None) -> None:
        pass

    def health(self, x: NDArray[np.float32]) -> list[LayerHealth]:
        return (
            [] if self.chip is None else [LayerHealth("fc", 0.1, 0.02, 0.05), LayerHealth("out", 0.4, 0, 0)]
        )

    def inspect(self, x: NDArray[np.float32]) -> Inspection:
        return Inspection(())

    def footprint(self) -> list[Footprint]:
        return [Footprint("fc", self.weight.shape, 1, 2, 0.5, self.weight.size, self.weight.nbytes)]

    def diagnose(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> str:
        return "layer 'fc', gradient: 3 of 40 values are NaN or infinite"


def fake_data(count: int = 96, classes: int = 4) -> DataSet:
    """Points around one corner of a square for each class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, count)
    x = rng.normal(size=(count, 1, 2, 5)).astype(np.float32)
    x[np.arange(count), 0, y // 2, y % 2] += 3.0
    return DataSet("corners", x, y, x[: count // 2], y[: count // 2], classes)
