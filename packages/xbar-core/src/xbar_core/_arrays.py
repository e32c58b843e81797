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
