"""The two backward passes of a layer.

``crossbar``: what a chip computes. The errors are read through the transposed arrays, DAC and ADC; the
weight gradient is the digital outer product of the words that were sent, summed over the batch, scaled by
the ideal mapping, never by the non-ideal matrix.

``exact``: the derivative of the simulated forward read, for training that knows the hardware. Rounding
is the identity, clipping passes 0 or 1, curves and the circuit model are differentiated; ranges and noise
draws are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from xbar_core._arrays import namespace
from xbar_core.engine.call import Call
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.engine.matrices import Buffers, Matrices, Request
from xbar_core.engine.matrices_vjp import matrices_vjp
from xbar_core.engine.ranges import Ranges, settle
from xbar_core.engine.read import (
    REFERENCE,
    Encoded,
    Reading,
    at_converters,
    combined,
    encode,
    partial_sums,
    read,
    read_encoded,
    reference_sums,
)
from xbar_core.periphery import dac
from xbar_core.periphery.nonlinearity import slope
from xbar_core.slicing import split


class Residual(NamedTuple):
    """What a forward call keeps for its derivative.

    Attributes
    ----------
    inputs : array (batch, ..., in)
        The digital words as ratios of `full_scale`; in ``exact`` mode (and with
        ``update.gradient = "full"``) the inputs themselves.
    full_scale : float or 0-d array
        Full scale of the DAC.
    current_scale : float or 0-d array
        Full scale of the ADC, units of R v_read.
    call : Call
        Identity of the call: the same draws are made again.
    """

    inputs: Any
    full_scale: Any
    current_scale: Any
    call: Call


class Forward(NamedTuple):
    """Result of `forward`: y (batch, ..., out), what `vjp` needs, and the ranges after the call."""

    y: Any
    residual: Residual
    ranges: Ranges


class Gradients(NamedTuple):
    """Result of a backward pass.

    Attributes
    ----------
    x : array (batch, ..., in) or None
        dL/dx, or None where it was not asked for.
    weight : array (in, out) or None
        dL/dw (``crossbar``).
    state : array (devices, in, out) or None
        dL/ds (``exact``); from dL/dw by `xbar_core.mapping.state_gradient` in ``crossbar`` mode.
    ranges : Ranges
        The ranges after the call.
    """

    x: Any
    weight: Any
    state: Any
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
    product = xp.matmul(xp.matrix_transpose(left), right)
    return product if full else product * (residual.full_scale * sent.full_scale)


def exact_vjp(
    layout: Layout,
    matrices: Matrices,
    buffers: Buffers,
    ranges: Ranges,
    residual: Residual,
    dy: Any,
    request: Request,
    *,
    need_dx: bool = True,
) -> Gradients:
    """Return the derivative of `forward` against inputs and states."""
    plan, call = layout.forward, residual.call
    xp = namespace(dy)
    x = residual.inputs
    sent = encode(layout, plan, x, residual.full_scale, call)
    worth = sent.full_scale * buffers["w_max"]
    matrix = matrices.forward
    flat_dy = xp.reshape(dy, (-1, dy.shape[-1]))
    if plan.linear:
        volts = combined(plan, sent)
        flat = xp.reshape(volts, (-1, volts.shape[-1]))
        bar = xp.matmul(xp.matrix_transpose(flat), flat_dy)[None, ...] * worth
        state_bar = matrices_vjp(request, matrices.references[0], bar)
        dx = None
        if need_dx:
            volt_bar = xp.reshape(xp.matmul(flat_dy, xp.matrix_transpose(matrix[0, ...] * worth)), x.shape)
            bars = [share * volt_bar for share in plan.phases.shares]
            dx = encode_vjp(layout, plan, x, sent, bars)
        return Gradients(dx, None, state_bar, ranges)
    main = _ReadBars(plan, sent, matrix)
    for index, current in enumerate(partial_sums(layout, plan, matrices, sent, call)):
        current_bar = _decode_vjp(layout, plan, buffers, residual, current, dy * worth, index)
        main.add(index, current_bar)
    reference_bar = None
    if matrices.forward_reference is not None:
        reference = _ReadBars(plan, sent, matrices.forward_reference)
        sums = xp.stack(
            [-xp.sum(dy[..., start:stop], axis=-1) for start, stop in layout.tiling.col_bounds], axis=-1
        )
        for index, current in enumerate(reference_sums(layout, plan, matrices, sent, call)):
            current_bar = _decode_vjp(layout, plan, None, residual, current, sums * worth, index, True)
            reference.add(index, current_bar)
        reference_bar = reference.matrix_bar()
        main.absorb(reference)
    state_bar = matrices_vjp(request, matrices.references[0], main.matrix_bar(), reference_bar)
    dx = encode_vjp(layout, plan, x, sent, main.volt_bars()) if need_dx else None
    return Gradients(dx, None, state_bar, ranges)


class _ReadBars:
    """Collect dL/d(matrix) and dL/d(voltages) over the partial sums of a read."""

    def __init__(self, plan: ReadPlan, sent: Encoded, matrix: Any) -> None:
        self.plan, self.matrix, self.voltages = plan, matrix, sent.voltages
        xp = namespace(matrix)
        self.flat = [xp.reshape(v, (-1, v.shape[-1])) for v in sent.voltages]
        self.tiles = len(plan.bounds)
        self.planes: list[list[Any]] = [[None] * self.tiles for _ in range(matrix.shape[0])]
        self.volts: list[list[Any]] = [[None] * self.tiles for _ in sent.voltages]

    def add(self, index: int, current_bar: Any) -> None:
        """Add what the partial sum of this index passes back."""
        xp = namespace(current_bar)
        phase, rest = divmod(index, self.tiles * self.matrix.shape[0])
        plane, tile = divmod(rest, self.tiles)
        start, stop = self.plan.bounds[tile]
        bar = xp.reshape(current_bar, (-1, current_bar.shape[-1]))
        part = xp.matmul(xp.matrix_transpose(self.flat[phase][:, start:stop]), bar)
        self.planes[plane][tile] = _plus(self.planes[plane][tile], part)
        back = xp.matmul(bar, xp.matrix_transpose(self.matrix[plane, start:stop, :]))
        self.volts[phase][tile] = _plus(self.volts[phase][tile], back)

    def absorb(self, other: _ReadBars) -> None:
        """Add the voltage gradients of another read of the same voltages."""
        for mine, theirs in zip(self.volts, other.volts, strict=True):
            mine[:] = [_plus(a, b) for a, b in zip(mine, theirs, strict=True)]

    def matrix_bar(self) -> Any:
        """Return dL/d(matrix), of its shape."""
        xp = namespace(self.matrix)
        return xp.stack([xp.concat(bands, axis=0) for bands in self.planes])

    def volt_bars(self) -> list[Any]:
        """Return dL/d(voltages) of each phase, of their shape."""
        xp = namespace(self.matrix)
        return [
            xp.reshape(xp.concat(parts, axis=-1), volts.shape)
            for parts, volts in zip(self.volts, self.voltages, strict=True)
        ]


def _plus(total: Any, part: Any) -> Any:
    return part if total is None else total + part


def _decode_vjp(
    layout: Layout,
    plan: ReadPlan,
    buffers: Buffers | None,
    residual: Residual,
    current: Any,
    bar: Any,
    index: int,
    reference: bool = False,
) -> Any:
    """Return dL/d(current) of one partial sum: its share, times the slope of its converter."""
    tiles, planes = len(plan.bounds), len(plan.coefficients)
    share = plan.phases.shares[index // (tiles * planes)] * plan.coefficients[index // tiles % planes]
    bar = bar * share
    draws = REFERENCE if reference else 0
    (seen,) = at_converters(layout, plan, current, current.ndim, index, buffers, residual.call, draws=draws)
    if plan.converts_current:
        full_scale = residual.current_scale
        bar = dac.transfer_vjp(
            bar * full_scale, seen, dac.inverse(full_scale), layout.chip.adc.nonlinearity, not plan.unipolar
        )
    gain = (buffers or {}).get("adc_gain")
    if gain is None or not layout.chip.adc.gain_error:
        return bar
    at = index // tiles % planes, index % tiles
    return bar * (1.0 + layout.chip.adc.gain_error * gain[(*at, ...)])


def encode_vjp(layout: Layout, plan: ReadPlan, x: Any, sent: Encoded, volt_bars: Sequence[Any]) -> Any:
    """Return dL/dx from dL/d(voltages) of every phase.

    Rounding is the identity. A word in several digits is taken to move all of them in proportion to
    their shares, which keeps its total: dL/d(word) = sum_k q_k b_k / sum_k q_k^2.
    """
    xp = namespace(x)
    phases, curve = plan.phases, layout.chip.input.nonlinearity
    norm = sum(q * q for q in phases.digits)
    digits = len(phases.digits)
    total = None
    held = split(phases, sent.value)
    for k, bar in enumerate(volt_bars):
        sign, digit = phases.signs[k // digits], phases.digits[k % digits]
        passed = bar * (digit / norm)
        if curve is not None and plan.converts_input:
            passed = passed * slope(held[k], curve)
        if len(phases.signs) == 2:
            live = x > 0.0 if sign > 0.0 else x < 0.0
            passed = xp.where(live, sign * passed, xp.zeros_like(passed))
        total = _plus(total, passed)
    if not plan.converts_input:
        return total
    return dac.transfer_vjp(total, x, dac.inverse(sent.full_scale), None, phases.signed)
