"""Cutting into arrays and stitching back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import CONVERTERS, Convert

from xbar_core import ConfigError
from xbar_core.tiling import Tiling, gather, stitch

sizes = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes)
def test_stitching_undoes_gathering(inputs: int, outputs: int, rows: int, cols: int) -> None:
    """stitch(gather(W)) is W, every array fits, and the count is ceil x ceil."""
    tiling = Tiling(inputs, outputs, rows, cols)
    weight = np.arange(2.0 * inputs * outputs).reshape(2, inputs, outputs)
    groups = dict(gather(tiling, weight))
    for shape, blocks in groups.items():
        assert shape[0] <= rows
        assert shape[1] <= cols
        assert all(block.shape == (2, *shape) for block in blocks)
    np.testing.assert_array_equal(stitch(tiling, groups), weight)
    assert len(tiling.tiles) == -(-inputs // rows) * -(-outputs // cols)
    assert 0.0 < tiling.utilisation <= 1.0


def test_at_most_four_shapes() -> None:
    """Full arrays, the last row, the last column and the corner: never more shapes to solve."""
    tiling = Tiling(150, 100, 64, 64)
    assert set(tiling.shapes) == {(64, 64), (64, 36), (22, 64), (22, 36)}
    assert [len(tiles) for tiles in tiling.shapes.values()] == [2, 2, 1, 1]


@pytest.mark.parametrize("convert", CONVERTERS)
def test_other_libraries(convert: Convert) -> None:
    """The same lines run on torch and on the strict array API."""
    tiling = Tiling(7, 5, 3, 2)
    weight = np.arange(35.0).reshape(7, 5)
    np.testing.assert_array_equal(np.asarray(stitch(tiling, dict(gather(tiling, convert(weight))))), weight)


def test_bad_sizes_are_named() -> None:
    """A matrix or an array without cells is an error that names the field."""
    with pytest.raises(ConfigError, match=r"tiling\.outputs: 0 is out of range"):
        Tiling(3, 0, 4, 4)
