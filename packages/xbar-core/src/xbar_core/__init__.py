"""Resistive-crossbar physics on arrays: circuits solved exactly, chips described and simulated.

The circuit functions take arrays; `xbar_core.config` describes chips, `xbar_core.engine` programs, reads
and updates weight matrices on them, `xbar_core.devices` and `xbar_core.periphery` hold the parts.
"""

from __future__ import annotations

from xbar_core.circuit import (
    AAM,
    FCM,
    CircuitGradient,
    CircuitModel,
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
from xbar_core.config import Chip, apply_overrides, load_chip, preset, preset_names, wires_for_node
from xbar_core.devices.fit import DeviceFit, fit_device
from xbar_core.errors import ConfigError, ConvergenceError, ShapeError

__all__ = [
    "AAM",
    "FCM",
    "Chip",
    "CircuitGradient",
    "CircuitModel",
    "ConfigError",
    "ConvergenceError",
    "DeviceFit",
    "ErrorReport",
    "Ideal",
    "Interpolated",
    "InterpolationState",
    "Power",
    "ShapeError",
    "Solution",
    "Wires",
    "WiresGradient",
    "apply_overrides",
    "effective_conductance",
    "effective_conductance_vjp",
    "error_report",
    "export_netlist",
    "fit_device",
    "interpolation_apply",
    "interpolation_begin",
    "interpolation_vjp",
    "load_chip",
    "preset",
    "preset_names",
    "solve",
    "wires_for_node",
]
__version__ = "0.1.0"
