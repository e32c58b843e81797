"""Devices differ, fail, drift and fluctuate as their laws say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import CONVERTERS, Convert

from xbar_core import ConfigError
from xbar_core.config.device import Device, Drift, Faults, ProgrammingError, Variation
from xbar_core.config.update import Update
from xbar_core.devices import drift, faults, programming, read_noise, variation
from xbar_core.random import Purpose, Stream

STREAM = Stream(0, "devices")
SIZE = 100_000
G_MIN, G_MAX = 1e-6, 1e-5


def normal(purpose: Purpose, *shape: int) -> np.ndarray:
    return STREAM.normal(purpose, shape)


# -- Variation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["normal", "lognormal"])
def test_variation_follows_its_distribution(kind: Any) -> None:
    """1 + d is normal around 1, or has a normal logarithm, of deviation sigma (4 standard errors)."""
    d = variation.deviations(Variation(kind=kind, sigma=0.1), normal(Purpose.VARIATION, SIZE))
    x = d if kind == "normal" else np.log1p(d)
    assert x.mean() == pytest.approx(0.0, abs=4.0 * 0.1 / SIZE**0.5)
    assert x.std() == pytest.approx(0.1, rel=4.0 / (2 * SIZE) ** 0.5)
    conductance = np.full(SIZE, 3e-6)
    np.testing.assert_allclose(variation.vary(conductance, d), 3e-6 * (1.0 + d), rtol=1e-15)


def test_varied_conductances_are_not_negative() -> None:
    """A deviation below -1 opens the device, no more."""
    np.testing.assert_array_equal(variation.vary(np.array([2.0, 2.0]), np.array([-1.5, -0.5])), [0.0, 1.0])


def test_a_user_map_is_applied_as_it_is() -> None:
    """Any array of deviations serves as the variation of a chip."""
    conductance, mine = np.full((2, 3), G_MAX), np.arange(6.0).reshape(2, 3) / 10.0
    np.testing.assert_allclose(variation.vary(conductance, mine), G_MAX * (1.0 + mine), rtol=1e-15)


@settings(max_examples=40)
@given(
    sigma_v=st.sampled_from([0.0, 0.5]),
    sigma_low=st.sampled_from([0.0, 0.3, 10.0]),
    sigma_high=st.sampled_from([0.0, 0.1, 10.0]),
)
def test_spread_of_the_update(sigma_v: float, sigma_low: float, sigma_high: float) -> None:
    """v scatters around its nominal value; ranges stay inside the chip's and keep a tenth of it."""
    shape = (2, 20, 10)
    device = Device(variation=Variation(sigma_v=sigma_v, sigma_g_min=sigma_low, sigma_g_max=sigma_high))
    v = normal(Purpose.SPREAD_V, 2, *shape)
    low, high = normal(Purpose.SPREAD_G_MIN, *shape), normal(Purpose.SPREAD_G_MAX, *shape)
    spread = variation.update_spread(device, Update(v_up=1.0, v_down=-2.0), v, low, high)
    if sigma_v:
        np.testing.assert_allclose(spread.v_up, 1.0 + 0.5 * v[0])
        np.testing.assert_allclose(spread.v_down, -2.0 + 0.5 * v[1])
    else:
        assert spread.v_up is None
        assert spread.v_down is None
    if not sigma_low and not sigma_high:
        assert spread.lower is None
        assert spread.upper is None
        return
    assert (spread.lower >= 0.0).all()
    assert (spread.upper <= 1.0).all()
    assert (spread.upper - spread.lower >= 0.1 - 1e-12).all()
    if sigma_low == 0.3:
        inside = low > 0.0
        own_g_min = device.g_min + (device.g_max - device.g_min) * spread.lower
        np.testing.assert_allclose(own_g_min[inside], (device.g_min * (1.0 + 0.3 * low))[inside], rtol=1e-12)


def test_no_variation_is_no_spread() -> None:
    """A device without variation needs no draws."""
    spread = variation.update_spread(Device(), Update(), None, None, None)
    assert (spread.v_up, spread.v_down, spread.lower, spread.upper) == (None, None, None, None)


# -- Faults -------------------------------------------------------------------------------------------


