"""Array libraries: one namespace for one library, and the way back to NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from libraries import CONVERTERS, Convert

from xbar_core._arrays import ONE_THREAD, matmul, namespace, to_numpy


def test_numpy_stays_numpy() -> None:
    """A NumPy array comes back as it is; scalars and None do not take part in the choice."""
    array = np.ones(3)
    assert to_numpy(array) is array
    assert namespace(array, 2.0, None).__name__.endswith("numpy")


@pytest.mark.parametrize("convert", CONVERTERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(convert: Convert, dtype: type) -> None:
    """Values and dtype survive the way into a library, one operation there and the way back."""
    array = np.array([[1.5, -2.0], [0.0, 1e-7]], dtype)
    other = convert(array)
    xp = namespace(other)
    assert xp is not namespace(array)
    back = to_numpy(xp.abs(other))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, np.abs(array))


@pytest.mark.parametrize("convert", CONVERTERS)
def test_libraries_do_not_mix(convert: Convert) -> None:
    """Arrays of two libraries in one call are an error, not a silent copy."""
    with pytest.raises(TypeError, match="Multiple namespaces"):
        namespace(np.ones(2), convert(np.ones(2)))


def test_gradients_are_left_behind() -> None:
    """A tensor inside an autograd graph is detached on its way to NumPy."""
    torch = pytest.importorskip("torch", reason="torch is not installed (make setup installs it)")
    assert to_numpy(2 * torch.ones(2, requires_grad=True)).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (128, 64, 120), (400, 128, 120), (9, 512, 512), (0, 3, 2), (5, 0, 2)]
)
def test_products_in_blocks_are_products(shape: tuple[int, int, int], turned: bool) -> None:
    """Blocks of rows, a rest that fills none, transposed views, empty matrices: always ``left @ right``."""
    lines, inner, outputs = shape
    rng = np.random.default_rng(0)
    left = rng.standard_normal((inner, lines)).T if turned else rng.standard_normal((lines, inner))
    right = rng.standard_normal((inner, outputs))
    np.testing.assert_allclose(matmul(left, right), left @ right, rtol=1e-12, atol=1e-12)


def test_some_products_are_made_of_blocks() -> None:
    """The shapes above reach every branch: blocks with a rest, and products that stay whole."""
    assert 400 % (ONE_THREAD // (128 * 120)) != 0
    assert 128 > ONE_THREAD // (64 * 120) >= 4
    assert ONE_THREAD // (512 * 512) < 4
