"""The engine: program, read, back-propagate and update a weight matrix on a chip.

Pure functions of a static `Layout` and arrays; the caller owns every array. One training step is

    Request -> read_matrices -> forward -> vjp -> update

and `docs/howto/adapter.md` shows how a framework's layer is made of it.
"""

from __future__ import annotations

from xbar_core.engine.call import Call
from xbar_core.engine.circuits import Reference
from xbar_core.engine.decode import decode, decode_folded
from xbar_core.engine.encode import Encoded, encode
from xbar_core.engine.energy import ReadEnergy, read_energy
from xbar_core.engine.gradients import Gradients, Residual
from xbar_core.engine.inspect import Clipped, Stage, clipped, stage_report
from xbar_core.engine.layout import Layout, ReadPlan
from xbar_core.engine.matrices import Matrices, Request, read_matrices
from xbar_core.engine.matrices_vjp import matrices_vjp
from xbar_core.engine.program import (
    DeviceCounts,
    Programmed,
    conductances,
    device_counts,
    program,
    reprogram,
    saturated_weights,
    weights,
)
from xbar_core.engine.ranges import Ranges
from xbar_core.engine.read import Reading, partial_sums, read, read_encoded
from xbar_core.engine.update import Updated, pulse_update, update
from xbar_core.engine.vjp import Forward, encode_errors, forward, residual_of, vjp, weight_gradient

__all__ = [
    "Call",
    "Clipped",
    "DeviceCounts",
    "Encoded",
    "Forward",
    "Gradients",
    "Layout",
    "Matrices",
    "Programmed",
    "Ranges",
    "ReadEnergy",
    "ReadPlan",
    "Reading",
    "Reference",
    "Request",
    "Residual",
    "Stage",
    "Updated",
    "clipped",
    "conductances",
    "decode",
    "decode_folded",
    "device_counts",
    "encode",
    "encode_errors",
    "forward",
    "matrices_vjp",
    "partial_sums",
    "program",
    "pulse_update",
    "read",
    "read_encoded",
    "read_energy",
    "read_matrices",
    "reprogram",
    "residual_of",
    "saturated_weights",
    "stage_report",
    "update",
    "vjp",
    "weight_gradient",
    "weights",
]
