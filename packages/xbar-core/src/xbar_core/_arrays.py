"""The one place that asks which array library an array belongs to.

Elementwise physics and matrix products are written once: a function takes `xp` from
`namespace` and calls only what the array API standard defines, so the same line runs on NumPy
arrays, on torch tensors of any device and on the strict reference implementation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from numpy.typing import NDArray

ONE_THREAD, MANY_THREADS = 1 << 18, 1 << 23
"""Multiplications of a product up to which OpenBLAS stays on the calling thread; and from which `matmul` lets
it wake others."""


def namespace(*arrays: Any) -> Any:
    """Return the array-API namespace shared by `arrays`; Python scalars and None are ignored.

    Raises
    ------
    TypeError
        The arrays belong to different libraries, or none of them is an array.
    """
    return array_namespace(*arrays)


def to_numpy(array: Any) -> NDArray[Any]:
    """Return `array` on the host as a NumPy array, detached from any autograd graph.

    Host memory is shared where the library allows it: treat the result as read-only.
    """
    if isinstance(array, np.ndarray):
        return array
    if is_torch_array(array):
        host: NDArray[Any] = array.detach().cpu().numpy()
        return host
    return np.asarray(array)


def array_like(values: Any, like: Any) -> Any:
    """Return host `values` (a NumPy array or a number) in the library, dtype and device of `like`."""
    if isinstance(like, np.ndarray):
        return np.asarray(values, dtype=like.dtype)
    return namespace(like).asarray(values, dtype=like.dtype, device=device(like))


def matmul(left: Any, right: Any) -> Any:
    """Return ``left @ right`` of two matrices.

    Threads of NumPy's BLAS wait actively for some milliseconds after every product. Beside the threads of a
    framework and of the kernels that costs more than they bring, so a product of NumPy arrays that is not
    large is computed in blocks of rows, each too small to wake them.
    """
    if not isinstance(left, np.ndarray):
        return namespace(left).matmul(left, right)
    lines, each = left.shape[0], left.shape[1] * right.shape[1]
    rows = ONE_THREAD // max(each, 1)
    if rows < 4 or lines <= rows or lines * each > MANY_THREADS:
        return left @ right
    whole = lines - lines % rows
    result = np.empty((lines, right.shape[1]), np.result_type(left, right))
    blocks = result[:whole].reshape(-1, rows, right.shape[1])
    np.matmul(left[:whole].reshape(-1, rows, left.shape[1]), right, out=blocks)
    if whole < lines:
        np.matmul(left[whole:], right, out=result[whole:])
    return result
