"""What a chip does to a network, layer by layer: arrays, conductances, wires, converters, stages.

An adapter measures it (`xbar_torch.inspect`, a trainer's ``inspect``); here it is kept, printed and drawn.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xbar_core.engine import Clipped, Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = NDArray[np.float64]
STAGES = ("weights", "devices", "wires", "dac", "adc", "noise")
"""Stages of a read, in the order in which they are switched on."""
NOTE = "columns weights to noise: signal-to-noise ratio in dB after this stage and all before it"
_PERCENTILES = (1, 50, 99)


@dataclass(frozen=True)
class LayerInspection:
    """One crossbar weight.

    Attributes
    ----------
    name : str
        Name of its state in the model.
    shape : tuple of int
        Inputs and outputs of the matrix; with groups, of all of them.
    arrays : int
        Physical arrays that it occupies.
    utilisation : float
        Share of their cells that hold a weight.
    conductance : array (cells,)
        Conductances of the devices, siemens.
    distortion : array (cells,)
        Share of each conductance that wires and periphery take away, ``(G - G_ni) / G``; open cells are
        left out.
    clipped : Clipped or None
        Saturated conversions of the batch; None where the batch did not reach the layer.
    stages : tuple of Stage
        Signal-to-noise ratio after each stage; empty where the batch did not reach the layer.
    """

    name: str
    shape: tuple[int, int]
    arrays: int
    utilisation: float
    conductance: Values
    distortion: Values
    clipped: Clipped | None
    stages: tuple[Stage, ...]

    @property
    def costliest(self) -> str:
        """The stage that adds most to the error; empty where nothing is known or nothing is added."""
        worst = max(self.stages, key=lambda stage: stage.error, default=None)
        return worst.name if worst is not None and worst.error > 0.0 else ""


@dataclass(frozen=True)
class Inspection:
    """All crossbar weights of a model; `print` shows a table, `figure` draws it.

    Attributes
    ----------
    layers : tuple of LayerInspection
        In the order of the model.
    """

    layers: tuple[LayerInspection, ...]

    @property
    def header(self) -> list[str]:
        """Headings of the table's columns."""
        left = ["layer", "in x out", "arrays", "used", "G median", "wires lose", "x clips", "ADC clips"]
        return [*left, *STAGES, "costliest"]

    @property
    def rows(self) -> list[list[str]]:
        """Cells of the table's lines, one line for each layer."""
        return [_row(layer) for layer in self.layers]

    def __str__(self) -> str:
        rows = [self.header, *self.rows]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if k in (0, len(row) - 1) else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, NOTE])

    def write_csv(self, path: Path) -> None:
        """Write a line of plain numbers for each layer; empty where a batch did not reach it.

        Columns: name, inputs, outputs, arrays, utilisation, 1st, 50th and 99th percentile of the
        conductances (siemens) and of the distortion, clipped conversions of inputs and
        currents and their totals, ratio (decibel) and added error of every stage.
        """
        shares = [f"{what}_p{p}" for what in ("conductance", "distortion") for p in _PERCENTILES]
        stages = [f"{what}_{name}" for name in STAGES for what in ("snr_db", "error")]
        counts = ["clipped_inputs", "clipped_currents", "of_inputs", "of_currents"]
        head = ["layer", "inputs", "outputs", "arrays", "utilisation", *shares, *counts, *stages]
        with path.open("w", newline="") as file:
            log = csv.writer(file)
            log.writerow(head)
            log.writerows(_numbers(layer) for layer in self.layers)

    def figure(self) -> Figure:
        """Return a figure: conductances, distortion by wires, and the ratio after each stage, by layer.

        It needs matplotlib (``pip install 'xbar-core[plots]'``).
        """
        from xbar_core.plots._style import COLOURS, new_figure

        names = [layer.name.removesuffix(".state") or layer.name for layer in self.layers]
        crowded = len(names) > 6
        figure = new_figure(max(7.0, (0.7 if crowded else 1.1) * len(names) + 4.0), 8.0)
        devices, wires, stages = figure.subplots(3, 1)
        for axes, values, label in (
            (devices, [1e6 * layer.conductance for layer in self.layers], "conductance (µS)"),
            (wires, [100 * layer.distortion for layer in self.layers], "lost to wires (%)"),
        ):
            axes.boxplot(values, tick_labels=names, whis=(1, 99), showfliers=False, widths=0.5)
            axes.set_ylabel(label)
        devices.set_title("Boxes: quartiles; whiskers: 1st and 99th percentile", fontsize=9)
        shown = [stage.name for stage in next((layer.stages for layer in self.layers if layer.stages), ())]
        width = 0.8 / max(len(shown), 1)
        for k, name in enumerate(shown):
            errors = [100 * layer.stages[k].error if layer.stages else np.nan for layer in self.layers]
            places = np.arange(len(names)) + (k - (len(shown) - 1) / 2) * width
            stages.bar(places, errors, width, color=COLOURS[k % len(COLOURS)], label=name)
        stages.set_xticks(np.arange(len(names)), names)
        stages.set_ylabel("error that a stage adds\n(% of the rms output)")
        if shown:
            stages.legend(fontsize=8, ncols=len(shown))
        if crowded:  # the names stand under the lowest panel only
            devices.set_xticklabels([])
            wires.set_xticklabels([])
            stages.set_xticklabels(names, rotation=40, ha="right")
        for axes in (devices, wires, stages):
            axes.set_xlim(0.5 - (axes is stages), len(names) + 0.5 - (axes is stages))
        figure.suptitle("What the chip does to each layer")
        return figure


def _row(layer: LayerInspection) -> list[str]:
    """Return the cells of a table's line."""
    counts, row = layer.clipped, [layer.name, f"{layer.shape[0]} x {layer.shape[1]}", str(layer.arrays)]
    row += [f"{100 * layer.utilisation:.0f}%", f"{1e6 * np.median(layer.conductance):.3g} uS"]
    row += [f"{100 * np.median(layer.distortion):.2g}%" if layer.distortion.size else "-"]
    for count, of in (("inputs", "of_inputs"), ("currents", "of_currents")):
        total = getattr(counts, of, 0)
        row.append(f"{100 * getattr(counts, count) / total:.2g}%" if total else "-")
    ratios = [f"{stage.snr_db:.1f}" for stage in layer.stages] or ["-"] * len(STAGES)
    return [*row, *ratios, layer.costliest or "-"]


def _numbers(layer: LayerInspection) -> list[object]:
    """Return the numbers of a CSV's line."""
    found: list[object] = [layer.name, *layer.shape, layer.arrays, layer.utilisation]
    for values in (layer.conductance, layer.distortion):
        found += np.percentile(values, _PERCENTILES).tolist() if values.size else [""] * len(_PERCENTILES)
    found += layer.clipped or [""] * len(Clipped._fields)
    found += [number for stage in layer.stages for number in stage[1:]] or [""] * (2 * len(STAGES))
    return found
