"""What passes between the forward and the backward call of a layer."""

from __future__ import annotations

from typing import Any, NamedTuple

from xbar_core.engine.call import Call
from xbar_core.engine.ranges import Ranges


class Residual(NamedTuple):
    """What a forward call keeps for its derivative.

    Attributes
    ----------
    inputs : array (batch, ..., in)
        The digital words as ratios of `full_scale`; in ``exact`` mode (and with
        ``update.gradient = "full"``) the inputs themselves.
    full_scale : float or 0-d array
        Full scale of the DAC.
    current_scale : float or 0-d array
        Full scale of the ADC, units of R v_read.
    call : Call
        Identity of the call: the same draws are made again.
    """

    inputs: Any
    full_scale: Any
    current_scale: Any
    call: Call


class Gradients(NamedTuple):
    """Result of a backward pass.

    Attributes
    ----------
    x : array (batch, ..., in) or None
        dL/dx, or None where it was not asked for.
    weight : array (in, out) or None
        dL/dw (``crossbar``).
    state : array (devices, in, out) or None
        dL/ds (``exact``); from dL/dw by `xbar_core.mapping.state_gradient` in ``crossbar`` mode.
    ranges : Ranges
        The ranges after the call.
    """

    x: Any
    weight: Any
    state: Any
    ranges: Ranges
