"""Circuit models of one crossbar array."""

from __future__ import annotations

from xbar_core.circuit.base import AAM, FCM, CircuitModel, Ideal, Interpolated, Wires

__all__ = ["AAM", "FCM", "CircuitModel", "Ideal", "Interpolated", "Wires"]
