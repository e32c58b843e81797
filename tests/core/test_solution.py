"""Voltages, currents and power of `solve`: the laws of circuits, and the oracle's node voltages."""

from __future__ import annotations

import numpy as np
import pytest
from core import oracle
from core.strategies import EXACT, Problem, any_accepted, normal, problems, scale_of
from hypothesis import given, settings
from hypothesis import strategies as st

from xbar_core import ConvergenceError, Solution, Wires, effective_conductance, solve

few = settings(max_examples=60)
seeds = st.integers(0, 2**32 - 1)


def inputs(problem: Problem, seed: int, batch: int = 3) -> np.ndarray:
    """Return random voltages of both signs."""
    return normal((batch, problem.g.shape[0]), seed)


def solved(problem: Problem, voltages: np.ndarray) -> Solution:
    """Solve tightly."""
    return solve(problem.g, problem.wires, voltages, rtol=1e-12)


@few
@given(problems(), seeds)
def test_node_voltages_are_the_oracles(problem: Problem, seed: int) -> None:
    """Every node voltage agrees with nodal analysis."""
    v = inputs(problem, seed)
    solution = solved(problem, v)
    exact = oracle.circuit(problem.g, *problem.resistances)
    for result, unit in (
        (solution.voltages_row, exact.voltages_row),
        (solution.voltages_col, exact.voltages_col),
    ):
        np.testing.assert_allclose(result, np.tensordot(v, unit, 1), rtol=0, atol=1e-10 * scale_of(v))


@few
@given(problems(), seeds)
def test_currents_are_the_matrix_times_voltages(problem: Problem, seed: int) -> None:
    """I = V G_ni."""
    v = inputs(problem, seed)
    matrix = effective_conductance(problem.g, problem.wires, EXACT)
    allowed = 1e-10 * scale_of(matrix) * np.abs(v).sum()
    np.testing.assert_allclose(solved(problem, v).currents, v @ matrix, rtol=0, atol=allowed)


@few
@given(problems(), seeds)
def test_kirchhoff_at_every_node(problem: Problem, seed: int) -> None:
    """What flows into a node of a row or of a column flows out of it."""
    s = solved(problem, inputs(problem, seed))
    onward = np.pad(s.current_row[..., 1:], ((0, 0), (0, 0), (0, 1)))
    above = np.pad(s.current_col[..., :-1, :], ((0, 0), (1, 0), (0, 0)))
    atol = 1e-14 * problem.g.size * scale_of(s.current_device)
    np.testing.assert_allclose(s.current_row, s.current_device + onward, rtol=0, atol=atol)
    np.testing.assert_allclose(s.current_col, s.current_device + above, rtol=0, atol=atol)
    np.testing.assert_allclose(s.currents, s.current_col[:, -1], rtol=1e-9, atol=atol)


@few
@given(problems(), seeds)
def test_ohm_on_every_branch(problem: Problem, seed: int) -> None:
    """Voltage over each device, wire and end is its resistance times its current."""
    v = inputs(problem, seed)
    s, r = solved(problem, v), problem.wires
    atol = 1e-10 * scale_of(v)
    branches = (
        (v - s.voltages_row[..., 0], r.r_source * s.current_row[..., 0]),
        (-np.diff(s.voltages_row, axis=-1), r.r_row * s.current_row[..., 1:]),
        (-np.diff(s.voltages_col, axis=-2), r.r_col * s.current_col[..., :-1, :]),
        (s.voltages_col[..., -1, :], r.r_sense * s.currents),
    )
    for drop, product in branches:
        np.testing.assert_allclose(drop, product, rtol=0, atol=atol)
    across = s.voltages_row - s.voltages_col
    np.testing.assert_allclose(s.current_device, problem.g * across, rtol=0, atol=atol * scale_of(problem.g))


@few
@given(problems(), seeds)
def test_voltages_stay_between_the_sources(problem: Problem, seed: int) -> None:
    """min(0, V) <= every node voltage <= max(0, V) over all sources."""
    v = inputs(problem, seed)
    s = solved(problem, v)
    low = np.minimum(0, v.min(axis=1))[:, None, None] - 1e-11 * scale_of(v)
    high = np.maximum(0, v.max(axis=1))[:, None, None] + 1e-11 * scale_of(v)
    for nodes in (s.voltages_row, s.voltages_col):
        assert (nodes >= low).all()
        assert (nodes <= high).all()


