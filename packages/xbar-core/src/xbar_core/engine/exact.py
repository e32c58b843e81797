"""The ``exact`` backward pass: the derivative of the simulated forward read.

Rounding is the identity, clipping passes 0 or 1, curves and the circuit model are differentiated; ranges and
noise draws are constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xbar_core._arrays import namespace
from xbar_core.engine.decode import at_converters
from xbar_core.engine.encode import Encoded, encode
from xbar_core.engine.gradients import Gradients, Residual
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.engine.matrices import Buffers, Matrices, Request
from xbar_core.engine.matrices_vjp import matrices_vjp
from xbar_core.engine.ranges import Ranges
from xbar_core.engine.read import REFERENCE, combined, partial_sums, reference_sums
from xbar_core.periphery import dac
from xbar_core.periphery.nonlinearity import slope
from xbar_core.slicing import split


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
            live = x >= 0.0 if sign > 0.0 else x < 0.0
            passed = xp.where(live, sign * passed, xp.zeros_like(passed))
        total = _plus(total, passed)
    if not plan.converts_input:
        return total
    return dac.transfer_vjp(total, x, dac.inverse(sent.full_scale), None, phases.signed)
