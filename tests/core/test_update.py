"""The update law, its noise, its pair rules and its encodings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import CONVERTERS, Convert
from scipy import stats

from xbar_core import ConfigError
from xbar_core.config.device import JumpTable, JumpTableDevice
from xbar_core.config.update import NoNoise, SqrtNoise, TxsimNoise, Update
from xbar_core.devices import pulses
from xbar_core.devices.jump_table import Jumps, jump, pulses_across
from xbar_core.devices.noise import draws_noise, write_noise
from xbar_core.devices.update import Spread, nonlinear_step, update_states
from xbar_core.mapping import WeightCode, conductance_of, decode, encode

V = [0.0, 1e-300, 1e-17, 1e-12, 1e-6, 9e-4, 0.01, 0.5, 3.0, 20.0, 100.0]
SIGNED_V = [*V, *(-v for v in V[1:])]
NOISES: list[Any] = [
    NoNoise(),
    NoNoise(stage="before_lr"),
    TxsimNoise(gamma=5.0),
    TxsimNoise(gamma=5.0, stage="before_lr"),
    SqrtNoise(gamma=0.2),
    SqrtNoise(gamma=0.2, stage="before_lr"),
]


def draws(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def states(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def one_device_law(s: float, d: float, v: float) -> float:
    """The law of PHYSICS section 7 for one device, as it is written there, with R = 1."""
    if d == 0.0:
        return 0.0
    if v == 0.0:
        return d
    bent = 1.0 - math.exp(-v * abs(d))
    if d > 0.0:
        return (1.0 / (1.0 - math.exp(-v)) + 0.0 - s) * bent
    return -(1.0 / (1.0 - math.exp(-v)) - 1.0 + s) * bent


# -- The law ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_device", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("v", SIGNED_V)
def test_a_full_step_lands_on_the_other_end(v: float, dtype: type, per_device: bool) -> None:
    """From g_min, +R gives g_max, from g_max, -R gives g_min, to 4 ulp, at any v."""
    zero, one = np.zeros((1, 5, 3), dtype), np.ones((5, 3), dtype)
    spread = Spread(v_up=np.full_like(zero, v), v_down=np.full_like(zero, v)) if per_device else Spread()
    config = Update(v_up=v, v_down=v)
    g_min, g_max = 1e-6, 1e-5
    up = update_states(zero, one, config, pair="both", spread=spread).state
    down = update_states(zero + 1, -one, config, pair="both", spread=spread).state
    for got, end in ((conductance_of(up, g_min, g_max), g_max), (conductance_of(down, g_min, g_max), g_min)):
        assert got.dtype == dtype
        assert np.abs(got - end).max() <= 4.0 * np.finfo(dtype).eps * end
    assert np.abs(up - 1.0).max() <= 4.0 * np.finfo(dtype).eps
    assert np.abs(down).max() <= 4.0 * np.finfo(dtype).eps


@settings(max_examples=150)
@given(
    s=st.floats(0.0, 1.0),
    d=st.floats(-1.0, 1.0).filter(lambda d: d == 0.0 or abs(d) > 1e-6),
    v=st.floats(-8.0, 8.0).filter(lambda v: v == 0.0 or abs(v) > 0.01),
)
def test_the_law_is_the_published_one(s: float, d: float, v: float) -> None:
    """One device moves as the formula says; evaluated naively, that formula loses eps / |v d|."""
    got = float(nonlinear_step(np.array([s]), np.array([d]), v, v)[0])
    lost = 1e-15 / max(abs(v * d), 1e-15) if v and d else 0.0
    assert got == pytest.approx(one_device_law(s, d, v), rel=1e-13 + lost, abs=1e-15)
    each = nonlinear_step(np.array([s]), np.array([d]), np.array([v]), np.array([v]))
    assert float(each[0]) == pytest.approx(got, rel=1e-12, abs=1e-16)


@settings(max_examples=60)
@given(s=st.floats(0.0, 1.0), d=st.floats(-2.0, 2.0), v_up=st.floats(-30, 30), v_down=st.floats(-30, 30))
def test_down_is_the_mirror_of_up(s: float, d: float, v_up: float, v_down: float) -> None:
    """Turning the range upside down exchanges v_up and v_down and the sign of the step."""
    up = nonlinear_step(np.array([s]), np.array([d]), v_up, v_down)
    mirrored = nonlinear_step(np.array([1.0 - s]), np.array([-d]), v_down, v_up)
    # 1 - s is rounded, and a device of v = -30 multiplies that by up to e^60.
    scale = math.exp(max(0.0, -min(v_up, v_down)) * abs(d))
    np.testing.assert_allclose(mirrored, -up, rtol=1e-12, atol=1e-15 * scale)


@pytest.mark.parametrize("v", [-6.0, -0.5, -1e-9, 0.0, 1e-9, 0.01, 2.0, 9.0])
def test_repeated_pulses_give_the_closed_form(v: float) -> None:
    """n pulses of R / n from one end follow (1 - e^(-v p / n)) / (1 - e^-v), up and down."""
    n = 50
    p = np.arange(n + 1) / n
    curve = p if v == 0.0 else np.expm1(-v * p) / np.expm1(-v)
    config, step = Update(v_up=v, v_down=v), np.full((1, 1), 1.0 / n)
    up, down = np.zeros((1, 1, 1)), np.ones((1, 1, 1))
    for k in range(1, n + 1):
        up = update_states(up, step, config, pair="both").state
        down = update_states(down, -step, config, pair="both").state
        assert float(up[0, 0, 0]) == pytest.approx(curve[k], abs=1e-12)
        assert float(down[0, 0, 0]) == pytest.approx(1.0 - curve[k], abs=1e-12)


@settings(max_examples=60)
@given(
    pair=st.sampled_from(["both", "carry", "one_sided"]),
    noise=st.sampled_from(NOISES),
    v_up=st.sampled_from(SIGNED_V),
    v_down=st.sampled_from(SIGNED_V),
    size=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 1e3]),
    rate=st.sampled_from([0.0, 0.05, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 10**6),
)
def test_states_never_leave_the_range(
    pair: Any, noise: Any, v_up: float, v_down: float, size: float, rate: float, dtype: type, seed: int
) -> None:
    """Whatever the law, noise, pair rule and size of the step, states stay in [0, 1] and finite."""
    state = states(seed, 2, 6, 5).astype(dtype)
    state[:, 0, :2] = [[0.0, 1.0], [1.0, 0.0]]
    step = (size * draws(seed + 1, 6, 5)).astype(dtype)
    normal = draws(seed + 2, 2, 6, 5).astype(dtype)
    config = Update(v_up=v_up, v_down=v_down, noise=noise)
    written = update_states(state, step, config, pair=pair, rate=rate, normal=normal)
    assert written.state.dtype == dtype
    assert np.isfinite(written.state).all()
    assert written.state.min() >= 0.0
    assert written.state.max() <= 1.0
    if size == 0.0 or (rate == 0.0 and pair != "one_sided"):
        np.testing.assert_array_equal(written.state, state)
        assert int(written.saturated) == 0


def test_each_device_has_its_own_range_and_law() -> None:
    """With a spread, every device is the nominal device on its own range with its own v."""
    shape = (1, 4, 5)
    lower, upper = 0.2 * states(0, *shape), 1.0 - 0.2 * states(1, *shape)
    v_up, v_down = draws(2, *shape), draws(3, *shape)
    state, step = lower + (upper - lower) * states(4, *shape), 0.3 * draws(5, 4, 5)
    spread = Spread(v_up, v_down, lower, upper)
    got = update_states(state, step, Update(), pair="both", spread=spread).state
    for k in np.ndindex(*shape):
        width = upper[k] - lower[k]
        v = v_up[k] if step[k[1:]] > 0 else v_down[k]
        s = (state[k] - lower[k]) / width
        s += one_device_law(s, step[k[1:]] / width, v)
        assert got[k] == pytest.approx(lower[k] + width * min(max(s, 0.0), 1.0), abs=1e-13)


def test_saturated_devices_are_counted() -> None:
    """Devices asked to go beyond an end are counted, the others are not."""
    state = np.array([[[0.95, 0.5, 0.1]]])
    written = update_states(state, np.array([[0.1, 0.1, -0.2]]), Update(), pair="both")
    np.testing.assert_allclose(written.state, [[[1.0, 0.6, 0.0]]], atol=1e-15)
    assert int(written.saturated) == 2
    for dtype in (np.float32, np.float64):
        hair = 1e-5 if dtype is np.float32 else 1e-14
        ends = np.array([[[1.0, 1.0, 0.0, 0.0]]], dtype)
        steps = np.array([[hair, 0.0, -hair, 0.0]], dtype)
        assert int(update_states(ends, steps, Update(), pair="both").saturated) == 2


# -- Noise --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["txsim", "sqrt"])
@pytest.mark.parametrize("stage", ["before_lr", "after_lr"])
def test_mean_and_deviation_of_noise(law: str, stage: Any) -> None:
    """Noise is normal, of mean 0 and of the law's deviation at its stage (4 standard errors)."""
    size, d, rate, gamma = 200_000, 0.2, 0.05, 0.3
    noise = TxsimNoise(gamma=gamma, stage=stage) if law == "txsim" else SqrtNoise(gamma=gamma, stage=stage)
    state, step = np.full((1, 1, size), 0.5), np.full((1, size), d)
    normal = draws(0, 1, 1, size)
    moved = update_states(state, step, Update(noise=noise), pair="both", rate=rate, normal=normal).state - 0.5
    if law == "txsim":
        sigma = gamma * d * rate
    else:
        sigma = gamma * math.sqrt(d) * rate if stage == "before_lr" else gamma * math.sqrt(d * rate)
    assert moved.mean() == pytest.approx(rate * d, abs=4.0 * sigma / size**0.5)
    assert moved.std() == pytest.approx(sigma, rel=4.0 / (2.0 * size) ** 0.5)
    assert stats.kstest((moved.ravel()[:20_000] - rate * d) / sigma, "norm").pvalue > 1e-3


