"""The one-pass kernels against the array-API definitions they replace."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from xbar_core.config import Adc, Input, preset
from xbar_core.engine import Layout, _kernels, decode, decode_folded, fused
from xbar_core.periphery import adc, dac
from xbar_core.slicing import Phases


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("curve", [None, [0.02]])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [None, 8])
def test_currents(bits: int | None, signed: bool, curve: list[float] | None, dtype: type) -> None:
    """Converted sums of tiles, in any shape, fresh or added: the codes of the periphery."""
    config = Adc(bits=bits, nonlinearity=curve)  # type: ignore[arg-type]
    current = np.random.default_rng(0).normal(0.0, 1.0, (7, 3, 5, 11)).astype(dtype)
    expected = adc.decode(adc.codes(current, 1.3, config, signed=signed), 1.3, config, signed=signed).sum(
        axis=1
    )
    total = np.full((7, 5, 11), np.nan, dtype)
    assert fused.add_converted(current, 1.3, config, signed, 0.7, total, fresh=True)
    np.testing.assert_allclose(total, 0.7 * expected, rtol=0, atol=1e-5 if dtype is np.float32 else 1e-13)
    tile = np.ascontiguousarray(current[:, 0])
    first = adc.decode(adc.codes(tile, 1.3, config, signed=signed), 1.3, config, signed=signed)
    assert fused.add_converted(tile, 1.3, config, signed, 2.0, total)
    np.testing.assert_allclose(
        total, 0.7 * expected + 2.0 * first, rtol=0, atol=1e-5 if dtype is np.float32 else 1e-13
    )


@pytest.mark.parametrize("shape", [(), (1,), (3000,), (64, 17), (2, 3, 5, 7), (5, 1024)])
@pytest.mark.parametrize("signed", [True, False])
def test_words(shape: tuple[int, ...], signed: bool) -> None:
    """Words and voltages of any shape: those of the DAC."""
    config = Input(bits=6, nonlinearity=[0.03])  # type: ignore[arg-type]
    numbers = np.asarray(np.random.default_rng(0).normal(0.0, 1.0, shape))
    sent = fused.send(numbers, 1.1, Phases(6, None, signed, "bipolar"), config.nonlinearity)
    assert sent is not None
    expected = dac.digital_to_analog(numbers, 1.1, config, signed=signed)
    np.testing.assert_allclose(sent[0], expected.words, rtol=0, atol=1e-15)
    np.testing.assert_allclose(sent[1], expected.voltages, rtol=0, atol=1e-15)


def test_what_the_kernels_leave() -> None:
    """Strided arrays, steeper curves, whole numbers: refused, so that the array API serves them."""
    total = np.zeros((4, 6))
    quintic = Adc(bits=8, nonlinearity=[0.01, 0.01])  # type: ignore[arg-type]
    assert not fused.add_converted(np.zeros((4, 6)), 1.0, quintic, True, 1.0, total)
    assert not fused.add_converted(np.zeros((6, 4)).T, 1.0, Adc(bits=8), True, 1.0, total)
    assert not fused.add_converted(np.zeros((4, 6), np.float32), 1.0, Adc(bits=8), True, 1.0, total)
    assert fused.host_view(np.zeros(3, np.int64)) is None


def test_one_thread_and_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers to the bit from the kernel of one thread and from that of many."""
    config = Adc(bits=8, nonlinearity=[0.02])  # type: ignore[arg-type]
    current = np.random.default_rng(0).normal(0.0, 1.0, (64, 3, 100))
    one, many = np.empty((64, 100)), np.empty((64, 100))
    assert fused.add_converted(current, 1.3, config, True, 0.7, one, fresh=True)
    monkeypatch.setattr(_kernels, "PARALLEL_SIZE", 0)
    assert fused.add_converted(current, 1.3, config, True, 0.7, many, fresh=True)
    np.testing.assert_array_equal(many, one)


def slow_fold(
    values: NDArray[np.float64], geometry: list[tuple[int, int, int]], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return the folded sum, one element at a time."""
    out = np.zeros(shape)
    (sr, pr, dr), (sc, pc, dc) = geometry
    for b, c, p, q, r, k in np.ndindex(values.shape):
        i, j = r * sr + p * dr - pr, k * sc + q * dc - pc
        if 0 <= i < shape[2] and 0 <= j < shape[3]:
            out[b, c, i, j] += values[b, c, p, q, r, k]
    return out


@pytest.mark.parametrize(
    "geometry",
    [[(1, 0, 1), (1, 0, 1)], [(2, 1, 1), (1, 2, 1)], [(1, 3, 2), (3, 1, 2)], [(3, 0, 1), (2, 2, 3)]],
)
@pytest.mark.parametrize("bits", [None, 7])
def test_folding(bits: int | None, geometry: list[tuple[int, int, int]]) -> None:
    """Row currents of a transposed convolution, converted and folded: stride, padding and dilation."""
    chip = preset("ideal").with_values({"adc.bits": bits, "adc.nonlinearity": [0.05], "array.cols": 4})
    layout = Layout(chip, 2 * 3 * 2, 6)
    rng = np.random.default_rng(1)
    partials = [rng.normal(0.0, 0.5, (2, 2, 3, 2, 4, 5)) for _ in layout.backward.bounds]
    assert len(partials) == 2
    like = np.empty((2, 2, 9, 8))
    got = decode_folded(layout, layout.backward, partials, 1.2, like, geometry, scale=0.3)
    columns = decode(layout, layout.backward, partials, 1.2, partials[0], scale=0.3)
    np.testing.assert_allclose(got, slow_fold(columns, geometry, like.shape), rtol=0, atol=1e-12)
    noisy = Layout(chip.with_("adc.noise", 1e-9), 12, 6)
    assert decode_folded(noisy, noisy.backward, partials, 1.2, like, geometry) is None
