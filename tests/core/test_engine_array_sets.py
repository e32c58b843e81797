"""Array sets side by side are written together as each is written by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xbar_core.config import Chip, JumpTable, JumpTableDevice, preset
from xbar_core.engine import update
from xbar_core.engine.array_sets import layouts_of, packed, program_parts, update_parts


def jumps(mean: float) -> JumpTable:
    """Return pulses of about this change, shares of the range 1e-6 to 1e-5 S, at every conductance."""
    change = tuple(9e-6 * mean * share for share in (0.5, 1.0, 1.5))
    return JumpTable(
        (1e-6, 1e-5), (0.0, 0.5, 1.0), (change, change) if mean > 0 else (change[::-1],) * 2, "t.csv"
    )


NOISY = preset("txsim-8bit")
CHIPS: dict[str, Chip] = {
    "plain": preset("ideal"),
    "noisy": NOISY.with_values({"update.v_up": 2.0, "update.v_down": -1.0}),
    "spread": NOISY.with_values(
        {
            "device.variation": {"sigma": 0.1, "sigma_v": 0.2, "sigma_g_min": 0.05, "sigma_g_max": 0.05},
            "device.faults": {"stuck_at_g_min": 0.05, "stuck_at_g_max": 0.05},
        }
    ),
    "carry": NOISY.with_values({"mapping.kind": "differential", "update.pair": "carry"}),
    "one-sided": NOISY.with_values({"mapping.kind": "differential", "update.pair": "one_sided"}),
    "offset": NOISY.with_("mapping.kind", "offset"),
    "sliced": preset("txsim-sliced"),
    "words": preset("txsim-16bit"),
    "snapped": NOISY.with_values({"device.levels": 31, "update.snap": "stochastic"}),
    "jumps": replace(
        preset("ideal"), device=JumpTableDevice(r_min=1e5, r_max=1e6, up=jumps(0.02), down=jumps(-0.02))
    ),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CHIPS)
def test_together_is_one_by_one(name: str, dtype: Any) -> None:
    """States, words and counts of two updates are the same bit for bit, draws of every set its own."""
    rng = np.random.default_rng(0)
    parts, inputs, outputs = 3, 5, 8
    layouts = layouts_of(CHIPS[name], inputs, parts * outputs, "conv", True, parts)
    weight = rng.normal(size=(inputs, parts * outputs)).astype(dtype)
    state, buffers = packed(program_parts(layouts, weight))
    for count in range(2):
        step = rng.normal(size=weight.shape).astype(dtype)
        together = update_parts(layouts, state, buffers, step, rate=0.3, count=count)
        alone = []
        for part, layout in enumerate(layouts):
            own = {key: value if key == "w_max" else value[part] for key, value in buffers.items()}
            mine = slice(part * outputs, (part + 1) * outputs)
            alone.append(update(layout, state[..., mine], own, step[:, mine], rate=0.3, count=count))
        np.testing.assert_array_equal(together.state, np.concatenate([each.state for each in alone], axis=-1))
        assert int(together.saturated) == sum(int(each.saturated) for each in alone)
        assert int(together.refreshed) == sum(int(each.refreshed) for each in alone)
        assert (together.words is None) == (alone[0].words is None)
        if together.words is not None:
            np.testing.assert_array_equal(together.words, np.stack([each.words for each in alone]))
            buffers = {**buffers, "words": together.words}
        state = together.state
