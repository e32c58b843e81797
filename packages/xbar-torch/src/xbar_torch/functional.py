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
    encode_errors,
    forward,
    read_encoded,
    vjp,
    weight_gradient,
)
from xbar_core.engine.matrices_vjp import matrices_vjp
from xbar_torch._bridge import analog, applied, excluded, to_analog
from xbar_torch.crossbar import Crossbar, Pulses


def is_product(crossbar: Crossbar) -> bool:
    """Return whether forward and backward read are plain products with one matrix and its transpose."""
    layout = crossbar.layout
    ahead, back = layout.forward, layout.backward
    if not ahead.linear or ahead.converts_input or crossbar.chip.update.pulsed:
        return False
    if crossbar.chip.backward.mode == "exact":
        return True
    return back.linear and not back.converts_input and layout.reciprocal


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
            if crossbar.chip.backward.mode == "crossbar":
                return crossbar.state_gradient(bar), None
            bar = bar * crossbar.w_max
            parts = [
                matrices_vjp(request, each.references[0], bar[None, :, crossbar.slice_of(part)])
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


class _Product(torch.autograd.Function):
    """``x @ W`` of one array set."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, state: Tensor, crossbar: Crossbar, backward: bool) -> Tensor:
        with analog(x.device):
            (matrices,) = crossbar.matrices(backward)
            call = crossbar.call(x.shape[0])
            y, residual, ranges = forward(
                crossbar.layout, matrices, crossbar.buffers(), crossbar.ranges, x, call
            )
            crossbar.finish_call(ranges, call.training)
            (request,) = crossbar.asked
            ctx.crossbar, ctx.matrices, ctx.residual, ctx.request = crossbar, matrices, residual, request
            return cast(Tensor, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        crossbar: Crossbar = ctx.crossbar
        crossbar.require_finite(dy, "gradient of the output")
        need_x, need_state = ctx.needs_input_grad[:2]
        with analog(dy.device):
            dy = dy.to(crossbar.state.dtype).contiguous()
            if crossbar.chip.backward.mode == "exact":
                gradients = vjp(
                    crossbar.layout,
                    ctx.matrices,
                    ctx.request.buffers,
                    crossbar.ranges,
                    ctx.residual,
                    dy,
                    request=ctx.request,
                    need_dx=need_x,
                )
                return gradients.x, gradients.state, None, None
            dx, weight_bar = _crossbar_backward(crossbar, ctx.matrices, ctx.residual, dy, need_x, need_state)
            return dx, None if weight_bar is None else crossbar.state_gradient(weight_bar), None, None


def _crossbar_backward(
    crossbar: Crossbar, matrices: Matrices, residual: Residual, dy: Tensor, need_x: bool, need_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return dL/dx by the transposed read and dL/dw by the outer product, whichever are needed."""
    layout, call = crossbar.layout, residual.call
    sent, crossbar.ranges = encode_errors(layout, crossbar.ranges, dy, call)
    dx = None
    if need_x:
        reading = read_encoded(
            layout, layout.backward, matrices, crossbar.buffers(), crossbar.ranges, sent, call
        )
        dx, crossbar.ranges = reading.result, reading.ranges
    if not need_weight:
        return dx, None
    if crossbar.chip.update.pulsed:
        x = residual.inputs
        full = crossbar.chip.update.gradient == "full"
        decoded = (x, dy) if full else (x * residual.full_scale, sent.value * sent.full_scale)
        places, errors = (part.reshape(part.shape[0], -1, part.shape[-1]) for part in decoded)
        crossbar.keep_pulses(Pulses(0, places, errors, call))
    return dx, weight_gradient(layout, residual, sent, dy)


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
    x = to_analog(x, crossbar.state.dtype)
    crossbar.require_finite(x.detach(), "input")
    if is_product(crossbar):
        with torch.autocast(x.device.type, enabled=False):
            return x @ effective_weight(crossbar)
    if x.ndim == 1:
        return crossbar_linear(x[None], crossbar)[0]
    backward = torch.is_grad_enabled() and x.requires_grad
    return applied(_Product, x.contiguous(), crossbar.state, crossbar, backward)
