"""The read of a convolution in `crossbar` mode.

Forward: the DAC sends every pixel once; the currents of a row tile are a native convolution of the
voltages with the tile's rows as kernel, over the channels that the tile touches. Backward: the errors drive
the columns, the row currents of every output place pass the ADC, then they are folded. Where draws or
errors belong to single converters, both reads go through unfolded products of the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xbar_core.engine import (
    Call,
    Encoded,
    Layout,
    Matrices,
    Ranges,
    ReadPlan,
    decode,
    decode_folded,
    encode,
)
from xbar_core.engine.parts import read_parts
from xbar_core.engine.patches import Geometry
from xbar_core.engine.pulses import Pulses
from xbar_core.engine.ranges import measures, settle
from xbar_torch._bridge import analog
from xbar_torch.crossbar import Crossbar
from xbar_torch.patches import convolve, fold, kernel_gradient, unfold

Currents = Callable[[], Iterable[Tensor]]


def is_plain(layout: Layout) -> bool:
    """Return whether all converters are alike and free of noise, so that currents may come in any shape."""
    adc = layout.chip.adc
    errors = adc.gain_error or adc.offset_error or adc.noise
    return not (errors or layout.current_noise or layout.code.kind == "offset")


class _Setting(NamedTuple):
    """What a call of a convolution keeps for its backward call."""

    crossbar: Crossbar
    matrices: list[Matrices]
    geometry: Geometry
    full_scale: Any
    call: Call
    shape: torch.Size


class CrossbarConvolution(torch.autograd.Function):
    """Convolution with a crossbar weight, without its bias."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, state: Tensor, crossbar: Crossbar, geometry: Geometry, backward: bool
    ) -> Tensor:
        """Return the convolution (batch, out, ...) of x (batch, channels, ...)."""
        with analog(x.device):
            matrices = crossbar.matrices(backward)
            layout, ranges = crossbar.layout, crossbar.ranges
            plan, call = layout.forward, crossbar.call(x.shape[0])
            full_scale: Any = 1.0
            if plan.converts_input:
                full_scale, ranges = settle(ranges, plan.input_range, plan.input_rule, [x], call)
            sent = encode(layout, plan, x, full_scale, call)
            if is_plain(layout):
                y, ranges = _forward(crossbar, matrices, geometry, sent, ranges, call)
            else:
                y, ranges = _unfolded_forward(crossbar, matrices, geometry, sent, ranges, call)
            crossbar.finish_call(ranges, call.training)
            full = crossbar.chip.update.gradient == "full"
            ctx.save_for_backward(x if full else sent.value)
            ctx.setting = _Setting(crossbar, matrices, geometry, full_scale, call, x.shape)
            return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Return dL/dx by the transposed read, and dL/ds."""
        setting: _Setting = ctx.setting
        crossbar = setting.crossbar
        crossbar.require_finite(dy, "gradient of the output")
        (inputs,) = ctx.saved_tensors
        with analog(dy.device):
            dy = dy.to(crossbar.state.dtype).contiguous()
            layout, call, plan = crossbar.layout, setting.call, crossbar.layout.backward
            full_scale: Any = 1.0
            if plan.converts_input:
                full_scale, crossbar.ranges = settle(
                    crossbar.ranges, plan.input_range, plan.input_rule, [dy], call
                )
            sent = encode(layout, plan, dy, full_scale, call)
            dx = _backward(setting, sent) if ctx.needs_input_grad[0] else None
            if not ctx.needs_input_grad[1]:
                return dx, None, None, None, None
            return dx, _state_gradient(setting, inputs, sent, dy), None, None, None


def _forward(
    crossbar: Crossbar,
    matrices: list[Matrices],
    geometry: Geometry,
    sent: Encoded,
    ranges: Ranges,
    call: Call,
) -> tuple[Tensor, Ranges]:
    """Return the forward read by native convolutions of the voltages, one for each tile."""
    layout = crossbar.layout
    kernels = _kernels(layout.forward, matrices, geometry)
    size = geometry.output(sent.value.shape[2:])
    like = sent.value.new_empty(()).expand(sent.value.shape[0], layout.outputs * crossbar.parts, *size)

    def currents() -> Iterator[Tensor]:
        for volts in sent.voltages:
            for first, last, kernel in kernels:
                yield convolve(_channels(volts, geometry.groups, first, last), kernel, geometry)

    partials, scale, ranges = _settled(layout, layout.forward, ranges, currents, call)
    worth = sent.full_scale * crossbar.w_max
    return cast(Tensor, decode(layout, layout.forward, partials, scale, like, scale=worth, axis=1)), ranges


def _kernels(plan: ReadPlan, matrices: list[Matrices], geometry: Geometry) -> list[tuple[int, int, Tensor]]:
    """Return (first channel, last channel, kernel) of every plane and row tile; channels of one group."""
    cells = geometry.cells
    stacked = torch.stack([each.forward for each in matrices], dim=1)  # (planes, parts, in, out)
    planes, parts, _, outputs = stacked.shape
    kernels = []
    for plane in range(planes):
        for start, stop in plan.bounds:
            first, last = start // cells, -(-stop // cells)
            rows = stacked[plane, :, start:stop]
            if (start, stop) != (first * cells, last * cells):
                rows = torch.nn.functional.pad(rows, (0, 0, start - first * cells, last * cells - stop))
            kernel = rows.mT.reshape(parts * outputs, last - first, *geometry.kernel)
            kernels.append((first, last, kernel))
    return kernels


def _channels(x: Tensor, groups: int, first: int, last: int) -> Tensor:
    """Return the channels first to last of every group."""
    if groups == 1:
        return x[:, first:last]
    grouped = x.reshape(x.shape[0], groups, -1, *x.shape[2:])[:, :, first:last]
    return grouped.reshape(x.shape[0], -1, *x.shape[2:])


def _settled(
    layout: Layout, plan: ReadPlan, ranges: Ranges, currents: Currents, call: Call
) -> tuple[Iterable[Tensor], Any, Ranges]:
    """Return the currents, the full scale of their converters and the ranges after."""
    if not plan.converts_current:
        return currents(), 1.0, ranges
    name, rule, values = plan.current_range, plan.current_rule, cast(list[Tensor], [])
    partials: Iterable[Tensor] | None = None
    if measures(ranges, name, rule, call):
        partials = values = list(currents())
    scale, ranges = settle(ranges, name, rule, values, call, layout.current_unit)
    return currents() if partials is None else partials, scale, ranges


def _backward(setting: _Setting, sent: Encoded) -> Tensor:
    """Return dL/dx: the transposed read of every output place, folded."""
    crossbar, geometry, call = setting.crossbar, setting.geometry, setting.call
    layout, plan = crossbar.layout, crossbar.layout.backward
    if not is_plain(layout):
        return _unfolded_backward(setting, sent)
    batch, size = setting.shape[0], setting.shape[2:]
    parts, places = crossbar.parts, sent.value.shape[2:]
    stacked = torch.stack([each.backward for each in setting.matrices], dim=1).mT
    if parts == 1:
        stacked = stacked[:, 0]

    def currents() -> Iterator[Tensor]:
        for volts in sent.voltages:
            grouped = volts.reshape(batch, parts, layout.outputs, -1)
            errors = grouped[:, 0] if parts == 1 else grouped
            for plane in range(stacked.shape[0]):
                for start, stop in plan.bounds:
                    current = torch.matmul(stacked[plane, ..., start:stop], errors[..., start:stop, :])
                    yield current.reshape(batch, setting.shape[1], *geometry.kernel, *places)

    partials, scale, crossbar.ranges = _settled(layout, plan, crossbar.ranges, currents, call)
    worth = sent.full_scale * crossbar.w_max
    if len(geometry.kernel) == 2:
        like = sent.value.new_empty(setting.shape)
        shape = list(zip(geometry.stride, geometry.border, geometry.dilation, strict=True))
        folded = decode_folded(layout, plan, partials, scale, like, shape, scale=worth)
        if folded is not None:
            return cast(Tensor, folded)
        partials = currents()
    columns = sent.value.new_empty(()).expand(batch, setting.shape[1], *geometry.kernel, *places)
    decoded = decode(layout, plan, partials, scale, columns, scale=worth)
    return fold(decoded.reshape(batch, layout.inputs * parts, -1), geometry, size)


def _state_gradient(setting: _Setting, inputs: Tensor, sent: Encoded, dy: Tensor) -> Tensor:
    """Return dL/ds from the digital outer product of words (or of the numbers themselves)."""
    crossbar, geometry = setting.crossbar, setting.geometry
    full = crossbar.chip.update.gradient == "full"
    errors = dy if full else sent.value
    outputs, cells = crossbar.layout.outputs * crossbar.parts, geometry.cells
    shape = (outputs, crossbar.layout.inputs // cells, *geometry.kernel)
    gradient = kernel_gradient(inputs, errors, geometry, shape).reshape(outputs, -1).mT
    unit = 1.0 if full else setting.full_scale * sent.full_scale
    if crossbar.chip.update.pulsed:
        _keep_pulses(setting, inputs, errors, 1.0 if full else setting.full_scale, sent.full_scale)
    return crossbar.state_gradient(gradient * unit)


def _keep_pulses(
    setting: _Setting, inputs: Tensor, errors: Tensor, input_scale: Any, error_scale: Any
) -> None:
    """Keep the patches and the errors of a call for a pulsed update."""
    crossbar, groups = setting.crossbar, setting.geometry.groups
    full = crossbar.chip.update.gradient == "full"
    patches = unfold(inputs, setting.geometry).mT * input_scale
    places = errors.reshape(*errors.shape[:2], -1).mT * (1.0 if full else error_scale)
    for part, (x, dy) in enumerate(zip(patches.chunk(groups, -1), places.chunk(groups, -1), strict=True)):
        crossbar.keep_pulses(Pulses(part, x.contiguous(), dy.contiguous(), setting.call))


# Through unfolded products: noise, and converters that differ from one another.


def _unfolded_forward(
    crossbar: Crossbar,
    matrices: list[Matrices],
    geometry: Geometry,
    sent: Encoded,
    ranges: Ranges,
    call: Call,
) -> tuple[Tensor, Ranges]:
    def patches(values: Tensor) -> Tensor:
        return unfold(values, geometry).mT

    outputs, ranges = _unfolded_read(crossbar, crossbar.layout.forward, matrices, sent, patches, ranges, call)
    size = geometry.output(sent.value.shape[2:])
    return outputs.mT.reshape(outputs.shape[0], -1, *size), ranges


def _unfolded_backward(setting: _Setting, sent: Encoded) -> Tensor:
    crossbar = setting.crossbar

    def places(values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:2], -1).mT

    columns, crossbar.ranges = _unfolded_read(
        crossbar,
        crossbar.layout.backward,
        setting.matrices,
        sent,
        places,
        crossbar.ranges,
        setting.call,
    )
    return fold(columns.mT.contiguous(), setting.geometry, setting.shape[2:])


def _unfolded_read(
    crossbar: Crossbar,
    plan: ReadPlan,
    matrices: list[Matrices],
    sent: Encoded,
    shaped: Callable[[Tensor], Tensor],
    ranges: Ranges,
    call: Call,
) -> tuple[Tensor, Ranges]:
    """Return the read (batch, places, lines of all array sets) of words and voltages brought into shape."""
    parts = crossbar.parts
    values = shaped(sent.value).chunk(parts, -1)
    volts = [shaped(each).chunk(parts, -1) for each in sent.voltages]
    numbers = [
        Encoded(values[part].contiguous(), tuple(v[part].contiguous() for v in volts), sent.full_scale)
        for part in range(parts)
    ]
    buffers = [crossbar.buffers(part) for part in range(parts)]
    readings, ranges = read_parts(crossbar.layouts, plan, matrices, buffers, ranges, numbers, call)
    results = [reading.result for reading in readings]
    return (results[0] if parts == 1 else torch.cat(results, dim=-1)), ranges
