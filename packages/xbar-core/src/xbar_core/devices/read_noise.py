"""Read noise: the fluctuation of a device between one read and the next.

Each device has the relative standard deviation sigma. Two ways to read it:

- ``current``: the noise of a column current is normal with variance ``sum_i (V_i sigma G_ni[i, j])^2``, exact
  for independent devices and small sigma, fresh for every input;
- ``per_batch``: conductances ``max(0, g (1 + sigma n))`` are drawn once for a call and the circuit is solved.
"""

from __future__ import annotations

from typing import Any

from xbar_core._arrays import namespace


def current_noise(voltages: Any, squares: Any, sigma: float, normal: Any) -> Any:
    """Return the noise of column currents.

    Parameters
    ----------
    voltages : array (..., batch, rows)
        Row voltages.
    squares : array (..., rows, cols)
        Squares of the non-ideal conductances, summed over devices whose currents meet before the converter.
    sigma : float
        Relative read noise of one device.
    normal : array (..., batch, cols)
        Standard normal draws, keyed by sample (purpose ``READ_NOISE``).

    Returns
    -------
    array (..., batch, cols)
        In the unit of voltage times conductance.
    """
    xp = namespace(voltages, squares)
    deviation = xp.sqrt(xp.matmul(voltages * voltages, squares))
    deviation *= sigma
    deviation *= normal
    return deviation


def noisy_conductance(conductance: Any, sigma: float, normal: Any) -> Any:
    """Return ``max(0, g (1 + sigma n))``; draws of the shape of `conductance`, same unit."""
    noisy = conductance * (1.0 + sigma * normal)
    return namespace(noisy).clip(noisy, 0.0, None)
