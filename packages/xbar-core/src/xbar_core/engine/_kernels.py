"""Converters in one pass over host memory, for the reads that most time goes into.

The array API needs a pass over memory for each operation; here scale, clip, curve, rounding and the
sum over tiles are one loop (measured on 1.2 million float32 currents: 0.19 ms on one core against 1.7 ms
on two). One core does it up to 4 million numbers: a second team of threads beside the framework's
own costs more than it brings. `xbar_core.periphery` is the readable definition and runs everywhere; a
test holds both together. Arrays are C-contiguous and, with the scalars, of one floating dtype; all is
trusted.

In all kernels the curve is ``f(x) = x (slope + cubic x^2)``, and numbers are clipped to [low, high]
after they are multiplied by `inverse`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba as nb
import numpy as np

PARALLEL_SIZE = 1 << 22


def _one_or_many(function: Callable[..., None]) -> Callable[..., None]:
    """Compile for one thread and for many; the size of the first argument chooses."""
    # Numba's cache tells functions apart by their qualified names, not by their options.
    twin = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_many")
    twin.__qualname__ = twin.__name__
    one = nb.njit(cache=True, error_model="numpy", nogil=True)(function)
    many = nb.njit(cache=True, parallel=True, error_model="numpy", nogil=True)(twin)

    @functools.wraps(function)
    def call(first: Any, *rest: Any) -> None:
        (many if first.size >= PARALLEL_SIZE else one)(first, *rest)

    return call


@_one_or_many
def add_codes(
    current: Any,
    inverse: Any,
    low: Any,
    high: Any,
    slope: Any,
    cubic: Any,
    steps: Any,
    scale: Any,
    fresh: bool,
    out: Any,
) -> None:
    """Add ``scale rint(steps f(clip(inverse I)))``, summed over axis 1 of I (a, tiles, m), to out (a, m).

    With `fresh` what `out` held before does not matter.
    """
    for a in nb.prange(current.shape[0]):
        if fresh:
            out[a, :] = 0
        for t in range(current.shape[1]):
            for m in range(current.shape[2]):
                x = min(max(current[a, t, m] * inverse, low), high)
                x = x * (slope + cubic * x * x)
                out[a, m] += np.rint(x * steps) * scale


@_one_or_many
def add_curve(
    current: Any, inverse: Any, low: Any, high: Any, slope: Any, cubic: Any, scale: Any, fresh: bool, out: Any
) -> None:
    """As `add_codes`, without rounding: ``scale f(clip(inverse I))``."""
    for a in nb.prange(current.shape[0]):
        if fresh:
            out[a, :] = 0
        for t in range(current.shape[1]):
            for m in range(current.shape[2]):
                x = min(max(current[a, t, m] * inverse, low), high)
                out[a, m] += x * (slope + cubic * x * x) * scale


@_one_or_many
def fold_codes(
    current: Any,
    inverse: Any,
    low: Any,
    high: Any,
    slope: Any,
    cubic: Any,
    steps: Any,
    scale: Any,
    fresh: bool,
    geometry: Any,
    out: Any,
) -> None:
    """Convert the currents of a transposed convolution and fold them into out (batch, c, height, width).

    Parameters
    ----------
    current : (batch, c, kernel rows, kernel columns, output rows, output columns)
        Row currents at every output position.
    geometry : (2, 3) integers
        Stride, padding and dilation of the rows and of the columns.
    out : (batch, c, height, width)
        Changed. ``steps`` of 0 rounds nothing.
    """
    (row_stride, row_padding, row_dilation), (stride, padding, dilation) = geometry[0], geometry[1]
    batch, channels, kernel_rows, kernel_cols, rows, cols = current.shape
    height, width = out.shape[2], out.shape[3]
    for place in nb.prange(batch * channels):
        b, c = place // channels, place % channels
        target = out[b, c]
        if fresh:
            target[:] = 0
        plane = np.empty((rows, cols), current.dtype)
        flat = plane.reshape(-1)
        for p in range(kernel_rows):
            for q in range(kernel_cols):
                source = current[b, c, p, q].reshape(-1)
                for k in range(flat.size):
                    x = min(max(source[k] * inverse, low), high)
                    flat[k] = x * (slope + cubic * x * x)
                if steps > 0:
                    for k in range(flat.size):
                        flat[k] = np.rint(flat[k] * steps)
                shift = q * dilation - padding
                first = max(0, -(shift // stride))  # ceil(-shift / stride)
                last = min(cols, (width - 1 - shift) // stride + 1)
                for r in range(rows):
                    i = r * row_stride + p * row_dilation - row_padding
                    if i < 0 or i >= height:
                        continue
                    if stride == 1:  # contiguous on both sides
                        line = target[i, first + shift : last + shift]
                        part = plane[r, first:last]
                        for k in range(line.size):
                            line[k] += part[k] * scale
                    else:
                        for k in range(first, last):
                            target[i, k * stride + shift] += plane[r, k] * scale


@_one_or_many
def send_codes(
    values: Any,
    inverse: Any,
    low: Any,
    high: Any,
    steps: Any,
    unit: Any,
    slope: Any,
    cubic: Any,
    words: Any,
    volts: Any,
) -> None:
    """Write ``words = rint(steps clip(inverse x)) unit`` and ``volts = f(words)``; all (a, m)."""
    for a in nb.prange(values.shape[0]):
        for m in range(values.shape[1]):
            x = np.rint(min(max(values[a, m] * inverse, low), high) * steps) * unit
            words[a, m] = x
            volts[a, m] = x * (slope + cubic * x * x)
