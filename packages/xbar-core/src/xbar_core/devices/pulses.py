r"""Rank-1 writes: the product of an input and an error, made by pulses on rows and columns.

Where the rows carry x and the columns dy, every device sees their product without anyone computing it.
Two encodings:

- ``deterministic``: x as a duration, dy as an amplitude (or the reverse), each a signed code of b bits;
  the product is that of the two codes.
- ``stochastic``: each a stream of BL random bits, 1 with probability \|x\| / x_max; the device moves by one
  unit at every coincidence (T. Gokmen and Y. Vlasov, "Acceleration of deep neural network training with
  resistive cross-point devices", Front. Neurosci. 10, 333, 2016). Its mean is the product of the
  probabilities.

A write gathers `samples_per_write` samples, in sample order; the devices change between writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from xbar_core._arrays import namespace
from xbar_core.periphery.dac import inverse, ratio


class Factors(NamedTuple):
    """What rows and columns send in one update, and what a full-scale product is worth.

    Attributes
    ----------
    rows : array (samples, pulses, in)
        Numbers in [-1, 1]: codes, or bits with a sign.
    cols : array (samples, pulses, out)
        As `rows`.
    unit : float or 0-d array
        Gradient of a product of 1.
    """

    rows: Any
    cols: Any
    unit: Any


def deterministic(x: Any, dy: Any, x_max: Any, dy_max: Any, bits: int) -> Factors:
    """Return x and dy as signed codes.

    Parameters
    ----------
    x : array (samples, places, in)
        Inputs; a convolution has several places for each sample.
    dy : array (samples, places, out)
        Errors.
    x_max, dy_max : float or 0-d array
        Full scales of the codes; beyond them codes saturate.
    bits : int
        Bits of a code, sign included, at least 2.
    """
    return Factors(_codes(x, x_max, bits), _codes(dy, dy_max, bits), x_max * dy_max)


def stochastic(
    x: Any, dy: Any, x_max: Any, dy_max: Any, stream_length: int, uniform_x: Any, uniform_dy: Any
) -> Factors:
    """Return x and dy as streams of random bits with a sign.

    Parameters
    ----------
    x, dy, x_max, dy_max
        As in `deterministic`.
    stream_length : int
        Bits of a stream (BL).
    uniform_x : array (samples, places, stream_length, in)
        Uniform draws in [0, 1), keyed by sample.
    uniform_dy : array (samples, places, stream_length, out)
        As `uniform_x`.
    """
    unit = x_max * dy_max / stream_length
    return Factors(_bits(x, x_max, uniform_x), _bits(dy, dy_max, uniform_dy), unit)


def writes(factors: Factors, samples_per_write: int | None) -> Iterator[Any]:
    """Yield the gradient of each write, an array (in, out), in sample order.

    Parameters
    ----------
    factors : Factors
        From `deterministic` or `stochastic`.
    samples_per_write : int or None
        Samples gathered into one write; None is all of them.
    """
    xp = namespace(factors.rows)
    samples = factors.rows.shape[0]
    group = samples if samples_per_write is None else samples_per_write
    for first in range(0, samples, group):
        part = slice(first, min(first + group, samples))
        rows = factors.rows[part, ...]
        cols = factors.cols[part, ...]
        rows = xp.reshape(rows, (-1, rows.shape[-1]))
        cols = xp.reshape(cols, (-1, cols.shape[-1]))
        yield xp.matmul(rows.T, cols) * factors.unit


def _codes(values: Any, full_scale: Any, bits: int) -> Any:
    """Return signed codes as ratios of full scale."""
    largest = float(2 ** (bits - 1) - 1)
    return namespace(values).round(ratio(values, full_scale, True) * largest) / largest


def _bits(values: Any, full_scale: Any, uniform: Any) -> Any:
    """Return streams of 0 and sign(value), shape (samples, places x stream_length, n)."""
    xp = namespace(values)
    probability = xp.abs(values) * inverse(full_scale)
    hit = uniform < probability[:, :, None, :]
    signed = xp.where(hit, xp.sign(values)[:, :, None, :], xp.zeros_like(uniform, dtype=values.dtype))
    return xp.reshape(signed, (values.shape[0], -1, values.shape[2]))
