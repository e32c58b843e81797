"""Weights and device states: the code is integer arithmetic, and decoding undoes it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import CONVERTERS, Convert

from xbar_core import ConfigError
from xbar_core.mapping import (
    KINDS,
    WeightCode,
    choose_w_max,
    conductance_of,
    decode,
    encode,
    join_words,
    snap_states,
    state_gradient,
)

CODES = [(kind, None, None) for kind in KINDS] + [
    (kind, bits, cell)
    for kind in KINDS
    for bits, cell in ((8, None), (8, 2), (7, 3), (32, 2), (5, 5), (2, 1))
]


def weights(seed: int = 0, shape: tuple[int, int] = (5, 4)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape)


@pytest.mark.parametrize(("kind", "bits", "cell"), CODES)
def test_decoding_undoes_encoding(kind: str, bits: int | None, cell: int | None) -> None:
    """decode(encode(w)) is w, or the nearest code k / K of it, whatever the slicing."""
    code, weight, w_max = WeightCode(kind, bits, cell), weights(), 1.25
    state = encode(code, weight, w_max)
    assert state.shape == (code.devices, 5, 4)
    assert ((state >= 0.0) & (state <= 1.0)).all()
    expected = weight
    if bits is not None:
        largest = 2**bits - 1 if kind == "differential" else 2 ** (bits - 1) - 1
        expected = np.rint(weight / w_max * largest) / largest * w_max
    np.testing.assert_allclose(decode(code, state, w_max), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("kind", "bits", "cell"), [c for c in CODES if c[2] is not None])
def test_digits_are_those_of_the_integer_code(kind: str, bits: int, cell: int) -> None:
    """The cells hold the base-2**cell digits of the integer code, by Python's own integers."""
    code, weight = WeightCode(kind, bits, cell), weights()
    state = encode(code, weight, 1.0)
    base = 2**cell
    for i, j in np.ndindex(weight.shape):
        if kind == "differential":
            k = round(weight[i, j] * (2**bits - 1))
            words = [max(k, 0), max(-k, 0)]
        else:
            half = 2 ** (bits - 1) - 1
            k = round(weight[i, j] * half)
            words = [half + k, half - k]
        for side in range(code.sides):
            for digit in range(code.slices):
                held = state[digit * code.sides + side, i, j] * (base - 1)
                if code.slices == 1:
                    assert held == pytest.approx(words[side] * (base - 1) / code.full_code, abs=1e-12)
                else:
                    assert held == pytest.approx(words[side] // base**digit % base, abs=1e-12)


@pytest.mark.parametrize(("kind", "bits", "cell"), CODES)
def test_zero_is_a_level(kind: str, bits: int | None, cell: int | None) -> None:
    """w = 0 is stored and read back as exactly 0."""
    code = WeightCode(kind, bits, cell)
    assert (decode(code, encode(code, np.zeros((2, 3)), 1.0), 1.0) == 0.0).all() or kind == "offset"
    np.testing.assert_allclose(decode(code, encode(code, np.zeros((2, 3)), 1.0), 1.0), 0.0, atol=1e-15)
    words = sum(q * z for q, z in zip(code.significance, code.zero, strict=True))
    assert words == pytest.approx(0.0 if kind == "differential" else 0.5, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_saturates_at_the_range(kind: str) -> None:
    """A weight beyond w_max is stored as w_max."""
    code = WeightCode(kind)
    np.testing.assert_array_equal(
        decode(code, encode(code, np.array([[3.0, -7.0]]), 2.0), 2.0), [[2.0, -2.0]]
    )


@pytest.mark.parametrize(("kind", "bits", "cell"), CODES)
def test_gradient_is_the_derivative_of_decoding(kind: str, bits: int | None, cell: int | None) -> None:
    """<dL/ds, ds> equals dL/dw . decode(ds): the adjoint of a linear map."""
    code, rng = WeightCode(kind, bits, cell), np.random.default_rng(1)
    state, step = rng.random((2, code.devices, 3, 2))
    weight_bar = rng.standard_normal((3, 2))
    change = decode(code, state + step, 1.7) - decode(code, state, 1.7)
    gradient = state_gradient(code, weight_bar, 1.7)
    assert (gradient * step).sum() == pytest.approx((weight_bar * change).sum(), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.integers(3, 300), st.integers(0, 2**31))
def test_device_levels_round_trip(kind: str, levels: int, seed: int) -> None:
    """Unlimited words on a device of n levels use at most n states and keep 0."""
    code = WeightCode(kind, levels=levels)
    state = encode(code, weights(seed, (40, 40)), 1.0)
    assert code.word_levels is not None
    assert code.word_levels <= levels
    steps = state * (code.word_levels - 1)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    assert abs(decode(code, encode(code, np.zeros((1, 1)), 1.0), 1.0)).max() < 1e-15


def test_stochastic_snapping_keeps_the_mean() -> None:
    """Stochastic rounding returns the two neighbours with a mean of the state itself."""
    rng = np.random.default_rng(0)
    state = np.full(200_000, 0.3)
    snapped = snap_states(5, state, rng.random(state.shape))
    assert set(np.unique(snapped)) == {0.25, 0.5}
    assert snapped.mean() == pytest.approx(0.3, abs=5 * 0.25 / np.sqrt(state.size))
    np.testing.assert_array_equal(snap_states(5, np.array([0.0, 0.3, 1.0])), [0.0, 0.25, 1.0])


@pytest.mark.parametrize("convert", CONVERTERS)
def test_snapping_stays_within_the_range(convert: Convert) -> None:
    """In float32 the last of 65536 levels plus a draw just below 1 rounds up: there is no level above."""
    full = convert(np.ones((1, 3), np.float32))
    draws = convert(np.full((1, 3), 0.9999, np.float32))
    np.testing.assert_array_equal(np.asarray(snap_states(65536, full, draws)), np.ones((1, 3)))


def test_conductances_land_on_the_ends() -> None:
    """s = 0 and s = 1 are g_min and g_max to the bit."""
    g_min, g_max = 1 / 1e6, 1 / 1e5
    np.testing.assert_array_equal(conductance_of(np.array([0.0, 1.0]), g_min, g_max), [g_min, g_max])


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize(("kind", "bits", "cell"), CODES)
def test_same_states_in_every_library(
    kind: str, bits: int | None, cell: int | None, convert: Convert
) -> None:
    """NumPy, torch and the strict array API compute the same states and weights."""
    code, weight = WeightCode(kind, bits, cell), weights()
    state = encode(code, weight, 1.5)
    other = encode(code, convert(weight), 1.5)
    np.testing.assert_array_equal(np.asarray(other), state)
    np.testing.assert_array_equal(np.asarray(decode(code, other, 1.5)), decode(code, state, 1.5))
    assert join_words(code, other).shape == (code.sides, 5, 4)


def test_range_rules() -> None:
    """max_abs times headroom, or the value; an all-zero matrix gets the headroom itself."""
    weight = np.array([[0.5, -2.0]])
    assert choose_w_max(weight, "max_abs", 4.0) == 8.0
    assert choose_w_max(weight, "fixed", 3.0) == 3.0
    assert choose_w_max(np.zeros((2, 2)), "max_abs", 4.0) == 4.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "balance"}, "did you mean 'balanced'"),
        ({"weight_bits": 1}, "mapping.weight_bits"),
        ({"weight_bits": 4, "cell_bits": 8}, "mapping.cell_bits"),
        ({"cell_bits": 2}, "mapping.weight_bits"),
        ({"weight_bits": 8, "levels": 16}, "device.levels: 16 is fewer"),
        ({"levels": 2}, "device.levels"),
        ({"weight_bits": 4, "cell_bits": 2, "levels": 3}, "device.levels: 3 is fewer than the 4 levels"),
    ],
)
def test_impossible_codes_are_named(arguments: dict[str, object], words: str) -> None:
    """Each impossible combination is an error that names its field."""
    with pytest.raises(ConfigError, match=words):
        WeightCode(**arguments)  # type: ignore[arg-type]
