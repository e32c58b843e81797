"""Circuit models of one crossbar array."""

from __future__ import annotations

from xbar_core.circuit._dispatch import effective_conductance, interpolation_apply, interpolation_begin
from xbar_core.circuit.base import AAM, FCM, CircuitModel, Ideal, Interpolated, Wires
from xbar_core.circuit.interpolated import InterpolationState

__all__ = [
    "AAM",
    "FCM",
    "CircuitModel",
    "Ideal",
    "Interpolated",
    "InterpolationState",
    "Wires",
    "effective_conductance",
    "interpolation_apply",
    "interpolation_begin",
]
