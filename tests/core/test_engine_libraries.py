"""One engine for every array library; draws that depend on the seed, never on the order of calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from libraries import CONVERTERS, Convert

from xbar_core.config import Chip, preset
from xbar_core.engine import (
    Call,
    Layout,
    Ranges,
    Request,
    forward,
    program,
    pulse_update,
    read_matrices,
    update,
    vjp,
    weights,
)

EVERYTHING: dict[str, Any] = {
    "device.variation": {"sigma": 0.1, "sigma_v": 0.1, "sigma_g_min": 0.05, "sigma_g_max": 0.05},
    "device.faults": {"stuck_at_g_min": 0.05, "open": 0.05},
    "device.read_noise": {"sigma": 0.02},
    "device.drift": {"nu": 0.05, "nu_spread": 0.01},
    "device.programming_error": {"sigma": 0.02},
    "adc.gain_error": 0.02,
    "adc.offset_error": 1e-8,
    "adc.noise": 1e-8,
}
CHIPS = {
    "ideal": ("ideal", {}),
    "txsim": ("txsim", {}),
    "txsim-8bit": ("txsim-8bit", {}),
    "txsim-16bit": ("txsim-16bit", {}),
    "sliced": ("txsim-sliced", {"mapping.weight_bits": 8, "input.bits": 4}),
    "everything": ("txsim-8bit", EVERYTHING),
    "digital": ("txsim-8bit", {**EVERYTHING, "adc.subtract": "digital", "input.signed": "two_phase"}),
    "offset": ("txsim-8bit", {**EVERYTHING, "mapping.kind": "offset", "adc.subtract": "digital"}),
    "carry": ("txsim-8bit", {"mapping.kind": "differential", "update.snap": "off"}),
    "one_sided": ("txsim-8bit", {"mapping.kind": "differential", "update.pair": "one_sided"}),
    "exact": ("txsim-8bit", {"backward.mode": "exact", "array.unused": "g_min"}),
    "interpolated": ("txsim-8bit", {"circuit": {"kind": "interpolated", "period": 3}}),
    "per_batch": ("txsim-8bit", {"device.read_noise": {"sigma": 0.1, "kind": "per_batch"}}),
}


def chip(name: str) -> Chip:
    base, values = CHIPS[name]
    return preset(base).with_values({"array.rows": 6, "array.cols": 5, **values})


def train(description: Chip, convert: Convert | Callable[[Any], Any], steps: int = 2) -> dict[str, Any]:
    """Return everything that two training steps produce, as NumPy arrays."""
    rng = np.random.default_rng(0)
    weight, x, dy = (convert(rng.standard_normal(shape)) for shape in ((13, 8), (4, 3, 13), (4, 3, 8)))
    layout = Layout(description, 13, 8, "fc1")
    state, buffers = program(layout, weight)
    ranges, references, found = Ranges(), (None, None), {}
    for count in range(steps):
        request = Request(layout, buffers, state, True, 10.0, count, count, references)
        (matrices,) = read_matrices([request])
        references = matrices.references
        result = forward(layout, matrices, buffers, ranges, x, Call(count, training=True))
        gradients = vjp(layout, matrices, buffers, result.ranges, result.residual, dy, request=request)
        ranges = gradients.ranges
        found[f"y{count}"], found[f"dx{count}"] = result.y, gradients.x
        if gradients.weight is None:
            found[f"ds{count}"] = gradients.state
            continue
        found[f"dw{count}"] = gradients.weight
        written = update(layout, state, buffers, -gradients.weight, rate=0.05, count=count)
        state = written.state
        if written.words is not None:
            buffers = {**buffers, "words": written.words}
        found[f"saturated{count}"] = written.saturated
    found["state"] = state
    arrays = {name: np.asarray(value) for name, value in found.items()}
    return {**arrays, "ranges": ranges.to_array()}


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("convert", CONVERTERS)
def test_same_numbers_in_every_library(convert: Convert, name: str) -> None:
    """The same seed gives the same chip, noise, reads, gradients and updates in every library."""
    expected, got = train(chip(name), np.asarray), train(chip(name), convert)
    assert expected.keys() == got.keys()
    for key, value in expected.items():
        assert got[key].dtype == value.dtype
        np.testing.assert_allclose(got[key], value, rtol=1e-9, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("name", ["txsim-8bit", "everything", "offset", "exact"])
def test_float32_stays_float32(name: str) -> None:
    """float32 in, float32 out, near the float64 result (a code may flip)."""
    rng = np.random.default_rng(0)
    description = chip(name).with_values({"input.bits": None, "adc.bits": None})
    results = []
    for dtype in (np.float64, np.float32):
        rng = np.random.default_rng(0)
        weight, x = rng.standard_normal((13, 8)).astype(dtype), rng.standard_normal((4, 13)).astype(dtype)
        layout = Layout(description, 13, 8)
        state, buffers = program(layout, weight)
        request = Request(layout, buffers, state)
        (matrices,) = read_matrices([request])
        result = forward(layout, matrices, buffers, Ranges(), x, Call(training=True))
        gradients = vjp(layout, matrices, buffers, result.ranges, result.residual, result.y, request=request)
        written = update(layout, state, buffers, state[0], rate=0.1)
        for array in (state, result.y, gradients.x, written.state):
            assert array.dtype == dtype
        results.append(result.y)
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-5 * np.abs(results[0]).max())


def test_layers_are_solved_alone_or_together() -> None:
    """A network's arrays in one call give what each layer gives alone: order and grouping do not matter."""
    rng = np.random.default_rng(0)
    requests = []
    for k, (name, shape) in enumerate(
        [
            ("txsim", (13, 8)),
            ("everything", (7, 9)),
            ("interpolated", (6, 5)),
            ("ideal", (4, 3)),
            ("offset", (6, 9)),
        ]
    ):
        layout = Layout(chip(name), *shape, name=k)
        state, buffers = program(layout, rng.standard_normal(shape))
        requests.append(Request(layout, buffers, state, backward=k != 1))
    together = read_matrices(requests)
    for request, matrices in zip(requests, together, strict=True):
        (alone,) = read_matrices([request])
        for got, expected in zip(matrices[:6], alone[:6], strict=True):
            assert (got is None) == (expected is None)
            if got is not None:
                np.testing.assert_array_equal(got, expected)
    assert together[1].backward is None
    assert read_matrices(requests[::-1])[0].forward.tolist() == together[-1].forward.tolist()


