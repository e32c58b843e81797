r"""Digital words to read voltages.

A word of b bits is a code k times the unit ``full_scale / K``: K = 2**b - 1 and k >= 0 for unipolar
words, K = 2**(b-1) - 1 and \|k\| <= K for signed ones, so that zero is a code. The DAC turns the ratio
k / K into the voltage ``v_read f(k / K)``, f being its integral non-linearity.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from xbar_core._arrays import namespace
from xbar_core.config.periphery import Input
from xbar_core.periphery.nonlinearity import distort, slope


class Sent(NamedTuple):
    """What a DAC makes of its input.

    Attributes
    ----------
    words : array
        The words, as ratios of full scale; times the full scale they are the decoded input.
    voltages : array
        Voltages in units of v_read.
    """

    words: Any
    voltages: Any


def full_code(bits: int | None, signed: bool) -> int | None:
    """Return K, the largest code of a word, or None when nothing is rounded."""
    if bits is None:
        return None
    return int(2 ** (bits - 1 if signed else bits)) - 1


def ratio(values: Any, full_scale: Any, signed: bool) -> Any:
    """Return `values` in units of full scale, saturated at -1 (0 if unsigned) and 1, in a new array.

    A full scale of 0 (a call of zeros under a dynamic range) gives zeros.
    """
    xp = namespace(values)
    return xp.clip(values * inverse(full_scale), -1.0 if signed else 0.0, 1.0)


_UNDERFLOW = 1e-37
"""Full scales whose inverse float32 cannot hold; numbers that small convert to 0."""


def inverse(full_scale: Any) -> Any:
    """Return ``1 / full_scale``, and 0 for a full scale of 0 (to float32's underflow); float or 0-d array."""
    if isinstance(full_scale, float | int):
        return 1.0 / full_scale if full_scale > _UNDERFLOW else 0.0
    xp = namespace(full_scale)
    empty = full_scale <= _UNDERFLOW
    one = xp.ones_like(full_scale)
    return xp.where(empty, 0.0 * one, one / xp.where(empty, one, full_scale))


def clipped(values: Any, full_scale: Any, signed: bool, bits: int | None = None) -> Any:
    """Return a mask of the values that saturate: beyond full scale by more than half a code.

    Without bits, by more than a part in a million, so that the maximum of a dynamic range does not count.
    """
    code = full_code(bits, signed)
    margin = 1e-6 if code is None else 0.5 / code
    scaled = values * inverse(full_scale)
    high = scaled > 1.0 + margin
    return high | (scaled < (-1.0 - margin if signed else -margin))


def round_codes(ratios: Any, code: int | None) -> Any:
    """Return ``rint(K x)``, half to even, as an array of integer-valued floats; None returns `ratios`.

    In float32 codes above 2**24 are integers only to 24 bits.
    """
    return ratios if code is None else namespace(ratios).round(ratios * float(code))


def digital_to_analog(values: Any, full_scale: Any, config: Input, *, signed: bool) -> Sent:
    """Return the words nearest to `values` and the voltages they make.

    Parameters
    ----------
    values : array
        Activations or errors.
    full_scale : float or 0-d array
        Value of the largest code; beyond it words saturate.
    config : Input
        Bits and non-linearity.
    signed : bool
        Whether words have a sign. Unsigned, negative values saturate at 0.

    Returns
    -------
    Sent
        Words and voltages, each of the shape and dtype of `values`.
    """
    code = full_code(config.bits, signed)
    words = round_codes(ratio(values, full_scale, signed), code)
    if code is not None:
        words *= 1.0 / code
    return Sent(words, distort(words, config.nonlinearity))


def digital_to_analog_vjp(
    voltage_bar: Any, values: Any, full_scale: Any, config: Input, *, signed: bool
) -> Any:
    """Return dL/d(values) of `digital_to_analog` with rounding taken as the identity.

    Parameters
    ----------
    voltage_bar : array
        dL/d(voltages).
    values, full_scale, config, signed
        As in the forward call.
    """
    return transfer_vjp(voltage_bar, values, inverse(full_scale), config.nonlinearity, signed)


def transfer_vjp(bar: Any, values: Any, gain: Any, curve: Any, signed: bool) -> Any:
    """Return the derivative of ``f(clip(gain x))`` against x, times `bar`; clipping passes 0 or 1."""
    xp = namespace(values)
    scaled = values * gain
    held = xp.clip(scaled, -1.0 if signed else 0.0, 1.0)
    # A part in a million: the maximum that set a range is not clipped by its own rounding.
    passes = xp.abs(scaled - held) <= 1e-6
    result = bar * gain
    if curve is not None:
        result *= slope(held, curve)
    result *= xp.astype(passes, result.dtype)
    return result
