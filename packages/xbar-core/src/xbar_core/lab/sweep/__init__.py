"""Sweeps: many points of one experiment, on this machine or a cluster, each result kept as it finishes.

A `Field` names what varies, a design turns fields into points, `run_points` runs what is missing,
and `Table` holds what was found.
"""

from __future__ import annotations

from xbar_core.lab.sweep.design import Design, assignments
from xbar_core.lab.sweep.engine import Event, Outcome, run_points
from xbar_core.lab.sweep.fields import Field, Span, parse_field
from xbar_core.lab.sweep.plan import Plan, read_plan
from xbar_core.lab.sweep.points import Base, Point, make_point
from xbar_core.lab.sweep.results import Table
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.sweep.spread import Estimate, estimate, estimate_crossed
from xbar_core.lab.sweep.store import Store

__all__ = [
    "Base",
    "Design",
    "Estimate",
    "Event",
    "Field",
    "Outcome",
    "Plan",
    "Point",
    "Setup",
    "Span",
    "Store",
    "Table",
    "assignments",
    "estimate",
    "estimate_crossed",
    "make_point",
    "parse_field",
    "read_plan",
    "run_points",
]
