"""Least squares of the exponential law to traces, its noise, and how well it describes them.

Parameters are always ``(g_min, g_max, v_up, v_down)``: siemens, siemens, and two dimensionless numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xbar_core.config.update import V_LIMIT
from xbar_core.devices._traces import Trace
from xbar_core.devices.curves import growth

V_FIT_LIMIT = min(V_LIMIT, 50.0)
"""Largest |v| that a fit returns."""


def law(parameters: NDArray[np.float64], up: bool, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the conductance after a fraction of a sweep's pulses, siemens."""
    g_min, g_max, v_up, v_down = (float(p) for p in parameters)
    if up:
        return g_min + (g_max - g_min) * growth(v_up, fraction)
    return g_max - (g_max - g_min) * growth(v_down, fraction)


def residuals(parameters: NDArray[np.float64], traces: Sequence[Trace]) -> list[NDArray[np.float64]]:
    """Return data minus law of every trace, siemens."""
    return [t.conductance - law(parameters, t.up, np.linspace(0.0, 1.0, t.conductance.size)) for t in traces]


def fit_law(traces: Sequence[Trace]) -> NDArray[np.float64]:
    """Return g_min, g_max, v_up, v_down by least squares over whole curves."""
    low = float(np.mean([t.conductance[0] if t.up else t.conductance[-1] for t in traces]))
    high = float(np.mean([t.conductance[-1] if t.up else t.conductance[0] for t in traces]))
    if high <= low:
        low = min(float(t.conductance.min()) for t in traces)
        high = max(float(t.conductance.max()) for t in traces)
    scale = high - low

    def unpack(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([low + scale * x[0], low + scale * x[1], x[2], x[3]])

    def objective(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate(residuals(unpack(x), traces)) / scale

    floor = -0.99 * low / scale
    bounds = ([floor, 0.2, -V_FIT_LIMIT, -V_FIT_LIMIT], [0.8, 5.0, V_FIT_LIMIT, V_FIT_LIMIT])
    # Loaded when first needed: scipy.optimize takes longer to import than the rest of the core.
    from scipy.optimize import least_squares

    result = least_squares(objective, [0.0, 1.0, 0.5, 0.5], bounds=bounds, x_scale=[0.1, 0.1, 1.0, 1.0])
    return unpack(np.asarray(result.x))


def step_noise(traces: Sequence[Trace], parameters: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return gamma of the sqrt law and the read noise in siemens.

    The step of a pulse about the law is ``e_p = write_p + read_{p+1} - a read_p``: read noise gives
    neighbouring steps the covariance ``-a read^2``, write noise gives none.
    """
    variance, covariance, slope, count = 0.0, 0.0, 0.0, 0
    for trace, p in zip(traces, parameters, strict=True):
        span, v = p[1] - p[0], p[2] if trace.up else p[3]
        steps = trace.pulses
        mean = law(p, trace.up, np.linspace(0.0, 1.0, steps + 1))
        a = math.exp(-v / steps)
        deviation = trace.conductance - mean
        e = (deviation[1:] - a * deviation[:-1]) / span
        variance += float(e @ e)
        covariance += float(e[1:] @ e[:-1]) * steps / (steps - 1)
        slope += a * steps
        count += steps
    variance, covariance, slope = variance / count, covariance / count, slope / count
    # A covariance within two standard errors of zero is no evidence of read noise.
    read2 = max(0.0, -covariance / slope) if covariance < -2.0 * variance / math.sqrt(count) else 0.0
    write2 = max(0.0, variance - (1.0 + slope**2) * read2)
    span = float(np.mean([p[1] - p[0] for p in parameters]))
    # Each step of a trace of P pulses has the variance gamma^2 / P, a whole trace gamma^2.
    return math.sqrt(write2 * count / len(traces)), math.sqrt(read2) * span


def simulate(
    trace: Trace, parameters: NDArray[np.float64], gamma: float, read: float, rng: np.random.Generator
) -> Trace:
    """Return a trace of the same shape, drawn from the law with its noise."""
    g_min, g_max = float(parameters[0]), float(parameters[1])
    span, v = g_max - g_min, float(parameters[2] if trace.up else parameters[3])
    steps = trace.pulses
    mean = law(parameters, trace.up, np.linspace(0.0, 1.0, steps + 1))
    a, noise = math.exp(-v / steps), rng.standard_normal((2, steps + 1))
    g = np.empty(steps + 1)
    g[0] = mean[0]
    for p in range(steps):
        g[p + 1] = mean[p + 1] + a * (g[p] - mean[p]) + gamma * span / math.sqrt(steps) * noise[0, p]
    return replace(trace, conductance=g + read * noise[1])


def refit(
    traces: Sequence[Trace],
    parameters: NDArray[np.float64],
    gamma: float,
    read: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], float]:
    """Return parameters and gamma of a fit to traces simulated from the law."""
    copies = [simulate(t, parameters, gamma, read, rng) for t in traces]
    fitted = fit_law(copies)
    return fitted, step_noise(copies, [fitted] * len(copies))[0]


def between_devices(each: NDArray[np.float64], within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the spread of parameters between devices, less what the noise of a fit explains."""
    if len(each) < 2:
        return np.zeros(4)
    excess: NDArray[np.float64] = np.maximum(0.0, each.var(axis=0, ddof=1) - within**2)
    return np.asarray(np.sqrt(excess), dtype=np.float64)


def goodness(
    traces: Sequence[Trace], parameters: Sequence[NDArray[np.float64]], gamma: float, read: float
) -> tuple[float, float, float]:
    """Return R^2, the residual rms and the systematic misfit, both relative to the range."""
    pairs = list(zip(traces, parameters, strict=True))
    residual = [residuals(p, [t])[0] / (p[1] - p[0]) for t, p in pairs]
    flat = np.concatenate(residual)
    span = np.mean([p[1] - p[0] for p in parameters])
    spread = np.concatenate([(t.conductance - t.conductance.mean()) / (p[1] - p[0]) for t, p in pairs])
    systematic: list[float] = []
    for up in (True, False):
        chosen = [(t, p, r) for (t, p), r in zip(pairs, residual, strict=True) if t.up is up]
        steps = min(t.pulses for t, _, _ in chosen)
        grid = np.linspace(0.0, 1.0, steps + 1)
        curves = [np.interp(grid, np.linspace(0.0, 1.0, r.size), r) for _, _, r in chosen]
        v = float(np.mean([p[2] if up else p[3] for _, p, _ in chosen]))
        a2 = math.exp(-2.0 * v / steps)
        accumulated = np.array([sum(a2**k for k in range(n)) for n in range(steps + 1)]) * gamma**2 / steps
        expected = (accumulated + (read / span) ** 2).mean() / len(chosen)
        systematic.append(float((np.mean(curves, axis=0) ** 2).mean()) - float(expected))
    misfit = math.sqrt(max(0.0, float(np.mean(systematic))))
    return (
        1.0 - float(flat @ flat) / float(spread @ spread),
        math.sqrt(float(flat @ flat) / flat.size),
        misfit,
    )
