"""Device-to-device variation: what makes one device differ from its twin, drawn once and frozen.

A device of state s that should conduct g conducts ``max(0, g (1 + d))``, d being its own number for ever:
``sigma n`` (normal), ``exp(sigma n) - 1`` (lognormal) or the user's map. The variation is applied at read;
the stored state stays ideal.
"""

from __future__ import annotations

from typing import Any

from xbar_core._arrays import namespace
from xbar_core.config.device import Device, Variation
from xbar_core.config.update import Update
from xbar_core.devices.update import Spread

_NARROWEST = 0.1  # of the nominal range: what a spread of the ends leaves at least


def deviations(config: Variation, normal: Any) -> Any:
    """Return d of each device, an array like `normal`.

    Parameters
    ----------
    config : Variation
        Kind of distribution and sigma.
    normal : array
        Frozen standard normal draws (purpose ``VARIATION``).
    """
    if config.kind == "lognormal":
        return namespace(normal).expm1(config.sigma * normal)
    return config.sigma * normal


def vary(conductance: Any, deviation: Any) -> Any:
    """Return the conductances that devices really have, ``max(0, g (1 + d))``; same unit and shape."""
    varied = conductance * (1.0 + deviation)
    return namespace(varied).clip(varied, 0.0, None)


def update_spread(
    device: Device, update: Update, normal_v: Any, normal_g_min: Any, normal_g_max: Any
) -> Spread:
    """Return how devices differ in their updates, from frozen standard normal draws.

    Parameters
    ----------
    device : Device
        Its range, and the deviations of v, g_min and g_max.
    update : Update
        Nominal v_up and v_down.
    normal_v : array (2, devices, in, out)
        Draws for v_up and v_down (purpose ``SPREAD_V``); unused where sigma_v is 0.
    normal_g_min, normal_g_max : array (devices, in, out)
        Draws for the ends (purposes ``SPREAD_G_MIN``, ``SPREAD_G_MAX``); unused where their sigma is 0.

    Returns
    -------
    Spread
        Parameters without spread are None.

    Notes
    -----
    Writes never leave the chip's range, so a device that could go beyond stops at its nominal end, and one
    that cannot reach it stops before. At least a tenth of the range is left to every device.
    """
    config = device.variation
    if config is None:
        return Spread()
    v_up = v_down = lower = upper = None
    if config.sigma_v:
        v_up = update.v_up + config.sigma_v * normal_v[0, ...]
        v_down = update.v_down + config.sigma_v * normal_v[1, ...]
    if config.sigma_g_min or config.sigma_g_max:
        xp = namespace(normal_g_min, normal_g_max)
        width = device.g_max - device.g_min
        draw = normal_g_min if normal_g_min is not None else normal_g_max
        lower, upper = xp.zeros_like(draw), xp.ones_like(draw)
        if config.sigma_g_min:
            shift = (device.g_min / width * config.sigma_g_min) * normal_g_min
            lower = xp.clip(shift, 0.0, 1.0 - _NARROWEST)
        if config.sigma_g_max:
            shift = (device.g_max / width * config.sigma_g_max) * normal_g_max
            upper = xp.maximum(xp.clip(1.0 + shift, 0.0, 1.0), lower + _NARROWEST)
    return Spread(v_up, v_down, lower, upper)
