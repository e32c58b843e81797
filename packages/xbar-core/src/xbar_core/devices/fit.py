"""From measured update curves to a device: `fit_device`.

The exponential law is fitted to whole curves by least squares; write noise comes from the
scatter of single steps about the law, separated from read noise by its correlation; standard
errors come from refitting curves simulated with the fitted parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from xbar_core._checks import check_integer
from xbar_core.config.device import Device, JumpTableDevice, ReadNoise, Variation
from xbar_core.config.schema import Chip
from xbar_core.config.update import V_LIMIT, NoNoise, SqrtNoise
from xbar_core.devices._traces import Trace, read_traces
from xbar_core.devices.curves import growth

PARAMETERS = ("g_min", "g_max", "v_up", "v_down")
V_FIT_LIMIT = min(V_LIMIT, 50.0)
MISFIT = 0.02
"""Systematic misfit, relative to the range, above which the law is said not to describe the data."""


@dataclass(frozen=True, eq=False)
class DeviceFit:
    """Parameters of the exponential update law, fitted to measured curves.

    Attributes
    ----------
    g_min, g_max : float
        Ends of the conductance range, siemens.
    v_up, v_down : float
        Non-linearity of potentiation and depression, dimensionless.
    pulses_up, pulses_down : int
        Pulses of a full sweep.
    levels : int
        States that a sweep of the shorter direction passes: its pulses + 1.
    gamma : float
        Write noise of the ``sqrt`` law, dimensionless.
    read_noise : float
        Standard deviation of a reading relative to the mid conductance.
    sigma_v, sigma_g_min, sigma_g_max : float
        Device-to-device spread: of v (absolute), of g_min and g_max (relative); 0 with one device.
    errors : dict of str to float
        Standard errors of g_min, g_max, v_up, v_down and gamma.
    r_squared : float
        Share of the variance of all points that the law describes.
    residual_rms : float
        Root mean square of all residuals relative to the range.
    misfit : float
        Root mean square, relative to the range, of the residuals averaged over cycles and devices, less
        what noise explains: what the law cannot describe.
    devices, cycles : int
        Numbers of devices, and of curves per direction.
    warnings : tuple of str
        What stands against trusting the numbers; empty when nothing does.
    source : str
        Name of the data file.
    traces : tuple of Trace
        The data.
    """

    g_min: float
    g_max: float
    v_up: float
    v_down: float
    pulses_up: int
    pulses_down: int
    levels: int
    gamma: float
    read_noise: float
    sigma_v: float
    sigma_g_min: float
    sigma_g_max: float
    errors: dict[str, float]
    r_squared: float
    residual_rms: float
    misfit: float
    devices: int
    cycles: int
    warnings: tuple[str, ...]
    source: str
    traces: tuple[Trace, ...]

    def curve(self, up: bool, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fitted conductance after a fraction of a sweep's pulses, siemens."""
        return _law(np.array([self.g_min, self.g_max, self.v_up, self.v_down]), up, fraction)

    def to_device(self) -> Device:
        """Return the device: range, levels, read noise and spread."""
        spread = (self.sigma_v, self.sigma_g_min, self.sigma_g_max)
        return Device(
            r_min=1.0 / self.g_max,
            r_max=1.0 / self.g_min,
            levels=self.levels,
            variation=Variation("normal", 0.0, *spread) if any(spread) else None,
            read_noise=ReadNoise(self.read_noise) if self.read_noise > 0.0 else None,
        )

    def to_chip(self, base: Chip | None = None, *, name: str | None = None) -> Chip:
        """Return a chip with this device and its update law.

        Parameters
        ----------
        base : Chip or None
            Everything but device and update law; None takes an ideal chip.
        name : str or None
            Name of the new chip; None makes one from the data file.
        """
        base = Chip() if base is None else base
        update = replace(
            base.update,
            v_up=self.v_up,
            v_down=self.v_down,
            noise=SqrtNoise(gamma=self.gamma, stage=base.update.noise.stage),
        )
        return replace(
            base,
            name=f"fit of {Path(self.source).stem}" if name is None else name,
            description=f"Fit of measured curves, R^2 {self.r_squared:.4f}",
            device=self.to_device(),
            update=update,
            sources=self._sources(base, "fit of"),
        )

    def to_jump_table_chip(
        self, device: JumpTableDevice, base: Chip | None = None, *, name: str | None = None
    ) -> Chip:
        """Return a chip that draws the measured steps of `device` instead of following the law.

        Parameters
        ----------
        device : JumpTableDevice
            From `jump_table_device` and the same file.
        base, name
            As for `to_chip`.
        """
        base = Chip() if base is None else base
        return replace(
            base,
            name=f"steps of {Path(self.source).stem}" if name is None else name,
            description="Measured distributions of conductance steps",
            device=device,
            update=replace(base.update, v_up=0.0, v_down=0.0, noise=NoNoise(stage=base.update.noise.stage)),
            sources=self._sources(base, "steps in"),
        )

    def _sources(self, base: Chip, how: str) -> tuple[tuple[str, str], ...]:
        """Return the sources of a chip whose device and update law are this fit's."""
        told = f"measured: {how} {self.source} (devices: {self.devices}, cycles: {self.cycles})"
        fitted = ("device", "update.v_up", "update.v_down", "update.noise")
        kept = [
            (path, text)
            for path, text in base.sources
            if not any(path == part or path.startswith(f"{part}.") for part in fitted)
        ]
        return (*kept, *((path, told) for path in fitted))


