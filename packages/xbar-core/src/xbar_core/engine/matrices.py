"""From states to the matrices that a read multiplies by: gather, solve, combine.

This is the expensive step and the only one that calls a circuit model. It takes the layers of a whole
network at once and gathers their arrays by shape, so that a few batched, parallel solves serve all of
them. Its results depend on the states only: keep them until the next update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device, is_torch_array

from xbar_core._arrays import array_like, namespace, to_numpy
from xbar_core.circuit.base import Direction, Ideal
from xbar_core.engine.cells import actual_conductance, reference_conductance
from xbar_core.engine.circuits import Arrays, Job, Reference, Shape, solve_arrays
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.mapping import decode
from xbar_core.tiling import Tile, stitch

Buffers = Mapping[str, Any]


References = tuple[Reference | None, Reference | None]


class Matrices(NamedTuple):
    """What the reads of one layer multiply by, in units of R = g_max - g_min.

    Attributes
    ----------
    forward : array (planes, in, out)
        Non-ideal conductances; a plane is the difference of a pair where that is taken in the
        analog domain. Row tile t is the contiguous block ``[:, start:stop, :]`` of its bounds.
    backward : array (planes, out, in) or None
        The transposed read.
    forward_reference : array (slices, in, column tiles) or None
        Reference columns that are converted on their own (offset mapping, digital subtraction).
    forward_power, backward_power : array or None
        Sum of squares over the devices of each plane, for read noise; shapes as the matrices.
    reference_power : array or None
        Squares of `forward_reference`.
    backward_offset : float
        Conductance that the offset mapping subtracts from the backward read, digitally.
    references : tuple of Reference or None
        What the interpolated circuit model keeps, forward and backward: hand it to the next request.
    """

    forward: Any
    backward: Any
    forward_reference: Any = None
    forward_power: Any = None
    backward_power: Any = None
    reference_power: Any = None
    backward_offset: float = 0.0
    references: References = (None, None)


@dataclass(frozen=True)
class Request:
    """One layer whose matrices are wanted.

    Parameters
    ----------
    layout : Layout
        The layer.
    buffers : mapping of str to array
        Its buffers, as `program` returned them.
    state : array (devices, in, out)
        Normalised device states.
    backward : bool
        Whether the transposed read is wanted too (not for a first layer, not in evaluation).
    time : float or None
        Seconds since programming; None is the drift model's reference time.
    read : int
        Counter of the call; it keys conductances that are drawn for each call.
    update : int
        Number of updates done, for the interpolated circuit model.
    references : tuple of Reference or None
        `Matrices.references` of the last request.
    """

    layout: Layout
    buffers: Buffers
    state: Any
    backward: bool = True
    time: float | None = None
    read: int = 0
    update: int = 0
    references: References = (None, None)

    def job(self, arrays: Arrays, direction: Direction) -> Job:
        """Return the circuit problem of one direction."""
        chip, index = self.layout.chip, 0 if direction == "forward" else 1
        return Job(chip.wires, chip.circuit, direction, arrays, self.references[index], self.update)


def read_matrices(requests: Sequence[Request]) -> list[Matrices]:
    """Return the matrices of several layers, solving all their arrays together.

    Parameters
    ----------
    requests : sequence of Request
        One for each layer; layers of different chips may be mixed.

    Returns
    -------
    list of Matrices
        In the order of the requests.

    Raises
    ------
    ConvergenceError
        An exact solve missed its tolerance.
    """
    asked, requests = requests, [_on_host(request) for request in requests]
    results: dict[int, Matrices] = {}
    arrays: dict[int, Arrays] = {}
    for k, request in enumerate(requests):
        ideal = _ideal(request)
        if ideal is None:
            arrays[k] = physical_arrays(request)
        else:
            results[k] = ideal
    turned = [k for k in arrays if requests[k].backward and not requests[k].layout.reciprocal]
    jobs = [requests[k].job(arrays[k], "forward") for k in arrays]
    jobs += [requests[k].job(arrays[k], "backward") for k in turned]
    solved = solve_arrays(jobs)
    backward = dict(zip(turned, solved[len(arrays) :], strict=True))
    for k, (forward, reference) in zip(arrays, solved[: len(arrays)], strict=True):
        request = requests[k]
        other, reference_back = backward.get(k, (None, request.references[1]))
        if request.backward and other is None:
            other = _mirror(forward)
        matrices = _combine(request, forward, other)
        results[k] = matrices._replace(references=(reference, reference_back))
    return [_like(results[k], request.state) for k, request in enumerate(asked)]


def _on_host(request: Request) -> Request:
    """Return the request with NumPy views in the place of host tensors: small operations cost less there."""
    if not is_torch_array(request.state) or request.state.device.type != "cpu":
        return request
    buffers = {name: to_numpy(value) for name, value in request.buffers.items()}
    references = _references(request.references, to_numpy)
    return replace(request, state=to_numpy(request.state), buffers=buffers, references=references)


def _like(matrices: Matrices, state: Any) -> Matrices:
    """Return the matrices as arrays of the library of `state`."""
    if not is_torch_array(state) or is_torch_array(matrices.forward):
        return matrices

    def like(array: Any) -> Any:
        return None if array is None else array_like(array, state)

    return Matrices(
        like(matrices.forward),
        like(matrices.backward),
        like(matrices.forward_reference),
        like(matrices.forward_power),
        like(matrices.backward_power),
        like(matrices.reference_power),
        matrices.backward_offset,
        _references(matrices.references, like),
    )


def _references(references: References, convert: Callable[[Any], Any]) -> References:
    ahead, back = (
        None if r is None else Reference(convert(r.factor), convert(r.offset), r.update) for r in references
    )
    return ahead, back


def is_ideal(request: Request) -> bool:
    """Return whether circuit, devices and converters change nothing: the matrices are the weights."""
    layout = request.layout
    return (
        isinstance(layout.chip.circuit, Ideal)
        and layout.plain_devices
        and not layout.redraws_conductance
        and layout.forward.linear
        and (layout.backward.linear or not request.backward)
    )


def _ideal(request: Request) -> Matrices | None:
    if not is_ideal(request):
        return None
    weight = decode(request.layout.code, request.state, 1.0)
    forward = weight[None, :, :]
    return Matrices(forward, namespace(weight).matrix_transpose(forward) if request.backward else None)


def physical_arrays(request: Request) -> Arrays:
    """Return the conductances of every physical array by shape: (tiles, devices, rows, cols), siemens.

    The offset mapping's reference column stands after the data columns. With ``array.unused = "g_min"``
    every array has its full shape, the weights in its last rows and first columns.
    """
    layout = request.layout
    conductance = actual_conductance(layout, request.buffers, request.state, request.time, request.read)
    xp = namespace(conductance)
    reference = reference_conductance(layout, request.time)
    groups: dict[Shape, list[Any]] = {}
    for tile in layout.tiling.tiles:
        block = conductance[:, tile.inputs[0] : tile.inputs[1], tile.outputs[0] : tile.outputs[1]]
        if reference:
            held = array_like(np.asarray(reference), block)[:, None, None]
            column = xp.broadcast_to(held, (block.shape[0], block.shape[1], 1))
            block = xp.concat([block, column], axis=-1)
        if layout.chip.array.unused == "g_min":
            block = _embed(layout, block)
        groups.setdefault((block.shape[-2], block.shape[-1]), []).append(block)
    return {shape: xp.stack(blocks) for shape, blocks in groups.items()}


def _embed(layout: Layout, block: Any) -> Any:
    """Return the block in its full array: last rows, first columns, the rest at g_min."""
    xp = namespace(block)
    array, g_min = layout.chip.array, layout.chip.device.g_min
    devices, rows, cols = block.shape
    right = xp.full((devices, rows, array.cols - cols), g_min, dtype=block.dtype, device=device(block))
    above = xp.full((devices, array.rows - rows, array.cols), g_min, dtype=block.dtype, device=device(block))
    return xp.concat([above, xp.concat([block, right], axis=-1)], axis=-2)


def _mirror(solution: Arrays) -> Arrays:
    """Return the backward matrices of a reciprocal circuit, keyed by the forward shape."""
    return {shape: namespace(g).matrix_transpose(g) for shape, g in solution.items()}


def tile_blocks(layout: Layout, solution: Arrays, direction: Direction) -> list[tuple[Tile, Any]]:
    """Return ``(tile, block)`` for each array, the block cut to the lines in use.

    Parameters
    ----------
    layout : Layout
        The layer.
    solution : dict
        Solved arrays by physical shape, (tiles, devices, rows, cols), or transposed for the backward read.
    direction : {"forward", "backward"}
        Which of the two it is.

    Returns
    -------
    list of (Tile, array)
        Blocks (devices, rows, cols + reference) forward, (devices, cols, rows) backward.
    """
    counters = dict.fromkeys(solution, 0)
    extra = 1 if layout.code.kind == "offset" else 0
    blocks = []
    for tile in layout.tiling.tiles:
        rows, cols = tile.shape
        array = layout.chip.array
        full = layout.chip.array.unused == "g_min"
        shape = (array.rows, array.cols) if full else (rows, cols + extra)
        block = solution[shape][counters[shape], ...]
        counters[shape] += 1
        first = shape[0] - rows
        if direction == "forward":
            block = block[:, first:, : cols + extra]
        else:
            block = block[:, :cols, first:]
        blocks.append((tile, block))
    return blocks


def whole_matrix(layout: Layout, blocks: Sequence[tuple[Tile, Any]], pick: Callable[[Any], Any]) -> Any:
    """Return the whole matrix (planes, in, out) of what `pick` takes of each block."""
    groups: dict[Shape, list[Any]] = {}
    for tile, block in blocks:
        groups.setdefault(tile.shape, []).append(pick(block))
    return stitch(layout.tiling, groups)


def _combine(request: Request, forward: Arrays, backward: Arrays | None) -> Matrices:
    layout = request.layout
    unit = 1.0 / layout.g_range
    ahead = tile_blocks(layout, forward, "forward")
    matrix = whole_matrix(layout, ahead, lambda g: _planes(layout, layout.forward, g) * unit)
    noisy = layout.current_noise > 0.0
    power = None
    reference = reference_power = None
    if noisy:
        power = whole_matrix(layout, ahead, lambda g: _powers(layout, layout.forward, g) * unit**2)
    if layout.code.kind == "offset" and converted_apart(layout, layout.forward):
        reference = _reference(layout, ahead) * unit
        reference_power = reference * reference if noisy else None
    if backward is None:
        return Matrices(matrix, None, reference, power, None, reference_power)
    xp = namespace(matrix)
    # Blocks (devices, cols, rows) are put together transposed, then turned: one copy, contiguous.
    turned = [(tile, xp.matrix_transpose(g)) for tile, g in tile_blocks(layout, backward, "backward")]
    back = whole_matrix(layout, turned, lambda g: _planes(layout, layout.backward, g) * unit)
    back = xp.asarray(xp.matrix_transpose(back), copy=True)
    back_power = None
    if noisy:
        back_power = whole_matrix(layout, turned, lambda g: _powers(layout, layout.backward, g) * unit**2)
        back_power = xp.matrix_transpose(back_power)
    held = reference_conductance(layout, request.time)
    offset = sum(gain * g for gain, g in zip(layout.code.gains, held, strict=True)) * unit if held else 0.0
    if offset and layout.backward.linear:
        back, offset = back - offset, 0.0
    return Matrices(matrix, back, reference, power, back_power, reference_power, offset)


def converted_apart(layout: Layout, plan: ReadPlan) -> bool:
    """Return whether the sides of a pair (or the reference column) are converted on their own."""
    return layout.chip.adc.subtract == "digital" and not plan.linear


def _planes(layout: Layout, plan: ReadPlan, block: Any) -> Any:
    """Return the planes of one block of devices (devices, rows, cols [+ reference])."""
    xp = namespace(block)
    code = layout.code
    if code.kind == "offset":
        data = block[..., :-1] if plan.direction == "forward" else block
        if plan.direction == "forward" and not converted_apart(layout, plan):
            data = data - block[..., -1:]
        planes = data
    elif converted_apart(layout, plan):
        planes = block
    else:
        planes = block[0::2, ...] - block[1::2, ...]
    if not plan.linear:
        return planes
    shares = code.gains if code.kind == "offset" else code.significance
    if shares == (1.0,):
        return planes
    weights = array_like(np.asarray(shares), planes)[:, None, None]
    return xp.sum(planes * weights, axis=0, keepdims=True)


def _powers(layout: Layout, plan: ReadPlan, block: Any) -> Any:
    """Return the summed squares of the devices behind each plane."""
    squares = block * block
    if layout.code.kind == "offset":
        if plan.direction == "backward":
            return squares
        data = squares[..., :-1]
        return data if converted_apart(layout, plan) else data + squares[..., -1:]
    return squares if converted_apart(layout, plan) else squares[0::2, ...] + squares[1::2, ...]


def _reference(layout: Layout, blocks: Sequence[tuple[Tile, Any]]) -> Any:
    """Return the reference columns (slices, in, column tiles)."""
    xp = namespace(blocks[0][1])
    places = {(tile.row, tile.col): block[..., -1:] for tile, block in blocks}
    tiling = layout.tiling
    bands = [
        xp.concat([places[row, col] for col in range(len(tiling.col_bounds))], axis=-1)
        for row in range(len(tiling.row_bounds))
    ]
    return xp.concat(bands, axis=-2)
