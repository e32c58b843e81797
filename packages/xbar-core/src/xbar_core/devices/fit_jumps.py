"""From measured update curves to jump tables, without any law in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xbar_core._checks import check_integer
from xbar_core.config.device import JumpTable, JumpTableDevice
from xbar_core.devices._traces import Trace, read_traces
from xbar_core.devices.jump_table import mean_step
from xbar_core.errors import ConfigError


def jump_table_device(csv: str | Path, *, bins: int = 16, quantiles: int = 21) -> JumpTableDevice:
    """Return a device that draws its conductance changes from measured curves.

    Parameters
    ----------
    csv : str or Path
        As for `fit_device`.
    bins : int
        Conductance bins of equally many measured steps, at least 2.
    quantiles : int
        Probabilities kept of the distribution in each bin, evenly from 0 to 1, at least 2.

    Returns
    -------
    JumpTableDevice
        One table per direction. The range is the mean range of the curves, narrowed to where pulses of
        both directions still move the device their way.

    Raises
    ------
    ConfigError
        A foreign or truncated file, or fewer than four steps per bin, or no range with pulses that
        move the device.
    """
    traces = read_traces(csv)
    up, down = (_table(traces, up, bins, quantiles, Path(csv).name) for up in (True, False))
    low, high = _range(traces, up, down)
    return JumpTableDevice(r_min=1.0 / high, r_max=1.0 / low, up=up, down=down)


def _range(traces: list[Trace], up: JumpTable, down: JumpTable) -> tuple[float, float]:
    """Return the longest part of the curves' mean range in which both mean steps keep their sign."""
    low = float(np.mean([t.conductance.min() for t in traces]))
    high = float(np.mean([t.conductance.max() for t in traces]))
    grid = np.linspace(low, high, 2001)
    rise, fall = (np.interp(grid, t.conductance, mean_step(t)) for t in (up, down))
    moves = (rise > 1e-3 * rise.max()) & (fall < 1e-3 * fall.min())
    edges = np.flatnonzero(np.diff(np.concatenate([[False], moves, [False]])))
    if edges.size == 0:
        raise ConfigError(
            "csv: at no conductance do up pulses raise and down pulses lower the device on average; "
            "check the direction column, or measure more cycles"
        )
    starts, ends = edges[::2], edges[1::2] - 1
    longest = int(np.argmax(ends - starts))
    return float(grid[starts[longest]]), float(grid[ends[longest]])


def _table(traces: list[Trace], up: bool, bins: int, quantiles: int, source: str) -> JumpTable:
    check_integer("bins", bins, minimum=2)
    check_integer("quantiles", quantiles, minimum=2)
    before = np.concatenate([t.conductance[:-1] for t in traces if t.up is up])
    step = np.concatenate([np.diff(t.conductance) for t in traces if t.up is up])
    if before.size < 4 * bins:
        raise ConfigError(
            f"bins: {bins} bins for {before.size} measured steps in one direction; each needs at least 4: "
            f"use at most {before.size // 4} bins, or measure more cycles"
        )
    groups = np.array_split(np.argsort(before, kind="stable"), bins)
    cdf = np.linspace(0.0, 1.0, quantiles)
    centres = [float(before[group].mean()) for group in groups]
    keep = [k for k in range(bins) if k == 0 or centres[k] > centres[k - 1]]
    return JumpTable(
        tuple(centres[k] for k in keep),
        tuple(cdf.tolist()),
        tuple(tuple(np.quantile(step[groups[k]], cdf).tolist()) for k in keep),
        source,
    )
