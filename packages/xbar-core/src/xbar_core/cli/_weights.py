"""A real weight matrix on preset chips: what each stage of a read costs in signal-to-noise ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core.cli._terminal import table
from xbar_core.config import preset
from xbar_core.engine import Layout, Ranges, Request, program, read, read_matrices, stage_report
from xbar_core.engine.inspect import Stage
from xbar_core.lab.data import DataSet, load_data

PRESETS = ("ideal", "txsim", "txsim-8bit", "txsim-16bit", "txsim-sliced", "taox-hfox", "dwmtj")
RIDGE = 10.0
"""Regularisation of the classifier, in units of one pixel's variance per sample."""


@dataclass(frozen=True)
class Row:
    """One chip.

    Attributes
    ----------
    chip : str
        Preset.
    stages : list of Stage
        Signal-to-noise ratio after each stage.
    accuracy : float
        Test accuracy of the classifier as the chip reads it.
    """

    chip: str
    stages: list[Stage]
    accuracy: float


def classifier(data: DataSet) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weights (pixels, classes) and biases (classes,) of a ridge regression on one-hot labels."""
    x = _pixels(data.train_x)
    mean = x.mean(axis=0)
    wanted = np.eye(data.classes)[data.train_y]
    centred = x - mean
    gram = centred.T @ centred + RIDGE * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, centred.T @ (wanted - wanted.mean(axis=0)))
    return weight, wanted.mean(axis=0) - mean @ weight


def accuracy(outputs: NDArray[Any], data: DataSet) -> float:
    """Return the share of test samples whose largest output is their label."""
    return float((outputs.argmax(axis=1) == data.test_y).mean())


def rows(data: DataSet) -> Iterator[Row]:
    """Program the classifier on every chip of `PRESETS` and read the test samples."""
    weight, bias = classifier(data)
    x = _pixels(data.test_x)
    for name in PRESETS:
        # Programmed once and never trained: the weights may fill the range.
        chip = preset(name).with_("mapping.w_max.headroom", 1.0)
        layout = Layout(chip, weight.shape[0], weight.shape[1], signed_input=False)
        held = program(layout, weight)
        stages = stage_report(layout, weight, held.state, held.buffers, x)
        (matrices,) = read_matrices([Request(layout, held.buffers, held.state, backward=False)])
        seen = read(layout, layout.forward, matrices, held.buffers, Ranges(), x).result
        yield Row(name, stages, accuracy(seen + bias, data))


def show(chips: Sequence[Row], data: DataSet) -> None:
    """Print one line for each chip."""
    weight, bias = classifier(data)
    digital = accuracy(_pixels(data.test_x) @ weight + bias, data)
    columns = [("chip", "left")]
    columns += [(stage.name, "right") for stage in chips[0].stages]
    columns.append(("correct", "right"))
    table(
        f"A trained {weight.shape[0]}x{weight.shape[1]} digit classifier on preset chips: "
        "signal-to-noise ratio after each stage of a read [dB]",
        columns,
        [(row.chip, *(_decibel(s.snr_db) for s in row.stages), f"{row.accuracy:.1%}") for row in chips],
        f"Stages are switched on from left to right; correct: share of the {len(data.test_y)} test images. "
        f"In float64 without a chip: {digital:.1%}.",
    )


def digits() -> DataSet:
    """Return the embedded data set."""
    return load_data("digits")


def _pixels(images: NDArray[Any]) -> NDArray[Any]:
    return images.reshape(len(images), -1).astype(np.float64) / 255.0


def _decibel(value: float) -> str:
    return "exact" if value > 250.0 else f"{value:.1f}"
