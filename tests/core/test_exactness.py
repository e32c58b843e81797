"""Matrices of the exact model against the oracle, and of the approximate models against their definition.

The error rule (`oracle.assert_matches`): the largest error is at most rtol of the largest entry, and
the error of each entry above 1e-6 (float64) or 1e-3 (float32) of it is at most 10 rtol of that entry.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from core import oracle
from core.strategies import Problem, any_accepted, directions
from hypothesis import given, settings
from numpy.typing import NDArray

from xbar_core import AAM, FCM, Ideal, Interpolated, Wires, effective_conductance

PAPER = (1.0, 4.6, 500.0, 100.0)
DTYPES = [(np.float64, 1e-9), (np.float32, 1e-5)]
RANGES = [(1e5, 1e6), (2e4, 2e5), (3e3, 1e4)]
each_direction = pytest.mark.parametrize("direction", ["forward", "backward"])

Floats = NDArray[np.float64]


def devices(rows: int, cols: int, r_min: float = 3e3, r_max: float = 1e4) -> Floats:
    """Return conductances of devices whose resistances are uniform in their range."""
    return 1.0 / np.random.default_rng(rows * 100 + cols).uniform(r_min, r_max, (rows, cols))


def check(g: Floats, wires: tuple[float, ...], direction: str, *, mesh: bool = True) -> None:
    """Hold both dtypes to the oracle: by elimination (`mesh`) or by nodal analysis."""
    for dtype, rtol in DTYPES:
        rounded = g.astype(dtype)
        exact_g = rounded.astype(np.float64)
        exact = (
            oracle.matrix(exact_g, *wires, direction=direction)
            if mesh
            else oracle.circuit(exact_g, *wires, direction=direction).matrix
        )
        result = effective_conductance(rounded, Wires(*wires), direction=direction)
        assert result.dtype == dtype
        oracle.assert_matches(result, exact, rtol)


@each_direction
@pytest.mark.parametrize(("r_min", "r_max"), RANGES)
@pytest.mark.parametrize(
    ("rows", "cols"), [(1, 1), (1, 33), (33, 1), (1, 2), (2, 1), (5, 17), (17, 5), (16, 16)]
)
def test_shapes_and_ranges(rows: int, cols: int, r_min: float, r_max: float, direction: str) -> None:
    """Every shape, in each range of device resistance."""
    check(devices(rows, cols, r_min, r_max), PAPER, direction)


@each_direction
@pytest.mark.parametrize(("r_min", "r_max"), RANGES)
def test_64x64(r_min: float, r_max: float, direction: str) -> None:
    """The array of the paper, whole."""
    check(devices(64, 64, r_min, r_max), PAPER, direction, mesh=False)


@each_direction
@pytest.mark.parametrize(("rows", "cols"), [(100, 20), (20, 100), (3, 150)])
def test_long_arrays(rows: int, cols: int, direction: str) -> None:
    """Arrays much longer one way than the other."""
    check(devices(rows, cols), PAPER, direction, mesh=False)


@each_direction
@pytest.mark.parametrize("zeros", list(itertools.product([True, False], repeat=4)))
def test_zero_resistances(zeros: tuple[bool, ...], direction: str) -> None:
    """Each resistance 0: alone, in pairs, in threes and all together."""
    wires = tuple(0.0 if zero else r for zero, r in zip(zeros, (20.0, 30.0, 500.0, 100.0), strict=True))
    check(devices(7, 9), wires, direction)
    check(devices(9, 7), wires, direction)


@each_direction
@pytest.mark.parametrize("ends", [(5e3, 3e3), (0.0, 0.0), (500.0, 100.0)])
def test_wires_as_resistive_as_devices(ends: tuple[float, float], direction: str) -> None:
    """Wires of the devices' own resistance: entries fall by many decades across the array."""
    check(devices(16, 16), (5e3, 8e3, *ends), direction)
    check(devices(64, 64), (5e3, 8e3, *ends), direction, mesh=False)