def test_fractions_of_faults() -> None:
    """Each fault strikes its fraction of the devices (4 standard errors), and counts say so."""
    config = Faults(stuck_at_g_min=0.05, stuck_at_g_max=0.02, open=0.01)
    kinds = faults.draw_faults(config, STREAM.uniform(Purpose.FAULTS, (SIZE,)))
    counts = faults.count_faults(kinds)
    for name, fraction in (("stuck_at_g_min", 0.05), ("stuck_at_g_max", 0.02), ("open", 0.01)):
        sigma = (fraction * (1.0 - fraction) * SIZE) ** 0.5
        assert counts[name] == pytest.approx(fraction * SIZE, abs=4.0 * sigma)
    assert sum(counts.values()) == int((kinds != faults.HEALTHY).sum())


def test_all_devices_can_fail() -> None:
    """Fractions that add up to 1 leave nobody healthy, whatever their binary sum."""
    uniform = np.append(STREAM.uniform(Purpose.FAULTS, (1000,)), np.nextafter(1.0, 0.0))
    config = Faults(stuck_at_g_min=0.3, stuck_at_g_max=0.6, open=0.1)
    assert (faults.draw_faults(config, uniform) != faults.HEALTHY).all()


def test_faults_ignore_writes() -> None:
    """Whatever was written, stuck devices read their end, open ones conduct nothing."""
    kinds = np.array([0, 1, 2, 3], dtype=np.int8)
    state = np.array([0.4, 0.4, 0.4, 0.4])
    held = faults.hold(state, kinds)
    np.testing.assert_array_equal(held, [0.4, 0.0, 1.0, 0.0])
    np.testing.assert_array_equal(faults.hold(held, kinds), held)
    conductance = G_MIN + (G_MAX - G_MIN) * held
    np.testing.assert_array_equal(faults.open_cells(conductance, kinds), [conductance[0], G_MIN, G_MAX, 0.0])


# -- Drift --------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(nu=st.floats(-1.0, 1.0), t0=st.floats(1e-6, 1e3), decades=st.floats(-3.0, 9.0))
def test_drift_is_a_power_law(nu: float, t0: float, decades: float) -> None:
    """g(t) / g(t0) = (t / t0)^-nu, and 1 at t0."""
    config = Drift(nu=nu, t0=t0)
    assert drift.drift_factor(config, t0) == 1.0
    assert drift.drift_factor(config, t0 * 10.0**decades) == pytest.approx(10.0 ** (-nu * decades), rel=1e-9)


def test_drift_differs_from_device_to_device() -> None:
    """With a spread each device has its own exponent, the same at every time."""
    n = normal(Purpose.DRIFT, SIZE)
    config = Drift(nu=0.05, nu_spread=0.01)
    exponents = [-np.log(drift.drift_factor(config, t, n)) / math.log(t) for t in (10.0, 1e6)]
    np.testing.assert_allclose(exponents[0], exponents[1], rtol=1e-9, atol=1e-12)
    assert exponents[0].mean() == pytest.approx(0.05, abs=4.0 * 0.01 / SIZE**0.5)
    assert exponents[0].std() == pytest.approx(0.01, rel=4.0 / (2 * SIZE) ** 0.5)


@pytest.mark.parametrize("time", [0.0, -1.0, math.nan, math.inf])
def test_bad_time(time: float) -> None:
    """A time before or at programming, or none at all, is refused by name."""
    with pytest.raises(ConfigError, match="time"):
        drift.drift_factor(Drift(nu=0.1), time)


# -- Read noise ---------------------------------------------------------------------------------------


def test_current_noise_is_the_sum_of_its_devices() -> None:
    """The added noise has the variance of currents whose devices fluctuate one by one."""
    rng = np.random.default_rng(0)
    matrix, voltages, sigma = rng.uniform(G_MIN, G_MAX, (6, 3)), rng.uniform(-1.0, 1.0, 6), 0.05
    trials = 40_000
    devices = matrix * (1.0 + sigma * normal(Purpose.READ_NOISE, trials, 6, 3))
    slow = np.einsum("i,tij->tj", voltages, devices) - voltages @ matrix
    draws = STREAM.normal_samples(Purpose.READ_NOISE, (3,), first=0, count=trials)
    fast = read_noise.current_noise(np.tile(voltages, (trials, 1)), matrix**2, sigma, draws)
    exact = sigma * np.sqrt((voltages**2) @ matrix**2)
    for got in (slow, fast):
        np.testing.assert_allclose(got.std(axis=0), exact, rtol=4.0 / (2 * trials) ** 0.5)
        assert (np.abs(got.mean(axis=0)) < 4.0 * exact / trials**0.5).all()


