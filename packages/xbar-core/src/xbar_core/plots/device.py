"""Figures of devices: the update curve with its noise band, and a fit beside its data."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from xbar_core.devices.curves import UpdateCurve
from xbar_core.devices.fit import DeviceFit
from xbar_core.plots._style import COLOURS, new_figure

UP, DOWN = COLOURS[0], COLOURS[1]


def update_curve_figure(curve: UpdateCurve, *, title: str = "") -> Figure:
    """Draw conductance against pulse number, up and down, with bands of one standard deviation.

    Parameters
    ----------
    curve : UpdateCurve
        From `xbar_core.devices.curves.update_curve`.
    title : str
        Title, for example the name of the chip.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(6.0, 4.0)
    axes = figure.add_subplot()
    low, high = float(min(curve.up.min(), curve.down.min())), float(max(curve.up.max(), curve.down.max()))
    scale, unit = _unit(high)
    for name, mean, sigma, colour in (
        ("up", curve.up, curve.up_sigma, UP),
        ("down", curve.down, curve.down_sigma, DOWN),
    ):
        axes.plot(curve.pulse, mean * scale, color=colour, label=name)
        if sigma.any():
            # The ends clip what noise would carry beyond them.
            below, above = (np.clip(mean + k * sigma, low, high) * scale for k in (-1, 1))
            band = axes.fill_between(curve.pulse, below, above, color=colour, alpha=0.2, linewidth=0)
            band.set_label(f"{name} ± σ")
    _dress(axes, title or "Update curve", unit)
    axes.set_xlabel("pulse")
    return figure


def fit_figure(fit: DeviceFit, *, title: str = "") -> Figure:
    """Draw measured curves, the fitted law and what it leaves over.

    Parameters
    ----------
    fit : DeviceFit
        From `fit_device`.
    title : str
        Title; empty makes one from the data file.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = new_figure(8.0, 5.0)
    grid = figure.subplots(2, 2, sharex="col", height_ratios=(5, 2))
    span = fit.g_max - fit.g_min
    scale, unit = _unit(fit.g_max)
    for column, (up, name, colour, v) in enumerate(
        ((True, "up", UP, fit.v_up), (False, "down", DOWN, fit.v_down))
    ):
        data, rest = grid[0, column], grid[1, column]
        for trace in (t for t in fit.traces if t.up is up):
            fraction = _fraction(trace.pulses)
            pulse = np.arange(trace.pulses + 1)
            data.plot(pulse, trace.conductance * scale, ".", color=colour, alpha=0.25, markersize=3)
            left = (trace.conductance - fit.curve(up, fraction)) / span * 100.0
            rest.plot(pulse, left, ".", color=colour, alpha=0.25, markersize=3)
        pulses = fit.pulses_up if up else fit.pulses_down
        fine = _fraction(400)
        data.plot(fine * pulses, fit.curve(up, fine) * scale, color="black", label=f"law, v = {v:.3g}")
        rest.axhline(0.0, color="black", linewidth=0.8)
        rest.set_ylim(*_around_zero(rest))
        _dress(data, f"{name}: data and law", unit)
        rest.set_xlabel("pulse")
        rest.set_ylabel("rest (% of range)")
    told = f"R² = {fit.r_squared:.4f}, write noise γ = {fit.gamma:.3g}"
    figure.suptitle(f"{title or fit.source}: {told}")
    return figure


def _fraction(pulses: int) -> NDArray[np.float64]:
    return np.linspace(0.0, 1.0, pulses + 1)


def _around_zero(axes: Axes) -> tuple[float, float]:
    low, high = axes.get_ylim()
    limit = max(abs(low), abs(high), 1e-3)
    return -limit, limit


def _unit(largest: float) -> tuple[float, str]:
    """Return the factor from siemens to the prefix that suits the largest value, and the unit."""
    for factor, unit in ((1.0, "S"), (1e3, "mS"), (1e6, "µS"), (1e9, "nS")):
        if largest * factor >= 1.0:
            return factor, unit
    return 1e12, "pS"


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title)
    axes.set_ylabel(f"conductance ({unit})")
    axes.legend(frameon=False)
    axes.margins(x=0.01)
