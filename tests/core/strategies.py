"""Arrays and wires that hypothesis draws, and the models that the laws are stated for."""

from __future__ import annotations

from typing import Any, NamedTuple

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from xbar_core import AAM, FCM, Ideal, Interpolated, Wires

FIELDS = ("r_row", "r_col", "r_source", "r_sense")
MODELS = [Ideal(), AAM(0), AAM(1), AAM(2), AAM(4), FCM(), Interpolated(3), Interpolated(3, "distortion")]
EXACT = FCM(1e-12)

siemens = st.just(0.0) | st.floats(-6.0, -3.0).map(lambda x: 10.0**x)
ohms = st.just(0.0) | st.floats(-2.0, 4.0).map(lambda x: 10.0**x)
directions = st.sampled_from(["forward", "backward"])
models = st.sampled_from(MODELS)


class Problem(NamedTuple):
    """One array with its wires."""

    g: NDArray[np.float64]
    wires: Wires

    @property
    def resistances(self) -> tuple[float, float, float, float]:
        """Row, column, source and sense resistance, ohm."""
        return self.wires.r_row, self.wires.r_col, self.wires.r_source, self.wires.r_sense


@st.composite
def problems(draw: st.DrawFn, cells: st.SearchStrategy[float] = siemens, batch: bool = False) -> Problem:
    """Draw an array of 1 kohm to 1 Mohm devices, some cells open, with wires of 0 to 10 kohm."""
    shape: tuple[int, ...] = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    if batch:
        shape = (draw(st.integers(1, 4)), *shape)
    g = draw(hnp.arrays(np.float64, shape, elements=cells))
    return Problem(g, Wires(*draw(st.tuples(ohms, ohms, ohms, ohms))))


@st.composite
def any_accepted(draw: st.DrawFn) -> Problem:
    """Draw any array and wires that are accepted at all, with zeros among both."""
    cells = st.just(0.0) | st.floats(-15.0, 3.0).map(lambda x: float(np.clip(10.0**x, 1e-15, 1e3)))
    ends = st.just(0.0) | st.floats(-6.0, 9.0).map(lambda x: float(np.clip(10.0**x, 1e-6, 1e9)))
    g = draw(hnp.arrays(np.float64, (draw(st.integers(1, 6)), draw(st.integers(1, 6))), elements=cells))
    return Problem(g, Wires(*draw(st.tuples(ends, ends, ends, ends))))


def normal(shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """Return normal numbers that hypothesis need not shrink."""
    return np.random.default_rng(seed).standard_normal(shape)


def scale_of(*arrays: Any) -> float:
    """Return the largest magnitude among arrays, 0 if all are zero."""
    return max(float(np.abs(a).max(initial=0.0)) for a in arrays)
