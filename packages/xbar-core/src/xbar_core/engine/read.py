"""One read of a layer, in three stages: encode numbers as voltages, add currents, decode them.

    x -> DAC -> voltages -> currents of every tile -> ADC -> codes -> sum, scale -> y

Voltages are in units of v_read and currents in units of R v_read, so that a perfect chip multiplies by
w / w_max. An adapter may put its own currents between the stages (a convolution instead of a product).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from array_api_compat import device

from xbar_core._arrays import array_like, namespace
from xbar_core.engine import fused
from xbar_core.engine.call import Call
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.engine.matrices import Buffers, Matrices
from xbar_core.engine.ranges import Ranges, measures, settle
from xbar_core.fixed_point import round_to_words
from xbar_core.periphery import adc
from xbar_core.periphery.dac import inverse
from xbar_core.periphery.nonlinearity import distort
from xbar_core.random import Purpose
from xbar_core.slicing import quantise, split

REFERENCE = 1 << 20
"""First index of the draws for reference columns."""


class Encoded(NamedTuple):
    """Numbers on their way into the arrays.

    Attributes
    ----------
    value : array
        What the DAC was sent, as a ratio of the full scale: the digital word.
    voltages : tuple of array
        Voltage of each phase, units of v_read; shapes as `value`.
    full_scale : float or 0-d array
        What a ratio of 1 stands for.
    """

    value: Any
    voltages: tuple[Any, ...]
    full_scale: Any


def encode(layout: Layout, plan: ReadPlan, numbers: Any, full_scale: Any, call: Call = Call()) -> Encoded:
    """Return numbers as digital words and the voltages of every phase.

    Parameters
    ----------
    layout : Layout
        The layer.
    plan : ReadPlan
        ``layout.forward`` for activations, ``layout.backward`` for errors.
    numbers : array (batch, ...)
        Activations or errors; any shape, the first axis counts samples.
    full_scale : float or 0-d array
        Range of the DAC, units of `numbers`; not used where ``plan.converts_input`` is False.
    call : Call
        Keys stochastic rounding.

    Returns
    -------
    Encoded
        Saturated at the full scale, rounded half to even, bent by the DAC's curve.
    """
    if not plan.converts_input:
        return Encoded(numbers, tuple(split(plan.phases, numbers)) if not plan.linear else (numbers,), 1.0)
    chip, phases = layout.chip, plan.phases
    if chip.precision is None and not phases.serial and len(phases.signs) == 1:
        sent = fused.send(numbers, full_scale, phases, chip.input.nonlinearity)
        if sent is not None:
            return Encoded(sent[0], (sent[1],), full_scale)
    xp = namespace(numbers)
    low = -1.0 if phases.signed else 0.0
    ratio = xp.clip(numbers * inverse(full_scale), low, 1.0)
    if chip.precision is not None:
        ratio = round_to_words(ratio, 1.0, chip.precision.bits, _rounding(layout, plan, ratio, call))
    word = quantise(phases, ratio)
    volts = tuple(distort(part, chip.input.nonlinearity) for part in split(phases, word))
    return Encoded(word, volts, full_scale)


def _rounding(layout: Layout, plan: ReadPlan, ratio: Any, call: Call) -> Any:
    precision = layout.chip.precision
    if precision is None or precision.rounding == "nearest":
        return None
    forward = plan.direction == "forward"
    purpose = Purpose.ACTIVATION_ROUNDING if forward else Purpose.ERROR_ROUNDING
    return sample_draws(layout, "uniform", purpose, ratio, call)


def sample_draws(layout: Layout, kind: str, purpose: Purpose, like: Any, call: Call, array: int = 0) -> Any:
    """Return fresh draws of the shape, dtype and place of `like`, whose first axis counts samples."""
    draw = layout.stream.normal_samples if kind == "normal" else layout.stream.uniform_samples
    values = draw(
        purpose,
        tuple(int(n) for n in like.shape[1:]),
        first=call.first,
        count=int(like.shape[0]),
        step=call.step,
        array=array,
    )
    return array_like(values, like)


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
    for volts in encoded.voltages:
        lead = tuple(volts.shape[:-1])
        flat = xp.reshape(volts, (-1, volts.shape[-1]))
        for plane in range(matrix.shape[0]):
            for start, stop in plan.bounds:
                current = xp.matmul(flat[:, start:stop], matrix[plane, start:stop, :])
                current = xp.reshape(current, (*lead, matrix.shape[-1]))
                if power is not None:
                    part = flat[:, start:stop]
                    variance = xp.matmul(part * part, power[plane, start:stop, :])
                    spread = layout.current_noise * xp.sqrt(xp.reshape(variance, current.shape))
                    purpose = (
                        Purpose.READ_NOISE if plan.direction == "forward" else Purpose.BACKWARD_READ_NOISE
                    )
                    current = current + spread * sample_draws(layout, "normal", purpose, current, call, array)
                array += 1
                yield current


def decode(
    layout: Layout,
    plan: ReadPlan,
    partials: Iterable[Any],
    full_scale: Any,
    like: Any,
    *,
    scale: Any = 1.0,
    buffers: Buffers | None = None,
    call: Call = Call(),
    axis: int = -1,
    draws: int = 0,
) -> Any:
    """Return the digital sum of the converted currents times `scale`.

    Parameters
    ----------
    layout, plan : Layout, ReadPlan
        The layer and the direction of read.
    partials : iterable of array
        Currents in the order of `partial_sums`, units of R v_read, each of the shape of `like`; or the
        tiles of one phase and plane stacked along a new second axis.
    full_scale : float or 0-d array
        Range of the ADC, units of R v_read; not used where nothing is converted.
    like : array
        Any array of the shape, dtype and place of the result.
    scale : float or 0-d array
        What a current of 1 is worth.
    buffers : mapping or None
        The layer's buffers: gain and offset errors of its converters.
    call : Call
        Keys the thermal noise.
    axis : int
        Axis of `like` that counts the sensed lines.
    draws : int
        Added to the index that keys the draws of each partial sum.

    Returns
    -------
    array
        A new array of the shape of `like`.
    """
    total = namespace(like).zeros_like(like)
    index, tiles, planes = 0, len(plan.bounds), len(plan.coefficients)
    for current in partials:
        count = tiles if current.ndim > like.ndim else 1
        share = plan.phases.shares[index // (tiles * planes)] * plan.coefficients[index // tiles % planes]
        for part in at_converters(layout, plan, current, like.ndim, index, buffers, call, axis, draws):
            total = _convert_add(layout, plan, part, full_scale, share * scale, total)
        index += count
    return total


def _convert_add(
    layout: Layout, plan: ReadPlan, current: Any, full_scale: Any, share: Any, total: Any
) -> Any:
    """Return `total` plus the converted currents times `share`; `total` itself may be changed."""
    xp, config = namespace(current), layout.chip.adc
    stacked = current.ndim > total.ndim
    if not plan.converts_current:
        return total + share * (xp.sum(current, axis=1) if stacked else current)
    signed = not plan.unipolar
    if fused.add_converted(current, full_scale, config, signed, share, total):
        return total
    codes = adc.codes(current, full_scale, config, signed=signed)
    if stacked:
        codes = xp.sum(codes, axis=1)
    return total + adc.decode(codes, share * full_scale, config, signed=signed)


def at_converters(
    layout: Layout,
    plan: ReadPlan,
    current: Any,
    ndim: int,
    index: int,
    buffers: Buffers | None,
    call: Call,
    axis: int = -1,
    draws: int = 0,
) -> list[Any]:
    """Return the currents as the converters see them: with thermal noise, gain and offset errors.

    Parameters
    ----------
    current : array
        One partial sum, or the stacked tiles of a plane (then it has one axis more than `ndim`).
    index : int
        Place of the first of them in the order of `partial_sums`.
    layout, plan, ndim, buffers, call, axis, draws
        As in `decode`; `ndim` is that of the result.
    """
    errors = _column_errors(layout, plan, buffers)
    if errors is None and layout.chip.adc.noise == 0.0:
        return [current]
    xp = namespace(current)
    parts = [current[:, t, ...] for t in range(current.shape[1])] if current.ndim > ndim else [current]
    seen = []
    for place, part in enumerate(parts, index):
        lines_last = xp.moveaxis(part, axis, -1)
        noise = None
        if layout.chip.adc.noise > 0.0:
            purpose = Purpose.ADC_NOISE if plan.direction == "forward" else Purpose.BACKWARD_ADC_NOISE
            sigma = layout.chip.adc.noise / layout.current_unit
            noise = sigma * sample_draws(layout, "normal", purpose, lines_last, call, draws + place)
        at = adc.PERFECT if errors is None else _errors_at(plan, errors, place)
        seen.append(xp.moveaxis(adc.at_input(lines_last, at, noise), -1, axis))
    return seen


def _column_errors(layout: Layout, plan: ReadPlan, buffers: Buffers | None) -> adc.ColumnErrors | None:
    """Return the errors of the converters (planes, tiles, lines), or None where there are none."""
    config = layout.chip.adc
    if buffers is None or not (config.gain_error or config.offset_error):
        return None
    ending = "" if plan.direction == "forward" else "_backward"
    gain, offset = buffers.get(f"adc_gain{ending}"), buffers.get(f"adc_offset{ending}")
    return adc.column_errors(config, gain, offset, layout.current_unit)


def _errors_at(plan: ReadPlan, errors: adc.ColumnErrors, place: int) -> adc.ColumnErrors:
    tiles = len(plan.bounds)
    at = (place // tiles % len(plan.coefficients), place % tiles)
    return adc.ColumnErrors(
        None if errors.gain is None else errors.gain[(*at, ...)],
        None if errors.offset is None else errors.offset[(*at, ...)],
    )


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
    """
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
        product = xp.matmul(flat, matrix[0, ...] * scale)
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
