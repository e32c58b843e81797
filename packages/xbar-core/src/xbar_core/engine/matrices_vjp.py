"""From dL/d(matrices) back to the states: the derivative of `xbar_core.engine.matrices`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import device

from xbar_core import mapping
from xbar_core._arrays import array_like, namespace, to_numpy
from xbar_core.circuit import effective_conductance_vjp, interpolation_vjp
from xbar_core.circuit.base import Ideal, Interpolated
from xbar_core.circuit.interpolated import InterpolationState
from xbar_core.engine.cells import actual_conductance_vjp
from xbar_core.engine.circuits import Arrays, Reference
from xbar_core.engine.layout import Layout
from xbar_core.engine.matrices import (
    Request,
    converted_apart,
    is_ideal,
    physical_arrays,
    tile_blocks,
    whole_matrix,
)
from xbar_core.tiling import Tile


def matrices_vjp(
    request: Request, reference: Reference | None, matrix_bar: Any, reference_bar: Any = None
) -> Any:
    """Return dL/ds (devices, in, out) from the gradient of the forward matrices.

    Parameters
    ----------
    request : Request
        What the matrices were made from.
    reference : Reference or None
        ``Matrices.references[0]``: what the interpolated model used, a constant.
    matrix_bar : array (planes, in, out)
        dL/d(``Matrices.forward``).
    reference_bar : array (slices, in, column tiles) or None
        dL/d(``Matrices.forward_reference``).
    """
    layout = request.layout
    if is_ideal(request):
        return mapping.state_gradient(layout.code, matrix_bar[0, ...], 1.0)
    arrays = physical_arrays(request)
    bars = _group_bars(layout, arrays, matrix_bar, reference_bar)
    conductance_bars = _circuit_vjp(request, reference, arrays, bars)
    blocks = tile_blocks(layout, conductance_bars, "forward")
    data = slice(None, -1) if layout.code.kind == "offset" else slice(None)
    conductance_bar = whole_matrix(layout, blocks, lambda block: block[..., data])
    return actual_conductance_vjp(
        layout, request.buffers, request.state, conductance_bar, request.time, request.read
    )


def _group_bars(layout: Layout, arrays: Arrays, matrix_bar: Any, reference_bar: Any) -> Arrays:
    """Return dL/dG_ni of every physical array, grouped as the arrays are; unused cells have none."""
    xp = namespace(matrix_bar)
    unit = 1.0 / layout.g_range
    full = layout.chip.array.unused == "g_min"
    groups: dict[tuple[int, int], list[Any]] = {shape: [] for shape in arrays}
    expand = _expander(layout, reference_bar)
    for tile in layout.tiling.tiles:
        part = matrix_bar[:, tile.inputs[0] : tile.inputs[1], tile.outputs[0] : tile.outputs[1]]
        bar = expand(tile, part) * unit
        if full:
            (rows, cols), (used_rows, used_cols) = (next(iter(arrays)), bar.shape[-2:])
            kind = {"dtype": bar.dtype, "device": device(bar)}
            right = xp.zeros((bar.shape[0], used_rows, cols - used_cols), **kind)
            above = xp.zeros((bar.shape[0], rows - used_rows, cols), **kind)
            bar = xp.concat([above, xp.concat([bar, right], axis=-1)], axis=-2)
        groups[(bar.shape[-2], bar.shape[-1])].append(bar)
    return {shape: xp.stack(bars) for shape, bars in groups.items()}


def _expander(layout: Layout, reference_bar: Any) -> Callable[[Tile, Any], Any]:
    """Return the transpose of how `matrices` takes planes from a block of devices."""
    plan, code = layout.forward, layout.code
    apart = converted_apart(layout, plan)

    def expand(tile: Tile, part: Any) -> Any:
        xp = namespace(part)
        if plan.linear:
            shares = code.gains if code.kind == "offset" else code.significance
            part = array_like(np.asarray(shares), part)[:, None, None] * part
        if code.kind == "offset":
            if apart:
                start, stop = tile.inputs
                column = reference_bar[:, start:stop, tile.col : tile.col + 1]
            else:
                column = -xp.sum(part, axis=-1, keepdims=True)
            return xp.concat([part, column], axis=-1)
        if apart:
            return part
        pairs = xp.stack([part, -part], axis=1)
        return xp.reshape(pairs, (-1, *part.shape[1:]))

    return expand


def _circuit_vjp(request: Request, reference: Reference | None, arrays: Arrays, bars: Arrays) -> Arrays:
    chip = request.layout.chip
    if isinstance(chip.circuit, Ideal):
        return bars
    results: Arrays = {}
    start = 0
    for shape, conductance in arrays.items():
        host, bar = to_numpy(conductance), to_numpy(bars[shape])
        if isinstance(chip.circuit, Interpolated):
            assert reference is not None
            stop = start + host.size
            factor, offset = (
                to_numpy(part)[start:stop].reshape(-1, *shape)
                for part in (reference.factor, reference.offset)
            )
            state = InterpolationState(factor, offset, chip.circuit.reuse)
            flat, flat_bar = (np.ascontiguousarray(a).reshape(-1, *shape) for a in (host, bar))
            gradient = interpolation_vjp(state, flat, chip.wires, flat_bar)
            start = stop
        else:
            gradient = effective_conductance_vjp(host, chip.wires, bar, chip.circuit)
        results[shape] = array_like(gradient.conductance.reshape(host.shape), conductance)
    return results
