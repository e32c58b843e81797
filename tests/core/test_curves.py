"""The update curve: closed form, limits, NeuroSim's label, noise bands against simulated devices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xbar_core import ConfigError
from xbar_core.config import Chip, Device, JumpTable, JumpTableDevice, SqrtNoise, TxsimNoise, Update
from xbar_core.devices.curves import (
    curve_label,
    default_pulses,
    growth,
    label_from_nonlinearity,
    noise_band,
    nonlinearity_from_label,
    update_curve,
)

NONLINEARITIES = st.floats(-50.0, 50.0)


def chip_with(v_up: float, v_down: float, **update: object) -> Chip:
    return Chip(device=Device(1e5, 1e6), update=Update(v_up=v_up, v_down=v_down, **update))  # type: ignore[arg-type]


@given(v=NONLINEARITIES)
@settings(max_examples=100)
def test_growth_runs_from_zero_to_one_and_rises(v: float) -> None:
    """s(0) = 0, s(1) = 1, monotonic between, for every v."""
    s = growth(v, np.linspace(0.0, 1.0, 101))
    assert s[0] == 0.0
    assert s[-1] == 1.0
    assert (np.diff(s) >= 0.0).all()


@given(v=st.floats(-1e-3, 1e-3))
@settings(max_examples=60)
def test_growth_is_smooth_through_zero(v: float) -> None:
    """s(x) = x + v x (1 - x) / 2 + O(v^2): the straight line is no special case."""
    x = np.linspace(0.0, 1.0, 21)
    np.testing.assert_allclose(growth(v, x), x + 0.5 * v * x * (1.0 - x), atol=0.05 * v**2 + 1e-13)


@given(v=st.floats(0.0, 50.0))
@settings(max_examples=60)
def test_negative_nonlinearity_turns_the_curve(v: float) -> None:
    """s(-v, x) = 1 - s(v, 1 - x): a half turn about the middle."""
    x = np.linspace(0.0, 1.0, 33)
    np.testing.assert_allclose(growth(-v, x), 1.0 - growth(v, 1.0 - x), atol=1e-14)


def pulse_by_pulse(v: float, pulses: int, g_min: float, g_max: float, *, up: bool) -> NDArray[np.float64]:
    """Apply the law of one pulse repeatedly, one pulse at a time, exactly as it is printed."""
    span = g_max - g_min
    gain = 1.0 - math.exp(-v / pulses)
    reach = span / (1.0 - math.exp(-v))
    g = [g_min if up else g_max]
    for _ in range(pulses):
        now = g[-1]
        g.append(now + (reach + g_min - now) * gain if up else now - (reach - g_max + now) * gain)
    return np.array(g)


@pytest.mark.parametrize("v", [-7.0, -1.0, 0.01, 1.0, 5.0])
@pytest.mark.parametrize("up", [True, False])
def test_closed_form_equals_repeated_pulses(v: float, up: bool) -> None:
    """The printed law, pulse by pulse, lands on the closed-form curve and on the far end."""
    curve = update_curve(chip_with(v, v), pulses=50)
    expected = pulse_by_pulse(v, 50, 1e-6, 1e-5, up=up)
    np.testing.assert_allclose(curve.up if up else curve.down, expected, rtol=1e-11)


@given(label=st.floats(-9.0, 9.0))
@settings(max_examples=60)
def test_label_and_nonlinearity_are_inverse(label: float) -> None:
    """label(v(label)) = label."""
    v = nonlinearity_from_label(label)
    assert label_from_nonlinearity(v) == pytest.approx(label, rel=1e-9, abs=1e-9)
    assert math.copysign(1.0, v) == math.copysign(1.0, label) or label == 0.0


@given(v=st.floats(0.01, 30.0))
@settings(max_examples=40)
def test_label_is_the_largest_distance_over_007(v: float) -> None:
    """A fine sampling of the curve has the label as largest perpendicular distance / 0.07."""
    x = np.linspace(0.0, 1.0, 20001)
    distance = (growth(v, x) - x) / math.sqrt(2.0)
    assert label_from_nonlinearity(v) == pytest.approx(distance.max() / 0.07, rel=1e-5)


@pytest.mark.parametrize("label", [0.01, 0.5, 1.0, 2.4, 4.88, 6.76, 9.0])
def test_largest_vertical_gap_is_0099_of_the_label(label: float) -> None:
    """0.0990 = 0.07 sqrt(2): the factor found in NeuroSim's own curves."""
    x = np.linspace(0.0, 1.0, 20001)
    gap = growth(nonlinearity_from_label(label), x) - x
    assert gap.max() / label == pytest.approx(0.0990, abs=5e-5)


