"""The two backward passes of a layer.

``crossbar``: what a chip computes. The errors are read through the transposed arrays, DAC and ADC; the
weight gradient is the digital outer product of the words that were sent, summed over the batch, scaled by
the ideal mapping, never by the non-ideal matrix.

``exact``: the derivative of the simulated forward read, for training that knows the hardware. Rounding
is the identity, clipping passes 0 or 1, curves and the circuit model are differentiated; ranges and noise
draws are constants.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from xbar_core._arrays import matmul, namespace
from xbar_core.engine.call import Call
from xbar_core.engine.encode import Encoded, encode
from xbar_core.engine.exact import exact_vjp
from xbar_core.engine.gradients import Gradients, Residual
from xbar_core.engine.layout import Layout
from xbar_core.engine.matrices import Buffers, Matrices, Request
from xbar_core.engine.ranges import Ranges, settle
from xbar_core.engine.read import Reading, read, read_encoded


class Forward(NamedTuple):
    """Result of `forward`: y (batch, ..., out), what `vjp` needs, and the ranges after the call."""

    y: Any
    residual: Residual
    ranges: Ranges


def keeps_inputs(layout: Layout) -> bool:
    """Return whether the residual holds the inputs themselves rather than the words sent."""
    return layout.chip.backward.mode == "exact" or layout.chip.update.gradient == "full"


def forward(
    layout: Layout, matrices: Matrices, buffers: Buffers, ranges: Ranges, x: Any, call: Call = Call()
) -> Forward:
    """Return ``x @ W`` as the chip computes it.

    Parameters
    ----------
    layout : Layout
        The layer.
    matrices : Matrices
        From `read_matrices`, for the present state.
    buffers : mapping of str to array
        From `program`.
    ranges : Ranges
        What the converters have learned.
    x : array (batch, ..., in)
        Activations, of the dtype of the state.
    call : Call
        Identity of the call.

    Returns
    -------
    Forward
        y (batch, ..., out), the residual and the ranges after the call.
    """
    reading = read(layout, layout.forward, matrices, buffers, ranges, x, call)
    return Forward(reading.result, residual_of(layout, x, reading, call), reading.ranges)


def residual_of(layout: Layout, x: Any, reading: Reading, call: Call) -> Residual:
    """Return what `vjp` needs of a forward reading."""
    sent = reading.encoded
    kept = x if keeps_inputs(layout) else sent.value
    return Residual(kept, sent.full_scale, reading.current_scale, call)


def vjp(
    layout: Layout,
    matrices: Matrices,
    buffers: Buffers,
    ranges: Ranges,
    residual: Residual,
    dy: Any,
    *,
    request: Request | None = None,
    need_dx: bool = True,
    call: Call | None = None,
) -> Gradients:
    """Return the gradients of a layer in the chip's backward mode.

    Parameters
    ----------
    layout, matrices, buffers
        As in `forward`; `crossbar` mode with `need_dx` wants ``matrices.backward``.
    ranges : Ranges
        Present ranges (errors and backward currents are tracked apart from the forward).
    residual : Residual
        From `forward`.
    dy : array (batch, ..., out)
        dL/dy.
    request : Request or None
        The request the matrices came from; ``exact`` mode differentiates through it.
    need_dx : bool
        False skips the backward read, for a layer whose input needs no gradient.
    call : Call or None
        Identity of the backward call; that of the forward if None.
    """
    call = residual.call if call is None else call
    if layout.chip.backward.mode == "exact":
        assert request is not None
        return exact_vjp(layout, matrices, buffers, ranges, residual, dy, request, need_dx=need_dx)
    return crossbar_vjp(layout, matrices, buffers, ranges, residual, dy, need_dx=need_dx, call=call)


def crossbar_vjp(
    layout: Layout,
    matrices: Matrices,
    buffers: Buffers,
    ranges: Ranges,
    residual: Residual,
    dy: Any,
    *,
    need_dx: bool = True,
    call: Call,
) -> Gradients:
    """Return dL/dx by a read of the transposed arrays and dL/dw by a digital outer product."""
    sent, ranges = encode_errors(layout, ranges, dy, call)
    dx = None
    if need_dx:
        reading = read_encoded(layout, layout.backward, matrices, buffers, ranges, sent, call)
        dx, ranges = reading.result, reading.ranges
    return Gradients(dx, weight_gradient(layout, residual, sent, dy), None, ranges)


def encode_errors(layout: Layout, ranges: Ranges, dy: Any, call: Call) -> tuple[Encoded, Ranges]:
    """Return the errors as they are sent into the transposed arrays, and the ranges after."""
    plan, full_scale = layout.backward, 1.0
    if plan.converts_input:
        full_scale, ranges = settle(ranges, plan.input_range, plan.input_rule, [dy], call)
    return encode(layout, plan, dy, full_scale, call), ranges


def weight_gradient(layout: Layout, residual: Residual, sent: Encoded, dy: Any) -> Any:
    """Return dL/dw (in, out): the outer product of words (or full numbers), summed over the batch."""
    full = layout.chip.update.gradient == "full"
    left, right = residual.inputs, dy if full else sent.value
    xp = namespace(left)
    left = xp.reshape(left, (-1, left.shape[-1]))
    right = xp.reshape(right, (-1, right.shape[-1]))
    product = matmul(xp.matrix_transpose(left), right)
    return product if full else product * (residual.full_scale * sent.full_scale)
