"""Laws of the non-ideal matrix, for arrays that hypothesis draws.

Laws about the exact matrix are checked on one solved to 1e-12, with a slack of 1e-11 of the largest
entry, so what is allowed is rounding and nothing else.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from core import oracle
from core.strategies import EXACT, FIELDS, MODELS, Problem, directions, models, normal, problems, scale_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xbar_core import AAM, FCM, Wires, effective_conductance
from xbar_core.circuit import CircuitModel

SLACK = 1e-11
few = settings(max_examples=60)
seeds = st.integers(0, 2**32 - 1)


@few
@given(problems(), directions)
def test_float64_and_float32_meet_their_tolerance(problem: Problem, direction: str) -> None:
    """The exact matrix is the oracle's: to 1e-9 in float64 and to 1e-5 in float32."""
    g, wires = problem
    for dtype, rtol in ((np.float64, 1e-9), (np.float32, 1e-5)):
        rounded = g.astype(dtype)
        exact = oracle.matrix(rounded.astype(np.float64), *problem.resistances, direction=direction)
        oracle.assert_matches(effective_conductance(rounded, wires, direction=direction), exact, rtol)


@few
@given(problems(batch=True), models, directions)
def test_float32_agrees_with_float64(problem: Problem, model: CircuitModel, direction: str) -> None:
    """The same float32 conductances give the same matrix in both dtypes, within 2e-5, for every model."""
    single = problem.g.astype(np.float32)
    low = effective_conductance(single, problem.wires, model, direction)
    high = effective_conductance(single.astype(np.float64), problem.wires, model, direction)
    assert low.dtype == np.float32
    assert high.dtype == np.float64
    for a, b in zip(low, high, strict=True):
        oracle.assert_matches(a, b, 2e-5)


@few
@given(problems(), st.floats(0.0, 1e4))
def test_reciprocity(problem: Problem, end: float) -> None:
    """With equal resistances at both ends the backward matrix is the forward one transposed."""
    wires = Wires(
        problem.wires.r_row, problem.wires.r_col, end if end >= 1e-6 else 0.0, end if end >= 1e-6 else 0.0
    )
    forward = effective_conductance(problem.g, wires, EXACT)
    backward = effective_conductance(problem.g, wires, EXACT, "backward")
    np.testing.assert_allclose(backward, forward.T, rtol=0, atol=SLACK * scale_of(forward))


@few
@given(problems(), models)
def test_backward_is_the_transpose_with_ends_swapped(problem: Problem, model: CircuitModel) -> None:
    """For every model: G_back(r_source, r_sense) = G_forward(r_sense, r_source) transposed."""
    r_row, r_col, r_source, r_sense = problem.resistances
    backward = effective_conductance(problem.g, problem.wires, model, "backward")
    forward = effective_conductance(problem.g, Wires(r_row, r_col, r_sense, r_source), model)
    np.testing.assert_array_equal(backward, forward.T)


@few
@given(problems(), st.sampled_from([m for m in MODELS if m not in (AAM(2), AAM(4))]))
def test_half_a_turn_and_transpose(problem: Problem, model: CircuitModel) -> None:
    """Backward is the forward read of the array turned so that its columns are driven as rows.

    AAM of order 2 and up starts with the rows: it is not the same from both ends.
    """
    r_row, r_col, r_source, r_sense = problem.resistances
    backward = effective_conductance(problem.g, problem.wires, model, "backward")
    turned = effective_conductance(problem.g[::-1, ::-1].T, Wires(r_col, r_row, r_source, r_sense), model)
    oracle.assert_matches(turned[::-1, ::-1], backward, 2e-9)


@few
@given(problems(), st.sampled_from(FIELDS), st.floats(1.001, 1e3))
def test_total_current_never_rises_with_a_resistance(problem: Problem, field: str, factor: float) -> None:
    """All rows at one voltage: more resistance anywhere, no more total current."""
    before = getattr(problem.wires, field)
    raised = dataclasses.replace(problem.wires, **{field: before * factor if before else factor})
    old = effective_conductance(problem.g, problem.wires, EXACT).sum()
    assert effective_conductance(problem.g, raised, EXACT).sum() <= old * (1 + SLACK)