def test_order_of_the_stages() -> None:
    """before_lr bends and disturbs the gradient, then multiplies; after_lr bends and disturbs the step."""
    s, d, rate, v, gamma, n = 0.3, 0.4, 0.1, 2.0, 0.5, 1.7
    state, step, normal = np.full((1, 1, 1), s), np.full((1, 1), d), np.full((1, 1, 1), n)

    def run(noise: Any) -> float:
        config = Update(v_up=v, v_down=v, noise=noise)
        return float(update_states(state, step, config, pair="both", rate=rate, normal=normal).state[0, 0, 0])

    before = s + rate * (one_device_law(s, d, v) + gamma * math.sqrt(d) * n)
    after = s + one_device_law(s, rate * d, v) + gamma * math.sqrt(rate * d) * n
    assert run(SqrtNoise(gamma=gamma, stage="before_lr")) == pytest.approx(min(before, 1.0), rel=1e-14)
    assert run(SqrtNoise(gamma=gamma)) == pytest.approx(min(after, 1.0), rel=1e-14)


def test_laws_without_draws() -> None:
    """No law, or gamma 0, needs no draws."""
    assert not draws_noise(NoNoise())
    assert not draws_noise(TxsimNoise(gamma=0.0))
    assert write_noise(np.ones(3), SqrtNoise(gamma=0.0), None) is None
    assert draws_noise(SqrtNoise(gamma=0.1))