def fit_device(csv: str | Path, *, resamples: int = 40, seed: int = 0) -> DeviceFit:
    """Fit the exponential update law to measured curves of conductance against pulse number.

    Parameters
    ----------
    csv : str or Path
        Columns ``cycle``, ``direction``, ``pulse``, ``conductance`` (siemens), optionally ``device``; see
        `xbar_core.devices._traces.read_traces`.
    resamples : int
        Refits of simulated data for the standard errors, at least 2.
    seed : int
        Seed of the simulated data.

    Returns
    -------
    DeviceFit
        Parameters, standard errors, goodness of fit, warnings and the data.

    Raises
    ------
    ConfigError
        A foreign or truncated file, one direction only, a curve of fewer than 4 pulses, or one that
        goes the wrong way.
    """
    check_integer("resamples", resamples, minimum=2)
    traces = read_traces(csv)
    by_device: dict[str, list[Trace]] = {}
    for trace in traces:
        by_device.setdefault(trace.device, []).append(trace)
    groups = [g for g in by_device.values() if {t.up for t in g} == {True, False}]
    each = np.array([_fit_law(group) for group in groups]) if groups else np.empty((0, 4))
    centre = _fit_law(traces) if len(groups) < 2 else each.mean(axis=0)
    own = {g[0].device: p for g, p in zip(groups, each, strict=True)}
    gamma, read = _noise(traces, [own.get(t.device, centre) for t in traces])

    rng = np.random.Generator(np.random.Philox(seed))
    copies = [_refit(traces, centre, gamma, read, rng) for _ in range(resamples)]
    spread_of_fit = np.std([parameters for parameters, _ in copies], axis=0, ddof=1)
    sigma_gamma = float(np.std([g for _, g in copies], ddof=1))
    between = _between_devices(each, spread_of_fit * math.sqrt(max(1, len(groups))))
    # Between devices the mean scatters as much as the devices themselves tell; v_up and v_down are
    # pooled, for the spread of a few devices is itself uncertain.
    seen = each.std(axis=0, ddof=1) / math.sqrt(len(each)) if len(each) > 1 else np.zeros(4)
    seen[2:] = math.sqrt(float((seen[2:] ** 2).mean()))
    stderr = np.maximum(spread_of_fit, seen)

    r_squared, rms, misfit = _goodness(traces, [own.get(t.device, centre) for t in traces], gamma, read)
    pulses_up = max(t.pulses for t in traces if t.up)
    pulses_down = max(t.pulses for t in traces if not t.up)
    g_min, g_max, v_up, v_down = (float(p) for p in centre)
    fit = DeviceFit(
        g_min=g_min,
        g_max=g_max,
        v_up=v_up,
        v_down=v_down,
        pulses_up=pulses_up,
        pulses_down=pulses_down,
        levels=min(pulses_up, pulses_down) + 1,
        gamma=gamma,
        read_noise=read / (0.5 * (g_min + g_max)),
        sigma_v=float(math.hypot(between[2], between[3]) / math.sqrt(2.0)),
        sigma_g_min=float(between[0] / g_min),
        sigma_g_max=float(between[1] / g_max),
        errors={**dict(zip(PARAMETERS, map(float, stderr), strict=True)), "gamma": sigma_gamma},
        r_squared=r_squared,
        residual_rms=rms,
        misfit=misfit,
        devices=len(by_device),
        cycles=max(sum(t.up for t in group) for group in by_device.values()),
        warnings=(),
        source=Path(csv).name,
        traces=tuple(traces),
    )
    return replace(fit, warnings=_warnings(fit))


