"""DAC, ADC, their curves and their ranges: integers on codes, identities at the ends."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import CONVERTERS, Convert
from scipy.interpolate import PchipInterpolator

from xbar_core import ConfigError
from xbar_core.config.periphery import Adc, AnyNonlinearity, Input, MeasuredCurve, OddPolynomial
from xbar_core.config.ranges import DynamicRange, FixedRange, TrackedRange
from xbar_core.periphery import adc, dac, ranges
from xbar_core.periphery.nonlinearity import distort, monotone_cubics, odd_coefficients, slope

HALF = MeasuredCurve((0.0, 0.1, 0.35, 0.8, 1.0), (0.0, 0.12, 0.4, 0.79, 1.0))
WHOLE = MeasuredCurve((-1.0, -0.4, 0.0, 0.5, 1.0), (-0.98, -0.45, 0.01, 0.52, 1.0))
CURVES: list[AnyNonlinearity | None] = [
    None,
    OddPolynomial((0.005,)),
    OddPolynomial((-0.2, 0.05, 0.03)),
    HALF,
    WHOLE,
]
CURVE_IDS = ["straight", "cubic", "seventh", "mirrored", "measured"]
every_curve = pytest.mark.parametrize("curve", CURVES, ids=CURVE_IDS)


def numbers(seed: int = 0, shape: tuple[int, ...] = (40, 9)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# -- Non-linearity ------------------------------------------------------------------------------------


@every_curve
def test_curves_rise_and_match_their_slope(curve: AnyNonlinearity | None) -> None:
    """f rises everywhere and its derivative is the central difference."""
    x = np.linspace(-1.0, 1.0, 4001)
    y = distort(x, curve)
    assert (np.diff(y) > 0.0).all()
    inside, h = x[1:-1], 1e-6
    numeric = (distort(inside + h, curve) - distort(inside - h, curve)) / (2.0 * h)
    # A knot inside the difference costs h times the jump of the second derivative.
    np.testing.assert_allclose(slope(inside, curve), numeric, rtol=0, atol=3e-5)


@pytest.mark.parametrize("curve", CURVES[:4], ids=CURVE_IDS[:4])
def test_ends_are_fixed_and_curves_odd(curve: AnyNonlinearity | None) -> None:
    """f(-1) = -1, f(0) = 0, f(1) = 1 and f(-x) = -f(x), to rounding."""
    x = np.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(distort(np.array([-1.0, 0.0, 1.0]), curve), [-1.0, 0.0, 1.0], atol=3e-16)
    np.testing.assert_allclose(distort(-x, curve), -distort(x, curve), rtol=0, atol=3e-16)


def test_polynomial_is_its_definition() -> None:
    """y = x + sum_k c_k (x^(2k+1) - x), and the coefficients for fused kernels say the same."""
    c, x = (0.1, -0.05, 0.02), np.linspace(-1.0, 1.0, 51)
    expected = x + sum(ck * (x ** (2 * k + 3) - x) for k, ck in enumerate(c))
    np.testing.assert_allclose(distort(x, OddPolynomial(c)), expected, rtol=0, atol=3e-16)
    a = odd_coefficients(OddPolynomial(c))
    assert a is not None
    np.testing.assert_allclose(sum(ak * x ** (2 * k + 1) for k, ak in enumerate(a)), expected, atol=3e-16)
    assert odd_coefficients(None) == (1.0,)
    assert odd_coefficients(HALF) is None


@settings(max_examples=30)
@given(
    steps=st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)), min_size=1, max_size=8),
)
def test_measured_points_follow_scipy(steps: list[tuple[float, float]]) -> None:
    """The monotone cubic is SciPy's PCHIP, and passes through every point."""
    x, y = (np.concatenate([[0.0], np.cumsum(part)]) for part in np.array(steps).T)
    x, y = x / x[-1], y / y[-1]
    curve = MeasuredCurve(tuple(x), tuple(y))
    u = np.linspace(-1.0, 1.0, 201)
    reference = PchipInterpolator(np.concatenate([-x[:0:-1], x]), np.concatenate([-y[:0:-1], y]))
    np.testing.assert_allclose(distort(u, curve), reference(u), rtol=0, atol=1e-13)
    np.testing.assert_allclose(distort(x, curve), y, rtol=0, atol=1e-15)
    knots, coefficients = monotone_cubics(x, y)
    assert coefficients.shape == (4, len(knots) - 1)


