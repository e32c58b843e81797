"""Checks of the public edge: what passes comes back ready to use, what fails is named and mended."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xbar_core._checks import (
    check_array,
    check_choice,
    check_conductance,
    check_integer,
    check_number,
    check_resistance,
    check_rtol,
    check_voltages,
    nearest,
)
from xbar_core.errors import ConfigError, ConvergenceError, ShapeError

resistances = st.just(0.0) | st.floats(1e-6, 1e9)
conductances = st.just(0.0) | st.floats(1e-15, 1e3)


def test_errors_are_value_errors_and_convergence_is_not() -> None:
    """Bad input is a ValueError; a solve that misses its tolerance is a RuntimeError with its numbers."""
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ShapeError, ValueError)
    error = ConvergenceError("raise rtol", iterations=7, residual=1e-3)
    assert isinstance(error, RuntimeError)
    assert (error.iterations, error.residual, str(error)) == (7, 1e-3, "raise rtol")


@given(resistances)
def test_resistance_in_bounds_passes_unchanged(value: float) -> None:
    """0 and 1e-6 to 1e9 ohm are resistances, ends included."""
    assert check_resistance("wires.r_row", value) == value


@given(st.floats(allow_nan=True, allow_infinity=True).filter(lambda r: not (r == 0 or 1e-6 <= r <= 1e9)))
def test_resistance_out_of_bounds_is_named(value: float) -> None:
    """Negative, NaN, infinite, tiny or huge resistances name the field, the value and the rule."""
    with pytest.raises(ConfigError) as caught:
        check_resistance("wires.r_row", value)
    text = str(caught.value)
    assert text.startswith("wires.r_row: ")
    assert repr(value) in text
    assert "must be" in text


@pytest.mark.parametrize("value", ["1", None, True, 1j, np.complex64(1), [1.0], np.array([1.0])])
def test_non_numbers_are_refused_as_numbers(value: Any) -> None:
    """Strings, None, booleans, complex numbers and arrays are no number."""
    with pytest.raises(ConfigError, match="field: .* is not a real number"):
        check_number("field", value)


@pytest.mark.parametrize("value", [3, np.float32(3), np.int8(3), Fraction(3, 1)])
def test_every_real_number_becomes_a_float(value: Any) -> None:
    """Python, NumPy and exact rational numbers all pass and come back as float."""
    number = check_number("field", value)
    assert type(number) is float
    assert number == 3.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_numbers_are_finite(value: Any) -> None:
    """NaN, infinities and integers beyond float64 break the rule "finite"."""
    with pytest.raises(ConfigError, match="must be finite"):
        check_number("field", value)


def test_number_bounds_are_stated() -> None:
    """A closed bound includes its end, an open one does not; the text says which."""
    assert check_number("v", 0.0, minimum=0.0, maximum=1.0) == 0.0
    with pytest.raises(ConfigError, match="v: 0.0 .* above 0 and at most 1"):
        check_number("v", 0.0, minimum=0.0, maximum=1.0, open_minimum=True)
    with pytest.raises(ConfigError, match="v: 2.0 .* at least 0 and at most 1"):
        check_number("v", 2.0, minimum=0.0, maximum=1.0)


@pytest.mark.parametrize("value", [1.0, "1", True, None, np.float64(1)])
def test_only_whole_numbers_are_integers(value: Any) -> None:
    """A float is no integer even when it is whole; a boolean is none either."""
    with pytest.raises(ConfigError, match="order: .* is not an integer"):
        check_integer("order", value, minimum=0)


def test_integer_bounds() -> None:
    """Bounds are inclusive and the text states both."""
    assert check_integer("n", np.int64(4), minimum=1, maximum=4) == 4
    for value in (0, 5):
        with pytest.raises(ConfigError, match=f"n: {value} .* at least 1 and at most 4"):
            check_integer("n", value, minimum=1, maximum=4)


def test_choice_suggests_the_nearest_name() -> None:
    """A misspelt name is answered with the nearest one and the whole list."""
    check_choice("reuse", "anchored", ("anchored", "distortion"))
    with pytest.raises(ConfigError) as caught:
        check_choice("reuse", "ancored", ("anchored", "distortion"))
    assert "did you mean 'anchored'?" in str(caught.value)
    assert "'distortion'" in str(caught.value)
    with pytest.raises(ConfigError, match="unknown value 3"):
        check_choice("reuse", 3, ("anchored",))
    assert nearest("zzz", ("anchored",)) == ""


def test_rtol_none_is_the_default() -> None:
    """None stands for the tolerance of the dtype; anything else lies in 1e-13 to 0.1."""
    assert check_rtol("rtol", None) is None
    assert check_rtol("rtol", 1e-9) == 1e-9
    for value in (0.0, -1e-9, 1e-14, 0.5, math.nan):
        with pytest.raises(ConfigError, match="rtol: "):
            check_rtol("rtol", value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_array_keeps_float_dtype_and_memory(dtype: Any) -> None:
    """float32 and float64 arrays pass without a copy."""
    array = np.ones((2, 3), dtype)
    assert check_array("g", array) is array


@pytest.mark.parametrize("value", [[[1, 2]], np.ones((1, 2), np.int8), np.ones((1, 2), np.uint64)])
def test_integers_become_float64(value: Any) -> None:
    """Lists and integer arrays of any width are read as float64."""
    assert check_array("g", value).dtype == np.float64


@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_foreign_byte_order_is_converted(dtype: str) -> None:
    """Big-endian files hold the same numbers: they come back in native order."""
    array = check_array("g", np.array([1.5, 2.0], dtype))
    assert array.dtype.isnative
    assert array.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, np.complex128, np.bool_, np.object_, "U3"])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    """Half, extended, complex, boolean, object and text arrays name their dtype and what to use."""
    with pytest.raises(ShapeError, match=r"g: dtype .* use float32 or float64"):
        check_array("g", np.ones((2, 2)).astype(dtype))


def test_ragged_lists_are_refused() -> None:
    """Rows of unequal length are no array."""
    with pytest.raises(ShapeError, match="g: cannot be read as an array"):
        check_array("g", [[1.0], [1.0, 2.0]])


def test_tensor_that_tracks_gradients_is_refused() -> None:
    """A torch tensor in an autograd graph would lose its gradient silently: it is refused with the fix."""
    torch = pytest.importorskip("torch", reason="torch is not installed (make setup installs it)")
    with pytest.raises(ShapeError, match=r"g: cannot be read as an array .*detach"):
        check_array("g", torch.ones(2, 2, requires_grad=True))


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=4, max_side=4), elements=conductances))
def test_conductances_in_bounds_pass_unchanged(array: np.ndarray) -> None:
    """0 (open) and 1e-15 to 1e3 S are conductances, in any batch shape."""
    assert check_conductance("conductance", array) is array


@given(st.data())
def test_first_bad_conductance_is_named(data: st.DataObject) -> None:
    """The text names the first bad index in C order and the value found there."""
    shape = (2, 3, 4)
    array = np.full(shape, 1e-6)
    bad = st.sampled_from([-1e-6, math.nan, math.inf, 1e-16, 1e4])
    places = data.draw(st.lists(st.integers(0, array.size - 1), min_size=1, max_size=4, unique=True))
    for place in places:
        array.flat[place] = data.draw(bad)
    index = [int(k) for k in np.unravel_index(min(places), shape)]
    with pytest.raises(ConfigError) as caught:
        check_conductance("conductance", array)
    assert str(caught.value).startswith(f"conductance{index}: {array[tuple(index)]!s} S ")


def test_ohm_for_siemens_is_met_with_the_fix() -> None:
    """Resistances given as conductances are the commonest slip: the text says 1 / resistance."""
    with pytest.raises(ConfigError, match=r"conductance\[0, 0\]: 100000.0 S .* 1 / resistance"):
        check_conductance("conductance", [[1e5]])


@pytest.mark.parametrize("shape", [(), (3,), (0, 3), (3, 0), (2, 0, 3)])
def test_conductance_needs_rows_and_columns(shape: tuple[int, ...]) -> None:
    """Scalars, vectors and arrays without a row or a column are no crossbar."""
    with pytest.raises(ShapeError, match=r"conductance: shape .* rows, cols"):
        check_conductance("conductance", np.ones(shape))


def test_voltages_fit_the_rows() -> None:
    """One vector or a batch of them, one voltage a row, all finite; the sign is free."""
    assert check_voltages("voltages", [-1, 0, 1], 3).tolist() == [-1.0, 0.0, 1.0]
    assert check_voltages("voltages", np.zeros((5, 3)), 3).shape == (5, 3)
    for shape in ((), (2,), (3, 2), (0, 3), (1, 1, 3)):
        with pytest.raises(ShapeError, match=r"voltages: shape .* \(3,\)"):
            check_voltages("voltages", np.zeros(shape), 3)
    with pytest.raises(ShapeError, match="give"):
        check_voltages("voltages", np.zeros((5, 3)), 3, batch=False)
    with pytest.raises(ConfigError, match=r"voltages\[1\]: nan V is not finite"):
        check_voltages("voltages", [0.0, math.nan, 1.0], 3)