@each_direction
@pytest.mark.parametrize("wires", [PAPER, (0.0, 0.0, 0.0, 0.0), (5e3, 8e3, 0.0, 3e3)])
def test_on_off_ratio(wires: tuple[float, ...], direction: str) -> None:
    """Devices that are either on or 1e4 times less conductive."""
    g = np.where(np.random.default_rng(0).random((14, 11)) < 0.5, 1e-4, 1e-8)
    check(g, wires, direction)


@each_direction
@pytest.mark.parametrize(
    "wires", [PAPER, (0.0, 0.0, 0.0, 0.0), (20.0, 0.0, 0.0, 100.0), (5e3, 8e3, 5e3, 3e3)]
)
def test_open_cells(wires: tuple[float, ...], direction: str) -> None:
    """Open cells, with whole rows and whole columns open, at an edge and inside."""
    g = np.where(np.random.default_rng(1).random((12, 10)) < 0.6, devices(12, 10), 0.0)
    g[3], g[:, 7] = 0.0, 0.0
    check(g, wires, direction)
    g[0], g[-1], g[:, 0], g[:, -1] = 0.0, 0.0, 0.0, 0.0
    check(g, wires, direction)


@each_direction
@pytest.mark.parametrize("wires", [PAPER, (0.0, 0.0, 0.0, 0.0)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_all_open(wires: tuple[float, ...], direction: str, dtype: type) -> None:
    """An array with no device has a matrix of zeros, alone and beside others."""
    g = np.zeros((2, 3, 4), dtype)
    g[1] = 1e-5
    result = effective_conductance(g, Wires(*wires), direction=direction)
    assert (result[0] == 0).all()
    assert (result[1] > 0).all()


@each_direction
def test_one_device(direction: str) -> None:
    """A lone device anywhere sees exactly the resistances on its path."""
    for i, j in itertools.product(range(3), range(4)):
        g = np.zeros((3, 4))
        g[i, j] = 1e-3
        result = effective_conductance(g, Wires(2.0, 3.0, 50.0, 70.0), FCM(1e-12), direction)
        path = 1e3 + 50.0 + 70.0 + 2.0 * j + 3.0 * (2 - i)
        expected = np.zeros_like(result)
        expected[(i, j) if direction == "forward" else (j, i)] = 1 / path
        np.testing.assert_allclose(result, expected, rtol=1e-12)


@settings(max_examples=150)
@given(any_accepted(), directions)
def test_whole_accepted_range(problem: Problem, direction: str) -> None:
    """Any mixture of 1e-15 to 1e3 S and 1e-6 to 1e9 ohm is solved as well as an ordinary array."""
    check(problem.g, problem.resistances, direction)


@pytest.mark.parametrize("cells", [64, 256, 512])
def test_float32_of_long_nearly_perfect_wires(cells: int) -> None:
    """Wires so good that float32 cannot tell 1 + r g from 1 at one cell still count along a line.

    One device behind c wires: G_ni = 1 / (1/g + c r), here up to 3e-5 of g below g.
    """
    g = np.zeros((1, cells), np.float32)
    g[0, -1] = 1e-5
    r_row = 5.9e-8 / 1e-5
    result = effective_conductance(g, Wires(r_row=r_row))
    exact = 1 / (1 / g[0, -1].astype(np.float64) + (cells - 1) * r_row)
    assert abs(result[0, -1] - exact) <= 1e-5 * exact


@each_direction
@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-12])
@pytest.mark.parametrize(("r_min", "r_max"), RANGES)
def test_asked_tolerance_is_met(rtol: float, r_min: float, r_max: float, direction: str) -> None:
    """`FCM(rtol)` meets a looser or a tighter tolerance than the default."""
    g = devices(14, 18, r_min, r_max)
    result = effective_conductance(g, Wires(*PAPER), FCM(rtol), direction)
    oracle.assert_matches(result, oracle.matrix(g, *PAPER, direction=direction), rtol)


def test_integers_are_float64() -> None:
    """Integer conductances give the float64 matrix of the same values."""
    g = np.array([[0, 1], [2, 3]])
    result = effective_conductance(g, Wires(0.1, 0.1, 0.1, 0.1))
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, effective_conductance(g.astype(float), Wires(0.1, 0.1, 0.1, 0.1)))


