"""One read of a layer, in three stages: encode numbers as voltages, add currents, decode them.

    x -> DAC -> voltages -> currents of every tile -> ADC -> codes -> sum, scale -> y

Voltages are in units of v_read and currents in units of R v_read, so that a perfect chip multiplies by
w / w_max. An adapter may put its own currents between the stages (a convolution instead of a product).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from array_api_compat import device

from xbar_core._arrays import matmul, namespace
from xbar_core.devices.read_noise import current_noise
from xbar_core.engine.call import Call
from xbar_core.engine.decode import decode
from xbar_core.engine.encode import Encoded, encode, sample_draws
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.engine.matrices import Buffers, Matrices
from xbar_core.engine.ranges import Ranges, measures, settle
from xbar_core.errors import ShapeError
from xbar_core.random import Purpose

REFERENCE = 1 << 20
"""First index of the draws for reference columns."""


def partial_sums(
    layout: Layout, plan: ReadPlan, matrices: Matrices, encoded: Encoded, call: Call = Call()
) -> Iterator[Any]:
    """Yield the currents of every phase, plane and tile, in this order, units of R v_read.

    Parameters
    ----------
    layout, plan : Layout, ReadPlan
        The layer and the direction of read.
    matrices : Matrices
        From `read_matrices`.
    encoded : Encoded
        Voltages (batch, ..., lines).
    call : Call
        Keys the read noise.

    Yields
    ------
    array (batch, ..., sensed lines)
        Currents of one tile, read noise included.
    """
    forward = plan.direction == "forward"
    matrix = matrices.forward if forward else matrices.backward
    power = matrices.forward_power if forward else matrices.backward_power
    yield from _currents(layout, plan, matrix, power, encoded, call, 0)


def reference_sums(
    layout: Layout, plan: ReadPlan, matrices: Matrices, encoded: Encoded, call: Call = Call()
) -> Iterator[Any]:
    """Yield the currents (batch, ..., column tiles) of reference columns that are converted on their own."""
    yield from _currents(
        layout, plan, matrices.forward_reference, matrices.reference_power, encoded, call, REFERENCE
    )


def _currents(
    layout: Layout, plan: ReadPlan, matrix: Any, power: Any, encoded: Encoded, call: Call, array: int
) -> Iterator[Any]:
    xp = namespace(matrix)
    purpose = Purpose.READ_NOISE if plan.direction == "forward" else Purpose.BACKWARD_READ_NOISE
    for volts in encoded.voltages:
        lead = tuple(volts.shape[:-1])
        flat = xp.reshape(volts, (-1, volts.shape[-1]))
        for plane in range(matrix.shape[0]):
            for start, stop in plan.bounds:
                part = flat[:, start:stop]
                current = matmul(part, matrix[plane, start:stop, :])
                current = xp.reshape(current, (*lead, matrix.shape[-1]))
                if power is not None:
                    normal = sample_draws(layout, "normal", purpose, current, call, array)
                    normal = xp.reshape(normal, (-1, matrix.shape[-1]))
                    noise = current_noise(part, power[plane, start:stop, :], layout.current_noise, normal)
                    current = current + xp.reshape(noise, current.shape)
                array += 1
                yield current


class Reading(NamedTuple):
    """The result of a read and what its derivative needs.

    Attributes
    ----------
    result : array (batch, ..., sensed lines)
        y of a forward, dx of a backward read.
    encoded : Encoded
        The numbers as they were sent.
    current_scale : float or 0-d array
        Full scale of the ADC, units of R v_read.
    ranges : Ranges
        The ranges after the call.
    """

    result: Any
    encoded: Encoded
    current_scale: Any
    ranges: Ranges


def read(
    layout: Layout,
    plan: ReadPlan,
    matrices: Matrices,
    buffers: Buffers,
    ranges: Ranges,
    numbers: Any,
    call: Call = Call(),
) -> Reading:
    """Return ``numbers @ W`` (or ``@ W.T``) as the arrays and converters of the layer compute it.

    Parameters
    ----------
    layout, plan : Layout, ReadPlan
        The layer and the direction of read.
    matrices : Matrices
        From `read_matrices`, for the present state.
    buffers : mapping
        The layer's buffers (``w_max`` and frozen errors).
    ranges : Ranges
        What its converters have learned.
    numbers : array (batch, ..., lines)
        Activations (forward) or errors (backward).
    call : Call
        Identity of the call.

    Raises
    ------
    ShapeError
        `numbers` is not a batch of vectors of the driven lines.
    """
    lines = layout.inputs if plan.direction == "forward" else layout.outputs
    if numbers.ndim < 2 or numbers.shape[-1] != lines:
        raise ShapeError(
            f"{'x' if plan.direction == 'forward' else 'dy'}: shape {tuple(numbers.shape)} is not "
            f"(batch, ..., {lines}); give a batch of vectors of layer {layout.name!r}"
        )
    full_scale: Any = 1.0
    if plan.converts_input:
        full_scale, ranges = settle(ranges, plan.input_range, plan.input_rule, [numbers], call)
    encoded = encode(layout, plan, numbers, full_scale, call)
    return read_encoded(layout, plan, matrices, buffers, ranges, encoded, call)


def read_encoded(
    layout: Layout,
    plan: ReadPlan,
    matrices: Matrices,
    buffers: Buffers,
    ranges: Ranges,
    encoded: Encoded,
    call: Call = Call(),
) -> Reading:
    """As `read`, from numbers that are encoded already (a convolution encodes before it unfolds)."""
    scale = encoded.full_scale * buffers["w_max"]
    matrix = matrices.forward if plan.direction == "forward" else matrices.backward
    if plan.linear:
        volts = combined(plan, encoded)
        xp = namespace(volts)
        flat = xp.reshape(volts, (-1, volts.shape[-1]))
        product = matmul(flat, matrix[0, ...] * scale)
        result = xp.reshape(product, (*volts.shape[:-1], matrix.shape[-1]))
        return Reading(result, encoded, 1.0, ranges)
    partials: Iterable[Any] = partial_sums(layout, plan, matrices, encoded, call)
    current_scale: Any = 1.0
    if plan.converts_current:
        name, rule = plan.current_range, plan.current_rule
        if measures(ranges, name, rule, call):
            partials = list(partials)
            current_scale, ranges = settle(ranges, name, rule, partials, call, layout.current_unit)
        else:
            current_scale, ranges = settle(ranges, name, rule, [], call, layout.current_unit)
    xp = namespace(matrix)
    like = encoded.value
    shape = (*like.shape[:-1], matrix.shape[-1])
    out = xp.empty(shape, dtype=like.dtype, device=device(like))
    result = decode(layout, plan, partials, current_scale, out, scale=scale, buffers=buffers, call=call)
    result = _without_reference(layout, plan, matrices, encoded, current_scale, scale, call, result)
    return Reading(result, encoded, current_scale, ranges)


def combined(plan: ReadPlan, encoded: Encoded) -> Any:
    """Return the voltages of all phases, shifted and added: what one linear read sees."""
    shares = plan.phases.shares
    if shares == (1.0,):
        return encoded.voltages[0]
    total = shares[0] * encoded.voltages[0]
    for share, volts in zip(shares[1:], encoded.voltages[1:], strict=True):
        total = total + share * volts
    return total


def _without_reference(
    layout: Layout,
    plan: ReadPlan,
    matrices: Matrices,
    encoded: Encoded,
    full_scale: Any,
    scale: Any,
    call: Call,
    result: Any,
) -> Any:
    """Subtract, digitally, what the offset mapping adds to every weight."""
    xp = namespace(result)
    if plan.direction == "backward":
        if matrices.backward_offset == 0.0:
            return result
        return result - (scale * matrices.backward_offset) * xp.sum(encoded.value, axis=-1, keepdims=True)
    if matrices.forward_reference is None:
        return result
    columns = reference_sums(layout, plan, matrices, encoded, call)
    first = encoded.value
    shape = (*first.shape[:-1], len(layout.tiling.col_bounds))
    like = xp.empty(shape, dtype=first.dtype, device=device(first))
    held = decode(layout, plan, columns, full_scale, like, scale=scale, call=call, draws=REFERENCE)
    spread = [
        xp.broadcast_to(held[..., tile : tile + 1], (*shape[:-1], stop - start))
        for tile, (start, stop) in enumerate(layout.tiling.col_bounds)
    ]
    return result - xp.concat(spread, axis=-1)
