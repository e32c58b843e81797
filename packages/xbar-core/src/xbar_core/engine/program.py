"""Writing weights into devices, and what can be read back without an array read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from xbar_core import mapping
from xbar_core._arrays import array_like, namespace, to_numpy
from xbar_core._checks import check_number
from xbar_core.config.mapping import FixedWeight, MaxAbs
from xbar_core.devices.faults import count_faults
from xbar_core.devices.programming import scatter_states
from xbar_core.engine.cells import actual_conductance, frozen_draws, held
from xbar_core.engine.layout import Layout
from xbar_core.errors import ConfigError, ShapeError
from xbar_core.fixed_point import round_to_words
from xbar_core.random import Purpose


class Programmed(NamedTuple):
    """A layer after programming; the framework owns both from here.

    Attributes
    ----------
    state : array (devices, in, out)
        Normalised device states in [0, 1]: the trainable parameter.
    buffers : dict of str to array
        ``w_max`` (0-d), frozen draws (`xbar_core.engine.cells.FROZEN`, ``adc_gain``, ``adc_offset`` and
        their ``_backward`` twins) and, for sliced weights, ``words`` (sides, in, out) in float64.
    """

    state: Any
    buffers: dict[str, Any]


def program(
    layout: Layout,
    weight: Any,
    *,
    w_max: float | None = None,
    buffers: Mapping[str, Any] | None = None,
    count: int = 0,
) -> Programmed:
    """Program a weight matrix into the devices of a layer.

    Parameters
    ----------
    layout : Layout
        The layer.
    weight : array (in, out) of float32 or float64
        Weights.
    w_max : float or None
        Range of the layer; needed with ``mapping.w_max.rule = "native"``, else it overrides the rule.
    buffers : mapping or None
        Those of an earlier programming of this layer: its devices keep their frozen differences.
    count : int
        Number of earlier programmings, which keys the programming error.

    Returns
    -------
    Programmed
        States after rounding to levels, programming error and faults.

    Raises
    ------
    ShapeError, ConfigError
        The matrix has another shape or a value that is not finite, or w_max is missing.
    """
    xp = namespace(weight)
    if tuple(weight.shape) != (layout.inputs, layout.outputs):
        raise ShapeError(
            f"weight: shape {tuple(weight.shape)} is not that of the layer, "
            f"({layout.inputs}, {layout.outputs})"
        )
    if not bool(xp.all(xp.isfinite(weight))):
        raise ConfigError("weight: holds NaN or infinity; program finite weights")
    chip = layout.chip
    largest = _range(layout, weight, w_max)
    frozen = dict(buffers) if buffers is not None else _frozen(layout, weight)
    frozen["w_max"] = array_like(np.asarray(largest), weight)
    if chip.precision is not None:
        weight = round_to_words(weight, largest, chip.precision.bits)
    if layout.code.slices > 1:
        words = mapping.words_of(layout.code, xp.astype(weight, xp.float64), largest)
        frozen["words"] = words
        state = mapping.slice_words(layout.code, words, weight.dtype)
    else:
        state = mapping.encode(layout.code, weight, largest)
    error = chip.device.programming_error
    if error is not None and error.sigma > 0.0:
        normal = layout.stream.normal(Purpose.PROGRAMMING, layout.state_shape, step=count)
        state = scatter_states(state, error, array_like(normal, state), chip.device.g_min, chip.device.g_max)
    return Programmed(held(frozen, state), frozen)


def saturated_weights(weight: Any, buffers: Mapping[str, Any]) -> int:
    """Return how many weights (in, out) lie beyond the range that they were programmed with.

    They are stored at the end of the range. `update` counts its own, and `reprogram` gives a new range.
    """
    xp = namespace(weight)
    beyond = xp.abs(weight) > array_like(to_numpy(buffers["w_max"]), weight)
    return int(xp.sum(xp.astype(beyond, xp.int64)))


def _range(layout: Layout, weight: Any, w_max: float | None) -> float:
    if w_max is not None:
        return check_number("w_max", w_max, minimum=0.0, open_minimum=True)
    rule = layout.chip.mapping.w_max
    if isinstance(rule, FixedWeight):
        return rule.value
    if isinstance(rule, MaxAbs):
        return mapping.choose_w_max(weight, "max_abs", rule.headroom)
    raise ConfigError(
        f"mapping.w_max.rule: 'native' needs the range of layer {layout.name!r} at programming; collect "
        "native statistics and hand over w_max, or use rule = 'max_abs'"
    )


def _frozen(layout: Layout, like: Any) -> dict[str, Any]:
    """Return every draw that is frozen with the chip."""
    draws = frozen_draws(layout, like)
    adc = layout.chip.adc
    for plan, ending in ((layout.forward, ""), (layout.backward, "_backward")):
        lines = layout.outputs if plan.direction == "forward" else layout.inputs
        shape = (len(plan.coefficients), len(plan.bounds), lines)
        side = 0 if plan.direction == "forward" else 1
        if adc.gain_error > 0.0:
            normal = layout.stream.normal(Purpose.ADC_GAIN, shape, array=side)
            draws[f"adc_gain{ending}"] = array_like(normal, like)
        if adc.offset_error > 0.0:
            normal = layout.stream.normal(Purpose.ADC_OFFSET, shape, array=side)
            draws[f"adc_offset{ending}"] = array_like(normal, like)
    return draws


def weights(layout: Layout, state: Any, buffers: Mapping[str, Any]) -> Any:
    """Return the weights (in, out) that the states stand for; stuck devices at what they are stuck at."""
    return mapping.decode(layout.code, held(buffers, state), buffers["w_max"])


def conductances(
    layout: Layout, state: Any, buffers: Mapping[str, Any], time: float | None = None, read: int = 0
) -> Any:
    """Return the conductances (devices, in, out) in siemens, with variation, faults and drift.

    Parameters
    ----------
    layout, state, buffers
        The layer, its states and its buffers.
    time : float or None
        Seconds since programming, for drift; None is the drift model's reference time.
    read : int
        Keys conductances drawn for each call.
    """
    return actual_conductance(layout, buffers, state, time, read)


def reprogram(
    layout: Layout, state: Any, buffers: Mapping[str, Any], *, w_max: float | None = None, count: int = 1
) -> Programmed:
    """Read the weights back digitally and program them anew with a fresh range.

    For a layer whose weights have outgrown w_max, or use little of it. Parameters and result are those of
    `program`; `count` is the number of earlier programmings.
    """
    stored = mapping.decode(layout.code, state, buffers["w_max"])
    if "words" in buffers:
        words = buffers["words"]
        code = mapping.WeightCode(layout.code.kind)
        stored = namespace(state).astype(mapping.decode(code, words, float(buffers["w_max"])), state.dtype)
    return program(layout, stored, w_max=w_max, buffers=buffers, count=count)


class DeviceCounts(NamedTuple):
    """How the devices of a layer stand.

    Attributes
    ----------
    devices : int
        All devices that hold weights.
    at_g_min, at_g_max : int
        Devices at an end of the range.
    stuck_at_g_min, stuck_at_g_max, open : int
        Faults.
    """

    devices: int
    at_g_min: int
    at_g_max: int
    stuck_at_g_min: int
    stuck_at_g_max: int
    open: int


def device_counts(layout: Layout, state: Any, buffers: Mapping[str, Any]) -> DeviceCounts:
    """Return the numbers of saturated and faulty devices of a layer."""
    xp = namespace(state)
    faults = buffers.get("faults")
    found = {} if faults is None else count_faults(faults)

    def count(mask: Any) -> int:
        return int(xp.sum(xp.astype(mask, xp.int64)))

    ends = count(state <= 0.0), count(state >= 1.0)
    kinds = (found.get(name, 0) for name in ("stuck_at_g_min", "stuck_at_g_max", "open"))
    devices, inputs, outputs = layout.state_shape
    return DeviceCounts(devices * inputs * outputs, *ends, *kinds)