@few
@given(problems(), seeds)
def test_power_is_what_the_sources_deliver(problem: Problem, seed: int) -> None:
    """sum V_i I_i of the sources is the power in devices, wires, source and sense resistances."""
    v = inputs(problem, seed)
    s, r = solved(problem, v), problem.wires
    delivered = (v * s.current_row[..., 0]).sum(axis=1)
    atol = 1e-10 * scale_of(v) * np.abs(s.current_row[..., 0]).sum() + 1e-30
    np.testing.assert_allclose(s.power.total, delivered, rtol=0, atol=atol)
    device = (s.current_device * (s.voltages_row - s.voltages_col)).sum(axis=(1, 2))
    np.testing.assert_allclose(s.power.devices, device, rtol=1e-12)
    wire = r.r_row * (s.current_row[..., 1:] ** 2).sum(axis=(1, 2))
    wire += r.r_col * (s.current_col[..., :-1, :] ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(s.power.wires, wire, rtol=1e-12)
    np.testing.assert_allclose(
        s.power.source, r.r_source * (s.current_row[..., 0] ** 2).sum(axis=1), rtol=1e-12
    )
    np.testing.assert_allclose(s.power.sense, r.r_sense * (s.currents**2).sum(axis=1), rtol=1e-12)


@few
@given(problems(), seeds)
def test_batch_of_voltages(problem: Problem, seed: int) -> None:
    """A batch of voltages is solved as each alone, and (rows,) gives results without that axis."""
    v = inputs(problem, seed, batch=40)
    together = solved(problem, v)
    alone = solved(problem, v[7])
    assert alone.voltages_row.shape == alone.current_col.shape == problem.g.shape
    assert alone.currents.shape == problem.g.shape[1:]
    assert np.ndim(alone.power.total) == 0
    assert together.power.total.shape == (40,)
    atol = 1e-11 * scale_of(v)
    np.testing.assert_allclose(together.voltages_row[7], alone.voltages_row, rtol=0, atol=atol)
    np.testing.assert_allclose(together.currents[7], alone.currents, rtol=0, atol=atol * scale_of(problem.g))


@few
@given(problems(), seeds)
def test_superposition(problem: Problem, seed: int) -> None:
    """The circuit is linear: all sources together are the sum of each alone."""
    v = inputs(problem, seed, batch=1)[0]
    each = solved(problem, np.diag(v))
    whole = solved(problem, v)
    atol = 1e-11 * np.abs(v).sum()
    np.testing.assert_allclose(each.voltages_col.sum(axis=0), whole.voltages_col, rtol=0, atol=atol)


@few
@given(problems(), seeds)
def test_float32_solution(problem: Problem, seed: int) -> None:
    """float32 in, float32 out, within 2e-5 of float64."""
    g, v = problem.g.astype(np.float32), inputs(problem, seed).astype(np.float32)
    low = solve(g, problem.wires, v)
    high = solve(g.astype(np.float64), problem.wires, v.astype(np.float64))
    assert low.voltages_row.dtype == low.currents.dtype == np.float32
    np.testing.assert_allclose(low.voltages_row, high.voltages_row, rtol=0, atol=2e-5 * scale_of(v))
    allowed = 2e-5 * scale_of(problem.g) * np.abs(v).sum()
    np.testing.assert_allclose(low.currents, high.currents, rtol=0, atol=allowed)


@pytest.mark.parametrize("r_min", [1e5, 3e3, 50.0])
def test_residual_and_iterations_are_reported(r_min: float) -> None:
    """The residual is what Ohm's law is violated by, within the tolerance; sweeps are counted."""
    g = 1 / np.random.default_rng(0).uniform(r_min, 10 * r_min, (32, 32))
    solution = solve(g, Wires(1.0, 4.6, 500.0, 100.0), np.ones(32))
    assert isinstance(solution.iterations, int)
    assert solution.iterations >= 0
    assert 0.0 <= solution.residual <= 1e-9


@few
@given(any_accepted(), seeds)
def test_residual_is_its_definition(problem: Problem, seed: int) -> None:
    """Ohm's law over the largest voltage, or outputs against devices over the fullest column."""
    v, r = inputs(problem, seed), problem.wires
    try:
        s = solve(problem.g, r, v, rtol=0.1)
    except ConvergenceError:
        return
    ohm = (
        v - s.voltages_row[..., 0] - r.r_source * s.current_row[..., 0],
        -np.diff(s.voltages_row, axis=-1) - r.r_row * s.current_row[..., 1:],
        -np.diff(s.voltages_col, axis=-2) - r.r_col * s.current_col[..., :-1, :],
        s.voltages_col[..., -1, :] - r.r_sense * s.current_col[..., -1, :],
    )
    carried = np.abs(s.current_device).sum(axis=-2).max()
    kirchhoff = scale_of(s.currents - s.current_device.sum(axis=-2)) / carried if carried else 0.0
    expected = max(scale_of(*ohm) / scale_of(v), kirchhoff) if carried else 0.0
    assert s.residual == pytest.approx(expected, rel=1e-6, abs=1e-14)


@pytest.mark.parametrize("rtol", [1e-3, 1e-6])
def test_a_loose_tolerance_leaves_a_residual(rtol: float) -> None:
    """Fewer sweeps leave more: the residual is no constant, and stays below what was asked."""
    g = 1 / np.random.default_rng(0).uniform(1e5, 1e6, (32, 32))
    wires, v = Wires(1.0, 4.6, 500.0, 100.0), np.ones(32)
    tight, loose = solve(g, wires, v, rtol=1e-12), solve(g, wires, v, rtol=rtol)
    assert tight.iterations > loose.iterations > 0
    assert tight.residual < loose.residual <= rtol


@pytest.mark.parametrize("r", [0.0, 1e-6, 1e-3, 1.0])
def test_outputs_that_cancel(r: float) -> None:
    """Equal rows at opposite voltages: outputs near 0 are no failure to converge."""
    v = np.array([-1.0, 1.0])
    solution = solve(np.full((2, 3), 1e-6), Wires(r, r, r, r), v)
    exact = v @ oracle.matrix(np.full((2, 3), 1e-6), r, r, r, r)
    np.testing.assert_allclose(solution.currents, exact, rtol=0, atol=1e-20)
    assert solution.residual <= 1e-9


def test_zero_volts() -> None:
    """No source, no current, and nothing is divided by zero."""
    solution = solve(np.full((3, 4), 1e-4), Wires(1.0, 1.0, 1.0, 1.0), np.zeros((2, 3)))
    assert scale_of(solution.voltages_row, solution.currents, solution.power.total) == 0.0
    assert solution.residual == 0.0


@pytest.mark.parametrize("wires", [(1.0, 4.6, 500.0, 100.0), (5e3, 8e3, 5e3, 3e3), (0.0, 0.0, 0.0, 0.0)])
def test_64x64(wires: tuple[float, ...]) -> None:
    """The array of the paper, by sweeps and by elimination: output currents and node voltages."""
    g = 1 / np.random.default_rng(1).uniform(3e3, 1e4, (64, 64))
    v = np.random.default_rng(2).uniform(0.0, 1.0, 64)
    solution = solve(g, Wires(*wires), v)
    exact = oracle.circuit(g, *wires)
    oracle.assert_matches(solution.currents, v @ exact.matrix, 1e-9)
    np.testing.assert_allclose(
        solution.voltages_row, np.tensordot(v, exact.voltages_row, 1), rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        solution.voltages_col, np.tensordot(v, exact.voltages_col, 1), rtol=0, atol=1e-9
    )


@settings(max_examples=150)
@given(any_accepted())
def test_whole_accepted_range(problem: Problem) -> None:
    """Any mixture of accepted conductances and resistances: the tolerance is met, or the call raises."""
    v = np.linspace(0.2, 1.0, problem.g.shape[0])
    try:
        solution = solve(problem.g, problem.wires, v)
    except ConvergenceError:
        return
    exact = oracle.circuit(problem.g, *problem.resistances)
    oracle.assert_matches(solution.currents, v @ oracle.matrix(problem.g, *problem.resistances), 1e-9)
    np.testing.assert_allclose(
        solution.voltages_row, np.tensordot(v, exact.voltages_row, 1), rtol=0, atol=1e-9
    )
    np.testing.assert_allclose(
        solution.voltages_col, np.tensordot(v, exact.voltages_col, 1), rtol=0, atol=1e-9
    )