def test_noise_of_a_silent_row_is_silent() -> None:
    """Without voltage there is no current and no noise of it."""
    noise = read_noise.current_noise(np.zeros((2, 4)), np.ones((4, 3)), 0.1, np.ones((2, 3)))
    np.testing.assert_array_equal(noise, np.zeros((2, 3)))


def test_conductances_drawn_once_per_call() -> None:
    """per_batch: g (1 + sigma n), never below 0."""
    n = normal(Purpose.READ_NOISE, SIZE)
    noisy = read_noise.noisy_conductance(np.full(SIZE, G_MAX), 0.02, n)
    np.testing.assert_allclose(noisy, G_MAX * (1.0 + 0.02 * n), rtol=1e-15)
    assert read_noise.noisy_conductance(np.ones(1), 0.5, np.full(1, -3.0))[0] == 0.0


# -- Programming error --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["relative", "absolute"])
def test_programming_error(kind: Any) -> None:
    """The conductance reached scatters by sigma, of the target or in siemens, within the range."""
    config = ProgrammingError(sigma=0.02 if kind == "relative" else 1e-7, kind=kind)
    n = normal(Purpose.PROGRAMMING, 2, SIZE)
    state = np.stack([np.full(SIZE, 0.5), np.ones(SIZE)])
    reached = programming.scatter_states(state, config, n, G_MIN, G_MAX)
    target = G_MIN + 0.5 * (G_MAX - G_MIN)
    got = G_MIN + (G_MAX - G_MIN) * reached
    sigma = 0.02 * target if kind == "relative" else 1e-7
    assert got[0].mean() == pytest.approx(target, abs=4.0 * sigma / SIZE**0.5)
    assert got[0].std() == pytest.approx(sigma, rel=4.0 / (2 * SIZE) ** 0.5)
    assert reached.max() == 1.0
    assert (reached[1] == 1.0).mean() == pytest.approx(0.5, abs=0.01)


# -- Other array libraries ----------------------------------------------------------------------------


@pytest.mark.parametrize("convert", CONVERTERS)
def test_other_libraries(convert: Convert) -> None:
    """Every law gives NumPy's numbers on strict arrays and torch tensors."""
    shape = (2, 5, 4)
    n, u = normal(Purpose.VARIATION, *shape), STREAM.uniform(Purpose.FAULTS, shape)
    device = Device(variation=Variation(sigma_v=0.1, sigma_g_min=0.2, sigma_g_max=0.2))

    def results(f: Any) -> list[Any]:
        state, draws = f(u), f(n)
        kinds = faults.draw_faults(Faults(stuck_at_g_min=0.2, stuck_at_g_max=0.2, open=0.2), f(u))
        spread = variation.update_spread(device, Update(), f(np.stack([n, n])), draws, f(n[::-1].copy()))
        return [
            variation.deviations(Variation(kind="lognormal", sigma=0.1), draws),
            variation.vary(state, draws),
            *(spread.v_up, spread.lower, spread.upper),
            faults.hold(state, kinds),
            faults.open_cells(state, kinds),
            drift.drift_factor(Drift(nu=0.1, nu_spread=0.1), 100.0, draws),
            read_noise.current_noise(f(n[:, :, :3].copy()), f(n[:, :3, :] ** 2), 0.1, draws),
            read_noise.noisy_conductance(state, 0.1, draws),
            programming.scatter_states(state, ProgrammingError(sigma=0.1), draws, G_MIN, G_MAX),
        ]

    for ours, theirs in zip(results(np.asarray), results(convert), strict=True):
        np.testing.assert_allclose(np.asarray(theirs), ours, rtol=1e-13, atol=1e-15)
    kinds = faults.draw_faults(Faults(open=0.5), u)
    assert faults.count_faults(convert(kinds)) == faults.count_faults(kinds)
