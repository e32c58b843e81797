"""Large matrices on arrays of limited size, and back.

Weights (in, out) are cut into arrays of at most rows x cols cells: input i sits in row tile
i // rows, output j in column tile j // cols. Row tiles are separate analog reads; their converted
partial sums are added digitally. Column tiles stand side by side. Arrays of equal shape are gathered
into one batch, so that a whole network is solved in a few calls.

A partly filled array uses the rows next to the sense ends and the columns next to the drivers. With
its unused cells open it is exactly a smaller array, and is solved as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from xbar_core._arrays import namespace
from xbar_core._checks import check_integer

Bounds = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """One array of a layer: which inputs and outputs it serves.

    Parameters
    ----------
    row, col : int
        Place of the array in the layer's grid.
    inputs, outputs : tuple of int
        Half-open bounds into the weight matrix.
    """

    row: int
    col: int
    inputs: Bounds
    outputs: Bounds

    @property
    def shape(self) -> tuple[int, int]:
        """Used rows and columns."""
        return self.inputs[1] - self.inputs[0], self.outputs[1] - self.outputs[0]


@dataclass(frozen=True)
class Tiling:
    """A weight matrix on a grid of arrays.

    Parameters
    ----------
    inputs, outputs : int
        Shape of the weight matrix, at least 1 each.
    rows, cols : int
        Cells of one array that can hold weights (a reference column is not counted).
    """

    inputs: int
    outputs: int
    rows: int
    cols: int

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "rows", "cols"):
            object.__setattr__(self, name, check_integer(f"tiling.{name}", getattr(self, name), minimum=1))

    @cached_property
    def row_bounds(self) -> tuple[Bounds, ...]:
        """Half-open bounds of the inputs of each row tile."""
        return _bounds(self.inputs, self.rows)

    @cached_property
    def col_bounds(self) -> tuple[Bounds, ...]:
        """Half-open bounds of the outputs of each column tile."""
        return _bounds(self.outputs, self.cols)

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """Every array, row tile by row tile."""
        return tuple(
            Tile(row, col, inputs, outputs)
            for row, inputs in enumerate(self.row_bounds)
            for col, outputs in enumerate(self.col_bounds)
        )

    @cached_property
    def shapes(self) -> dict[tuple[int, int], tuple[Tile, ...]]:
        """Arrays by the shape that is used, in order of first appearance."""
        groups: dict[tuple[int, int], tuple[Tile, ...]] = {}
        for tile in self.tiles:
            groups[tile.shape] = (*groups.get(tile.shape, ()), tile)
        return groups

    @property
    def utilisation(self) -> float:
        """Share of the cells that hold a weight."""
        return self.inputs * self.outputs / (len(self.tiles) * self.rows * self.cols)


def _bounds(length: int, size: int) -> tuple[Bounds, ...]:
    return tuple((start, min(start + size, length)) for start in range(0, length, size))


def gather(tiling: Tiling, matrices: Any) -> Iterator[tuple[tuple[int, int], list[Any]]]:
    """Yield ``(shape, [block, ...])`` for each array shape; blocks are views (..., rows, cols).

    Parameters
    ----------
    tiling : Tiling
        The grid.
    matrices : array (..., in, out)
        Whole matrices, one for each leading index.
    """
    for shape, tiles in tiling.shapes.items():
        yield (
            shape,
            [
                matrices[..., tile.inputs[0] : tile.inputs[1], tile.outputs[0] : tile.outputs[1]]
                for tile in tiles
            ],
        )


def stitch(tiling: Tiling, blocks: dict[tuple[int, int], list[Any]]) -> Any:
    """Return whole matrices (..., in, out) from the blocks of each array; the inverse of `gather`."""
    by_place = {
        (tile.row, tile.col): block
        for shape, tiles in tiling.shapes.items()
        for tile, block in zip(tiles, blocks[shape], strict=True)
    }
    xp = namespace(next(iter(by_place.values())))
    bands = []
    for row in range(len(tiling.row_bounds)):
        band = [by_place[row, col] for col in range(len(tiling.col_bounds))]
        bands.append(band[0] if len(band) == 1 else xp.concat(band, axis=-1))
    return bands[0] if len(bands) == 1 else xp.concat(bands, axis=-2)
