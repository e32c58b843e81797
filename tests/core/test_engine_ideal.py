"""A perfect chip is digital arithmetic: floating point without limits, integers with them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xbar_core.config import Chip, preset
from xbar_core.engine import Layout, Ranges, Request, forward, program, read_matrices, update, vjp, weights

KINDS = ("balanced", "differential", "offset")
CODES = [(kind, *bits) for kind in KINDS for bits in ((8, None), (8, 2), (7, 3))]
CODES += [(kind, 4, 1) for kind in KINDS] + [("differential", 1, None)]


def run(
    layout: Layout, weight: NDArray[np.float64], x: NDArray[np.float64], dy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Return y, dx, dw of one step."""
    state, buffers = program(layout, weight)
    request = Request(layout, buffers, state)
    (matrices,) = read_matrices([request])
    result = forward(layout, matrices, buffers, Ranges(), x)
    gradients = vjp(layout, matrices, buffers, result.ranges, result.residual, dy, request=request)
    return result.y, gradients.x, gradients.weight


@settings(max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 9),
    st.integers(2, 9),
    st.sampled_from(["analog", "digital"]),
    st.sampled_from(["open", "g_min"]),
    st.sampled_from(["bipolar", "two_phase"]),
)
def test_ideal_chip_is_a_matrix_product(
    kind: str, inputs: int, outputs: int, rows: int, cols: int, subtract: str, unused: str, signed: str
) -> None:
    """Without limits y = x W, dx = dy W', dw = x' dy to rounding, for every mapping and array size."""
    chip = preset("ideal").with_values(
        {
            "mapping.kind": kind,
            "array.rows": rows,
            "array.cols": cols,
            "array.unused": unused,
            "adc.subtract": subtract,
            "input.signed": signed,
        }
    )
    rng = np.random.default_rng(inputs * 100 + outputs)
    weight = rng.standard_normal((inputs, outputs))
    x, dy = rng.standard_normal((4, inputs)), rng.standard_normal((4, outputs))
    y, dx, dw = run(Layout(chip, inputs, outputs), weight, x, dy)
    np.testing.assert_allclose(y, x @ weight, rtol=0, atol=2e-13)
    np.testing.assert_allclose(dx, dy @ weight.T, rtol=0, atol=2e-13)
    np.testing.assert_allclose(dw, x.T @ dy, rtol=0, atol=2e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_perfect_arrays_with_the_general_path(kind: str) -> None:
    """Wires without resistance under the exact model, and an ADC that resolves all: still the product."""
    chip = preset("ideal").with_values(
        {
            "mapping.kind": kind,
            "array.rows": 3,
            "array.cols": 4,
            "circuit": {"kind": "fcm"},
            "adc.bits": 32,
            "adc.range": {"rule": "dynamic"},
            "backward.current_range": {"rule": "dynamic"},
        }
    )
    rng = np.random.default_rng(0)
    weight, x, dy = rng.standard_normal((7, 5)), rng.standard_normal((4, 7)), rng.standard_normal((4, 5))
    y, dx, _ = run(Layout(chip, 7, 5), weight, x, dy)
    np.testing.assert_allclose(y, x @ weight, rtol=0, atol=1e-6)
    np.testing.assert_allclose(dx, dy @ weight.T, rtol=0, atol=1e-6)


def codes(kind: str, bits: int, cell: int | None, weight: NDArray[np.float64]) -> list[NDArray[np.object_]]:
    """Return the cells' states as fractions, [slice][side] of (in, out), by integer arithmetic."""
    differential = kind == "differential"
    largest = 2**bits - 1 if differential else 2 ** (bits - 1) - 1
    full = largest if differential else 2 * largest
    k = np.vectorize(lambda w: round(Fraction(w) * largest), otypes=[object])(weight)
    if differential:
        words = [np.maximum(k, 0), np.maximum(-k, 0)]
    else:
        words = [largest + k, largest - k] if kind == "balanced" else [largest + k]
    if kind == "offset":
        words.append(np.full_like(k, largest))
    if cell is None or cell >= bits:
        return [[np.vectorize(lambda u: Fraction(u, full), otypes=[object])(word) for word in words]]
    base = 2**cell
    return [
        [
            np.vectorize(lambda u, s=s: Fraction(u // base**s % base, base - 1), otypes=[object])(word)
            for word in words
        ]
        for s in range(-(-bits // cell))
    ]


def integer_read(
    chip: Chip,
    weight: NDArray[np.float64],
    x: NDArray[np.float64],
    signed: bool,
    x_range: Fraction,
    current: Fraction,
) -> NDArray[np.float64]:
    """Return y by exact rational arithmetic: digits, partial sums, ADC codes, shift and add."""
    kind, bits, cell = chip.mapping.kind, chip.mapping.weight_bits, chip.mapping.cell_bits
    states = codes(kind, bits, cell, weight)
    largest = 2**bits - 1 if kind == "differential" else 2 ** (bits - 1) - 1
    full = largest if kind == "differential" else 2 * largest
    base = 2**cell if len(states) > 1 else None
    share = [Fraction(base**s * (base - 1), full) if base else Fraction(1) for s in range(len(states))]
    word_bits, dac = chip.input.bits, chip.input.dac_bits
    top = 2 ** (word_bits - 1 if signed else word_bits) - 1
    magnitude = word_bits - 1 if signed else word_bits
    digits = 1 if dac is None or dac >= magnitude else -(-magnitude // dac)
    rows, adc_bits = chip.array.rows, chip.adc.bits
    digital = chip.adc.subtract == "digital"
    two = chip.input.signed == "two_phase" and signed
    unipolar = digital and (two or not signed)
    floor = Fraction(1, 9)  # g_min / R at an on/off ratio of 10
    y = np.zeros((x.shape[0], weight.shape[1]))
    for b, j in np.ndindex(y.shape):
        total = Fraction(0)
        for r0 in range(0, weight.shape[0], rows):
            lines = range(r0, min(r0 + rows, weight.shape[0]))
            for polarity in (1, -1) if two else (1,):
                for digit in range(digits):
                    volts = {}
                    for i in lines:
                        code = round(
                            min(max(Fraction(x[b, i]) / x_range, Fraction(-1 if signed else 0)), Fraction(1))
                            * top
                        )
                        if two:
                            code = max(polarity * code, 0)
                        sign, size = (1 if code >= 0 else -1), abs(code)
                        if digits > 1:
                            volts[i] = sign * Fraction(size // 2 ** (dac * digit) % 2**dac, 2**dac - 1)
                        else:
                            volts[i] = Fraction(code, top)
                    weighting = (
                        Fraction(2 ** (dac * digit) * (2**dac - 1), top) if digits > 1 else Fraction(1)
                    )
                    for s, sides in enumerate(states):
                        sums = [sum(volts[i] * (floor + side[i, j]) for i in lines) for side in sides]

                        def adc(value: Fraction) -> Fraction:
                            if adc_bits is None:
                                return value
                            steps = 2**adc_bits - 1 if unipolar else 2 ** (adc_bits - 1) - 1
                            low = Fraction(0 if unipolar else -1)
                            return (
                                Fraction(round(min(max(value / current, low), Fraction(1)) * steps), steps)
                                * current
                            )

                        part = adc(sums[0]) - adc(sums[1]) if digital else adc(sums[0] - sums[1])
                        total += polarity * weighting * share[s] * part * (2 if kind == "offset" else 1)
        y[b, j] = float(total * x_range)
    return y


@pytest.mark.parametrize("adc_bits", [None, 6])
@pytest.mark.parametrize("signed", ["bipolar", "two_phase", "unsigned"])
@pytest.mark.parametrize(("kind", "bits", "cell"), CODES)
def test_finite_bits_are_integer_arithmetic(
    kind: str, bits: int, cell: int | None, signed: str, adc_bits: int | None
) -> None:
    """With finite bits y is the rational arithmetic on the codes, for every slicing and bit-serial choice."""
    rng = np.random.default_rng(bits)
    weight, x = rng.uniform(-1.0, 1.0, (3, 3)), rng.uniform(-1.0, 1.0, (1, 3))
    for word, dac in ((6, None), (5, 1), (8, 3)):
        for subtract in ("analog", "digital"):
            chip = preset("ideal").with_values(
                {"mapping": {"kind": kind, "weight_bits": bits, "cell_bits": cell,
                             "w_max": {"rule": "fixed", "value": 1.0}},
                 "array.rows": 2, "array.cols": 3, "device.r_min": 1e5, "device.r_max": 1e6,
                 "input.bits": word, "input.dac_bits": dac, "input.range": {"rule": "fixed", "value": 0.9},
                 "input.signed": "two_phase" if signed == "two_phase" else "bipolar",
                 "adc.bits": adc_bits, "adc.subtract": subtract}
            )  # fmt: skip
            if adc_bits is not None:
                chip = chip.with_("adc.range", {"rule": "fixed", "value": 1.37 * 9e-6})
            layout = Layout(chip, 3, 3, signed_input=signed != "unsigned")
            state, buffers = program(layout, weight)
            (matrices,) = read_matrices([Request(layout, buffers, state)])
            y = forward(layout, matrices, buffers, Ranges(), x).y
            expected = integer_read(chip, weight, x, signed != "unsigned", Fraction(0.9), Fraction(1.37))
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "pair"), [("balanced", "both"), ("differential", "carry")])
def test_training_equals_sgd(kind: str, pair: str) -> None:
    """100 steps of momentum SGD with weight decay on an ideal chip are those on W, to 1e-12."""
    chip = preset("ideal").with_values({"mapping.kind": kind, "update.pair": pair, "array.rows": 4})
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((10, 6)) * 0.5
    x, target = rng.standard_normal((20, 10)), rng.standard_normal((20, 6))
    layout = Layout(chip, 10, 6)
    state, buffers = program(layout, weight)
    velocity = native_velocity = np.zeros_like(weight)
    for count in range(100):
        request = Request(layout, buffers, state)
        (matrices,) = read_matrices([request])
        result = forward(layout, matrices, buffers, Ranges(), x)
        dy = np.tanh(result.y - target) / 20
        gradient = vjp(layout, matrices, buffers, result.ranges, result.residual, dy, request=request).weight
        velocity = 0.9 * velocity + gradient + 1e-3 * weights(layout, state, buffers)
        state = update(layout, state, buffers, -velocity, rate=0.05, count=count).state
        native = x.T @ (np.tanh(x @ weight - target) / 20) + 1e-3 * weight
        native_velocity = 0.9 * native_velocity + native
        weight = weight - 0.05 * native_velocity
    assert np.abs(weight).max() > 0.1
    np.testing.assert_allclose(weights(layout, state, buffers), weight, rtol=0, atol=1e-12)


def test_sliced_words_follow_sgd() -> None:
    """A word of 32 bits in 2-bit cells is rewritten at every step and stays within a code of SGD."""
    chip = preset("ideal").with_values({"mapping.weight_bits": 32, "mapping.cell_bits": 2})
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((6, 4))
    layout = Layout(chip, 6, 4)
    state, buffers = program(layout, weight)
    assert state.shape == (32, 6, 4)
    for count in range(20):
        step = rng.standard_normal((6, 4))
        written = update(layout, state, buffers, step, rate=0.01, count=count)
        state, buffers = written.state, {**buffers, "words": written.words}
        weight = weight + 0.01 * step
    code = float(buffers["w_max"]) / (2**31 - 1)
    np.testing.assert_allclose(weights(layout, state, buffers), weight, rtol=0, atol=2 * code)
    assert set(np.unique(np.rint(state * 3))) <= {0.0, 1.0, 2.0, 3.0}