def test_measured_curve_beyond_its_points() -> None:
    """A table that begins above -1 is flat there, with slope 0."""
    curve = MeasuredCurve((-0.5, 0.0, 1.0), (-0.5, 0.0, 1.0))
    np.testing.assert_array_equal(distort(np.array([-1.0, -0.6]), curve), [-0.5, -0.5])
    np.testing.assert_array_equal(slope(np.array([-1.0, -0.6]), curve), [0.0, 0.0])


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [((0.0, 0.9), (0.0, 1.0), "reach full scale"), ((0.0, 0.1, 1.0), (-0.1, -0.05, 1.0), "mirrored")],
)
def test_bad_points(x: tuple[float, ...], y: tuple[float, ...], text: str) -> None:
    """Points that stop short, or cannot be mirrored, are refused with the fix."""
    with pytest.raises(ConfigError, match=text):
        MeasuredCurve(x, y)


# -- DAC ----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    bits=st.integers(2, 16), signed=st.booleans(), value=st.floats(-2.0, 2.0), scale=st.floats(0.01, 100.0)
)
def test_words_are_the_nearest_codes(bits: int, signed: bool, value: float, scale: float) -> None:
    """The code is the integer nearest to K x / full_scale, in exact arithmetic, saturated."""
    largest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    assert dac.full_code(bits, signed) == largest
    config = Input(bits=bits)
    sent = dac.digital_to_analog(np.array([value * scale]), scale, config, signed=signed)
    code = float(sent.words[0]) * largest
    assert code == pytest.approx(round(code), abs=1e-9)
    exact = Fraction(float(value * scale)) / Fraction(scale) * largest
    exact = min(max(exact, Fraction(-largest if signed else 0)), Fraction(largest))
    # One ulp of the scaling may decide a tie, nothing more.
    assert abs(exact - round(code)) <= Fraction(1, 2) + Fraction(largest) * Fraction(1, 2**50)


def test_rounding_is_half_to_even() -> None:
    """Ties go to the even code, at both signs."""
    ties = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    sent = dac.digital_to_analog(ties, 127.0, Input(bits=8), signed=True)
    np.testing.assert_allclose(sent.words * 127.0, [-2, -2, 0, 0, 2, 2, 4], atol=1e-12)
    np.testing.assert_array_equal(adc.codes(ties, 127.0, Adc(bits=8), signed=True), [-2, -2, 0, 0, 2, 2, 4])


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("signed", [False, True])
def test_number_of_codes(bits: int, signed: bool) -> None:
    """A unipolar converter has 2**b codes, a signed one 2**b - 1, and zero is always one of them."""
    x = np.linspace(-1.2, 1.2, 20_001)
    words = np.unique(dac.digital_to_analog(x, 1.0, Input(bits=bits), signed=signed).words)
    codes = np.unique(adc.codes(x, 1.0, Adc(bits=bits), signed=signed))
    expected = 2**bits - (1 if signed else 0)
    assert len(words) == len(codes) == expected
    assert 0.0 in words
    assert 0.0 in codes
    np.testing.assert_allclose(codes / codes.max(), words, atol=1e-15)


def test_unlimited_bits_round_nothing() -> None:
    """Without bits words are the values themselves, held within the range."""
    x = numbers()
    sent = dac.digital_to_analog(x, 2.0, Input(), signed=True)
    np.testing.assert_allclose(sent.words, np.clip(x / 2.0, -1.0, 1.0), rtol=3e-16)
    np.testing.assert_allclose(
        adc.analog_to_digital(x, 2.0, Adc(), signed=True), np.clip(x, -2.0, 2.0), rtol=3e-16
    )


