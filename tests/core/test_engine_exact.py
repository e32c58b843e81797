"""The exact backward pass is the derivative of the simulated read; finite differences say so."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from xbar_core.config import Chip
from xbar_core.engine import Call, Layout, Ranges, Request, forward, program, read_matrices, vjp

CIRCUITS = {
    "ideal": {"kind": "ideal"},
    "aam0": {"kind": "aam", "order": 0},
    "aam1": {"kind": "aam", "order": 1},
    "aam2": {"kind": "aam", "order": 2},
    "fcm": {"kind": "fcm", "rtol": 1e-12},
    "anchored": {"kind": "interpolated", "period": 10, "rtol": 1e-12},
    "distortion": {"kind": "interpolated", "period": 10, "rtol": 1e-12, "reuse": "distortion"},
}
TABLE = {"kind": "table", "x": [0.0, 0.3, 0.7, 1.0], "y": [0.0, 0.25, 0.72, 1.0]}
CONVERTERS: dict[str, dict[str, object]] = {
    "none": {},
    "dac": {"input.nonlinearity": [0.05, 0.02], "input.range": {"rule": "fixed", "value": 1.3}},
    "adc": {
        "input.range": {"rule": "fixed", "value": 1.3},
        "adc.nonlinearity": [0.05],
        "adc.range": {"rule": "fixed", "value": 6e-5},
    },
    "both": {
        "input.nonlinearity": TABLE,
        "input.range": {"rule": "fixed", "value": 0.8},
        "adc.nonlinearity": TABLE,
        "adc.range": {"rule": "fixed", "value": 6e-5},
    },
    "digital": {
        "input.range": {"rule": "fixed", "value": 1.3},
        "adc.nonlinearity": [0.05],
        "adc.range": {"rule": "fixed", "value": 1e-4},
        "adc.subtract": "digital",
    },
    "two_phase": {
        "input.signed": "two_phase",
        "input.nonlinearity": [0.05],
        "input.range": {"rule": "fixed", "value": 1.3},
        "adc.nonlinearity": [0.05],
        "adc.range": {"rule": "fixed", "value": 1e-4},
        "adc.subtract": "digital",
    },
}
EXTRAS: dict[str, dict[str, object]] = {
    "unused at g_min": {"array.unused": "g_min"},
    "variation": {"device.variation": {"kind": "lognormal", "sigma": 0.3}},
    "faults": {"device.faults": {"stuck_at_g_min": 0.1, "stuck_at_g_max": 0.1, "open": 0.1}},
    "drift": {"device.drift": {"nu": 0.1, "nu_spread": 0.05}},
    "column errors": {"adc.gain_error": 0.1, "adc.offset_error": 1e-6},
    "noise": {"adc.noise": 1e-6},
    "noisy conductance": {"device.read_noise": {"sigma": 0.1, "kind": "per_batch"}},
    "slices": {"mapping.weight_bits": 8, "mapping.cell_bits": 2},
    "r_sense": {"wires.r_sense": 500.0},
}


def chip(kind: str, circuit: str, converter: str, extra: dict[str, object]) -> Chip:
    table = {
        "array": {"rows": 3, "cols": 3},
        "wires": {"r_row": 40.0, "r_col": 70.0, "r_source": 500.0, "r_sense": 100.0},
        "circuit": CIRCUITS[circuit],
        "device": {"r_min": 1e4, "r_max": 1e5},
        "mapping": {"kind": kind, "w_max": {"rule": "fixed", "value": 0.9}},
        "backward": {"mode": "exact"},
    }
    return Chip.from_dict(table).with_values({**CONVERTERS[converter], **extra})


def check(description: Chip) -> None:
    """Compare <gradient, direction> with the central difference along it, for states and inputs."""
    rng = np.random.default_rng(5)
    layout = Layout(description, 5, 4)
    state, buffers = program(layout, rng.uniform(-0.5, 0.5, (5, 4)))
    x, dy = rng.uniform(-1.2, 1.2, (3, 5)), rng.standard_normal((3, 4))
    call, time = Call(step=3), 100.0 if description.device.drift is not None else None
    (first,) = read_matrices([Request(layout, buffers, state, backward=False, time=time)])

    def request(at: np.ndarray) -> Request:
        return Request(layout, buffers, at, False, time, references=first.references)

    def loss(at: np.ndarray, inputs: np.ndarray) -> float:
        (matrices,) = read_matrices([request(at)])
        return float((forward(layout, matrices, buffers, Ranges(), inputs, call).y * dy).sum())

    (matrices,) = read_matrices([request(state)])
    result = forward(layout, matrices, buffers, Ranges(), x, call)
    gradients = vjp(layout, matrices, buffers, Ranges(), result.residual, dy, request=request(state))
    assert gradients.weight is None
    ds, dx, h = rng.standard_normal(state.shape), rng.standard_normal(x.shape), 1e-6
    by_state = (loss(state + h * ds, x) - loss(state - h * ds, x)) / (2 * h)
    by_input = (loss(state, x + h * dx) - loss(state, x - h * dx)) / (2 * h)
    assert (gradients.state * ds).sum() == pytest.approx(by_state, rel=1e-6, abs=1e-7)
    assert (gradients.x * dx).sum() == pytest.approx(by_input, rel=1e-6, abs=1e-7)
    skipped = vjp(
        layout, matrices, buffers, Ranges(), result.residual, dy, request=request(state), need_dx=False
    )
    assert skipped.x is None
    np.testing.assert_array_equal(skipped.state, gradients.state)


@pytest.mark.parametrize(
    ("kind", "circuit", "converter"),
    list(itertools.product(("balanced", "differential", "offset"), CIRCUITS, CONVERTERS)),
)
def test_finite_differences(kind: str, circuit: str, converter: str) -> None:
    """Every mapping, circuit model and converter: the derivative of the read, ranges frozen."""
    check(chip(kind, circuit, converter, {}))


@pytest.mark.parametrize("kind", ["balanced", "offset"])
@pytest.mark.parametrize("extra", EXTRAS)
def test_device_effects_are_differentiated(extra: str, kind: str) -> None:
    """Variation, faults, drift, column errors, noise draws and slices enter the derivative as constants."""
    check(chip(kind, "fcm", "both", EXTRAS[extra]))


def test_rounding_is_the_identity() -> None:
    """With an 8-bit DAC and ADC the derivative is that of the smooth chip, to the size of a code."""
    smooth = chip("balanced", "fcm", "both", {})
    layout, rough = Layout(smooth, 5, 4), Layout(smooth.with_values({"input.bits": 12, "adc.bits": 12}), 5, 4)
    rng = np.random.default_rng(5)
    weight, x, dy = (
        rng.uniform(-0.5, 0.5, (5, 4)),
        rng.uniform(-1.2, 1.2, (3, 5)),
        rng.standard_normal((3, 4)),
    )
    found = []
    for plan in (layout, rough):
        state, buffers = program(plan, weight)
        request = Request(plan, buffers, state)
        (matrices,) = read_matrices([request])
        result = forward(plan, matrices, buffers, Ranges(), x)
        found.append(vjp(plan, matrices, buffers, Ranges(), result.residual, dy, request=request))
    np.testing.assert_allclose(found[1].x, found[0].x, rtol=0, atol=0.01)
    np.testing.assert_allclose(found[1].state, found[0].state, rtol=0, atol=0.01)
    assert (found[1].state != found[0].state).any()
