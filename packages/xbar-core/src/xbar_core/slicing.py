"""Words over several cells and several pulses: bit slices of weights, bit-serial inputs.

A word of m magnitude bits goes through a DAC of d bits in ceil(m / d) phases, least significant digit
first. Digits are magnitudes; the sign is the polarity of the pulse (``bipolar``) or a second pass whose
result is subtracted (``two_phase``). Results are put together by shift and add: the shares of the
phases here, of the slices in `xbar_core.mapping.WeightCode.significance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from xbar_core._arrays import namespace


@dataclass(frozen=True)
class Phases:
    """How a number in [-1, 1] is sent as one or several voltages.

    Parameters
    ----------
    bits : int or None
        Bits of the word; None rounds nothing and sends it at once.
    dac_bits : int or None
        Bits of the DAC; None sends the word at once.
    signed : bool
        Words have a sign: m = bits - 1 magnitude bits instead of m = bits.
    polarity : {"bipolar", "two_phase"}
        What a negative number is: a negative voltage, or a second pass.
    """

    bits: int | None
    dac_bits: int | None
    signed: bool
    polarity: Literal["bipolar", "two_phase"]

    @cached_property
    def steps(self) -> int | None:
        """Largest code of a word, or None when unlimited."""
        if self.bits is None:
            return None
        return int(2 ** (self.bits - 1 if self.signed else self.bits)) - 1

    @cached_property
    def digits(self) -> tuple[float, ...]:
        """Share of each digit in the word, least significant first."""
        if self.bits is None or self.dac_bits is None or self.steps is None:
            return (1.0,)
        magnitude = self.bits - 1 if self.signed else self.bits
        if self.dac_bits >= magnitude:
            return (1.0,)
        base = 2**self.dac_bits
        return tuple(base**k * (base - 1) / self.steps for k in range(-(-magnitude // self.dac_bits)))

    @cached_property
    def signs(self) -> tuple[float, ...]:
        """Sign of each pass."""
        return (1.0, -1.0) if self.signed and self.polarity == "two_phase" else (1.0,)

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """Share of each phase in the result: digits inside passes."""
        return tuple(sign * digit for sign in self.signs for digit in self.digits)

    @property
    def serial(self) -> bool:
        """The word takes more than one digit."""
        return len(self.digits) > 1


def quantise(phases: Phases, ratio: Any) -> Any:
    """Return the word nearest to `ratio` (already within -1 to 1), as a ratio; half to even."""
    if phases.steps is None:
        return ratio
    xp = namespace(ratio)
    steps = float(phases.steps)
    return xp.round(ratio * steps) * (1.0 / steps)


def split(phases: Phases, word: Any) -> list[Any]:
    """Return the DAC input of each phase, in units of full scale, in the order of `Phases.shares`.

    Parameters
    ----------
    phases : Phases
        The plan.
    word : array
        Words as ratios of full scale, from `quantise`.
    """
    xp = namespace(word)
    if len(phases.signs) == 2:
        zero = xp.zeros_like(word)
        passes = [xp.maximum(word, zero), xp.maximum(-word, zero)]
    else:
        passes = [word]
    if not phases.serial:
        return passes
    return [digit for part in passes for digit in _digits(phases, part)]


def _digits(phases: Phases, word: Any) -> list[Any]:
    """Return the base-2**dac_bits digits of signed words, each in units of the DAC's full scale."""
    assert phases.steps is not None
    assert phases.dac_bits is not None
    xp = namespace(word)
    base = float(2**phases.dac_bits)
    # Codes of more than 24 bits are integers in float64 only.
    rest = xp.round(xp.astype(xp.abs(word), xp.float64) * float(phases.steps))
    sign = xp.sign(word) / (base - 1.0)
    digits = []
    for _ in phases.digits:
        higher = xp.floor(rest / base)
        digits.append(xp.astype(rest - base * higher, word.dtype) * sign)
        rest = higher
    return digits
