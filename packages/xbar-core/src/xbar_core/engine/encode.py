"""Numbers on their way into the arrays: rounding, DAC, phases; and the draws that go with samples."""

from __future__ import annotations

from typing import Any, NamedTuple

from xbar_core._arrays import array_like, namespace
from xbar_core.engine import fused
from xbar_core.engine.call import Call
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.fixed_point import round_to_words
from xbar_core.periphery.dac import inverse
from xbar_core.periphery.nonlinearity import distort
from xbar_core.random import Purpose
from xbar_core.slicing import quantise, split


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
        return Encoded(numbers, tuple(split(plan.phases, numbers)), 1.0)
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
