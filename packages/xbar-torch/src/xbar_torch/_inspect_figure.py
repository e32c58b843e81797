"""The figure of an inspection; the only file of the package that draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from xbar_core.plots._style import COLOURS, new_figure

if TYPE_CHECKING:
    from xbar_torch.inspect import LayerInspection


def inspection_figure(layers: Sequence[LayerInspection]) -> Figure:
    """Draw what a chip does to its layers, one line of panels for each measure.

    Parameters
    ----------
    layers : sequence of LayerInspection
        At least one.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [_short(layer.name) for layer in layers]
    figure = new_figure(max(7.0, 1.1 * len(layers) + 4.0), 8.0)
    devices, wires, stages = figure.subplots(3, 1)
    for axes, values, label in (
        (devices, [1e6 * layer.conductance for layer in layers], "conductance (µS)"),
        (wires, [100 * layer.distortion for layer in layers], "lost to wires (%)"),
    ):
        axes.boxplot(values, tick_labels=names, whis=(1, 99), showfliers=False, widths=0.5)
        axes.set_ylabel(label)
    devices.set_title("Boxes: quartiles; whiskers: 1st and 99th percentile", fontsize=9)
    shown = [stage.name for stage in next((layer.stages for layer in layers if layer.stages), ())]
    width = 0.8 / max(len(shown), 1)
    for k, name in enumerate(shown):
        errors = [100 * layer.stages[k].error if layer.stages else np.nan for layer in layers]
        places = np.arange(len(layers)) + (k - (len(shown) - 1) / 2) * width
        stages.bar(places, errors, width, color=COLOURS[k % len(COLOURS)], label=name)
    stages.set_xticks(np.arange(len(layers)), names)
    stages.set_ylabel("error that a stage adds\n(% of the rms output)")
    if shown:
        stages.legend(fontsize=8, ncols=len(shown))
    for axes in (devices, wires, stages):
        axes.tick_params(axis="x", labelrotation=30 if len(layers) > 6 else 0)
    figure.suptitle("What the chip does to each layer")
    return figure


def _short(name: str) -> str:
    """Return the layer's name without the ending that all states share."""
    return name.removesuffix(".state") or name
