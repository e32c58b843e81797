"""Convolutions of tensors in any number of dimensions: torch's own, their unfolding, and its transpose.

The padding of their `Geometry` is symmetric.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from xbar_core.engine.patches import Geometry


def convolve(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Return torch's convolution of this shape."""
    function = (F.conv1d, F.conv2d, F.conv3d)[len(geometry.kernel) - 1]
    return function(x, weight, None, geometry.stride, geometry.border, geometry.dilation, geometry.groups)


def kernel_gradient(x: Tensor, dy: Tensor, geometry: Geometry, shape: Sequence[int]) -> Tensor:
    """Return dL/d(weight) of torch's convolution, the weight having `shape`."""
    _, gradient, _ = torch.ops.aten.convolution_backward(
        dy,
        x,
        x.new_empty(1).expand(shape),
        None,
        geometry.stride,
        geometry.border,
        geometry.dilation,
        False,
        [0] * len(geometry.kernel),
        geometry.groups,
        [False, True, False],
    )
    result: Tensor = gradient
    return result


def unfold(x: Tensor, geometry: Geometry) -> Tensor:
    """Return the patches (batch, channels x kernel cells, output places) of x (batch, channels, ...)."""
    sides = [side for p in reversed(geometry.border) for side in (p, p)]
    x = F.pad(x, sides) if any(sides) else x
    dims = len(geometry.kernel)
    for axis, (k, s, d) in enumerate(
        zip(geometry.kernel, geometry.stride, geometry.dilation, strict=True), 2
    ):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    places = range(2, 2 + dims)
    x = x.permute(0, 1, *(axis + dims for axis in places), *places)
    return x.reshape(x.shape[0], x.shape[1] * geometry.cells, -1)


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
            columns, tuple(size), geometry.kernel, geometry.dilation, geometry.border, geometry.stride
        )
    columns = columns.reshape(columns.shape[0], -1, geometry.cells, *geometry.output(size))
    total = columns.new_zeros(*columns.shape[:2], *geometry.padded(size))
    for cell, places in enumerate(geometry.taps(size)):
        total[(slice(None), slice(None), *places)] += columns[:, :, cell]
    inner = tuple(slice(p, p + n) for p, n in zip(geometry.border, size, strict=True))
    return total[(slice(None), slice(None), *inner)].contiguous()