def test_frozen_and_fresh_draws() -> None:
    """Device differences are the chip's and the layer's; noise is the call's."""
    layout = Layout(chip("everything"), 13, 8, "a")
    weight = np.random.default_rng(0).standard_normal((13, 8))
    first, again = program(layout, weight), program(layout, weight)
    other = program(dataclasses.replace(layout, name="b"), weight)
    seed = program(Layout(chip("everything").with_("seed", 1), 13, 8, "a"), weight)
    for name in ("variation", "drift", "spread_v", "adc_gain"):
        np.testing.assert_array_equal(first.buffers[name], again.buffers[name])
        assert (first.buffers[name] != other.buffers[name]).any()
        assert (first.buffers[name] != seed.buffers[name]).any()
    # The spread between programmings is the programming error alone.
    assert (program(layout, weight, buffers=first.buffers, count=1).state != first.state).any()
    (matrices,) = read_matrices([Request(layout, first.buffers, first.state)])
    x = np.random.default_rng(1).standard_normal((4, 13))
    reads = [forward(layout, matrices, first.buffers, Ranges(), x, Call(step)).y for step in (5, 6, 5)]
    np.testing.assert_array_equal(reads[0], reads[2])
    assert (reads[0] != reads[1]).any()
    step = np.full((13, 8), 0.1)
    writes = [update(layout, first.state, first.buffers, step, rate=0.1, count=k).state for k in (0, 1, 0)]
    np.testing.assert_array_equal(writes[0], writes[2])
    assert (writes[0] != writes[1]).any()


@pytest.mark.parametrize("encoding", ["deterministic", "stochastic"])
@pytest.mark.parametrize("convert", CONVERTERS)
def test_pulses(convert: Convert, encoding: str) -> None:
    """Pulse codes of many bits (or long streams) write the outer product, sample by sample or at once."""
    extra = {"bits": 16} if encoding == "deterministic" else {"stream_length": 4000}
    rng = np.random.default_rng(0)
    weight, x, dy = (
        0.1 * rng.standard_normal((6, 4)),
        rng.uniform(-1, 1, (3, 2, 6)),
        rng.uniform(-1, 1, (3, 2, 4)),
    )
    expected = weight - 0.01 * np.einsum("spi,spo->io", x, dy)
    for samples in (None, 1):
        description = preset("ideal").with_(
            "update", {"encoding": encoding, "samples_per_write": samples, **extra}
        )
        layout = Layout(description, 6, 4)
        state, buffers = program(layout, convert(weight))
        written = pulse_update(
            layout, state, buffers, convert(x), convert(dy), rate=0.01, x_max=1.0, dy_max=1.0
        )
        got = np.asarray(weights(layout, written.state, buffers))
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 if encoding == "deterministic" else 3e-3)
