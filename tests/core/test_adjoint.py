"""Derivatives of every model: an independent Jacobian, finite differences and the dot test."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from core import oracle
from core.strategies import EXACT, FIELDS, Problem, directions, normal, problems, scale_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xbar_core import (
    AAM,
    FCM,
    Ideal,
    Interpolated,
    Wires,
    effective_conductance,
    effective_conductance_vjp,
    interpolation_apply,
    interpolation_begin,
    interpolation_vjp,
)
from xbar_core.circuit import CircuitModel

Floats = NDArray[np.float64]
few = settings(max_examples=60)
seeds = st.integers(0, 2**32 - 1)
MODELS = [Ideal(), AAM(0), AAM(1), AAM(2), AAM(4), FCM(1e-13)]


def jacobian(problem: Problem, direction: str) -> tuple[Floats, Floats]:
    """Return dG_ni/dg and dG_ni/dr of the exact matrix, from the oracle's node voltages.

    Driven at source i and, in a second circuit, at output j: a device changes the matrix by minus
    the product of its two voltages, a resistance by the product of its two currents.
    """
    r_row, r_col, r_source, r_sense = problem.resistances
    other = {"forward": "backward", "backward": "forward"}[direction]
    driven = oracle.circuit(problem.g, r_row, r_col, r_source, r_sense, direction=direction)
    sensed = oracle.circuit(problem.g, r_row, r_col, r_sense, r_source, direction=other)
    e = driven.voltages_row - driven.voltages_col
    e_sensed = sensed.voltages_row - sensed.voltages_col
    row, col = branch_currents(problem.g * e)
    row_sensed, col_sensed = branch_currents(problem.g * e_sensed)
    by_row_end = np.einsum("ik,jk->ij", row[:, :, 0], row_sensed[:, :, 0])
    by_col_end = np.einsum("ik,jk->ij", col[:, -1], col_sensed[:, -1])
    by_resistance = np.stack(
        [
            np.einsum("ikl,jkl->ij", row[:, :, 1:], row_sensed[:, :, 1:]),
            np.einsum("ikl,jkl->ij", col[:, :-1], col_sensed[:, :-1]),
            *((by_row_end, by_col_end) if direction == "forward" else (by_col_end, by_row_end)),
        ]
    )
    return -np.einsum("ikl,jkl->ijkl", e, e_sensed), by_resistance


def branch_currents(device: Floats) -> tuple[Floats, Floats]:
    """Return the currents along the rows into each cell, and down the columns out of it."""
    return np.cumsum(device[..., ::-1], axis=-1)[..., ::-1], np.cumsum(device, axis=-2)


def derivative(f: Callable[[float], Floats], h: float) -> Floats:
    """Return f'(0) from the right, to fourth order, so that nothing leaves the accepted range."""
    return (-25 * f(0) + 48 * f(h) - 36 * f(2 * h) + 16 * f(3 * h) - 3 * f(4 * h)) / (12 * h)


def moved(problem: Problem, g_step: Floats, r_step: Floats, t: float) -> tuple[Floats, Wires]:
    """Return conductances and wires t steps away."""
    r = np.array(problem.resistances) + t * r_step
    return problem.g + t * g_step, Wires(*(float(x) for x in r))


def steps(problem: Problem, seed: int) -> tuple[Floats, Floats]:
    """Return a random direction: relative to what there is, upward from 0."""
    a = np.clip(normal(problem.g.shape, seed), -2, 2)
    g_step = np.where(problem.g > 0, problem.g * a, 1e-5 * np.abs(a))
    b = np.clip(normal((4,), seed + 1), -2, 2)
    r = np.array(problem.resistances)
    return g_step, np.where(r > 0, r * b, 10.0 * np.abs(b))