@every_curve
def test_dac_bends_codes_and_adc_bends_currents(curve: AnyNonlinearity | None) -> None:
    """The DAC rounds, then bends; the ADC bends, then rounds."""
    x = np.clip(numbers(), -1.0, 1.0)
    sent = dac.digital_to_analog(x, 1.0, Input(bits=5, nonlinearity=curve), signed=True)
    np.testing.assert_allclose(sent.words, np.rint(15 * x) / 15, atol=1e-15)
    np.testing.assert_allclose(sent.voltages, distort(np.rint(15 * x) / 15, curve), atol=1e-15)
    codes = adc.codes(x, 1.0, Adc(bits=5, nonlinearity=curve), signed=True)
    np.testing.assert_array_equal(codes, np.rint(15 * distort(x, curve)))


def test_zero_scale_sends_zeros() -> None:
    """A call of zeros under a dynamic range is no division by zero."""
    zeros = np.zeros(4)
    full_scale = ranges.statistic(zeros, DynamicRange())
    assert (dac.digital_to_analog(zeros, full_scale, Input(bits=8), signed=True).words == 0.0).all()
    assert (adc.analog_to_digital(zeros, full_scale, Adc(bits=8), signed=True) == 0.0).all()
    assert (dac.digital_to_analog(zeros, 0.0, Input(bits=8), signed=True).words == 0.0).all()


# -- ADC ----------------------------------------------------------------------------------------------


def test_column_errors_and_noise() -> None:
    """The quantiser sees (1 + gain) (I + noise) + offset, sigma given relative and in ampere."""
    current, noise, draws = numbers(1), 0.1 * numbers(2), numbers(3, (2, 9))
    config = Adc(gain_error=0.02, offset_error=3e-6)
    errors = adc.column_errors(config, draws[0], draws[1], unit=1e-5)
    expected = (1.0 + 0.02 * draws[0]) * (current + noise) + 0.3 * draws[1]
    np.testing.assert_allclose(adc.at_input(current, errors, noise), expected, rtol=1e-14)
    decoded = adc.analog_to_digital(current, 100.0, config, signed=True, errors=errors, noise=noise)
    np.testing.assert_allclose(decoded, expected, rtol=1e-13)
    assert adc.column_errors(Adc(), None, None) == adc.ColumnErrors()


@settings(max_examples=40)
@given(bits=st.integers(2, 12), signed=st.booleans(), seed=st.integers(0, 1000))
def test_conversion_error_is_half_a_code(bits: int, signed: bool, seed: int) -> None:
    """Within the range a decoded current is off by at most half of full_scale / K, and rises with it."""
    current = np.sort(np.random.default_rng(seed).uniform(-3.0 if signed else 0.0, 3.0, 200))
    decoded = adc.analog_to_digital(current, 3.0, Adc(bits=bits), signed=signed)
    code = dac.full_code(bits, signed)
    assert code is not None
    assert np.abs(decoded - current).max() <= 0.5 * 3.0 / code * (1.0 + 1e-12)
    assert (np.diff(decoded) >= 0.0).all()


def test_clipping_is_counted() -> None:
    """Values that a wider converter would give another code are counted; the maximum itself is not."""
    current = np.array([-1.2, -1.0, -0.99, 0.0, 1.0, 1.0039, 1.004, 5.0])
    assert int(adc.clipped_count(current, 1.0, Adc(bits=8), signed=True)) == 3
    assert int(adc.clipped_count(current, 1.0, Adc(bits=8), signed=False)) == 6
    assert int(adc.clipped_count(current, 1.0, Adc(), signed=True)) == 4
    x = numbers().astype(np.float32)
    assert not dac.clipped(x, ranges.statistic(x, DynamicRange()), True).any()


# -- Derivatives --------------------------------------------------------------------------------------


