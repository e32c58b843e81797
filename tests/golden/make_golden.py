"""Make the golden files of `tests/core/test_golden.py` with ngspice.

Run ``python tests/golden/make_golden.py`` from the repository's root; it takes about a minute. Each
file holds one array, its resistances (row, column, source, sense), the direction of the read, the
voltages of the driven wires (one run a row) and the currents that ngspice printed.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from core import ngspice  # noqa: E402

from xbar_core import Wires  # noqa: E402

PAPER = (1.0, 4.6, 500.0, 100.0)
Case = tuple[str, NDArray[np.float64], tuple[float, ...], str]


def uniform(seed: int, shape: tuple[int, int], r_min: float, r_max: float) -> NDArray[np.float64]:
    """Return conductances of devices whose resistances are uniform in their range."""
    return 1.0 / np.random.default_rng(seed).uniform(r_min, r_max, shape)


def matrices() -> Iterator[Case]:
    """Yield the arrays whose full matrix is kept."""
    for (r_min, r_max), direction in itertools.product(
        [(1e5, 1e6), (2e4, 2e5), (3e3, 1e4)], ["forward", "backward"]
    ):
        yield f"range_{r_min:.0f}_{direction}", uniform(1, (16, 12), r_min, r_max), PAPER, direction
    for rows, cols in [(1, 1), (1, 9), (9, 1), (5, 14)]:
        yield f"shape_{rows}x{cols}", uniform(2, (rows, cols), 1e4, 1e5), PAPER, "forward"
    yield "shape_9x1_backward", uniform(2, (9, 1), 1e4, 1e5), PAPER, "backward"

    g = uniform(3, (8, 7), 3e3, 1e4)
    for k, name in enumerate(["row", "col", "source", "sense"]):
        for direction in ["forward", "backward"]:
            wires = tuple(0.0 if k == m else r for m, r in enumerate((20.0, 30.0, 500.0, 100.0)))
            yield f"zero_{name}_{direction}", g, wires, direction
    yield "zero_wires", g, (0.0, 0.0, 500.0, 100.0), "forward"
    yield "zero_ends", g, (20.0, 30.0, 0.0, 0.0), "forward"
    yield "zero_all", g, (0.0, 0.0, 0.0, 0.0), "forward"
    yield "wires_as_devices", g, (5e3, 8e3, 5e3, 3e3), "forward"
    yield "wires_as_devices_backward", g, (5e3, 8e3, 5e3, 3e3), "backward"

    rng = np.random.default_rng(4)
    g = np.where(rng.random((10, 10)) < 0.5, 1e-4, 1e-8)
    yield "on_off_1e4", g, PAPER, "forward"
    yield "on_off_1e4_backward", g, PAPER, "backward"
    g = np.where(rng.random((10, 10)) < 0.6, uniform(5, (10, 10), 3e3, 1e4), 0.0)
    g[4], g[:, 7] = 0.0, 0.0
    yield "open_cells", g, PAPER, "forward"
    yield "open_cells_backward", g, PAPER, "backward"


def dense() -> Iterator[Case]:
    """Yield the arrays for which one dense input vector is kept; voltages of one sign, so nothing cancels."""
    yield "dense_64x64", uniform(0, (64, 64), 1e5, 1e6), PAPER, "forward"
    yield "dense_64x64_low", uniform(0, (64, 64), 3e3, 1e4), PAPER, "forward"
    yield "dense_64x64_middle", uniform(0, (64, 64), 2e4, 2e5), PAPER, "forward"
    yield "dense_64x64_backward", uniform(0, (64, 64), 1e5, 1e6), PAPER, "backward"
    yield "dense_64x64_low_backward", uniform(0, (64, 64), 3e3, 1e4), PAPER, "backward"


def main() -> None:
    """Write every file."""
    for name, g, wires, direction in matrices():
        voltages = np.eye(g.shape[0] if direction == "forward" else g.shape[1])
        save(name, g, wires, direction, voltages, ngspice.matrix(g, Wires(*wires), direction))
    for name, g, wires, direction in dense():
        voltages = np.random.default_rng(6).uniform(0.0, 1.0, (1, g.shape[0]))
        save(
            name,
            g,
            wires,
            direction,
            voltages,
            ngspice.currents(g, Wires(*wires), voltages[0], direction)[None],
        )


def save(
    name: str,
    g: NDArray[np.float64],
    wires: tuple[float, ...],
    direction: str,
    voltages: NDArray[np.float64],
    currents: NDArray[np.float64],
) -> None:
    """Write one case."""
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        conductance=g,
        wires=np.array(wires),
        direction=np.array(direction),
        voltages=voltages,
        currents=currents,
    )


if __name__ == "__main__":
    main()