@few
@given(problems(), directions, seeds)
def test_exact_gradient_against_an_independent_jacobian(problem: Problem, direction: str, seed: int) -> None:
    """vjp = cotangent . J for every conductance and resistance, J from nodal voltages, zeros included."""
    by_g, by_r = jacobian(problem, direction)
    b = normal(by_g.shape[:2], seed)
    gradient, wires = effective_conductance_vjp(problem.g, problem.wires, b, EXACT, direction)
    np.testing.assert_allclose(
        gradient, np.einsum("ij,ijkl->kl", b, by_g), rtol=0, atol=1e-9 * np.abs(b).sum() * scale_of(by_g)
    )
    for name, expected in zip(FIELDS, np.einsum("ij,rij->r", b, by_r), strict=True):
        allowed = 1e-9 * np.abs(b).sum() * scale_of(by_r)
        assert getattr(wires, name) == pytest.approx(expected, rel=0, abs=allowed)


@few
@given(problems(), directions, seeds)
def test_dot_test(problem: Problem, direction: str, seed: int) -> None:
    """<J a, b> == <a, vjp b> for one direction a in conductances and resistances together."""
    by_g, by_r = jacobian(problem, direction)
    a_g, a_r = steps(problem, seed)
    b = normal(by_g.shape[:2], seed + 2)
    forward = np.einsum("ijkl,kl->ij", by_g, a_g) + np.einsum("rij,r->ij", by_r, a_r)
    gradient, wires = effective_conductance_vjp(problem.g, problem.wires, b, EXACT, direction)
    parts = [*(gradient * a_g).ravel(), *(np.array(wires) * a_r)]
    scale = max(np.abs(parts).sum(), np.abs(forward * b).sum())
    assert abs((forward * b).sum() - sum(parts)) <= 1e-9 * scale


@few
@given(problems(), st.sampled_from(MODELS), directions, seeds)
def test_finite_differences(problem: Problem, model: CircuitModel, direction: str, seed: int) -> None:
    """Moving all conductances and resistances at once changes each model as its vjp says."""
    a_g, a_r = steps(problem, seed)
    difference = derivative(
        lambda t: effective_conductance(*moved(problem, a_g, a_r, t), model, direction), 2e-3
    )
    b = normal(difference.shape, seed + 2)
    gradient, wires = effective_conductance_vjp(problem.g, problem.wires, b, model, direction)
    assert gradient.shape == problem.g.shape
    parts = [*(gradient * a_g).ravel(), *(np.array(wires) * a_r)]
    scale = np.abs(parts).sum() + np.abs(difference * b).sum() + scale_of(problem.g) * np.abs(b).sum()
    assert abs((difference * b).sum() - sum(parts)) <= 1e-8 * scale


@few
@given(problems(), st.sampled_from(MODELS), directions, seeds, st.sampled_from(FIELDS))
def test_finite_differences_of_one_resistance(
    problem: Problem, model: CircuitModel, direction: str, seed: int, field: str
) -> None:
    """Each resistance alone, from 0 too: no derivative hides behind a larger one."""
    index = FIELDS.index(field)
    a_r = np.where(np.arange(4) == index, np.maximum(problem.resistances, 10.0), 0.0)
    still = np.zeros_like(problem.g)
    difference = derivative(
        lambda t: effective_conductance(*moved(problem, still, a_r, t), model, direction), 2e-3
    )
    b = normal(difference.shape, seed)
    _, wires = effective_conductance_vjp(problem.g, problem.wires, b, model, direction)
    slope = getattr(wires, field) * a_r[index]
    assert abs((difference * b).sum() - slope) <= 1e-8 * scale_of(problem.g) * np.abs(b).sum()


