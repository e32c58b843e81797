"""The array-API ladder is the readable specification: the kernels must give the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core import oracle
from core.strategies import EXACT, Problem, directions, normal, problems, scale_of
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import CONVERTERS
from numpy.typing import NDArray

from xbar_core import (
    AAM,
    FCM,
    ConvergenceError,
    Ideal,
    Interpolated,
    Wires,
    effective_conductance,
    effective_conductance_vjp,
)
from xbar_core._arrays import to_numpy
from xbar_core.circuit import ladder, ladder_adjoint
from xbar_core.circuit.base import CircuitModel

MODELS = [Ideal(), AAM(0), AAM(1), AAM(2), AAM(4)]
few = settings(max_examples=40)
WIRES = Wires(r_row=1.0, r_col=4.6, r_source=500.0, r_sense=100.0)


def _arrays(shape: tuple[int, ...], r_min: float, r_max: float, dtype: Any = np.float64) -> NDArray[Any]:
    return (1 / np.random.default_rng(7).uniform(r_min, r_max, shape)).astype(dtype)


def _error(found: Any, expected: NDArray[Any]) -> float:
    return float(np.abs(to_numpy(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("convert", CONVERTERS)
def test_finite_models_agree_to_rounding(convert: Any, model: CircuitModel, direction: Any) -> None:
    """Models of a fixed number of sweeps are the same sum in another order: a few ulp apart."""
    g = _arrays((2, 9, 13), 1e4, 1e5)
    expected = effective_conductance(g, WIRES, model, direction)
    found = ladder.effective_conductance(convert(g), WIRES, model, direction)
    assert _error(found, expected) < 1e-14


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize("convert", CONVERTERS)
def test_finite_models_agree_in_float32(convert: Any, model: CircuitModel, direction: Any) -> None:
    """float32 stays float32, and differs by roundings of float32 only."""
    g = _arrays((3, 2, 9, 13), 1e4, 1e5, np.float32)
    expected = effective_conductance(g, WIRES, model, direction)
    found = to_numpy(ladder.effective_conductance(convert(g), WIRES, model, direction))
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert _error(found, expected) < 2e-6


@few
@given(problems(batch=True), st.sampled_from(MODELS), directions)
def test_finite_models_of_any_array(problem: Problem, model: CircuitModel, direction: Any) -> None:
    """Zero resistances and open cells need no special case in either implementation."""
    expected = effective_conductance(problem.g, problem.wires, model, direction)
    found = ladder.effective_conductance(problem.g, problem.wires, model, direction)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * scale_of(expected))


@few
@given(problems(batch=True), directions)
def test_exact_model_of_any_array(problem: Problem, direction: Any) -> None:
    """Zero resistances, open cells and resistive wires: the error rule is met, or the call raises."""
    try:
        found = ladder.effective_conductance(problem.g, problem.wires, FCM(), direction)
    except ConvergenceError:
        assert max(problem.resistances) * scale_of(problem.g) > 0.1  # never with weak wires
        return
    expected = effective_conductance(problem.g, problem.wires, EXACT, direction)
    for one, truth in zip(found, expected, strict=True):
        oracle.assert_matches(one, truth, 1.1e-9)


@few
@given(problems(), st.sampled_from(MODELS), directions, st.integers(0, 2**32 - 1))
def test_derivatives_of_any_array(problem: Problem, model: CircuitModel, direction: Any, seed: int) -> None:
    """Zero resistances and open cells have the same derivatives in both implementations."""
    shape = problem.g.shape if direction == "forward" else problem.g.T.shape
    cotangent = normal(shape, seed)
    expected = effective_conductance_vjp(problem.g, problem.wires, cotangent, model, direction)
    found, resistances = ladder_adjoint.effective_conductance_vjp(
        problem.g, problem.wires, cotangent, model, direction
    )
    size = np.abs(cotangent).sum()
    np.testing.assert_allclose(found, expected.conductance, rtol=0, atol=1e-12 * size)
    allowed = 1e-12 * size * scale_of(problem.g) * problem.g.sum()
    np.testing.assert_allclose(resistances, expected.wires, rtol=0, atol=allowed)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("r_min", "r_max"), [(1e5, 1e6), (3e3, 1e4), (100.0, 200.0)])
@pytest.mark.parametrize("convert", CONVERTERS)
def test_exact_model_agrees_within_tolerance(
    convert: Any, r_min: float, r_max: float, direction: Any
) -> None:
    """Accelerated sweeps meet the tolerance that sweeps and elimination meet on the CPU."""
    g = _arrays((2, 17, 12), r_min, r_max)
    expected = effective_conductance(g, WIRES, FCM(1e-12), direction)
    for dtype, rtol in ((np.float64, 2e-9), (np.float32, 2e-5)):
        given_array = convert(g.astype(dtype))
        found = ladder.effective_conductance(given_array, WIRES, FCM(), direction)
        assert _error(found, expected) < rtol
        alone = ladder.effective_conductance(given_array, WIRES, Interpolated(3), direction)
        np.testing.assert_array_equal(to_numpy(alone), to_numpy(found))


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("model", [*MODELS, FCM(1e-12)], ids=str)
@pytest.mark.parametrize("convert", CONVERTERS)
def test_derivatives_agree(convert: Any, model: CircuitModel, direction: Any) -> None:
    """Both implementations pull the same cotangent back to the same derivatives."""
    g = _arrays((2, 7, 10), 1e4, 1e5)
    shape = (2, 10, 7) if direction == "backward" else g.shape
    cotangent = np.random.default_rng(8).normal(size=shape)
    expected = effective_conductance_vjp(g, WIRES, cotangent, model, direction)
    found, resistances = ladder_adjoint.effective_conductance_vjp(
        convert(g), WIRES, convert(cotangent), model, direction
    )
    assert _error(found, expected.conductance) < 1e-10
    np.testing.assert_allclose(resistances, expected.wires, rtol=1e-7, atol=1e-30)


def test_unreachable_tolerance_is_an_error() -> None:
    """An array whose sweeps hardly contract raises, with the numbers and the way out."""
    g = _arrays((40, 40), 1e-3, 2e-3)
    with pytest.raises(ConvergenceError, match=r"misses rtol=1e-09.*direct elimination") as caught:
        ladder.effective_conductance(g, Wires(1e3, 1e3, 1e3, 1e3), FCM())
    assert caught.value.iterations == ladder.MAX_ITERATIONS
    assert caught.value.residual > 1e-9


def test_open_arrays_give_zero() -> None:
    """Without devices no current flows and nothing is divided by zero."""
    g = np.zeros((3, 4, 5))
    np.testing.assert_array_equal(ladder.effective_conductance(g, WIRES, FCM()), g)
