"""Unfolding of convolutions in any number of dimensions, and its transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Geometry(NamedTuple):
    """Shape of a convolution; one entry for every spatial dimension.

    Attributes
    ----------
    kernel, stride, padding, dilation : tuple of int
        As in `torch.nn.Conv2d`; the padding is symmetric and of zeros.
    groups : int
        Number of groups of channels.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def places(self) -> int:
        """Cells of the kernel."""
        return math.prod(self.kernel)

    def output(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the spatial shape of the output for an input of spatial shape `size`."""
        return tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return torch's convolution of this shape."""
        function = (F.conv1d, F.conv2d, F.conv3d)[len(self.kernel) - 1]
        return function(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def weight_gradient(self, x: Tensor, dy: Tensor, shape: Sequence[int]) -> Tensor:
        """Return dL/d(weight) of torch's convolution, the weight having `shape`."""
        _, gradient, _ = torch.ops.aten.convolution_backward(
            dy,
            x,
            x.new_empty(1).expand(shape),
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0] * len(self.kernel),
            self.groups,
            [False, True, False],
        )
        result: Tensor = gradient
        return result


def unfold(x: Tensor, geometry: Geometry) -> Tensor:
    """Return the patches (batch, channels x kernel cells, output places) of x (batch, channels, ...)."""
    sides = [side for p in reversed(geometry.padding) for side in (p, p)]
    x = F.pad(x, sides) if any(sides) else x
    dims = len(geometry.kernel)
    for axis, (k, s, d) in enumerate(
        zip(geometry.kernel, geometry.stride, geometry.dilation, strict=True), 2
    ):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    places = range(2, 2 + dims)
    x = x.permute(0, 1, *(axis + dims for axis in places), *places)
    return x.reshape(x.shape[0], x.shape[1] * geometry.places, -1)


def fold(columns: Tensor, geometry: Geometry, size: Sequence[int]) -> Tensor:
    """Return the transpose of `unfold`: columns (batch, channels x kernel cells, places) summed up.

    Parameters
    ----------
    columns : Tensor
        One value for every kernel cell of every output place.
    geometry : Geometry
        The convolution.
    size : sequence of int
        Spatial shape of its input.
    """
    if len(geometry.kernel) == 2:
        return F.fold(
            columns, tuple(size), geometry.kernel, geometry.dilation, geometry.padding, geometry.stride
        )
    batch = columns.shape[0]
    padded = [n + 2 * p for n, p in zip(size, geometry.padding, strict=True)]
    output = geometry.output(size)
    columns = columns.reshape(batch, -1, geometry.places, *output)
    total = columns.new_zeros(batch, columns.shape[1], *padded)
    shape = zip(geometry.kernel, geometry.stride, geometry.dilation, output, strict=True)
    ranges = [[slice(i * d, i * d + s * (m - 1) + 1, s) for i in range(k)] for k, s, d, m in shape]
    places: list[tuple[slice[Any, Any, Any], ...]] = [()]
    for axis in ranges:
        places = [(*place, cut) for place in places for cut in axis]
    for index, place in enumerate(places):
        total[(slice(None), slice(None), *place)] += columns[:, :, index]
    inner = tuple(slice(p, p + n) for p, n in zip(geometry.padding, size, strict=True))
    return total[(slice(None), slice(None), *inner)].contiguous()