@every_curve
@pytest.mark.parametrize("signed", [False, True])
def test_derivatives_are_finite_differences(curve: AnyNonlinearity | None, signed: bool) -> None:
    """With rounding off both vjps are central differences, clipped values passing nothing."""
    x, bar = 0.9 * numbers(4), numbers(5)
    h, full_scale = 1e-6, 1.1
    # A difference across a corner (the ends of the range, 0 if unsigned, a knot) is no derivative.
    corners = np.concatenate([[-1.0, 0.0, 1.0], np.array(getattr(curve, "x", ()))]) * full_scale
    far = np.abs(np.abs(x)[..., None] - np.abs(corners)).min(axis=-1) > 1e-4
    config, converter = Input(nonlinearity=curve), Adc(nonlinearity=curve, gain_error=0.1)
    errors = adc.ColumnErrors(gain=0.05 * numbers(6, (9,)), offset=0.01 * numbers(7, (9,)))

    def send(v: np.ndarray) -> Any:
        return dac.digital_to_analog(v, full_scale, config, signed=signed).voltages

    def convert(v: np.ndarray) -> Any:
        return adc.analog_to_digital(v, full_scale, converter, signed=signed, errors=errors)

    got = dac.digital_to_analog_vjp(bar, x, full_scale, config, signed=signed)
    np.testing.assert_allclose(got[far], (bar * (send(x + h) - send(x - h)) / (2 * h))[far], atol=5e-5)
    seen = adc.at_input(x, errors)
    far = np.abs(np.abs(seen)[..., None] - np.abs(corners)).min(axis=-1) > 1e-4
    got = adc.analog_to_digital_vjp(bar, x, full_scale, converter, signed=signed, errors=errors)
    np.testing.assert_allclose(got[far], (bar * (convert(x + h) - convert(x - h)) / (2 * h))[far], atol=5e-5)


def test_rounding_is_the_identity_for_derivatives() -> None:
    """Bits do not enter the derivative."""
    x, bar = numbers(), numbers(1)
    for bits in (2, 8):
        np.testing.assert_array_equal(
            dac.digital_to_analog_vjp(bar, x, 1.5, Input(bits=bits), signed=True),
            dac.digital_to_analog_vjp(bar, x, 1.5, Input(), signed=True),
        )


def test_the_maximum_passes_its_derivative() -> None:
    """The value that set a dynamic range is not clipped, whatever its rounding."""
    for seed in range(20):
        x = numbers(seed).astype(np.float32)
        bar = dac.digital_to_analog_vjp(
            np.ones_like(x), x, ranges.statistic(x, DynamicRange()), Input(), signed=True
        )
        assert (bar > 0.0).all()
    near = np.array([1.0 + 1e-7, 1.0 + 1e-5, -1.0 - 1e-7, -1.0 - 1e-5])
    np.testing.assert_array_equal(
        dac.digital_to_analog_vjp(np.ones(4), near, 1.0, Input(), signed=True), [1.0, 0.0, 1.0, 0.0]
    )


# -- Other array libraries ----------------------------------------------------------------------------


@every_curve
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("convert", CONVERTERS)
def test_other_libraries(convert: Convert, dtype: type, curve: AnyNonlinearity | None) -> None:
    """Strict arrays and torch tensors give NumPy's numbers, in the dtype they came in."""
    x = numbers().astype(dtype)
    config, converter = Input(bits=8, nonlinearity=curve), Adc(bits=8, nonlinearity=curve)

    def outputs(v: Any) -> list[Any]:
        scale = ranges.statistic(v, TrackedRange(statistic="percentile", percentile=99.0))
        return [
            scale,
            *dac.digital_to_analog(v, scale, config, signed=True),
            adc.analog_to_digital(v, scale, converter, signed=True),
            adc.analog_to_digital(v, 2.0, converter, signed=False),
            adc.analog_to_digital_vjp(v, v, 2.0, converter, signed=True),
            dac.digital_to_analog_vjp(v, v, scale, config, signed=True),
        ]

    for ours, other in zip(outputs(x), outputs(convert(x)), strict=True):
        assert str(other.dtype).endswith(np.dtype(dtype).name)
        np.testing.assert_allclose(np.asarray(other), ours, rtol=0, atol=8 * np.finfo(dtype).eps)
    count = adc.clipped_count(convert(x), 2.0, converter, signed=True)
    assert int(count) == int(adc.clipped_count(x, 2.0, converter, signed=True))


def test_inputs_are_left_alone() -> None:
    """No conversion writes into its arguments."""
    x, kept = numbers(), numbers()
    for curve in CURVES:
        for bits in (None, 8):
            dac.digital_to_analog(x, 1.0, Input(bits=bits, nonlinearity=curve), signed=True)
            adc.analog_to_digital(x, 1.0, Adc(bits=bits, nonlinearity=curve), signed=True)
            dac.digital_to_analog_vjp(x, x, 1.0, Input(bits=bits, nonlinearity=curve), signed=True)
            adc.analog_to_digital_vjp(x, x, 1.0, Adc(bits=bits, nonlinearity=curve), signed=True)
    np.testing.assert_array_equal(x, kept)


