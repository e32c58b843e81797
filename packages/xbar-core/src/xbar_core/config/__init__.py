"""The chip description: a frozen tree, chip files, presets."""

from __future__ import annotations

from xbar_core.config.device import (
    Device,
    Drift,
    Faults,
    JumpTable,
    JumpTableDevice,
    ProgrammingError,
    ReadNoise,
    Variation,
)
from xbar_core.config.loading import apply_overrides
from xbar_core.config.mapping import FixedWeight, Mapping, MaxAbs, NativeWeight
from xbar_core.config.periphery import Adc, Input, MeasuredCurve, OddPolynomial
from xbar_core.config.presets import load_chip, preset, preset_names
from xbar_core.config.ranges import DynamicRange, FixedRange, TrackedRange
from xbar_core.config.schema import Array, Chip
from xbar_core.config.summary import ChipSummary, summarize
from xbar_core.config.update import (
    CrossbarBackward,
    DeterministicUpdate,
    ExactBackward,
    MappingScale,
    NativeScale,
    NoNoise,
    Precision,
    SqrtNoise,
    StochasticUpdate,
    TxsimNoise,
    Update,
)
from xbar_core.config.wires import wires_for_node

__all__ = [
    "Adc",
    "Array",
    "Chip",
    "ChipSummary",
    "CrossbarBackward",
    "DeterministicUpdate",
    "Device",
    "Drift",
    "DynamicRange",
    "ExactBackward",
    "Faults",
    "FixedRange",
    "FixedWeight",
    "Input",
    "JumpTable",
    "JumpTableDevice",
    "Mapping",
    "MappingScale",
    "MaxAbs",
    "MeasuredCurve",
    "NativeScale",
    "NativeWeight",
    "NoNoise",
    "OddPolynomial",
    "Precision",
    "ProgrammingError",
    "ReadNoise",
    "SqrtNoise",
    "StochasticUpdate",
    "TrackedRange",
    "TxsimNoise",
    "Update",
    "Variation",
    "apply_overrides",
    "load_chip",
    "preset",
    "preset_names",
    "summarize",
    "wires_for_node",
]
