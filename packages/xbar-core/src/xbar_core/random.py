"""Random draws that depend on what they are for, never on when they are made.

Every draw comes from NumPy's counter-based Philox. Its key is a hash of (seed, layer, purpose,
array, step); its counter is the sample's index. So the same seed gives the same chip and the same
noise in any order of calls, in any framework, and however a batch is split between processes: the
draws of samples ``[first, first + count)`` are a slice of one long stream.

Normal numbers for samples are made by the Box-Muller transform, which uses a fixed number of uniforms
for each normal (NumPy's ziggurat, three times faster and used elsewhere, does not: no slice of it
could be made without the rest).
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_integer

_BLOCK = 4  # 64-bit numbers that Philox makes for each step of its counter
_MASK = (1 << 64) - 1


class Purpose(IntEnum):
    """What a draw is for; the numbers are part of every seed's meaning and never change."""

    VARIATION = 1
    FAULTS = 2
    PROGRAMMING = 3
    WRITE_NOISE = 4
    READ_NOISE = 5
    ADC_GAIN = 6
    ADC_OFFSET = 7
    ADC_NOISE = 8
    WEIGHT_ROUNDING = 9
    ACTIVATION_ROUNDING = 10
    ERROR_ROUNDING = 11
    SNAP = 12
    PULSES_INPUT = 13
    PULSES_ERROR = 14
    JUMP = 15
    SPREAD_V = 16
    SPREAD_G_MIN = 17
    SPREAD_G_MAX = 18
    DRIFT = 19
    BACKWARD_READ_NOISE = 20
    BACKWARD_ADC_NOISE = 21
    REFRESH = 22
    WEIGHTS = 23


@dataclass(frozen=True)
class Stream:
    """All random draws of one layer of one chip.

    Parameters
    ----------
    seed : int
        The chip's seed, 0 to 2**64 - 1.
    layer : int or str
        Identifies the layer: its number from 0 up, or its name in the model.

    Examples
    --------
    >>> stream = Stream(seed=0, layer="fc1")
    >>> both = stream.normal_samples(Purpose.ADC_NOISE, (10,), first=0, count=2, step=7)
    >>> second = stream.normal_samples(Purpose.ADC_NOISE, (10,), first=1, count=1, step=7)
    >>> bool((both[1] == second[0]).all())
    True
    """

    seed: int
    layer: int | str = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_integer("seed", self.seed, minimum=0, maximum=_MASK))
        if not isinstance(self.layer, str):
            # A NumPy integer is the same layer as Python's.
            object.__setattr__(self, "layer", check_integer("layer", self.layer, minimum=0))

    def generator(self, purpose: Purpose, *, step: int = 0, array: int = 0) -> np.random.Generator:
        """Return a generator at the start of one stream.

        Parameters
        ----------
        purpose : Purpose
            What the draws are for.
        step : int
            Counter of the call (updates for write noise, reads for read noise).
        array : int
            Index of the array or device plane within the layer.
        """
        return np.random.Generator(self._philox(purpose, step, array))

    def uniform(
        self, purpose: Purpose, shape: tuple[int, ...], *, step: int = 0, array: int = 0
    ) -> NDArray[np.float64]:
        """Return uniform numbers in [0, 1) of the given shape."""
        return self.generator(purpose, step=step, array=array).random(shape)

    def normal(
        self, purpose: Purpose, shape: tuple[int, ...], *, step: int = 0, array: int = 0
    ) -> NDArray[np.float64]:
        """Return standard normal numbers of the given shape."""
        return self.generator(purpose, step=step, array=array).standard_normal(shape)

    def uniform_samples(
        self,
        purpose: Purpose,
        shape: tuple[int, ...],
        *,
        first: int,
        count: int,
        step: int = 0,
        array: int = 0,
    ) -> NDArray[np.float64]:
        """Return uniform numbers in [0, 1) for a range of samples of the global batch.

        Parameters
        ----------
        purpose : Purpose
            What the draws are for.
        shape : tuple of int
            Shape of one sample's draws.
        first, count : int
            The samples ``first, ..., first + count - 1``, indexed in the global batch.
        step, array : int
            As in `generator`.

        Returns
        -------
        ndarray of float64, shape (count, *shape)
            Row k depends on (seed, layer, purpose, array, step, first + k, shape) only.
        """
        size = math.prod(shape)
        draws = self._samples(purpose, size, first, count, step, array)
        return draws[:, :size].reshape(count, *shape)

    def normal_samples(
        self,
        purpose: Purpose,
        shape: tuple[int, ...],
        *,
        first: int,
        count: int,
        step: int = 0,
        array: int = 0,
    ) -> NDArray[np.float64]:
        """Return standard normal numbers for a range of samples; as `uniform_samples`."""
        size = math.prod(shape)
        draws = self._samples(purpose, size, first, count, step, array)
        half = draws.shape[1] // 2
        # 1 - u is in (0, 1], so that the logarithm is finite.
        radius = np.subtract(1.0, draws[:, :half])
        np.log(radius, out=radius)
        radius *= -2.0
        np.sqrt(radius, out=radius)
        angle = draws[:, half:]
        angle *= 2.0 * math.pi
        np.multiply(radius, np.cos(angle), out=draws[:, :half])
        np.sin(angle, out=angle)
        angle *= radius
        return draws[:, :size].reshape(count, *shape)

    def _samples(
        self, purpose: Purpose, size: int, first: int, count: int, step: int, array: int
    ) -> NDArray[np.float64]:
        """Return uniforms ``(count, stride)``, the stride being `size` rounded up to whole blocks."""
        blocks = -(-size // _BLOCK)
        bits = self._philox(purpose, step, array, counter=first * blocks)
        return np.random.Generator(bits).random((count, blocks * _BLOCK))

    def _philox(self, purpose: Purpose, step: int, array: int, counter: int = 0) -> np.random.Philox:
        """Return Philox keyed by a hash of everything but the sample, which is the counter's."""
        label = repr(self.layer).encode()
        words = struct.pack("<4Q", self.seed, int(purpose), int(array), int(step))
        digest = hashlib.blake2b(words + label, digest_size=16).digest()
        key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
        return np.random.Philox(key=key, counter=counter)
