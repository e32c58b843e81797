"""All circuit models on one array: what each gets wrong and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xbar_core import (
    AAM,
    FCM,
    Ideal,
    Interpolated,
    Wires,
    effective_conductance,
    interpolation_apply,
    interpolation_begin,
)
from xbar_core._checks import CONDUCTANCE_MIN
from xbar_core.circuit.base import Direction
from xbar_core.circuit.report import ErrorReport, compare_matrices
from xbar_core.cli._models import model_name
from xbar_core.cli._terminal import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = (
    ("circuit model", "left"),
    ("error", "right"),
    ("worst", "right"),
    ("mean", "right"),
    ("time", "right"),
    ("speed", "right"),
)


@dataclass(frozen=True)
class Row:
    """One circuit model against the exact matrix.

    Attributes
    ----------
    name : str
        The model, for tables and titles.
    report : ErrorReport
        What it gets wrong on the array for which it was asked.
    seconds : float
        Median time for one matrix.
    speed : float
        Time of the exact matrix / time of this one.
    """

    name: str
    report: ErrorReport
    seconds: float
    speed: float

    def cells(self) -> tuple[str, ...]:
        """Return the row of the printed table."""
        return (
            self.name,
            *(
                f"{value:.1e}" if value else "0"
                for value in (self.report.error, self.report.elementwise_max, self.report.elementwise_mean)
            ),
            f"{self.seconds * 1e3:.3g} ms",
            f"{self.speed:.3g} x" if self.speed < 100 else f"{self.speed:,.0f} x",
        )


def compare(
    conductance: NDArray[Any], wires: Wires, direction: Direction, *, change: float, seed: int
) -> Iterator[Row]:
    """Yield every circuit model's row, the exact one first.

    The interpolated models are asked for the array after every conductance moved by a normal
    draw of relative standard deviation `change`, with the state of the unmoved array.
    """
    solve = partial(effective_conductance, wires=wires, direction=direction)
    exact, base = _timed(partial(solve, conductance))
    yield Row(model_name(FCM()), compare_matrices(exact, exact), base, 1.0)
    for model in (Ideal(), AAM(0), AAM(1), AAM(2), AAM(3)):
        matrix, seconds = _timed(partial(solve, conductance, model=model))
        yield Row(model_name(model), compare_matrices(exact, matrix), seconds, base / seconds)
    moved = _moved(conductance, change, seed)
    exact_moved = solve(moved)
    for kept in (Interpolated(2, "distortion"), Interpolated(2, "anchored")):
        _, state = interpolation_begin(conductance, wires, kept, direction)
        matrix, seconds = _timed(partial(interpolation_apply, state, moved, wires, direction))
        yield Row(model_name(kept), compare_matrices(exact_moved, matrix), seconds, base / seconds)


def show(rows: list[Row], title: str, change: float) -> None:
    """Print the table of all models."""
    note = (
        "error: largest error of an entry / largest entry, against FCM. worst, mean: relative error of "
        f"single cells. interpolated: reuses the exact matrix from before a {change:.3g} relative change of "
        "every device; its time does not contain that matrix."
    )
    table(f"Circuit models on {title}", COLUMNS, [row.cells() for row in rows], note)


def _moved(conductance: NDArray[Any], change: float, seed: int) -> NDArray[Any]:
    draw = np.random.default_rng(seed).standard_normal(conductance.shape)
    factor = np.clip(1 + change * draw, 0.1, 1.9)
    moved = np.where(conductance > 0, np.maximum(conductance * factor, CONDUCTANCE_MIN), 0.0)
    return moved.astype(conductance.dtype)


def _timed(call: Callable[[], NDArray[Any]]) -> tuple[NDArray[Any], float]:
    """Return the result and the median time of up to 25 calls within about 0.3 s, after a first one."""
    result = call()
    times: list[float] = []
    while len(times) < 25 and (sum(times) < 0.3 or not times):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return result, float(np.median(times))


def figure(rows: list[Row], direction: Direction) -> Figure:
    """Return the error maps of all approximate models, named with error and speed."""
    from xbar_core import plots

    turn = (lambda matrix: matrix) if direction == "forward" else np.transpose
    named = {f"{row.name}\nerror {row.report.error:.1e}, speed {row.speed:.3g} x": row for row in rows[1:]}
    return plots.error_maps(
        {name: turn(row.report.approximate) for name, row in named.items()},
        {name: turn(row.report.exact) for name, row in named.items()},
    )
