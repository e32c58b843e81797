"""The update curve: conductance against pulse number, its noise band, and NeuroSim's label of it.

Repeated pulses of ``|dG_ideal| = R / P`` from one end of the range give, in closed form,

    up:    s(p) = (1 - e^(-v p / P)) / (1 - e^(-v))
    down:  s(p) = 1 - (1 - e^(-v p / P)) / (1 - e^(-v))

with s = (g - g_min) / R and R = g_max - g_min; v = 0 is the straight line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbar_core._checks import check_integer, check_number
from xbar_core.config.device import JumpTableDevice
from xbar_core.config.schema import Chip
from xbar_core.config.update import V_LIMIT
from xbar_core.devices.jump_table import Jumps, jump, pulses_across
from xbar_core.errors import ConfigError

LABEL_UNIT = 0.07
"""Perpendicular distance from the straight line that NeuroSim labels 1."""
DEFAULT_PULSES = 100


def growth(v: float, fraction: ArrayLike) -> NDArray[np.float64]:
    """Return ``(1 - e^(-v x)) / (1 - e^(-v))``, the normalised rise after a fraction x of the pulses.

    Parameters
    ----------
    v : float
        Non-linearity, dimensionless; negative curves start slowly.
    fraction : array_like
        x in [0, 1].

    Returns
    -------
    ndarray
        In [0, 1]; accurate for every v, 0 and its neighbourhood included.
    """
    x = np.asarray(fraction, dtype=np.float64)
    if v < 0.0:
        # e^(-v x) would overflow: turn the curve by 180 degrees.
        return 1.0 - growth(-v, 1.0 - x)
    if v < 1e-8:
        return x + 0.5 * v * x * (1.0 - x)
    return np.asarray(np.expm1(-v * x) / np.expm1(-v))


def label_from_nonlinearity(v: float) -> float:
    """Return NeuroSim's label of a potentiation curve with non-linearity `v`.

    The largest perpendicular distance of the normalised curve from the straight line, divided by
    0.07, with the sign of v. A depression curve with v_down has the label ``-label(v_down)``.

    References
    ----------
    Chen, Peng, Yu, IEEE TCAD 37, 3067 (2018).
    """
    magnitude = abs(check_number("v", v))
    if magnitude < 1e-6:
        distance = magnitude / 8.0
    else:
        scale = -math.expm1(-magnitude)
        # The curve is steepest-parallel where dG/dx = 1.
        peak = math.log(magnitude / scale) / magnitude
        distance = float(growth(magnitude, peak)) - peak
    return math.copysign(distance / math.sqrt(2.0) / LABEL_UNIT, v)


def nonlinearity_from_label(label: float) -> float:
    """Return the non-linearity v whose curve has NeuroSim's `label`, by root finding.

    Use ``v_up = nonlinearity_from_label(P)`` and ``v_down = -nonlinearity_from_label(D)`` for a
    device labelled P / D (D is usually negative).

    Raises
    ------
    ConfigError
        No curve with v up to 100 bends that much: labels stay below 9.54 (a step has 10.1).
    """
    magnitude = abs(check_number("label", label))
    limit = label_from_nonlinearity(V_LIMIT)
    if magnitude > limit:
        raise ConfigError(
            f"label: {label!r} is out of range; |label| is at most {limit:.2f}, where |v| = {V_LIMIT:g}"
        )
    if magnitude == 0.0:
        return 0.0
    # Loaded when first needed: scipy.optimize takes longer to import than the rest of the core.
    from scipy.optimize import brentq

    root = brentq(lambda v: label_from_nonlinearity(v) - magnitude, 0.0, V_LIMIT, xtol=1e-14, rtol=1e-14)
    return math.copysign(float(root), label)


def curve_label(conductance: ArrayLike) -> float:
    """Return NeuroSim's label of a measured or simulated curve.

    Parameters
    ----------
    conductance : array_like, shape (pulses + 1,)
        Conductance before the first and after every pulse of one direction, siemens.

    Returns
    -------
    float
        Positive for a potentiation above its straight line; negative for a depression below it.
    """
    g = np.asarray(conductance, dtype=np.float64)
    if g.ndim != 1 or g.size < 3 or g[0] == g[-1]:
        raise ConfigError(
            f"conductance: shape {g.shape} is no curve; give at least three values with different ends"
        )
    x = np.linspace(0.0, 1.0, g.size)
    if g[-1] < g[0]:
        # NeuroSim draws depression from right to left.
        g = g[::-1]
    gap = (g - g[0]) / (g[-1] - g[0]) - x
    k = int(np.argmax(np.abs(gap)))
    return _vertex(gap, k) / math.sqrt(2.0) / LABEL_UNIT


def _vertex(values: NDArray[np.float64], k: int) -> float:
    """Return the extremum of the parabola through three neighbours of sample `k`."""
    if not 0 < k < values.size - 1:
        return float(values[k])
    left, mid, right = (float(v) for v in values[k - 1 : k + 2])
    bend = left - 2.0 * mid + right
    return mid if bend == 0.0 else mid - (right - left) ** 2 / (8.0 * bend)


@dataclass(frozen=True)
class UpdateCurve:
    """Conductance against pulse number, up and down.

    Attributes
    ----------
    pulse : ndarray, shape (pulses + 1,)
        Pulse number.
    up, down : ndarray, shape (pulses + 1,)
        Mean conductance from g_min upwards and from g_max downwards, siemens.
    up_sigma, down_sigma : ndarray, shape (pulses + 1,)
        Standard deviation from cycle to cycle, siemens.
    """

    pulse: NDArray[np.int64]
    up: NDArray[np.float64]
    down: NDArray[np.float64]
    up_sigma: NDArray[np.float64]
    down_sigma: NDArray[np.float64]


def default_pulses(chip: Chip) -> int:
    """Return the pulses of a full sweep: of a jump table, the device's levels, or 100."""
    if isinstance(chip.device, JumpTableDevice):
        return math.ceil(max(_crossing(chip.device, True), _crossing(chip.device, False)) - 1e-6)
    return chip.device.levels or DEFAULT_PULSES


