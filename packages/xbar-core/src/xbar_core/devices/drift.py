"""Drift: the slow power law by which a conductance changes after it was written.

``g(t) = g(t_0) (t / t_0)^-nu`` (D. Ielmini, D. Sharma, S. Lavizzari and A. L. Lacaita, "Reliability impact
of chalcogenide-structure relaxation in phase-change memory (PCM) cells", IEEE Trans. Electron Devices 56,
1070, 2009). The exponent may differ from device to device, frozen with the chip.
"""

from __future__ import annotations

import math
from typing import Any

from xbar_core._arrays import namespace
from xbar_core._checks import check_number
from xbar_core.config.device import Drift


def drift_factor(config: Drift, time: float, normal: Any = None) -> Any:
    """Return g(t) / g(t_0).

    Parameters
    ----------
    config : Drift
        Exponent, its spread and the reference time.
    time : float
        Time of the read since programming, second, above 0. At t_0 the factor is 1.
    normal : array or None
        Frozen standard normal draws of the devices (purpose ``DRIFT``); None where nu has no spread.

    Returns
    -------
    float, or array like `normal`
        A factor for all devices, or one for each.
    """
    time = check_number("time", time, minimum=0.0, open_minimum=True)
    decades = math.log(time / config.t0)
    if config.nu_spread == 0.0 or normal is None:
        return math.exp(-config.nu * decades)
    return namespace(normal).exp((config.nu + config.nu_spread * normal) * -decades)