# -- Pairs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "pair"), [("balanced", "both"), ("offset", "both"), ("differential", "carry")]
)
def test_an_ideal_pair_is_sgd(kind: Any, pair: Any) -> None:
    """100 steps on linear, noiseless devices equal SGD on the weights, to 1e-12."""
    code, w_max = WeightCode(kind), 4.0
    weight = draws(0, 6, 5).clip(-1.0, 1.0)
    state = encode(code, weight, w_max)
    for k in range(100):
        gradient = draws(k + 1, 6, 5)
        weight = weight - 0.02 * gradient
        written = update_states(state, gradient / (-2.0 * w_max), Update(), pair=pair, rate=0.02)
        state = written.state
        assert int(written.saturated) == 0
    np.testing.assert_allclose(decode(code, state, w_max), weight, rtol=0, atol=1e-12)


def test_both_loses_what_is_clipped() -> None:
    """A differential pair under `both` moves by half where its low side has no room."""
    state = np.array([[[0.4]], [[0.0]]])
    step = np.array([[0.05]])
    both = update_states(state, step, Update(), pair="both")
    carry = update_states(state, step, Update(), pair="carry")
    np.testing.assert_allclose(both.state[:, 0, 0], [0.45, 0.0], atol=1e-15)
    np.testing.assert_allclose(carry.state[:, 0, 0], [0.5, 0.0], atol=1e-15)
    assert (int(both.saturated), int(carry.saturated)) == (1, 0)


