"""Fixed-point training: values as words of 16 or 32 bits, rounded stochastically.

A word of b bits is a symmetric code k / K with K = 2**(b-1) - 1 and |k| <= K, in units of its full scale.
Stochastic rounding goes to one of the two neighbours with probabilities that keep the mean, so that
gradients far below one code still add up (S. Gupta, A. Agrawal, K. Gopalakrishnan, P. Narayanan, "Deep
learning with limited numerical precision", ICML 2015).
"""

from __future__ import annotations

from typing import Any

from xbar_core._arrays import namespace


def largest_code(bits: int) -> int:
    """Return K = 2**(bits-1) - 1."""
    return int(2 ** (bits - 1)) - 1


def round_to_words(values: Any, full_scale: Any, bits: int, uniform: Any = None) -> Any:
    """Return values on the grid of `bits`-bit words.

    Parameters
    ----------
    values : array
        Numbers; beyond the full scale they saturate.
    full_scale : float or 0-d array
        Value of the largest code, above 0.
    bits : int
        Bits of a word, sign included, 2 to 32.
    uniform : array or None
        Uniform draws in [0, 1) of the shape of `values`: stochastic rounding. None rounds half to even.

    Returns
    -------
    array
        Same shape and dtype. Above 24 bits a float32 array holds the word only to its own precision.
    """
    xp = namespace(values)
    largest = float(largest_code(bits))
    scaled = values * (largest / full_scale)
    code = xp.round(scaled) if uniform is None else xp.floor(scaled + uniform)
    return xp.clip(code, -largest, largest) * (full_scale / largest)
