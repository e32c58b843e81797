"""Where a read loses precision: stage by stage, and at the ends of the converters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from xbar_core._arrays import namespace, to_numpy
from xbar_core.config import Chip
from xbar_core.engine.call import Call
from xbar_core.engine.decode import at_converters
from xbar_core.engine.encode import encode
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.engine.matrices import Matrices, Request, read_matrices
from xbar_core.engine.program import weights
from xbar_core.engine.ranges import Ranges, settle
from xbar_core.engine.read import partial_sums, read
from xbar_core.periphery import adc, dac


class Stage(NamedTuple):
    """What one stage of a read does to the result.

    Attributes
    ----------
    name : str
        ``weights`` (levels, programming, stuck devices), ``devices`` (variation, drift, open cells),
        ``wires``, ``dac``, ``adc`` or ``noise``.
    snr_db : float
        Signal-to-noise ratio after this stage, decibel: power of x @ W over that of the error;
        infinite for none.
    error : float
        Root mean square of what this stage adds to the error, relative to that of x @ W.
    """

    name: str
    snr_db: float
    error: float


def stage_report(
    layout: Layout,
    weight: Any,
    state: Any,
    buffers: Mapping[str, Any],
    x: Any,
    *,
    ranges: Ranges | None = None,
    time: float | None = None,
    call: Call = Call(),
) -> list[Stage]:
    """Return what each stage of a forward read costs, the stages switched on one after the other.

    Parameters
    ----------
    layout, state, buffers
        The layer as it stands.
    weight : array (in, out)
        Weights it should stand for.
    x : array (batch, in)
        Inputs.
    ranges : Ranges or None
        What the converters have learned; None measures the inputs at hand.
    time : float or None
        Seconds since programming.
    call : Call
        Keys the noise.
    """
    xp = namespace(x)
    wanted = to_numpy(xp.matmul(x, weight)).astype(np.float64)
    power = float(np.mean(wanted**2))
    before, report = wanted, []
    held = xp.matmul(x, weights(layout, state, buffers))
    results = [("weights", held)]
    learned = Ranges() if ranges is None else ranges
    for name, chip in _stages(layout.chip):
        at = dataclasses.replace(layout, chip=chip)
        (matrices,) = read_matrices([Request(at, buffers, state, backward=False, time=time)])
        results.append((name, read(at, at.forward, matrices, buffers, learned, x, call).result))
    for name, result in results:
        y = to_numpy(result).astype(np.float64)
        noise, added = float(np.mean((y - wanted) ** 2)), float(np.mean((y - before) ** 2))
        snr = float("inf") if noise == 0.0 else 10.0 * np.log10(power / noise) if power else -float("inf")
        report.append(Stage(name, float(snr), (added / power) ** 0.5 if power else 0.0))
        before = y
    return report


def _stages(chip: Chip) -> Iterator[tuple[str, Chip]]:
    """Yield the chip with one more stage switched on each time."""
    plain_input = {"signed": chip.input.signed, "v_read": chip.input.v_read}
    quiet = {"device.read_noise": None, "adc.noise": 0.0}
    no_adc = {"adc": {"subtract": chip.adc.subtract}}
    no_dac = {"input": plain_input, "precision": None}
    yield "devices", chip.with_values({**quiet, **no_dac, **no_adc, "circuit": {"kind": "ideal"}})
    yield "wires", chip.with_values({**quiet, **no_dac, **no_adc})
    yield "dac", chip.with_values({**quiet, **no_adc})
    yield "adc", chip.with_values(quiet)
    yield "noise", chip


class Clipped(NamedTuple):
    """Conversions beyond a full scale.

    Attributes
    ----------
    inputs, currents : int
        Words and partial sums that saturate.
    of_inputs, of_currents : int
        All of them.
    """

    inputs: int
    currents: int
    of_inputs: int
    of_currents: int

    @property
    def share(self) -> float:
        """Share of all conversions, of inputs and of currents together, that saturate."""
        return (self.inputs + self.currents) / max(self.of_inputs + self.of_currents, 1)


def clipped(
    layout: Layout,
    plan: ReadPlan,
    matrices: Matrices,
    buffers: Mapping[str, Any],
    ranges: Ranges,
    numbers: Any,
    call: Call = Call(),
) -> Clipped:
    """Count the conversions of one read that saturate; arguments as in `xbar_core.engine.read`."""
    xp, full_scale, inputs = namespace(numbers), 1.0, 0
    if plan.converts_input:
        full_scale, ranges = settle(ranges, plan.input_range, plan.input_rule, [numbers], call)
        over = dac.clipped(numbers, full_scale, plan.phases.signed, layout.chip.input.bits)
        inputs = int(xp.sum(xp.astype(over, xp.int64)))
    sent = encode(layout, plan, numbers, full_scale, call)
    size = int(np.prod(numbers.shape))
    if not plan.converts_current:
        return Clipped(inputs, 0, size, 0)
    sums = list(partial_sums(layout, plan, matrices, sent, call))
    current_scale, _ = settle(ranges, plan.current_range, plan.current_rule, sums, call, layout.current_unit)
    currents = total = 0
    for index, current in enumerate(sums):
        for seen in at_converters(layout, plan, current, current.ndim, index, buffers, call):
            signed = not plan.unipolar
            currents += int(adc.clipped_count(seen, current_scale, layout.chip.adc, signed=signed))
            total += int(np.prod(seen.shape))
    return Clipped(inputs, currents, size, total)
