"""What a run would take, on one screen."""

from __future__ import annotations

from collections.abc import Iterable

from xbar_core.cli._terminal import engineering, say, table
from xbar_core.lab.ages import age_text
from xbar_core.lab.data import DataSet
from xbar_core.lab.dry_run import DryRun
from xbar_core.lab.recipe import Recipe


def show_dry_run(runs: Iterable[DryRun], recipe: Recipe, data: DataSet) -> None:
    """Print what every variant takes, and the layers of the last one; variants come one by one."""
    say(
        f"dry run of {recipe.network} on {data.name}: {len(data.train_x)} training and {len(data.test_x)} "
        f"test samples of shape {data.image_shape}; nothing is written"
    )
    done = []
    for run in runs:
        done.append(run)
        say(f"{run.variant}: timed {run.timed} steps of {recipe.batch}, {run.step_seconds:.3g} s each")
    _show_layers(done[-1])
    heads = ("arrays", "devices", "step", "epoch", "run", "memory")
    elsewhere = f" on the host; what it takes on {recipe.device!r} is not measured"
    table(
        "What training would take",
        [("chip", "left"), *((head, "right") for head in heads)],
        [
            (
                run.variant,
                f"{run.arrays:,}",
                f"{run.devices:,}",
                engineering(run.step_seconds, "s"),
                age_text(run.epoch_seconds),
                age_text(run.seconds),
                "-" if run.peak_bytes is None else bytes_text(run.peak_bytes),
            )
            for run in done
        ],
        "step: measured, after a first one that is left out, on a trainer that is thrown away. epoch: with "
        f"one evaluation. run: {recipe.epochs} epochs. memory: most that this process has held, one chip "
        f"after the other{'' if recipe.device == 'cpu' else elsewhere}.",
    )
    if len(done) > 1:
        say(f"all together: {age_text(sum(run.seconds for run in done))}")


def _show_layers(run: DryRun) -> None:
    """Print the layers on crossbars, what stays digital in one line, and the sum."""
    placed = [layer for layer in run.layers if layer.arrays]
    rest = [layer for layer in run.layers if not layer.arrays]
    rows = [
        (
            layer.name,
            " x ".join(map(str, layer.shape)),
            str(layer.arrays),
            f"{layer.utilisation:.0%}",
            f"{layer.devices:,}",
            f"{layer.weights:,}",
            bytes_text(layer.bytes),
        )
        for layer in placed
    ]
    for name, layers in ((f"digital ({len(rest)})", rest), ("together", run.layers)):
        numbers = f"{sum(layer.weights for layer in layers):,}"
        memory = bytes_text(sum(layer.bytes for layer in layers))
        counts = (f"{run.arrays:,}", "", f"{run.devices:,}") if layers is run.layers else ("", "", "")
        if layers:
            rows.append((name, "", *counts, numbers, memory))
    heads = ("in x out", "arrays", "used", "devices", "weights", "memory")
    table(
        f"Layers on {run.variant}",
        [("layer", "left"), *((head, "right") for head in heads)],
        rows,
        f"memory: weights or devices with their draws; with the optimizer a checkpoint holds "
        f"{bytes_text(run.state_bytes)}.",
    )


def bytes_text(size: float) -> str:
    """Return a size in memory with three digits and a binary prefix."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}"


def duration_text(seconds: float) -> str:
    """Return a duration in the two largest units that it has."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
