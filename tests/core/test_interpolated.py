"""Interpolated FCM: what is kept, what is applied, and the report of what it gets wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from core.strategies import Problem, directions, problems, scale_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xbar_core import (
    AAM,
    FCM,
    Ideal,
    Interpolated,
    ShapeError,
    Wires,
    effective_conductance,
    error_report,
    interpolation_apply,
    interpolation_begin,
)

few = settings(max_examples=60)
reuses = st.sampled_from(["anchored", "distortion"])
seeds = st.integers(0, 2**32 - 1)
each_direction = pytest.mark.parametrize("direction", ["forward", "backward"])


def changed(g: NDArray[np.float64], seed: int, by: float = 0.02) -> NDArray[np.float64]:
    """Return conductances changed at random by a share of themselves."""
    return g * (1 + by * np.random.default_rng(seed).uniform(-1, 1, g.shape))


def oriented(matrix: NDArray[np.float64], direction: str) -> NDArray[np.float64]:
    """Return a matrix of conductances in the shape that a read has."""
    return matrix if direction == "forward" else matrix.swapaxes(-1, -2)


@few
@given(problems(batch=True), reuses, directions)
def test_begin_is_exact_and_apply_returns_to_it(problem: Problem, reuse: str, direction: str) -> None:
    """The first matrix is FCM's, and unchanged conductances give it back."""
    model = Interpolated(5, reuse)  # type: ignore[arg-type]
    matrix, state = interpolation_begin(problem.g, problem.wires, model, direction)
    exact = effective_conductance(problem.g, problem.wires, FCM(), direction)
    np.testing.assert_array_equal(matrix, exact)
    again = interpolation_apply(state, problem.g, problem.wires, direction)
    np.testing.assert_allclose(again, exact, rtol=1e-14)


@few
@given(problems(), directions, seeds)
def test_distortion_is_the_papers(problem: Problem, direction: str, seed: int) -> None:
    """With D = (G - G_ni) / G kept, a new G gives G (1 - D); cells that were open keep their entry."""
    matrix, state = interpolation_begin(problem.g, problem.wires, Interpolated(5, "distortion"), direction)
    old, new = oriented(problem.g, direction), oriented(changed(problem.g, seed), direction)
    kept = np.divide(old - matrix, old, out=np.zeros_like(old), where=old > 0)
    expected = np.where(old > 0, new * (1 - kept), matrix)
    result = interpolation_apply(state, oriented(new, direction), problem.wires, direction)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13 * scale_of(problem.g))


@few
@given(problems(), directions, seeds)
def test_anchored_follows_order_1(problem: Problem, direction: str, seed: int) -> None:
    """With G_ni / G_order1 kept, a new G gives its own order 1 times that; open cells as above."""
    matrix, state = interpolation_begin(problem.g, problem.wires, Interpolated(5, "anchored"), direction)
    new = changed(problem.g, seed)
    anchor = effective_conductance(problem.g, problem.wires, AAM(1), direction)
    moved = effective_conductance(new, problem.wires, AAM(1), direction)
    kept = np.divide(matrix, anchor, out=np.zeros_like(anchor), where=anchor > 0)
    expected = np.where(anchor > 0, moved * kept, matrix)
    result = interpolation_apply(state, new, problem.wires, direction)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


@few
@given(problems(batch=True), reuses, directions, seeds)
def test_open_cells_that_close_keep_their_entry(
    problem: Problem, reuse: str, direction: str, seed: int
) -> None:
    """0/0 is no NaN: a cell that was open when G was solved keeps that entry, whatever it becomes."""
    model = Interpolated(5, reuse)  # type: ignore[arg-type]
    matrix, state = interpolation_begin(problem.g, problem.wires, model, direction)
    closed = problem.g + np.random.default_rng(seed).uniform(1e-6, 1e-4, problem.g.shape)
    result = interpolation_apply(state, closed, problem.wires, direction)
    was_open = oriented(problem.g == 0, direction)
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(result[was_open], matrix[was_open])


def test_state_is_not_changed_by_use() -> None:
    """Pure functions: applying twice gives the same, and float32 stays float32."""
    g = np.full((4, 5), 1e-5, np.float32)
    matrix, state = interpolation_begin(g, Wires(1.0, 4.6, 500.0, 100.0), Interpolated(3))
    new = g * np.float32(1.5)
    first = interpolation_apply(state, new, Wires(1.0, 4.6, 500.0, 100.0))
    second = interpolation_apply(state, new, Wires(1.0, 4.6, 500.0, 100.0))
    assert matrix.dtype == first.dtype == np.float32
    np.testing.assert_array_equal(first, second)


