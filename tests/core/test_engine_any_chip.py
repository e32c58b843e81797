"""Any chip that can be described goes through a training step, whatever parts it is put together from."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from xbar_core import ConfigError
from xbar_core.config import Chip
from xbar_core.engine import Call, Layout, Ranges, Request, forward, program, read_matrices, update, vjp

DEVICE = {"r_min": 1e5, "r_max": 1e6}
UNEVEN = {
    "variation": {"sigma": 0.1, "sigma_v": 0.1, "sigma_g_min": 0.1, "sigma_g_max": 0.1},
    "faults": {"open": 0.1, "stuck_at_g_min": 0.1, "stuck_at_g_max": 0.1},
    "drift": {"nu": 0.05, "nu_spread": 0.01},
    "read_noise": {"sigma": 0.01},
    "programming_error": {"sigma": 0.01},
}
PARTS: dict[str, list[dict[str, Any] | None]] = {
    "array": [{"rows": 5, "cols": 4}, {"rows": 5, "cols": 4, "unused": "g_min"}],
    "circuit": [{"kind": "ideal"}, {"kind": "aam"}, {"kind": "fcm"}, {"kind": "interpolated", "period": 3}],
    "device": [
        DEVICE,
        {**DEVICE, **UNEVEN},
        {**DEVICE, "levels": 64, "read_noise": {"sigma": 0.1, "kind": "per_batch"}},
    ],
    "precision": [None, {"bits": 8}],
    "mapping": [
        {"kind": "balanced"},
        {"kind": "differential", "weight_bits": 4},
        {"kind": "offset"},
        {"kind": "balanced", "weight_bits": 5, "cell_bits": 2},
        {"kind": "offset", "weight_bits": 4, "cell_bits": 1},
    ],
    "input": [
        None,
        {"bits": 8},
        {"bits": 1},
        {"bits": 8, "dac_bits": 3, "nonlinearity": [0.01]},
        {"bits": 8, "signed": "two_phase"},
        {"signed": "two_phase"},
    ],
    "adc": [
        None,
        {"bits": 8, "nonlinearity": [0.01]},
        {"bits": 8, "subtract": "digital"},
        {"bits": 1, "subtract": "digital"},
        {"subtract": "digital", "noise": 1e-8, "gain_error": 0.01, "offset_error": 1e-8},
        {"bits": 6, "range": {"rule": "dynamic"}, "noise": 1e-8},
    ],
    "update": [
        {"noise": {"law": "sqrt", "gamma": 0.1, "stage": "before_lr"}, "v_up": 1.0, "v_down": -2.0},
        {"pair": "one_sided"},
        {"pair": "carry"},
        {"snap": "stochastic"},
        {"gradient": "full"},
    ],
    "backward": [{"mode": "crossbar"}, {"mode": "exact"}],
}


@settings(max_examples=150)
@given(
    parts=st.fixed_dictionaries({name: st.sampled_from(choices) for name, choices in PARTS.items()}),
    signed=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_any_chip_takes_a_step(parts: dict[str, Any], signed: bool, dtype: type) -> None:
    """What the configuration accepts is read, differentiated and written: finite, in range, of one dtype."""
    table = {name: part for name, part in parts.items() if part is not None}
    try:
        chip = Chip.from_dict({**table, "wires": {"r_row": 2.0, "r_source": 50.0, "r_sense": 10.0}})
        layout = Layout(chip, 9, 7, signed_input=signed)
    except ConfigError:
        assume(False)
    rng = np.random.default_rng(0)
    weight, x, dy = (rng.normal(size=shape).astype(dtype) for shape in ((9, 7), (4, 9), (4, 7)))
    state, buffers = program(layout, weight)
    request = Request(layout, buffers, state, time=50.0)
    (matrices,) = read_matrices([request])
    y, residual, ranges = forward(layout, matrices, buffers, Ranges(), x, Call(training=True))
    gradients = vjp(layout, matrices, buffers, ranges, residual, dy, request=request)
    made = gradients.state if gradients.weight is None else gradients.weight
    for result, shape in ((y, dy.shape), (gradients.x, x.shape)):
        assert (result.shape, result.dtype) == (shape, dtype)
    assert all(np.isfinite(result).all() for result in (y, gradients.x, made))
    step = -made if gradients.weight is not None else weight
    written = update(layout, state, buffers, step, rate=0.5).state
    assert written.dtype == dtype
    assert written.min() >= 0.0
    assert written.max() <= 1.0