@few
@given(problems(), st.sampled_from(["anchored", "distortion"]), directions, seeds)
def test_interpolation_with_its_factor_constant(
    problem: Problem, reuse: str, direction: str, seed: int
) -> None:
    """The derivative of what is applied: the kept factor does not move."""
    model = Interpolated(5, reuse)  # type: ignore[arg-type]
    matrix, state = interpolation_begin(problem.g, problem.wires, model, direction)
    a_g, a_r = steps(problem, seed)
    difference = derivative(
        lambda t: interpolation_apply(state, *moved(problem, a_g, a_r, t), direction), 2e-3
    )
    b = normal(matrix.shape, seed + 2)
    kept = interpolation_vjp(state, problem.g, problem.wires, b, direction)
    parts = [*(kept.conductance * a_g).ravel(), *(np.array(kept.wires) * a_r)]
    scale = np.abs(parts).sum() + np.abs(difference * b).sum()
    assert abs((difference * b).sum() - sum(parts)) <= 1e-8 * scale
    alone = effective_conductance_vjp(problem.g, problem.wires, b, model, direction)
    np.testing.assert_array_equal(alone.conductance, kept.conductance)
    assert alone.wires == kept.wires


@few
@given(problems(batch=True), st.sampled_from([*MODELS, Interpolated(2)]), directions, seeds)
def test_batch(problem: Problem, model: CircuitModel, direction: str, seed: int) -> None:
    """Arrays of a batch have their own gradients; the wires' gradient is their sum."""
    shape = effective_conductance(problem.g, problem.wires, Ideal(), direction).shape
    b = normal(shape, seed)
    together = effective_conductance_vjp(problem.g, problem.wires, b, model, direction)
    alone = [
        effective_conductance_vjp(g, problem.wires, w, model, direction)
        for g, w in zip(problem.g, b, strict=True)
    ]
    stacked = np.stack([x.conductance for x in alone])
    np.testing.assert_allclose(together.conductance, stacked, rtol=0, atol=1e-13 * scale_of(stacked))
    each = np.array([x.wires for x in alone])
    allowed = 1e-12 * np.abs(each).sum(axis=0)
    assert (np.abs(np.array(together.wires) - each.sum(axis=0)) <= allowed).all()
    assert all(isinstance(x, float) for x in together.wires)


@few
@given(problems(), st.sampled_from([*MODELS[:-1], FCM(), Interpolated(2)]), directions, seeds)
def test_float32(problem: Problem, model: CircuitModel, direction: str, seed: int) -> None:
    """float32 gradients keep their dtype and agree with float64."""
    g = problem.g.astype(np.float32)
    shape = g.shape if direction == "forward" else g.T.shape
    b = normal(shape, seed).astype(np.float32)
    low = effective_conductance_vjp(g, problem.wires, b, model, direction)
    high = effective_conductance_vjp(g.astype(float), problem.wires, b.astype(float), model, direction)
    assert low.conductance.dtype == np.float32
    allowed = 2e-5 * np.abs(b).sum()
    np.testing.assert_allclose(low.conductance, high.conductance, rtol=0, atol=allowed)
    allowed *= scale_of(g) * g.sum(dtype=float)
    np.testing.assert_allclose(low.wires, high.wires, rtol=0, atol=allowed)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("r_min", [1e5, 3e3])
def test_sum_of_64x64(r_min: float, direction: str) -> None:
    """The gradient of one output of the paper's array, by both methods of solving."""
    g = 1 / np.random.default_rng(0).uniform(r_min, 10 * r_min, (64, 64))
    r = (1.0, 4.6, 500.0, 100.0)
    b = np.zeros((64, 64))
    b[17, 40] = 1.0
    gradient, _ = effective_conductance_vjp(g, Wires(*r), b, FCM(), direction)
    swapped = (1.0, 4.6, 100.0, 500.0)
    other = {"forward": "backward", "backward": "forward"}[direction]
    driven = oracle.circuit(g, *r, direction=direction)
    sensed = oracle.circuit(g, *swapped, direction=other)
    e = driven.voltages_row[17] - driven.voltages_col[17]
    e_sensed = sensed.voltages_row[40] - sensed.voltages_col[40]
    np.testing.assert_allclose(gradient, -e * e_sensed, rtol=0, atol=1e-8)
