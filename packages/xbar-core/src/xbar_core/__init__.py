"""Resistive-crossbar physics on arrays: circuits solved exactly, chips described and simulated."""

from __future__ import annotations

from xbar_core.circuit import (
    AAM,
    FCM,
    Ideal,
    Interpolated,
    InterpolationState,
    Wires,
    effective_conductance,
    interpolation_apply,
    interpolation_begin,
)
from xbar_core.errors import ConfigError, ConvergenceError, ShapeError

__all__ = [
    "AAM",
    "FCM",
    "ConfigError",
    "ConvergenceError",
    "Ideal",
    "Interpolated",
    "InterpolationState",
    "ShapeError",
    "Wires",
    "effective_conductance",
    "interpolation_apply",
    "interpolation_begin",
]
__version__ = "0.1.0"
