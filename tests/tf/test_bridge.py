"""What TensorFlow makes of the engine's arrays."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as tf

from xbar_tf._bridge import host_call


def placed(values: np.ndarray, offset: int) -> np.ndarray:
    """Return the values at an address that is `offset` beyond a multiple of 64."""
    space = np.empty(values.nbytes + 128, np.uint8)
    start = -space.ctypes.data % 64 + offset
    moved = space[start : start + values.nbytes].view(values.dtype)
    moved[...] = values
    return moved


def test_sums_do_not_depend_on_where_arrays_lie() -> None:
    """Gradients of a weight that is read several times add up alike, wherever NumPy put them."""
    rng = np.random.default_rng(0)
    terms = [np.float32(10.0**k) * rng.standard_normal(64).astype("float32") for k in range(4)]
    offsets = [0] * len(terms)

    def term(index: int) -> Any:
        spec = tf.TensorSpec((64,), "float32")
        return host_call(lambda: [placed(terms[index], offsets[index])], [], [spec])[0]

    @tf.function  # type: ignore[untyped-decorator, unused-ignore]
    def total() -> tf.Tensor:
        return tf.add_n([term(index) for index in range(len(terms))])

    found = set()
    for chosen in itertools.product((0, 16), repeat=len(terms)):
        offsets[:] = chosen
        found.add(total().numpy().tobytes())
    assert len(found) == 1
