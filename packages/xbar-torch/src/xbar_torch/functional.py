"""The products of a crossbar weight as differentiable functions.

Two roads. Where nothing happens between numbers and currents (no converter, no noise) a read is one matrix
product: `effective_weight` returns the matrix as a tensor that autograd knows, and torch's own ``linear``
and ``conv2d`` do the rest at their own speed. Elsewhere `crossbar_linear` registers the engine's forward
and backward as one function.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xbar_core.engine import (
    Matrices,
    Residual,
    encode,
    encode_errors,
    read_encoded,
    residual_of,
)
from xbar_core.engine.array_sets import is_product
from xbar_core.engine.exact import exact_vjp
from xbar_core.engine.matrices_vjp import matrices_vjp
from xbar_core.engine.parts import read_parts
from xbar_core.engine.patches import Geometry
from xbar_core.engine.pulses import Pulses
from xbar_core.engine.ranges import settle
from xbar_torch._bridge import analog, applied, excluded
from xbar_torch.convolution import CrossbarConvolution
from xbar_torch.crossbar import Crossbar
from xbar_torch.patches import convolve, unfold

__all__ = ["crossbar_convolution", "crossbar_linear", "effective_weight", "is_product"]


class _EffectiveWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, state: Tensor, crossbar: Crossbar) -> Tensor:
        with analog(state.device):
            matrices = crossbar.matrices()
            ctx.crossbar, ctx.matrices, ctx.requests = crossbar, matrices, crossbar.asked
            blocks = [each.forward[0] for each in matrices]
            matrix = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)
            return cast(Tensor, matrix * crossbar.w_max)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None]:
        crossbar: Crossbar = ctx.crossbar
        crossbar.require_finite(bar, "weight gradient")
        with analog(bar.device):
            if crossbar.crossbar_mode:
                return crossbar.state_gradient(bar), None
            bar = bar * crossbar.w_max
            parts = [
                matrices_vjp(request, each.references[0], bar[None, :, crossbar.columns(part)])
                for part, (request, each) in enumerate(zip(ctx.requests, ctx.matrices, strict=True))
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1), None


@excluded
def effective_weight(crossbar: Crossbar) -> Tensor:
    """Return the matrix (in, out) that a read multiplies by, in weight units (see `is_product`)."""
    training = crossbar.owner.training
    weight = applied(_EffectiveWeight, crossbar.state, crossbar)
    crossbar.finish_call(crossbar.ranges, training)
    return weight


def _unread_weight(crossbar: Crossbar) -> Tensor:
    """Return weights (in, out) for a call without samples, which counts, but reads and learns nothing."""
    crossbar.finish_call(crossbar.ranges, crossbar.owner.training)
    return crossbar.weight()


class _Product(torch.autograd.Function):
    """``x @ W``, the array sets side by side: x (batch, ..., in of all), y (batch, ..., out of all)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, state: Tensor, crossbar: Crossbar, backward: bool) -> Tensor:
        with analog(x.device):
            matrices, requests = crossbar.matrices(backward), crossbar.asked
            layout, ranges, call = crossbar.layout, crossbar.ranges, crossbar.call(x.shape[0])
            plan, full_scale = layout.forward, cast(Any, 1.0)
            if plan.converts_input:
                full_scale, ranges = settle(ranges, plan.input_range, plan.input_rule, [x], call)
            inputs = _split(x, crossbar.parts)
            sent = [
                encode(each, plan, part, full_scale, call)
                for each, part in zip(crossbar.layouts, inputs, strict=True)
            ]
            buffers = [crossbar.buffers(part) for part in range(crossbar.parts)]
            readings, ranges = read_parts(crossbar.layouts, plan, matrices, buffers, ranges, sent, call)
            crossbar.finish_call(ranges, call.training)
            residuals = [
                residual_of(layout, part, reading, call)
                for part, reading in zip(inputs, readings, strict=True)
            ]
            ctx.crossbar, ctx.matrices, ctx.requests, ctx.residuals = crossbar, matrices, requests, residuals
            return _join([reading.result for reading in readings])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        crossbar: Crossbar = ctx.crossbar
        crossbar.require_finite(dy, "gradient of the output")
        need_x, need_state = ctx.needs_input_grad[:2]
        with analog(dy.device):
            errors = _split(dy.to(crossbar.state.dtype), crossbar.parts)
            if crossbar.crossbar_mode:
                # Several array sets are a convolution's, which has a crossbar read of its own.
                (matrices,), (residual,), (dy,) = ctx.matrices, ctx.residuals, errors
                return *_crossbar_backward(crossbar, matrices, residual, dy, need_x, need_state), None, None
            gradients = [
                exact_vjp(
                    layout,
                    matrices,
                    request.buffers,
                    crossbar.ranges,
                    residual,
                    error,
                    request,
                    need_dx=need_x,
                )
                for layout, request, matrices, residual, error in zip(
                    crossbar.layouts, ctx.requests, ctx.matrices, ctx.residuals, errors, strict=True
                )
            ]
            dx = _join([gradient.x for gradient in gradients]) if need_x else None
            return dx, _join([gradient.state for gradient in gradients]), None, None


