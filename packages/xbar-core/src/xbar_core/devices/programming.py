"""Programming error: the scatter of the conductances that write-and-verify leaves behind.

Drawn afresh by every programming and by nothing else; updates have write noise instead.
"""

from __future__ import annotations

from typing import Any

from xbar_core._arrays import namespace
from xbar_core.config.device import ProgrammingError


def scatter_states(state: Any, config: ProgrammingError, normal: Any, g_min: float, g_max: float) -> Any:
    """Return the states that programming reaches.

    Parameters
    ----------
    state : array
        States aimed at, in [0, 1].
    config : ProgrammingError
        Its sigma: relative to the target conductance, or in siemens.
    normal : array
        Standard normal draws of the same shape (purpose ``PROGRAMMING``).
    g_min, g_max : float
        Conductance range, siemens.

    Returns
    -------
    array
        Within [0, 1]: a device cannot be programmed beyond its range.
    """
    width = g_max - g_min
    if config.kind == "relative":
        deviation = (config.sigma / width) * (g_min + width * state)
    else:
        deviation = config.sigma / width
    return namespace(state).clip(state + deviation * normal, 0.0, 1.0)
