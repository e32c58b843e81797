"""What the devices of a layer really conduct: states, and everything that makes one device differ.

Frozen draws live in the layer's buffers under the names of `FROZEN`; only what the chip's description
asks for is there. A user's own map takes the place of a draw by being put into the buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xbar_core import mapping
from xbar_core._arrays import array_like, namespace
from xbar_core.config.device import Device
from xbar_core.devices.drift import drift_factor
from xbar_core.devices.faults import HEALTHY, draw_faults, hold, open_cells
from xbar_core.devices.read_noise import noisy_conductance
from xbar_core.devices.update import NOMINAL, Spread
from xbar_core.devices.variation import deviations, update_spread, vary
from xbar_core.engine.layout import Layout
from xbar_core.random import Purpose

FROZEN = ("variation", "faults", "drift", "spread_v", "spread_g_min", "spread_g_max")
"""Buffers of device-to-device differences: (devices, in, out), ``spread_v`` (2, devices, in, out)."""


def frozen_draws(layout: Layout, like: Any) -> dict[str, Any]:
    """Return the device-to-device differences of a layer, drawn once.

    Parameters
    ----------
    layout : Layout
        The layer; its chip's seed and its name key the draws.
    like : array
        Sets library, dtype and place.

    Returns
    -------
    dict of str to array
        ``variation`` (relative deviations), ``faults`` (int8 map), ``drift`` and ``spread_*`` (standard
        normal), as far as the chip has them.
    """
    device, stream, shape = layout.chip.device, layout.stream, layout.state_shape
    draws: dict[str, Any] = {}
    variation = device.variation
    if variation is not None:
        if variation.sigma > 0.0:
            normal = array_like(stream.normal(Purpose.VARIATION, shape), like)
            draws["variation"] = deviations(variation, normal)
        # Sliced words are updated as digital words, so their cells' own update laws are never met.
        if variation.sigma_v > 0.0 and layout.code.slices == 1:
            draws["spread_v"] = array_like(stream.normal(Purpose.SPREAD_V, (2, *shape)), like)
        ends = {"spread_g_min": variation.sigma_g_min, "spread_g_max": variation.sigma_g_max}
        for name, purpose in (("spread_g_min", Purpose.SPREAD_G_MIN), ("spread_g_max", Purpose.SPREAD_G_MAX)):
            if ends[name] > 0.0 and layout.code.slices == 1:
                draws[name] = array_like(stream.normal(purpose, shape), like)
    if device.faults is not None:
        uniform = array_like(stream.uniform(Purpose.FAULTS, shape), like)
        draws["faults"] = draw_faults(device.faults, uniform)
    if device.drift is not None and device.drift.nu_spread > 0.0:
        draws["drift"] = array_like(stream.normal(Purpose.DRIFT, shape), like)
    return draws


def spread_of(layout: Layout, buffers: Mapping[str, Any]) -> Spread:
    """Return how the layer's devices differ in their updates; cells of sliced words are rewritten."""
    if layout.code.slices > 1:
        return NOMINAL
    return update_spread(
        layout.chip.device,
        layout.chip.update,
        buffers.get("spread_v"),
        buffers.get("spread_g_min"),
        buffers.get("spread_g_max"),
    )


def held(buffers: Mapping[str, Any], state: Any) -> Any:
    """Return states with stuck devices where they are stuck."""
    faults = buffers.get("faults")
    return state if faults is None else hold(state, faults)


def actual_conductance(
    layout: Layout, buffers: Mapping[str, Any], state: Any, time: float | None = None, read: int = 0
) -> Any:
    """Return the conductances (devices, in, out) that a read meets, siemens.

    Parameters
    ----------
    layout : Layout
        The layer.
    buffers : mapping of str to array
        Frozen draws of the devices.
    state : array (devices, in, out)
        Normalised states.
    time : float or None
        Seconds since programming; None is the drift model's reference time.
    read : int
        Keys conductances that are drawn for each call (read noise ``per_batch``).
    """
    device = layout.chip.device
    conductance = mapping.conductance_of(held(buffers, state), device.g_min, device.g_max)
    factor = _drift(device, time, buffers.get("drift"))
    if factor is not None:
        conductance = conductance * factor
    if "variation" in buffers:
        conductance = vary(conductance, buffers["variation"])
    if "faults" in buffers:
        conductance = open_cells(conductance, buffers["faults"])
    if layout.redraws_conductance:
        assert device.read_noise is not None
        conductance = noisy_conductance(
            conductance, device.read_noise.sigma, _read_draws(layout, state, read)
        )
    return conductance


def actual_conductance_vjp(
    layout: Layout,
    buffers: Mapping[str, Any],
    state: Any,
    conductance_bar: Any,
    time: float | None = None,
    read: int = 0,
) -> Any:
    """Return dL/ds (devices, in, out) from dL/d(actual conductance); draws are constants."""
    device = layout.chip.device
    xp = namespace(state)
    bar = conductance_bar * layout.g_range
    factor = _drift(device, time, buffers.get("drift"))
    if factor is not None:
        bar = bar * factor
    if "variation" in buffers:
        bar = bar * _rectified(1.0 + buffers["variation"])
    if layout.redraws_conductance:
        assert device.read_noise is not None
        bar = bar * _rectified(1.0 + device.read_noise.sigma * _read_draws(layout, state, read))
    if "faults" in buffers:
        bar = xp.where(buffers["faults"] == HEALTHY, bar, xp.zeros_like(bar))
    return bar


def _rectified(factor: Any) -> Any:
    return namespace(factor).clip(factor, 0.0, None)


def _read_draws(layout: Layout, state: Any, read: int) -> Any:
    draws = layout.stream.normal(Purpose.READ_NOISE, tuple(state.shape), step=read)
    return array_like(draws, state)


def _drift(device: Device, time: float | None, normal: Any) -> Any:
    """Return g(t) / g(t0), or None where nothing drifts."""
    if device.drift is None or time is None or time == device.drift.t0:
        return None
    return drift_factor(device.drift, time, normal)


def reference_conductance(layout: Layout, time: float | None = None) -> list[float]:
    """Return the conductance of the reference column of each slice, siemens; empty without one.

    Reference cells are trimmed: they drift by the mean exponent and have no variation and no faults.
    """
    if layout.code.kind != "offset":
        return []
    device = layout.chip.device
    factor = _drift(device, time, None)
    at_start = mapping.reference_conductance(layout.code, device.g_min, device.g_max)
    return [g * (1.0 if factor is None else factor) for g in at_start]
