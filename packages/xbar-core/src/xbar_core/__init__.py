"""Resistive-crossbar physics on arrays: circuits solved exactly, chips described and simulated."""

from __future__ import annotations

from xbar_core.circuit import (
    AAM,
    FCM,
    CircuitGradient,
    ErrorReport,
    Ideal,
    Interpolated,
    InterpolationState,
    Power,
    Solution,
    Wires,
    WiresGradient,
    effective_conductance,
    effective_conductance_vjp,
    error_report,
    export_netlist,
    interpolation_apply,
    interpolation_begin,
    interpolation_vjp,
    solve,
)
from xbar_core.errors import ConfigError, ConvergenceError, ShapeError

__all__ = [
    "AAM",
    "FCM",
    "CircuitGradient",
    "ConfigError",
    "ConvergenceError",
    "ErrorReport",
    "Ideal",
    "Interpolated",
    "InterpolationState",
    "Power",
    "ShapeError",
    "Solution",
    "Wires",
    "WiresGradient",
    "effective_conductance",
    "effective_conductance_vjp",
    "error_report",
    "export_netlist",
    "interpolation_apply",
    "interpolation_begin",
    "interpolation_vjp",
    "solve",
]
__version__ = "0.1.0"