# -- Ranges -------------------------------------------------------------------------------------------


def test_tracked_range_averages_then_freezes() -> None:
    """The mean of the first batches is kept; later ones and evaluation do not move it."""
    rule, state = TrackedRange(batches=3), ranges.RangeState()
    for value in (1.0, 2.0, 0.0, 6.0, 100.0):
        state = ranges.observe(state, rule, value)
    assert state == ranges.RangeState(3.0, 3)
    assert ranges.is_frozen(state, rule)
    assert not ranges.needs_statistic(state, rule, training=True)
    assert ranges.full_scale(state, rule) == 3.0


def test_tracked_range_over_epochs() -> None:
    """With `epochs` the average runs until that many epochs are over."""
    rule, state = TrackedRange(epochs=2), ranges.RangeState()
    for epoch, value in ((0, 1.0), (0, 2.0), (1, 3.0), (2, 50.0)):
        state = ranges.observe(state, rule, value, epoch)
    assert state == ranges.RangeState(2.0, 3)
    assert not ranges.is_frozen(state, rule, 1)
    assert ranges.is_frozen(state, rule, 2)


def test_evaluation_uses_what_was_tracked() -> None:
    """In evaluation a calibrated range does not look at the call; an uncalibrated one must."""
    rule = TrackedRange(batches=10)
    assert ranges.needs_statistic(ranges.RangeState(), rule, training=False)
    state = ranges.observe(ranges.RangeState(), rule, 4.0)
    assert not ranges.needs_statistic(state, rule, training=False)
    assert ranges.needs_statistic(state, rule, training=True)
    assert ranges.full_scale(state, rule) == 4.0
    assert ranges.full_scale(ranges.RangeState(), rule, 99.0) == 99.0


def test_a_learning_range_does_not_clip() -> None:
    """While it learns, a tracked range covers the call at hand; a smaller call leaves the average."""
    rule = TrackedRange(batches=10)
    state = ranges.observe(ranges.RangeState(), rule, 4.0)
    assert ranges.full_scale(state, rule, 99.0) == 99.0
    assert ranges.full_scale(state, rule, 1.0) == 4.0


def test_the_average_forgets() -> None:
    """Activations that grew tenfold leave nothing of the early scale in the range after some windows."""
    rule, state = TrackedRange(batches=2000), ranges.RangeState()
    for value in [1.0] * 100 + [10.0] * 1000:
        state = ranges.observe(state, rule, value)
    assert state.value == pytest.approx(10.0 - 9.0 * (1 - 1 / ranges.WINDOW) ** 1000, rel=1e-12)


def test_dynamic_and_fixed_ranges() -> None:
    """Dynamic always takes the call's statistic, fixed never; a fixed ADC range is in ampere."""
    state = ranges.RangeState(7.0, 5)
    assert ranges.full_scale(state, DynamicRange(), 2.5) == 2.5
    assert ranges.observe(state, DynamicRange(), 2.5) == state
    assert ranges.needs_statistic(state, DynamicRange(), training=False)
    fixed = FixedRange(value=3e-4)
    assert ranges.full_scale(state, fixed, unit=1e-4) == pytest.approx(3.0)
    assert not ranges.needs_statistic(state, fixed, training=True)


@settings(max_examples=30)
@given(size=st.integers(1, 60), percent=st.floats(0.1, 100.0), seed=st.integers(0, 99))
def test_percentile_is_the_smallest_that_covers(size: int, percent: float, seed: int) -> None:
    """At least that share of magnitudes is covered, and no smaller magnitude covers it."""
    values = np.random.default_rng(seed).normal(size=size)
    rule = TrackedRange(statistic="percentile", percentile=percent)
    value = float(ranges.statistic(values, rule))
    magnitudes = np.sort(np.abs(values))
    needed = math.ceil(percent / 100.0 * size)
    assert (magnitudes <= value).sum() >= needed
    assert (magnitudes < value).sum() < needed