@few
@given(problems(), seeds, st.floats(1e-9, 1e-2))
def test_total_current_never_falls_with_a_conductance(problem: Problem, seed: int, more: float) -> None:
    """All rows at one voltage: more conductance in any cells, no less total current."""
    raised = problem.g + more * (np.random.default_rng(seed).random(problem.g.shape) < 0.3)
    old = effective_conductance(problem.g, problem.wires, EXACT).sum()
    assert effective_conductance(raised, problem.wires, EXACT).sum() >= old * (1 - SLACK)


@few
@given(problems(), directions)
def test_aam_rises_with_its_order_to_the_exact_matrix(problem: Problem, direction: str) -> None:
    """Longer paths only add current: order 1 <= 2 <= 3 <= 6 <= 20 <= FCM, elementwise."""
    orders = [AAM(1), AAM(2), AAM(3), AAM(6), AAM(20), EXACT]
    rising = [effective_conductance(problem.g, problem.wires, m, direction) for m in orders]
    for lower, upper in itertools.pairwise(rising):
        assert (lower <= upper + SLACK * scale_of(rising[-1])).all()


@few
@given(problems())
def test_aam_order_tends_to_the_exact_matrix(problem: Problem) -> None:
    """Block Gauss-Seidel converges: enough sweeps are FCM."""
    many = effective_conductance(problem.g, problem.wires, AAM(3000))
    oracle.assert_matches(many, effective_conductance(problem.g, problem.wires, EXACT), 1e-8)


@few
@given(problems(), directions)
def test_direct_path_lies_above_order_1(problem: Problem, direction: str) -> None:
    """Order 0 ignores the loads of order 1, which only take current away."""
    order_0 = effective_conductance(problem.g, problem.wires, AAM(0), direction)
    order_1 = effective_conductance(problem.g, problem.wires, AAM(1), direction)
    assert (order_0 >= order_1 * (1 - SLACK)).all()


def test_an_open_cell_has_current_of_its_own() -> None:
    """A path round an open cell gives it a matrix entry, which no direct path has: order 0 is no bound."""
    g = np.array([[0.0, 1e-3], [1e-3, 1e-3]])
    matrix = effective_conductance(g, Wires(10.0, 10.0, 10.0, 10.0))
    oracle.assert_matches(matrix, oracle.matrix(g, 10.0, 10.0, 10.0, 10.0), 1e-9)
    assert matrix[0, 0] > 0.0
    assert effective_conductance(g, Wires(10.0, 10.0, 10.0, 10.0), AAM(0))[0, 0] == 0.0


@few
@given(problems(), st.sampled_from([AAM(1), AAM(2), AAM(5), EXACT]))
def test_row_sums(problem: Problem, model: CircuitModel) -> None:
    """A row passes at most what its devices would pass with perfect wires."""
    sums = effective_conductance(problem.g, problem.wires, model).sum(axis=1)
    assert (sums <= problem.g.sum(axis=1) + SLACK * scale_of(problem.g)).all()


@few
@given(problems(), models, directions)
def test_never_negative_never_nan(problem: Problem, model: CircuitModel, direction: str) -> None:
    """Every entry is a finite number of siemens, at least 0."""
    matrix = effective_conductance(problem.g, problem.wires, model, direction)
    assert np.isfinite(matrix).all()
    assert (matrix >= 0).all()


@few
@given(problems(batch=True), models, directions)
def test_perfect_wires_leave_the_ideal_matrix(problem: Problem, model: CircuitModel, direction: str) -> None:
    """All resistances 0: every model returns the conductances themselves."""
    matrix = effective_conductance(problem.g, Wires(), model, direction)
    expected = problem.g if direction == "forward" else problem.g.swapaxes(-1, -2)
    np.testing.assert_allclose(matrix, expected, rtol=4e-16, atol=0)