def test_input_is_not_changed_nor_its_layout_seen() -> None:
    """Read-only, Fortran-ordered, strided and byte-swapped arrays give the same matrix."""
    g = devices(6, 5)
    g.setflags(write=False)
    expected = effective_conductance(g, Wires(*PAPER))
    wide = np.zeros((12, 10))
    wide[::2, ::2] = g
    for other in (np.asfortranarray(g), wide[::2, ::2], g.astype(">f8"), g.tolist()):
        np.testing.assert_array_equal(effective_conductance(other, Wires(*PAPER)), expected)


def plain_sweeps(g: Floats, wires: tuple[float, ...], order: int) -> Floats:
    """Return AAM of order k by its definition: k times all rows, then all columns, solved densely."""
    r_row, r_col, r_source, r_sense = wires
    rows, cols = g.shape
    result = np.empty((rows, cols))
    for driven in range(rows):
        v_col = np.zeros((rows, cols))
        for _ in range(order):
            v_row = np.stack(
                [_ladder(g[i], v_col[i], r_row, r_source, float(i == driven)) for i in range(rows)]
            )
            v_col = np.stack(
                [_ladder(g[::-1, j], v_row[::-1, j], r_col, r_sense, 0.0)[::-1] for j in range(cols)], axis=1
            )
        result[driven] = v_col[-1] / r_sense
    return result


def _ladder(g: Floats, w: Floats, r: float, r_end: float, v_end: float) -> Floats:
    wire = np.r_[1 / r_end, np.full(g.size - 1, 1 / r)]
    system = np.diag(g + wire + np.r_[wire[1:], 0.0]) - np.diag(wire[1:], 1) - np.diag(wire[1:], -1)
    right = g * w
    right[0] += v_end / r_end
    return np.linalg.solve(system, right)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("wires", [PAPER, (30.0, 40.0, 5.0, 3e3)])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (6, 4), (3, 8)])
def test_aam_is_plain_sweeps(order: int, wires: tuple[float, ...], rows: int, cols: int) -> None:
    """AAM of order k is k sweeps over rows and columns; of order 1, its closed form too."""
    g = devices(rows, cols)
    g[0, -1] = 0.0
    expected = plain_sweeps(g, wires, order)
    np.testing.assert_allclose(effective_conductance(g, Wires(*wires), AAM(order)), expected, rtol=1e-11)
    single = effective_conductance(g.astype(np.float32), Wires(*wires), AAM(order))
    np.testing.assert_allclose(single, expected, rtol=2e-5)
    backward = effective_conductance(g, Wires(*wires), AAM(order), "backward")
    swapped = (wires[0], wires[1], wires[3], wires[2])
    np.testing.assert_allclose(backward, plain_sweeps(g, swapped, order).T, rtol=1e-11)


@each_direction
def test_aam_order_0_is_the_direct_path(direction: str) -> None:
    """Order 0 is g / (1 + g R) with R the resistances on the direct path."""
    g = devices(4, 6)
    along = 2.0 * np.arange(6) + 3.0 * np.arange(3, -1, -1)[:, None] + 120.0
    result = effective_conductance(g, Wires(2.0, 3.0, 50.0, 70.0), AAM(0), direction)
    expected = g / (1 + g * along)
    np.testing.assert_allclose(result, expected if direction == "forward" else expected.T, rtol=1e-14)


@each_direction
def test_ideal_is_the_conductances(direction: str) -> None:
    """Perfect wires leave the conductances, in a new array."""
    g = devices(3, 5)
    result = effective_conductance(g, Wires(*PAPER), Ideal(), direction)
    np.testing.assert_array_equal(result, g if direction == "forward" else g.T)
    assert not np.shares_memory(result, g)


@each_direction
@pytest.mark.parametrize("reuse", ["anchored", "distortion"])
def test_one_interpolated_call_is_exact(reuse: str, direction: str) -> None:
    """One call of the interpolated model alone equals FCM."""
    g = devices(5, 7)
    model = Interpolated(10, reuse)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        effective_conductance(g, Wires(*PAPER), model, direction),
        effective_conductance(g, Wires(*PAPER), FCM(), direction),
    )
