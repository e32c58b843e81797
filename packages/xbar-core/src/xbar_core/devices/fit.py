"""From measured update curves to a device: `fit_device`.

The exponential law is fitted to whole curves by least squares; write noise comes from the
scatter of single steps about the law, separated from read noise by its correlation; standard
errors come from refitting curves simulated with the fitted parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_integer
from xbar_core.config.device import Device, JumpTableDevice, ReadNoise, Variation
from xbar_core.config.schema import Chip
from xbar_core.config.update import NoNoise, SqrtNoise
from xbar_core.devices._fit_law import (
    V_FIT_LIMIT,
    between_devices,
    fit_law,
    goodness,
    law,
    refit,
    step_noise,
)
from xbar_core.devices._traces import Trace, read_traces

PARAMETERS = ("g_min", "g_max", "v_up", "v_down")
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
        return law(np.array([self.g_min, self.g_max, self.v_up, self.v_down]), up, fraction)

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
    each = np.array([fit_law(group) for group in groups]) if groups else np.empty((0, 4))
    centre = fit_law(traces) if len(groups) < 2 else each.mean(axis=0)
    own = {g[0].device: p for g, p in zip(groups, each, strict=True)}
    gamma, read = step_noise(traces, [own.get(t.device, centre) for t in traces])

    rng = np.random.Generator(np.random.Philox(seed))
    copies = [refit(traces, centre, gamma, read, rng) for _ in range(resamples)]
    spread_of_fit = np.std([parameters for parameters, _ in copies], axis=0, ddof=1)
    sigma_gamma = float(np.std([g for _, g in copies], ddof=1))
    between = between_devices(each, spread_of_fit * math.sqrt(max(1, len(groups))))
    # Between devices the mean scatters as much as the devices themselves tell; v_up and v_down are
    # pooled, for the spread of a few devices is itself uncertain.
    seen = each.std(axis=0, ddof=1) / math.sqrt(len(each)) if len(each) > 1 else np.zeros(4)
    seen[2:] = math.sqrt(float((seen[2:] ** 2).mean()))
    stderr = np.maximum(spread_of_fit, seen)

    r_squared, rms, misfit = goodness(traces, [own.get(t.device, centre) for t in traces], gamma, read)
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
