"""`xbar solve`, `xbar compare` and `xbar netlist`: one array of conductances at a time."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the circuit commands."""
