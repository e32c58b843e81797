"""Shape of a convolution; its unfolding on host arrays (batch, ..., channels), and the transpose.

Rows of a convolution's matrix count channels first, then the cells of the kernel, whatever the layout of the
framework's tensors: the same weights then lie on the same rows of the same arrays everywhere.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Geometry(NamedTuple):
    """Shape of a convolution; one entry for every spatial dimension.

    Attributes
    ----------
    kernel, stride, dilation : tuple of int
        Cells of the kernel, steps between output places, steps between cells.
    padding : tuple of (int, int)
        Zeros before and behind.
    groups : int
        Number of groups of channels.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def cells(self) -> int:
        """Cells of the kernel."""
        return math.prod(self.kernel)

    @property
    def extent(self) -> tuple[int, ...]:
        """Input places that the kernel spans."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    @property
    def symmetric(self) -> bool:
        """Whether as many zeros stand before as behind, in every dimension."""
        return all(before == behind for before, behind in self.padding)

    @property
    def border(self) -> tuple[int, ...]:
        """Zeros on either side of every dimension, where the padding is symmetric."""
        return tuple(before for before, _ in self.padding)

    @property
    def unpadded(self) -> Geometry:
        """The same convolution of an input that has been padded already."""
        return self._replace(padding=((0, 0),) * len(self.kernel))

    def output(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial shape of the output for an input of spatial shape `size`."""
        return tuple(
            (n + before + behind - extent) // s + 1
            for n, (before, behind), extent, s in zip(
                size, self.padding, self.extent, self.stride, strict=True
            )
        )

    def padded(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial shape of an input of spatial shape `size` with the zeros around it."""
        return tuple(n + before + behind for n, (before, behind) in zip(size, self.padding, strict=True))

    def taps(self, size: Sequence[int]) -> Iterator[tuple[slice, ...]]:
        """Yield for every cell of the kernel the places of the padded input that it meets.

        There is one for each output place of an input of spatial shape `size`.
        """
        output = self.output(size)
        for cell in itertools.product(*(range(k) for k in self.kernel)):
            yield tuple(
                slice(i * d, i * d + s * (m - 1) + 1, s)
                for i, s, d, m in zip(cell, self.stride, self.dilation, output, strict=True)
            )

    def pad(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return x (batch, ..., channels) with the zeros around it."""
        if not any(side for sides in self.padding for side in sides):
            return x
        return np.pad(x, ((0, 0), *self.padding, (0, 0)))

    def crop(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return x (batch, ..., channels) without the zeros around it."""
        inner = (slice(a, n - b) for n, (a, b) in zip(x.shape[1:-1], self.padding, strict=True))
        return x[(slice(None), *inner)]


def unfold(x: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Return the patches (batch, output places, channels x kernel cells) of x (batch, ..., channels)."""
    axes = tuple(range(1, x.ndim - 1))
    windows = np.lib.stride_tricks.sliding_window_view(geometry.pad(x), geometry.extent, axes)
    steps = (slice(None, None, s) for s in geometry.stride)
    cells = (slice(None, None, d) for d in geometry.dilation)
    windows = windows[(slice(None), *steps, slice(None), *cells)]
    return np.ascontiguousarray(windows).reshape(x.shape[0], -1, x.shape[-1] * geometry.cells)


def fold(columns: NDArray[Any], geometry: Geometry, size: Sequence[int]) -> NDArray[Any]:
    """Return the transpose of `unfold`: columns (batch, places, channels x kernel cells) summed up.

    Parameters
    ----------
    columns : array
        One value for every kernel cell of every output place.
    geometry : Geometry
        The convolution.
    size : sequence of int
        Spatial shape of its input.

    Returns
    -------
    array (batch, *size, channels)
    """
    output = geometry.output(size)
    columns = columns.reshape(columns.shape[0], *output, -1, geometry.cells)
    total = np.zeros((columns.shape[0], *geometry.padded(size), columns.shape[-2]), columns.dtype)
    for cell, places in enumerate(geometry.taps(size)):
        total[(slice(None), *places)] += columns[..., cell]
    return np.ascontiguousarray(geometry.crop(total))