@each_direction
@pytest.mark.parametrize(
    ("ends", "anchored", "distortion"), [((0.0, 0.0), 1.7e-5, 2.4e-4), ((500.0, 100.0), 5e-4, 1e-3)]
)
def test_published_errors(
    ends: tuple[float, float], anchored: float, distortion: float, direction: str
) -> None:
    """After a 2% change of a 64x64 array of 100k to 1M: what the documentation says, within a factor of 2."""
    g = 1 / np.random.default_rng(0).uniform(1e5, 1e6, (64, 64))
    new = g * (1 + 0.02 * np.random.default_rng(1).standard_normal(g.shape))
    wires = Wires(1.0, 4.6, *ends)
    for reuse, expected in (("anchored", anchored), ("distortion", distortion)):
        _, state = interpolation_begin(g, wires, Interpolated(5, reuse), direction)  # type: ignore[arg-type]
        result = interpolation_apply(state, new, wires, direction)
        wrong = error_report(new, wires, FCM(), direction, approximate=result).elementwise_max
        assert expected / 2 < wrong < expected * 2, (reuse, wrong)


@few
@given(problems(batch=True), st.sampled_from([Ideal(), AAM(0), AAM(1), AAM(3)]), directions)
def test_report(problem: Problem, model: Ideal | AAM, direction: str) -> None:
    """The report is the error of the definition, with the two matrices that it compares."""
    report = error_report(problem.g, problem.wires, model, direction)
    exact = effective_conductance(problem.g, problem.wires, FCM(), direction)
    approximate = effective_conductance(problem.g, problem.wires, model, direction)
    np.testing.assert_array_equal(report.exact, exact)
    np.testing.assert_array_equal(report.approximate, approximate)
    scales = exact.max(axis=(-1, -2))
    worst = np.abs(approximate - exact).max(axis=(-1, -2))
    expected = max((w / s for w, s in zip(worst, scales, strict=True) if s > 0), default=0.0)
    assert report.error == pytest.approx(expected, rel=1e-12)
    counted = exact > 0
    relative = (approximate[counted] - exact[counted]) / exact[counted]
    assert report.map.shape == exact.shape
    np.testing.assert_allclose(report.map[counted], relative, rtol=1e-12)
    if approximate[~counted].any():
        # Paths too weak for the tolerance that ended the exact solution.
        assert report.elementwise_max == np.inf
    elif counted.any():
        assert report.elementwise_max == pytest.approx(np.abs(relative).max(), rel=1e-12)
        assert report.elementwise_mean == pytest.approx(np.abs(relative).mean(), rel=1e-12)
    else:
        assert report.elementwise_max == report.elementwise_mean == 0.0


def test_report_of_the_exact_model() -> None:
    """FCM against itself is wrong by nothing."""
    report = error_report(np.full((3, 4), 1e-4), Wires(1.0, 2.0, 3.0, 4.0), FCM())
    assert report.error == report.elementwise_max == report.elementwise_mean == 0.0
    assert not report.map.any()


def test_report_of_perfect_wires_assumed() -> None:
    """One device of 1 kohm behind 1 kohm: the ideal model is twice too large."""
    report = error_report([[1e-3]], Wires(r_source=600.0, r_sense=400.0), Ideal())
    assert math.isclose(report.error, 1.0, rel_tol=1e-12)
    assert math.isclose(report.map[0, 0], 1.0, rel_tol=1e-12)


def test_measured_error_of_aam() -> None:
    """The elementwise errors that the documentation states for one 64x64 array, to a factor of 1.5."""
    g = {r: 1 / np.random.default_rng(0).uniform(*r, (64, 64)) for r in [(1e5, 1e6), (2e4, 2e5), (3e3, 1e4)]}
    stated = {
        (1e5, 1e6): (3.9e-2, 3.9e-2, 4.6e-4),
        (2e4, 2e5): (1.7e-1, 1.6e-1, 8e-3),
        (3e3, 1e4): (2.8, 2.5, 3.3e-1),
    }
    for key, errors in stated.items():
        for model, expected in zip((Ideal(), AAM(0), AAM(1)), errors, strict=True):
            wrong = error_report(g[key], Wires(1.0, 4.6), model).elementwise_max
            assert expected / 1.5 < wrong < expected * 1.5, (key, model, wrong)


def test_report_of_a_given_matrix() -> None:
    """A measured matrix is judged as it is; one of another shape or kind is refused by name."""
    g, wires = np.array([[1e-4, 0.0], [1e-4, 1e-4]]), Wires()
    measured = g * [[1.0, 1.0], [1.5, 1.0]]
    report = error_report(g, wires, FCM(), approximate=measured)
    assert report.error == report.elementwise_max == pytest.approx(0.5)
    assert report.elementwise_mean == pytest.approx(0.5 / 3)
    measured[0, 1] = 1e-5
    assert error_report(g, wires, FCM(), approximate=measured).elementwise_max == math.inf
    for bad in (np.ones(2), np.ones((2, 3)), np.ones((1, 2, 2)), g.astype(complex)):
        with pytest.raises(ShapeError, match="^approximate: "):
            error_report(g, wires, FCM(), approximate=bad)


def test_report_of_no_array() -> None:
    """An empty batch has no error."""
    report = error_report(np.ones((0, 3, 4)), Wires(r_source=1.0), Ideal())
    assert report.error == report.elementwise_max == report.elementwise_mean == 0.0