def _split(values: Tensor, parts: int) -> list[Tensor]:
    """Return the share of every array set, contiguous."""
    return [part.contiguous() for part in torch.tensor_split(values, parts, -1)]


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _crossbar_backward(
    crossbar: Crossbar, matrices: Matrices, residual: Residual, dy: Tensor, need_x: bool, need_state: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return dL/dx by the transposed read and dL/ds by the outer product, whichever are needed."""
    layout, call = crossbar.layout, residual.call
    sent, crossbar.ranges = encode_errors(layout, crossbar.ranges, dy, call)
    dx = None
    if need_x:
        reading = read_encoded(
            layout, layout.backward, matrices, crossbar.buffers(), crossbar.ranges, sent, call
        )
        dx, crossbar.ranges = reading.result, reading.ranges
    if not need_state:
        return dx, None
    if crossbar.chip.update.pulsed:
        x = residual.inputs
        full = crossbar.chip.update.gradient == "full"
        decoded = (x, dy) if full else (x * residual.full_scale, sent.value * sent.full_scale)
        places, errors = (part.reshape(part.shape[0], -1, part.shape[-1]) for part in decoded)
        crossbar.keep_pulses(Pulses(0, places, errors, call))
    return dx, crossbar.call_gradient(residual, sent, dy)


@excluded
def crossbar_linear(x: Tensor, crossbar: Crossbar) -> Tensor:
    """Return ``x @ W`` as the chip computes it, in the dtype of the states.

    Parameters
    ----------
    x : Tensor (batch, ..., in) or (in,)
        Activations.
    crossbar : Crossbar
        The weight, of one array set.

    Returns
    -------
    Tensor (batch, ..., out) or (out,)
    """
    x = crossbar.enter(x)
    if is_product(crossbar):
        with torch.autocast(x.device.type, enabled=False):
            return x @ effective_weight(crossbar)
    if x.numel() == 0:
        return x @ _unread_weight(crossbar)
    backward = torch.is_grad_enabled() and x.requires_grad
    single = x.ndim == 1
    y = applied(_Product, (x[None] if single else x).contiguous(), crossbar.target, crossbar, backward)
    return y[0] if single else y


@excluded
def crossbar_convolution(x: Tensor, crossbar: Crossbar, geometry: Geometry) -> Tensor:
    """Return a convolution as the chip computes it, in the dtype of the states, without a bias.

    Parameters
    ----------
    x : Tensor (batch, channels, ...)
        Activations; the DAC sends every pixel once.
    crossbar : Crossbar
        The weight (channels / groups x kernel cells, out), one array set for every group.
    geometry : Geometry
        Kernel, stride, padding, dilation, groups.

    Returns
    -------
    Tensor (batch, out, ...)
    """
    x = crossbar.enter(x)
    if is_product(crossbar):
        weight = effective_weight(crossbar)
        shape = (weight.shape[1], -1, *geometry.kernel)
        with torch.autocast(x.device.type, enabled=False):
            return convolve(x, weight.T.reshape(shape), geometry)
    if x.numel() == 0:
        weight = _unread_weight(crossbar)
        return convolve(x, weight.T.reshape(weight.shape[1], -1, *geometry.kernel), geometry)
    if not crossbar.crossbar_mode:
        return _unfolded_convolution(x, crossbar, geometry)
    backward = torch.is_grad_enabled() and x.requires_grad
    return applied(CrossbarConvolution, x.contiguous(), crossbar.state, crossbar, geometry, backward)


def _unfolded_convolution(x: Tensor, crossbar: Crossbar, geometry: Geometry) -> Tensor:
    """Return the convolution as a product of patches, whose derivative the engine knows."""
    with torch.autocast(x.device.type, enabled=False):
        patches = unfold(x, geometry).mT.contiguous()
        backward = torch.is_grad_enabled() and x.requires_grad
        y = applied(_Product, patches, crossbar.state, crossbar, backward)
        return y.mT.reshape(y.shape[0], -1, *geometry.output(x.shape[2:]))