@few
@given(problems(), directions, st.integers(-6, -3))
def test_resistance_to_zero(problem: Problem, direction: str, exponent: int) -> None:
    """r -> 0 is a limit: |G_ni - G| <= r (rows + cols + 2) (sum of g)^2."""
    r = 10.0**exponent
    matrix = effective_conductance(problem.g, Wires(r, r, r, r), EXACT, direction)
    expected = problem.g if direction == "forward" else problem.g.T
    bound = r * (sum(problem.g.shape) + 2) * problem.g.sum() ** 2
    assert scale_of(matrix - expected) <= bound + SLACK * scale_of(expected)


@few
@given(problems(), st.integers(0, 3), st.integers(0, 3), st.sampled_from(MODELS))
def test_open_padding_is_the_smaller_array(
    problem: Problem, rows: int, cols: int, model: CircuitModel
) -> None:
    """Rows at the sense end and columns at the drivers, the rest open: exactly the smaller array."""
    padded = np.pad(problem.g, ((rows, 0), (0, cols)))
    for direction in ("forward", "backward"):
        small = effective_conductance(problem.g, problem.wires, model, direction)
        large = effective_conductance(padded, problem.wires, model, direction)
        pad = ((rows, 0), (0, cols)) if direction == "forward" else ((0, cols), (rows, 0))
        oracle.assert_matches(large, np.pad(small, pad), 2e-9)


@few
@given(problems(batch=True), models, directions, seeds)
def test_permuting_a_batch(problem: Problem, model: CircuitModel, direction: str, seed: int) -> None:
    """Arrays of a batch do not know each other: not one bit changes with their order."""
    order = np.random.default_rng(seed).permutation(problem.g.shape[0])
    matrices = effective_conductance(problem.g, problem.wires, model, direction)
    np.testing.assert_array_equal(
        effective_conductance(problem.g[order], problem.wires, model, direction), matrices[order]
    )
    one_by_one = [effective_conductance(g, problem.wires, model, direction) for g in problem.g]
    np.testing.assert_array_equal(matrices, np.stack(one_by_one))


@few
@given(problems(batch=True), models, directions)
def test_leading_axes_are_kept(problem: Problem, model: CircuitModel, direction: str) -> None:
    """(a, b, rows, cols) is a batch of a x b arrays, and an empty batch gives an empty result."""
    g = np.stack([problem.g, problem.g[::-1]])
    matrices = effective_conductance(g, problem.wires, model, direction)
    flat = effective_conductance(g.reshape(-1, *g.shape[-2:]), problem.wires, model, direction)
    np.testing.assert_array_equal(matrices, flat.reshape(matrices.shape))
    shape = g.shape[-2:] if direction == "forward" else g.shape[:-3:-1]
    assert effective_conductance(g[:, :0], problem.wires, model, direction).shape == (2, 0, *shape)


@few
@given(problems(), directions, st.integers(-9, 9))
def test_units(problem: Problem, direction: str, power: int) -> None:
    """Conductances times c and resistances over c give the matrix times c."""
    c = 2.0**power
    r = problem.resistances
    assume(all(x == 0 or 1e-6 <= x / c <= 1e9 for x in r))
    matrix = effective_conductance(problem.g, problem.wires, EXACT, direction)
    scaled = effective_conductance(problem.g * c, Wires(*(x / c for x in r)), EXACT, direction)
    np.testing.assert_allclose(scaled, matrix * c, rtol=0, atol=SLACK * c * scale_of(matrix))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_same_bits_every_time(direction: str) -> None:
    """Two calls give the same bits, whatever ran between them."""
    g = 1e-5 * (1 + normal((3, 20, 30), 0) ** 2)
    wires = Wires(1.0, 4.6, 500.0, 100.0)
    first = effective_conductance(g, wires, FCM(), direction)
    effective_conductance(g[:, :7].astype(np.float32), wires, FCM(), direction)
    np.testing.assert_array_equal(effective_conductance(g, wires, FCM(), direction), first)
