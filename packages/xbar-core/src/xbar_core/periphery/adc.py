"""Column currents to codes.

The current of column j becomes, in units of full scale, ``u = ((1 + gain_j) (I + noise) + offset_j) /
full_scale``; u is held within the range, bent by the integral non-linearity f, and rounded:
``code = rint(K f(u))``, half to even. Decoded it is worth ``code full_scale / K``. K is 2**b - 1 where
currents cannot be negative and 2**(b-1) - 1 where they can, so that zero current is a code.

Units: any, as long as currents, full scale, offsets and noise share them. The engine works in units of
R v_read, the current of a full-scale weight under a full-scale voltage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xbar_core._arrays import namespace
from xbar_core.config.periphery import Adc
from xbar_core.periphery.dac import clipped, full_code, inverse, ratio, round_codes, transfer_vjp
from xbar_core.periphery.nonlinearity import distort

__all__ = [
    "ColumnErrors",
    "analog_to_digital",
    "analog_to_digital_vjp",
    "at_input",
    "clipped",
    "codes",
    "decode",
    "full_code",
]


@dataclass(frozen=True)
class ColumnErrors:
    """Frozen gain and offset errors of the ADCs of one read.

    Parameters
    ----------
    gain : array (..., cols) or None
        Relative error of each column's gain.
    offset : array (..., cols) or None
        Offset of each column, in the unit of the currents.
    """

    gain: Any = None
    offset: Any = None


PERFECT = ColumnErrors()


def column_errors(config: Adc, normal_gain: Any, normal_offset: Any, unit: float = 1.0) -> ColumnErrors:
    """Return a chip's column errors from its frozen standard normal draws.

    Parameters
    ----------
    config : Adc
        Standard deviations: relative for the gain, ampere for the offset.
    normal_gain, normal_offset : array (..., cols)
        Draws of purposes ``ADC_GAIN`` and ``ADC_OFFSET``; unused ones may be None.
    unit : float
        Ampere in one unit of the currents.
    """
    return ColumnErrors(
        gain=config.gain_error * normal_gain if config.gain_error else None,
        offset=(config.offset_error / unit) * normal_offset if config.offset_error else None,
    )


def at_input(current: Any, errors: ColumnErrors = PERFECT, noise: Any = None) -> Any:
    """Return what the quantiser sees: ``(1 + gain) (current + noise) + offset``.

    Parameters
    ----------
    current : array (..., cols)
        Column currents.
    errors : ColumnErrors
        Gain and offset errors.
    noise : array (..., cols) or None
        Thermal noise, already scaled to its rms value in the unit of the currents.
    """
    seen = current if noise is None else current + noise
    if errors.gain is not None:
        seen = seen * (1.0 + errors.gain)
    return seen if errors.offset is None else seen + errors.offset


def codes(seen: Any, full_scale: Any, config: Adc, *, signed: bool) -> Any:
    """Return integer-valued codes (without bits: ratios of full scale).

    Parameters
    ----------
    seen : array
        Currents from `at_input`.
    full_scale : float or 0-d array
        Current of the largest code; beyond it codes saturate.
    config : Adc
        Bits and non-linearity.
    signed : bool
        Whether the current may be negative.
    """
    held = distort(ratio(seen, full_scale, signed), config.nonlinearity)
    return round_codes(held, full_code(config.bits, signed))


def decode(code: Any, full_scale: Any, config: Adc, *, signed: bool) -> Any:
    """Return the current that codes stand for."""
    return code * (full_scale * (1.0 / (full_code(config.bits, signed) or 1)))


def analog_to_digital(
    current: Any,
    full_scale: Any,
    config: Adc,
    *,
    signed: bool,
    errors: ColumnErrors = PERFECT,
    noise: Any = None,
) -> Any:
    """Return the currents that the ADC reports: `at_input`, `codes`, `decode`."""
    seen = at_input(current, errors, noise)
    return decode(codes(seen, full_scale, config, signed=signed), full_scale, config, signed=signed)


def analog_to_digital_vjp(
    decoded_bar: Any,
    current: Any,
    full_scale: Any,
    config: Adc,
    *,
    signed: bool,
    errors: ColumnErrors = PERFECT,
    noise: Any = None,
) -> Any:
    """Return dL/d(current) of `analog_to_digital`: rounding is the identity, range and draws are constant.

    Parameters
    ----------
    decoded_bar : array (..., cols)
        dL/d(decoded currents).
    current, full_scale, config, signed, errors, noise
        As in the forward call.
    """
    seen = at_input(current, errors, noise)
    result = transfer_vjp(decoded_bar * full_scale, seen, inverse(full_scale), config.nonlinearity, signed)
    if errors.gain is not None:
        result = result * (1.0 + errors.gain)
    return result


def clipped_count(seen: Any, full_scale: Any, config: Adc, *, signed: bool) -> Any:
    """Return how many conversions saturate, a 0-d array."""
    xp = namespace(seen)
    return xp.sum(xp.astype(clipped(seen, full_scale, signed, config.bits), xp.int64))
