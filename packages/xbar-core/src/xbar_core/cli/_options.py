"""Options that several commands share."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer

from xbar_core._checks import check_choice
from xbar_core.circuit.base import DIRECTIONS, Direction
from xbar_core.cli._models import FORMS

Array = Annotated[
    Path, typer.Argument(metavar="FILE", help="Array of conductances in siemens, .npy or .csv.")
]
RRow = Annotated[float, typer.Option(help="Row wire between two cells, ohm.")]
RCol = Annotated[float, typer.Option(help="Column wire between two cells, ohm.")]
RSource = Annotated[float, typer.Option(help="Driver output resistance, ohm.")]
RSense = Annotated[float, typer.Option(help="Sense amplifier input resistance, ohm.")]
Ohms = Annotated[bool, typer.Option("--ohms", help="FILE holds resistances in ohm (inf: open cell).")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite output files that exist.")]
Model = Annotated[str, typer.Option(metavar="MODEL", help=f"Circuit model: {FORMS}.")]
Way = Annotated[str, typer.Option("--direction", metavar="WAY", help="Read direction: forward or backward.")]


def check_direction(value: str) -> Direction:
    """Return the read direction, checked."""
    check_choice("direction", value, DIRECTIONS)
    return "backward" if value == "backward" else "forward"


def command_line(context: typer.Context) -> list[str]:
    """Return the command at work as it was typed, ``xbar`` first."""
    return ["xbar", *context.find_root().obj]


def require_plots() -> None:
    """Raise ImportError now, before any work, if figures cannot be drawn."""
    importlib.import_module("xbar_core.plots")
