r"""Write noise: what a pulse adds to the step it was meant to make.

Both laws are normal with mean 0. Steps and deviations are in units of R = g_max - g_min:

- ``txsim``: sigma = gamma \|d\| (TxSim, section IV-C, with conductances normalised to R = 1);
- ``sqrt``: sigma = gamma sqrt(\|d\|) (S. Agarwal et al., "Resistive memory device requirements for a
  neural algorithm accelerator", IJCNN 2016): the variances of the pulses of a step add up.
"""

from __future__ import annotations

from typing import Any

from xbar_core._arrays import namespace
from xbar_core.config.update import NoNoise, SqrtNoise, TxsimNoise


def write_noise(step: Any, config: NoNoise | TxsimNoise | SqrtNoise, normal: Any) -> Any:
    """Return the noise of a write, an array like `step`, or None where the law has none.

    Parameters
    ----------
    step : array
        Ideal steps ``dG_ideal / R``, any sign.
    config : NoNoise, TxsimNoise or SqrtNoise
        The law and its gamma.
    normal : array or None
        Standard normal draws of the same shape; None only where the law draws nothing.
    """
    if not draws_noise(config):
        return None
    xp = namespace(step)
    size = xp.abs(step)
    if isinstance(config, SqrtNoise):
        size = xp.sqrt(size)
    assert isinstance(config, SqrtNoise | TxsimNoise)
    size *= config.gamma
    size *= normal
    return size


def draws_noise(config: NoNoise | TxsimNoise | SqrtNoise) -> bool:
    """Return whether the law needs draws."""
    return isinstance(config, TxsimNoise | SqrtNoise) and config.gamma > 0.0