@given(label=st.floats(0.05, 7.0), up=st.booleans(), curved_down=st.booleans())
@settings(max_examples=60)
def test_curve_label_recovers_label_and_sign(label: float, up: bool, curved_down: bool) -> None:
    """The label of a simulated curve is the one that v came from, with NeuroSim's signs for P and D."""
    label = -label if curved_down else label
    v = nonlinearity_from_label(label) if up else -nonlinearity_from_label(label)
    curve = update_curve(chip_with(v, v), pulses=400)
    assert curve_label(curve.up if up else curve.down) == pytest.approx(label, rel=1e-3)


def test_impossible_labels_and_curves_are_named() -> None:
    """Labels end where |v| = 100; a flat or short curve has none."""
    with pytest.raises(ConfigError, match=r"\|label\| is at most 9\.5\d, where \|v\| = 100"):
        nonlinearity_from_label(10.2)
    for bad in ([1.0, 2.0], [1.0, 2.0, 1.0], [[1.0, 2.0, 3.0]]):
        with pytest.raises(ConfigError, match="is no curve"):
            curve_label(bad)


@pytest.mark.parametrize("v", [-2.0, 0.0, 3.0])
@pytest.mark.parametrize("noise", [SqrtNoise(gamma=0.05), TxsimNoise(gamma=0.5)])
def test_noise_band_equals_simulated_devices(v: float, noise: SqrtNoise | TxsimNoise) -> None:
    """The closed-form standard deviation is that of 20000 devices pulsed one by one, unclipped."""
    pulses, devices = 40, 20000
    rng = np.random.default_rng(0)
    step = 1.0 / pulses
    sigma = noise.gamma * (math.sqrt(step) if noise.law == "sqrt" else step)
    s = np.zeros(devices)
    seen = [0.0]
    for _ in range(pulses):
        drift = step if v == 0.0 else (1.0 / (1.0 - math.exp(-v)) - s) * (1.0 - math.exp(-v * step))
        s = s + drift + sigma * rng.standard_normal(devices)
        seen.append(float(s.std()))
    band = noise_band(chip_with(v, v, noise=noise), v, pulses)
    np.testing.assert_allclose(seen, band, rtol=4.0 / math.sqrt(2 * devices))


def test_sweep_length_defaults_to_the_levels() -> None:
    """A device of n levels is swept in n pulses, a continuous one in 100."""
    assert default_pulses(Chip(device=Device(levels=64))) == 64
    assert default_pulses(Chip()) == 100
    assert update_curve(Chip(device=Device(levels=64))).pulse[-1] == 64


def test_jump_table_curve_is_the_mean_walk() -> None:
    """Constant symmetric steps: the mean rises by the mean step, sigma by step sigma x sqrt(pulses)."""
    grid, cdf = (1e-6, 1e-5), tuple(np.linspace(0.0, 1.0, 11).tolist())
    quantiles = np.linspace(0.5e-7, 1.5e-7, 11)
    up = JumpTable(grid, cdf, (tuple(quantiles.tolist()),) * 2)
    down = JumpTable(grid, cdf, (tuple((-quantiles[::-1]).tolist()),) * 2)
    chip = Chip(device=JumpTableDevice(r_min=1e5, r_max=1e6, up=up, down=down))
    assert default_pulses(chip) == 90
    curve = update_curve(chip, pulses=50, devices=4000)
    assert curve.up[50] == pytest.approx(1e-6 + 50e-7, rel=1e-3)
    assert curve.down[50] == pytest.approx(1e-5 - 50e-7, rel=1e-3)
    # Steps are uniform between the two ends: their standard deviation is 1e-7 / sqrt(12).
    assert curve.up_sigma[50] == pytest.approx(1e-7 / math.sqrt(12.0) * math.sqrt(50.0), rel=0.05)
