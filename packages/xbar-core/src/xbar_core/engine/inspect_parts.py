"""What `xbar_core.engine.inspect` says of one array set, of all array sets of a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._arrays import namespace, to_numpy
from xbar_core.engine.call import Call
from xbar_core.engine.circuits import solve_arrays
from xbar_core.engine.inspect import Clipped, Stage, clipped, stage_report
from xbar_core.engine.layout import Layout
from xbar_core.engine.matrices import Matrices, Request, physical_arrays, tile_blocks
from xbar_core.engine.ranges import Ranges

Values = NDArray[np.float64]


def evenly(found: int, samples: int) -> NDArray[np.int64]:
    """Return at most `samples` indices spread evenly over `found`."""
    return np.rint(np.linspace(0, found - 1, min(samples, found))).astype(np.int64)


def clipped_parts(
    layouts: Sequence[Layout],
    matrices: Sequence[Matrices],
    buffers: Sequence[Mapping[str, Any]],
    ranges: Ranges,
    numbers: Sequence[Any],
    call: Call,
) -> Clipped:
    """Return the conversions of a forward read that saturate, summed over the array sets."""
    found = [
        clipped(layout, layout.forward, solved, held, ranges, values, call)
        for layout, solved, held, values in zip(layouts, matrices, buffers, numbers, strict=True)
    ]
    return Clipped(*(sum(counts) for counts in zip(*found, strict=True)))


def stage_report_parts(
    layouts: Sequence[Layout],
    weights: Sequence[Any],
    states: Sequence[Any],
    buffers: Sequence[Mapping[str, Any]],
    numbers: Sequence[Any],
    *,
    ranges: Ranges,
    time: float | None,
    call: Call,
) -> tuple[Stage, ...]:
    """Return what each stage of a forward read costs: signals and errors of the array sets added up.

    Parameters
    ----------
    layouts, weights, states, buffers, numbers
        As in `stage_report`, for every array set.
    ranges, time, call
        As in `stage_report`.
    """
    reports, powers = [], []
    for layout, weight, state, held, x in zip(layouts, weights, states, buffers, numbers, strict=True):
        reports.append(stage_report(layout, weight, state, held, x, ranges=ranges, time=time, call=call))
        product = to_numpy(namespace(x).matmul(x, weight)).astype(np.float64)
        powers.append(float(np.sum(np.square(product))))
    signal, found = sum(powers), []
    for stages in zip(*reports, strict=True):
        pairs = list(zip(stages, powers, strict=True))
        noise = sum(power * 10.0 ** (-stage.snr_db / 10.0) if power else 0.0 for stage, power in pairs)
        added = sum(power * stage.error**2 for stage, power in pairs)
        ratio = 10.0 * np.log10(signal / noise) if signal and noise else float("inf")
        found.append(Stage(stages[0].name, float(ratio), (added / signal) ** 0.5 if signal else 0.0))
    return tuple(found)


def distortion(requests: Sequence[Request]) -> Values:
    """Return the share that wires and periphery take away of every conducting cell that holds a weight."""
    found = []
    for request in requests:
        layout, arrays = request.layout, physical_arrays(request)
        ((solved, _),) = solve_arrays([request.job(arrays, "forward")])
        blocks = (tile_blocks(layout, held, "forward") for held in (arrays, solved))
        for (tile, ideal), (_, actual) in zip(*blocks, strict=True):
            cols = tile.shape[1]
            g, g_ni = (_host(block[..., :cols]).ravel() for block in (ideal, actual))
            found.append(1.0 - g_ni[g > 0] / g[g > 0])
    return np.concatenate(found)


def relative_distortion(requests: Sequence[Request]) -> float:
    """Return what wires take away of all arrays, root mean square relative to the conductances."""
    lost = whole = 0.0
    for request in requests:
        arrays = physical_arrays(request)
        ((solved, _),) = solve_arrays([request.job(arrays, "forward")])
        for shape, ideal in arrays.items():
            g, g_ni = _host(ideal), _host(solved[shape])
            lost += float(np.sum((g - g_ni) ** 2))
            whole += float(np.sum(g**2))
    return (lost / whole) ** 0.5 if whole else 0.0


def saturated_share(layout: Layout, state: Any, weight: Any, w_max: float) -> float:
    """Return the share of devices that can go no further.

    A differential pair keeps one side at g_min, and slices are digits: there only g_max, or a weight at
    an end of its range, is an end.

    Parameters
    ----------
    layout : Layout
        The layer.
    state : array (devices, in, out)
        Device states.
    weight : array (in, out)
        The weights that they stand for.
    w_max : float
        Range of the weights.
    """
    code = layout.code
    if len(code.gains) > 2:
        return float(np.mean(np.abs(to_numpy(weight)) >= w_max * (1.0 - 1e-6)))
    held = to_numpy(state)
    ends = held >= 1.0
    if code.kind != "differential":
        ends = ends | (held <= 0.0)
    return float(np.mean(ends))


def _host(values: Any) -> Values:
    return np.asarray(to_numpy(values), np.float64)
