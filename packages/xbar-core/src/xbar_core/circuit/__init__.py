"""Circuit models of one crossbar array."""

from __future__ import annotations

from xbar_core.circuit._dispatch import effective_conductance, interpolation_apply, interpolation_begin
from xbar_core.circuit.adjoint import (
    CircuitGradient,
    WiresGradient,
    effective_conductance_vjp,
    interpolation_vjp,
)
from xbar_core.circuit.base import AAM, FCM, CircuitModel, Ideal, Interpolated, Wires
from xbar_core.circuit.interpolated import InterpolationState
from xbar_core.circuit.report import ErrorReport, error_report
from xbar_core.circuit.solution import Power, Solution, solve
from xbar_core.circuit.spice import export_netlist

__all__ = [
    "AAM",
    "FCM",
    "CircuitGradient",
    "CircuitModel",
    "ErrorReport",
    "Ideal",
    "Interpolated",
    "InterpolationState",
    "Power",
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