def _law(parameters: NDArray[np.float64], up: bool, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    g_min, g_max, v_up, v_down = (float(p) for p in parameters)
    if up:
        return g_min + (g_max - g_min) * growth(v_up, fraction)
    return g_max - (g_max - g_min) * growth(v_down, fraction)


def _residuals(parameters: NDArray[np.float64], traces: Sequence[Trace]) -> list[NDArray[np.float64]]:
    return [t.conductance - _law(parameters, t.up, np.linspace(0.0, 1.0, t.conductance.size)) for t in traces]


def _fit_law(traces: Sequence[Trace]) -> NDArray[np.float64]:
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
        return np.concatenate(_residuals(unpack(x), traces)) / scale

    floor = -0.99 * low / scale
    bounds = ([floor, 0.2, -V_FIT_LIMIT, -V_FIT_LIMIT], [0.8, 5.0, V_FIT_LIMIT, V_FIT_LIMIT])
    result = least_squares(objective, [0.0, 1.0, 0.5, 0.5], bounds=bounds, x_scale=[0.1, 0.1, 1.0, 1.0])
    return unpack(np.asarray(result.x))


def _noise(traces: Sequence[Trace], parameters: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Return gamma of the sqrt law and the read noise in siemens.

    The step of a pulse about the law is ``e_p = write_p + read_{p+1} - a read_p``: read noise gives
    neighbouring steps the covariance ``-a read^2``, write noise gives none.
    """
    variance, covariance, slope, count = 0.0, 0.0, 0.0, 0
    for trace, p in zip(traces, parameters, strict=True):
        span, v = p[1] - p[0], p[2] if trace.up else p[3]
        steps = trace.pulses
        mean = _law(p, trace.up, np.linspace(0.0, 1.0, steps + 1))
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


def _simulate(
    trace: Trace, parameters: NDArray[np.float64], gamma: float, read: float, rng: np.random.Generator
) -> Trace:
    """Return a trace of the same shape, drawn from the law with its noise."""
    g_min, g_max = float(parameters[0]), float(parameters[1])
    span, v = g_max - g_min, float(parameters[2] if trace.up else parameters[3])
    steps = trace.pulses
    mean = _law(parameters, trace.up, np.linspace(0.0, 1.0, steps + 1))
    a, noise = math.exp(-v / steps), rng.standard_normal((2, steps + 1))
    g = np.empty(steps + 1)
    g[0] = mean[0]
    for p in range(steps):
        g[p + 1] = mean[p + 1] + a * (g[p] - mean[p]) + gamma * span / math.sqrt(steps) * noise[0, p]
    return replace(trace, conductance=g + read * noise[1])


def _refit(
    traces: Sequence[Trace],
    parameters: NDArray[np.float64],
    gamma: float,
    read: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], float]:
    copies = [_simulate(t, parameters, gamma, read, rng) for t in traces]
    fitted = _fit_law(copies)
    return fitted, _noise(copies, [fitted] * len(copies))[0]


def _between_devices(each: NDArray[np.float64], within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the spread of parameters between devices, less what the noise of a fit explains."""
    if len(each) < 2:
        return np.zeros(4)
    excess: NDArray[np.float64] = np.maximum(0.0, each.var(axis=0, ddof=1) - within**2)
    return np.asarray(np.sqrt(excess), dtype=np.float64)


def _goodness(
    traces: Sequence[Trace], parameters: Sequence[NDArray[np.float64]], gamma: float, read: float
) -> tuple[float, float, float]:
    """Return R^2, the residual rms and the systematic misfit, both relative to the range."""
    pairs = list(zip(traces, parameters, strict=True))
    residual = [_residuals(p, [t])[0] / (p[1] - p[0]) for t, p in pairs]
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


def _warnings(fit: DeviceFit) -> tuple[str, ...]:
    """Return what stands against trusting the fit."""
    found: list[str] = []
    if fit.misfit > MISFIT:
        found.append(
            f"the exponential law does not describe these curves (R^2 {fit.r_squared:.3f}, systematic "
            f"misfit {fit.misfit:.1%} of the range): look at the figure, consider a jump-table device"
        )
    elif fit.r_squared < 0.9:
        found.append(f"noise dominates (R^2 {fit.r_squared:.3f}): read the standard errors before the values")
    for name in ("v_up", "v_down"):
        value = getattr(fit, name)
        if abs(value) > 0.98 * V_FIT_LIMIT:
            found.append(
                f"{name} ran into the limit of {V_FIT_LIMIT:g}: the first pulses already do the whole sweep"
            )
    if fit.cycles < 3:
        found.append(
            f"{fit.cycles} cycle(s) per direction: write noise and standard errors are rough below 3"
        )
    if fit.devices == 1:
        found.append("one device: no device-to-device spread can be told")
    elif fit.devices < 5:
        found.append(f"{fit.devices} devices: their spread is rough below 5")
    if fit.pulses_up != fit.pulses_down:
        found.append(
            f"sweeps have {fit.pulses_up} pulses up and {fit.pulses_down} down; "
            "v is per sweep of each direction"
        )
    return tuple(found)