@settings(max_examples=100)
@given(seed=st.integers(0, 10**6), size=st.floats(0.0, 2.0), stage=st.sampled_from(["before_lr", "after_lr"]))
def test_carry_keeps_the_difference_while_there_is_room(seed: int, size: float, stage: Any) -> None:
    """Under carry s_0 - s_1 moves by the whole step, or as far as both ends allow."""
    state, step = states(seed, 2, 4, 3), size * draws(seed + 1, 4, 3)
    written = update_states(state, step, Update(noise=NoNoise(stage=stage)), pair="carry", rate=0.5)
    wanted = np.clip(state[0] - state[1] + step, -1.0, 1.0)
    np.testing.assert_allclose(written.state[0] - written.state[1], wanted, rtol=0, atol=1e-13)


def test_one_sided_only_potentiates_and_refreshes() -> None:
    """States only rise until a side is full; then the pair is reset to its difference."""
    state, weight = np.zeros((2, 1, 1)), 0.0
    refreshes = 0
    for k in range(120):
        step = 0.02 * (-1.0) ** (k // 5)
        written = update_states(state, np.array([[step]]), Update(), pair="one_sided")
        refreshes += int(written.refreshed)
        if not int(written.refreshed):
            assert (written.state >= state).all()
        state, weight = written.state, weight + 2.0 * step
        assert float(state[0, 0, 0] - state[1, 0, 0]) == pytest.approx(weight, abs=1e-13)
    assert refreshes == 2


@pytest.mark.parametrize("per_device", [False, True])
@pytest.mark.parametrize("pair", ["both", "carry", "one_sided"])
def test_a_write_does_not_depend_on_its_neighbours(pair: Any, per_device: bool) -> None:
    """A large matrix, written in blocks by several threads, is bit for bit its rows written one by one."""
    shape = (2, 403, 211)
    state, step, normal = states(1, *shape), draws(2, *shape[1:]) * 0.3, draws(3, *shape)
    uniform = states(4, *shape)
    config = Update(v_up=2.0, v_down=0.5, noise=TxsimNoise(gamma=0.5), snap="stochastic")
    spread = Spread()
    if per_device:
        spread = Spread(
            3 * states(5, *shape), -states(6, *shape), 0.1 * states(7, *shape), 1 - states(8, *shape) / 9
        )
    whole = update_states(
        state, step, config, pair=pair, rate=0.7, normal=normal, spread=spread, levels=99, uniform=uniform
    )
    counts = np.zeros(2, dtype=np.int64)
    for row in range(shape[1]):
        part = slice(row, row + 1)
        own = (
            Spread(*(getattr(spread, name)[:, part] for name in ("v_up", "v_down", "lower", "upper")))
            if per_device
            else spread
        )
        one = update_states(
            state[:, part],
            step[part],
            config,
            pair=pair,
            rate=0.7,
            normal=normal[:, part],
            spread=own,
            levels=99,
            uniform=uniform[:, part],
        )
        np.testing.assert_array_equal(whole.state[:, part], one.state)
        counts += (one.saturated, one.refreshed)
    assert (whole.saturated, whole.refreshed) == tuple(counts)
    assert whole.saturated > 0


def test_snapping() -> None:
    """nearest lands on levels; stochastic lands on levels and keeps the mean."""
    state, step = np.full((1, 1, 100_000), 0.5), np.full((1, 100_000), 0.013)
    uniform = np.random.default_rng(0).random(state.shape)
    nearest = update_states(state, step, Update(snap="nearest"), pair="both", levels=11).state
    mixed = update_states(
        state, step, Update(snap="stochastic"), pair="both", levels=11, uniform=uniform
    ).state
    np.testing.assert_array_equal(np.unique(nearest), [0.5])
    np.testing.assert_allclose(np.unique(mixed), [0.5, 0.6])
    assert mixed.mean() == pytest.approx(0.513, abs=4.0 * 0.1 * 0.34 / 100_000**0.5)


# -- Measured jumps -----------------------------------------------------------------------------------


def linear_table(change: float, spread: float, fall: float = 0.0) -> JumpTable:
    """Changes uniform within +-spread around change x (1 - fall s), for 1 to 10 uS."""
    conductance = (1e-6, 4e-6, 1e-5)
    cdf = (0.0, 0.5, 1.0)
    dg = tuple(
        tuple(change * (1.0 - fall * (g - 1e-6) / 9e-6) + spread * k for k in (-1.0, 0.0, 1.0))
        for g in conductance
    )
    return JumpTable(conductance, cdf, dg)


def jump_device(spread: float = 0.0, fall: float = 0.0) -> JumpTableDevice:
    up, down = linear_table(9e-8, spread, fall), linear_table(-4.5e-8, spread)
    return JumpTableDevice(r_min=1e5, r_max=1e6, up=up, down=down)


def test_pulses_across_the_range() -> None:
    """A constant change of R / 100 crosses in 100 pulses; a falling one in the logarithmic number."""
    assert pulses_across(linear_table(9e-8, 1e-9), 1e-6, 1e-5) == pytest.approx(100.0, rel=1e-9)
    assert pulses_across(linear_table(9e-8, 0.0, 0.5), 1e-6, 1e-5) == pytest.approx(
        100.0 * math.log(2.0) / 0.5, rel=1e-5
    )
    with pytest.raises(ConfigError, match="keep its sign"):
        pulses_across(linear_table(9e-8, 0.0, 2.0), 1e-6, 1e-5)


def test_certain_jumps_are_linear_steps() -> None:
    """A table without spread moves each device by whole pulses of R / 100 up and R / 200 down."""
    state = np.full((1, 3, 2), 0.5)
    step = np.array([[0.1, -0.1], [0.0, 0.25], [0.005, -0.005]])
    uniform = [np.full(state.shape, 0.3)] * 100
    got = jump(state, step[None], Jumps(jump_device(), uniform.__getitem__))
    pulses = np.array([[10, -20 / 2], [0, 25], [0, -1 / 2]]) / 100
    np.testing.assert_allclose(got, 0.5 + pulses[None], atol=1e-12)


def test_jumps_are_interpolated() -> None:
    """Between two measured conductances and two probabilities the change is bilinear."""
    device = jump_device(spread=1e-8, fall=0.5)
    draw = np.full((1, 1, 1), 0.8)
    state = np.full((1, 1, 1), (2.2e-6 - 1e-6) / 9e-6)
    span = pulses_across(device.up, device.g_min, device.g_max)  # type: ignore[arg-type]
    got = jump(state, np.full((1, 1, 1), 1.0 / span), Jumps(device, lambda k: draw)) - state
    expected = (9e-8 * (1.0 - 0.5 * state) + 0.6 * 1e-8) / 9e-6
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_jumps_follow_their_distribution() -> None:
    """The mean is the ideal step and the variance that of the pulses, rounding of their number included."""
    size = 40_000
    rng = np.random.default_rng(0)
    kept = [rng.random((1, 1, size)) for _ in range(5)]
    spread = 1.8e-8
    jumps = Jumps(jump_device(spread), kept.__getitem__)
    written = update_states(
        np.full((1, 1, size), 0.5), np.full((1, size), 0.035), Update(), pair="both", jumps=jumps
    )
    moved = written.state.ravel() - 0.5
    variance = 3.5 * (spread / 9e-6) ** 2 / 3.0 + 0.25 * 0.01**2
    assert moved.mean() == pytest.approx(0.035, abs=4.0 * (variance / size) ** 0.5)
    assert moved.var() == pytest.approx(variance, rel=0.03)


# -- Encodings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples_per_write", [None, 1, 3])
def test_deterministic_writes_are_products_of_codes(samples_per_write: int | None) -> None:
    """Writes come in sample order, each the integer product of the codes of its samples."""
    x, dy = draws(0, 8, 2, 5), 1e-3 * draws(1, 8, 2, 4)
    factors = pulses.deterministic(x, dy, 2.0, 2e-3, bits=5)
    code_x = np.rint(np.clip(x / 2.0, -1, 1) * 15).astype(int)
    code_dy = np.rint(np.clip(dy / 2e-3, -1, 1) * 15).astype(int)
    group = samples_per_write or 8
    got = list(pulses.writes(factors, samples_per_write))
    assert len(got) == -(-8 // group)
    for k, write in enumerate(got):
        part = slice(k * group, (k + 1) * group)
        product = np.einsum("spi,spj->ij", code_x[part], code_dy[part])
        np.testing.assert_allclose(write, product * (2.0 * 2e-3 / 225), rtol=1e-12, atol=1e-18)


def test_many_bits_are_the_gradient() -> None:
    """With many bits and one write the pulses make the batch gradient."""
    x, dy = draws(0, 8, 1, 5), draws(1, 8, 1, 4)
    (write,) = pulses.writes(pulses.deterministic(x, dy, 4.0, 4.0, bits=30), None)
    np.testing.assert_allclose(write, np.einsum("spi,spj->ij", x, dy), atol=1e-7)


def test_coincidences_make_the_product() -> None:
    """Stochastic writes are whole coincidences; mean and variance are those of independent bits."""
    length, trials = 10, 4000
    p, q = np.array([0.3, -0.8, 0.0]), np.array([0.5, -1.5])
    x, dy = np.tile(p, (trials, 1, 1)), np.tile(q, (trials, 1, 1))
    rng = np.random.default_rng(0)
    uniform_x, uniform_dy = rng.random((trials, 1, length, 3)), rng.random((trials, 1, length, 2))
    factors = pulses.stochastic(x, dy, 1.0, 2.0, length, uniform_x, uniform_dy)
    made = np.stack(list(pulses.writes(factors, 1)))
    counts = made / (2.0 / length)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-12)
    chance = np.abs(np.outer(p, q / 2.0))
    sigma = 2.0 * np.sqrt(chance * (1.0 - chance) / length)
    assert (np.abs(made.mean(axis=0) - np.outer(p, q)) <= 4.5 * sigma / trials**0.5 + 1e-15).all()
    np.testing.assert_allclose(made.std(axis=0), sigma, rtol=0.06, atol=1e-12)


# -- Other array libraries ----------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["both", "carry", "one_sided"])
@pytest.mark.parametrize("noise", NOISES, ids=lambda n: f"{n.law}-{n.stage}")
@pytest.mark.parametrize("convert", CONVERTERS)
def test_other_libraries_write_the_same(convert: Convert, noise: Any, pair: Any) -> None:
    """Strict arrays and torch tensors end in NumPy's states with NumPy's counts."""
    state, step, normal = states(0, 2, 6, 5), 0.4 * draws(1, 6, 5), draws(2, 2, 6, 5)
    spread = Spread(
        *(draws(k, 2, 6, 5) for k in (3, 4)), 0.1 * states(5, 2, 6, 5), 1 - 0.1 * states(6, 2, 6, 5)
    )
    state = np.clip(state, spread.lower, spread.upper)
    other_spread = Spread(*(convert(getattr(spread, f)) for f in ("v_up", "v_down", "lower", "upper")))
    for v_up, v_down, ours, theirs in (
        (0.0, 0.0, Spread(), Spread()),
        (0.3, 0.3, Spread(), Spread()),
        (1.0, -2.0, Spread(), Spread()),
        (1.0, -2.0, spread, other_spread),
    ):
        config = Update(v_up=v_up, v_down=v_down, noise=noise)
        expected = update_states(state, step, config, pair=pair, rate=0.3, normal=normal, spread=ours)
        got = update_states(
            convert(state), convert(step), config, pair=pair, rate=0.3, normal=convert(normal), spread=theirs
        )
        np.testing.assert_allclose(np.asarray(got.state), expected.state, rtol=0, atol=1e-14)
        assert int(got.refreshed) == int(expected.refreshed)
        assert int(got.saturated) == int(expected.saturated)


@pytest.mark.parametrize("v", [-100.0, -0.01, 0.01, 3.0])
@pytest.mark.parametrize("convert", CONVERTERS)
def test_other_libraries_land_on_the_ends(convert: Convert, v: float) -> None:
    """A full step in float32 ends exactly on the other end in every library."""
    zero, one = np.zeros((1, 7, 3), np.float32), np.ones((7, 3), np.float32)
    config = Update(v_up=v, v_down=v)
    up = update_states(convert(zero), convert(one), config, pair="both")
    down = update_states(convert(zero + 1), convert(-one), config, pair="both")
    np.testing.assert_array_equal(np.asarray(up.state), zero + 1)
    np.testing.assert_array_equal(np.asarray(down.state), zero)
    assert int(up.saturated) == int(down.saturated) == 0


@pytest.mark.parametrize("convert", CONVERTERS)
def test_other_libraries_pulse_the_same(convert: Convert) -> None:
    """Jump tables and both encodings run on every library."""
    uniform = [states(k, 1, 4, 3) for k in range(200)]
    state, step = states(300, 1, 4, 3), 0.1 * draws(301, 1, 4, 3)
    ours = jump(state, step, Jumps(jump_device(1e-8, 0.4), uniform.__getitem__))
    theirs = jump(convert(state), convert(step), Jumps(jump_device(1e-8, 0.4), lambda k: convert(uniform[k])))
    np.testing.assert_allclose(np.asarray(theirs), ours, rtol=0, atol=1e-13)
    x, dy, ux, uy = draws(0, 6, 2, 5), draws(1, 6, 2, 4), states(2, 6, 2, 7, 5), states(3, 6, 2, 7, 4)
    made = [
        [
            pulses.deterministic(f(x), f(dy), 2.0, 2.0, 6),
            pulses.stochastic(f(x), f(dy), 2.0, 2.0, 7, f(ux), f(uy)),
        ]
        for f in (np.asarray, convert)
    ]
    for one, other in zip(*made, strict=True):
        for a, b in zip(pulses.writes(one, 4), pulses.writes(other, 4), strict=True):
            np.testing.assert_allclose(np.asarray(b), a, rtol=0, atol=1e-13)