def update_curve(chip: Chip, *, pulses: int | None = None, devices: int = 400) -> UpdateCurve:
    """Return the update curve of a chip's device with its noise band.

    Parameters
    ----------
    chip : Chip
        The chip; its device law, v and write noise are used.
    pulses : int or None
        Pulses of a sweep; each asks for ``R / pulses`` (a jump table takes single pulses). None: the
        pulses that cross a jump table, the device's levels, or 100.
    devices : int
        Devices simulated for a jump table, whose band has no closed form.

    Returns
    -------
    UpdateCurve
        For analytic devices the closed form, with the noise of every pulse carried along by the
        law's own slope and clipping at the ends ignored; for jump tables mean and standard
        deviation of simulated devices.
    """
    count = default_pulses(chip) if pulses is None else check_integer("pulses", pulses, minimum=1)
    device = chip.device
    span = device.g_max - device.g_min
    pulse = np.arange(count + 1)
    if isinstance(device, JumpTableDevice):
        rng = np.random.Generator(np.random.Philox(chip.seed))
        up, up_sigma = _walk(device, True, count, devices, rng)
        down, down_sigma = _walk(device, False, count, devices, rng)
        return UpdateCurve(
            pulse, device.g_min + span * up, device.g_min + span * down, span * up_sigma, span * down_sigma
        )
    fraction = pulse / count
    update = chip.update
    return UpdateCurve(
        pulse,
        device.g_min + span * growth(update.v_up, fraction),
        device.g_max - span * growth(update.v_down, fraction),
        span * noise_band(chip, update.v_up, count),
        span * noise_band(chip, update.v_down, count),
    )


def pulse_sigma(chip: Chip, pulses: int) -> float:
    """Return the standard deviation of one pulse of ``R / pulses``, relative to R."""
    noise: Any = chip.update.noise
    match noise.law:
        case "txsim":
            return float(noise.gamma / pulses)
        case "sqrt":
            return float(noise.gamma / math.sqrt(pulses))
        case _:
            return 0.0


def noise_band(chip: Chip, v: float, pulses: int) -> NDArray[np.float64]:
    """Return the standard deviation after every pulse relative to R, clipping ignored.

    A deviation of one pulse is multiplied by ``a = e^(-v / P)`` at every further pulse, so that the
    variance obeys ``var' = a^2 var + sigma^2``.
    """
    sigma = pulse_sigma(chip, pulses)
    decay = math.exp(-2.0 * v / pulses)
    variance = np.zeros(pulses + 1)
    for p in range(pulses):
        variance[p + 1] = min(decay * variance[p] + sigma**2, 1e12)
    return np.sqrt(variance)


def _walk(
    device: JumpTableDevice, up: bool, pulses: int, devices: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of the states of devices that draw every jump from a table."""
    step = np.full(devices, (1.0 if up else -1.0) / _crossing(device, up))
    jumps = Jumps(device, lambda _: rng.random(devices))
    state = np.full(devices, 0.0 if up else 1.0)
    mean, sigma = np.full(pulses + 1, state[0]), np.zeros(pulses + 1)
    for p in range(pulses):
        state = np.clip(jump(state, step, jumps), 0.0, 1.0)
        mean[p + 1], sigma[p + 1] = state.mean(), state.std()
    return mean, sigma


def _crossing(device: JumpTableDevice, up: bool) -> float:
    """Return the mean number of pulses that cross the range."""
    table = device.up if up else device.down
    assert table is not None
    return pulses_across(table, device.g_min, device.g_max)
