"""Array libraries: one namespace for one library, and the way back to NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from libraries import CONVERTERS, Convert

from xbar_core._arrays import namespace, to_numpy


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
