"""Currents on their way out of the arrays: converter errors, ADC, and the digital sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from xbar_core._arrays import namespace
from xbar_core.engine import fused
from xbar_core.engine.call import Call
from xbar_core.engine.encode import sample_draws
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.engine.matrices import Buffers
from xbar_core.periphery import adc
from xbar_core.random import Purpose


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
    total: Any = None
    index, tiles, planes = 0, len(plan.bounds), len(plan.coefficients)
    for current in partials:
        count = tiles if current.ndim > like.ndim else 1
        share = plan.phases.shares[index // (tiles * planes)] * plan.coefficients[index // tiles % planes]
        for part in at_converters(layout, plan, current, like.ndim, index, buffers, call, axis, draws):
            total = _convert_add(layout, plan, part, full_scale, share * scale, total, like)
        index += count
    return total


def decode_folded(
    layout: Layout,
    plan: ReadPlan,
    partials: Iterable[Any],
    full_scale: Any,
    like: Any,
    geometry: Sequence[tuple[int, int, int]],
    *,
    scale: Any = 1.0,
) -> Any:
    """Convert the row currents of a convolution's backward read and fold them, in one pass.

    Parameters
    ----------
    layout, plan, full_scale, scale
        As in `decode`.
    partials : iterable of array (batch, channels, kernel rows, kernel cols, rows, cols)
        Row currents at every output position, in the order of `partial_sums`.
    like : array (batch, channels, height, width)
        Of the shape of the convolution's input.
    geometry : two of (stride, padding, dilation)
        Of the rows and of the columns.

    Returns
    -------
    array like `like`, or None
        None where no kernel serves (device arrays, other curves, converter errors or noise): `decode`
        the currents, then fold with the framework's own operation.
    """
    config = layout.chip.adc
    if not plan.converts_current or config.noise > 0.0 or config.gain_error or config.offset_error:
        return None
    total = namespace(like).empty_like(like)
    tiles, planes = len(plan.bounds), len(plan.coefficients)
    for index, current in enumerate(partials):
        share = plan.phases.shares[index // (tiles * planes)] * plan.coefficients[index // tiles % planes]
        worth, fresh = share * scale, index == 0
        signed = not plan.unipolar
        if not fused.fold_converted(current, full_scale, config, signed, worth, geometry, total, fresh=fresh):
            return None
    return total


def _convert_add(
    layout: Layout, plan: ReadPlan, current: Any, full_scale: Any, share: Any, total: Any, like: Any
) -> Any:
    """Return `total` (None at first) plus the converted currents; `total` itself may be changed."""
    xp, config = namespace(current), layout.chip.adc
    stacked = current.ndim > like.ndim
    if not plan.converts_current:
        part = share * (xp.sum(current, axis=1) if stacked else current)
        return part if total is None else total + part
    signed, fresh = not plan.unipolar, total is None
    target = xp.empty_like(like) if fresh else total
    if fused.add_converted(current, full_scale, config, signed, share, target, fresh=fresh):
        return target
    codes = adc.codes(current, full_scale, config, signed=signed)
    if stacked:
        codes = xp.sum(codes, axis=1)
    part = adc.decode(codes, share * full_scale, config, signed=signed)
    return part if fresh else total + part


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
