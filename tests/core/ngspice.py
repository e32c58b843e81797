"""Run ngspice on a netlist and read the output currents back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from xbar_core.circuit.base import Wires
from xbar_core.circuit.spice import export_netlist

_CURRENT = re.compile(r"^i\(vsense_(\d+)\) = (\S+)$", re.MULTILINE)


def require_ngspice() -> None:
    """Skip without ngspice, except on the CI machine, where its absence is a failure."""
    if shutil.which("ngspice") is None:
        reason = "ngspice is not installed (apt install ngspice), so nothing is compared with it live"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def run_netlist(path: Path) -> NDArray[np.float64]:
    """Return the output currents (cols,) in ampere that ``ngspice -b`` prints for a netlist."""
    # No init file: a user's own .spiceinit must not change the reference.
    done = subprocess.run(
        ["ngspice", "-n", "-b", str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    found = {int(column): float(value) for column, value in _CURRENT.findall(done.stdout)}
    if done.returncode != 0 or not found or sorted(found) != list(range(len(found))):
        raise RuntimeError(f"ngspice failed ({done.returncode}):\n{done.stdout}\n{done.stderr}")
    return np.array([found[column] for column in range(len(found))])


def currents(
    conductance: NDArray[np.float64],
    wires: Wires,
    voltages: NDArray[np.float64],
    direction: str = "forward",
) -> NDArray[np.float64]:
    """Return ngspice's currents (sensed,) of one array for the voltages (driven,) of one read.

    The backward circuit is laid out as an array of its own: turned by half a turn and transposed, so
    that the columns, driven at their sensed end, become rows driven at their first cell.
    """
    if direction == "backward":
        turned = conductance[::-1, ::-1].T
        return currents(
            turned, Wires(wires.r_col, wires.r_row, wires.r_source, wires.r_sense), voltages[::-1]
        )[::-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array.cir"
        export_netlist(conductance, wires, voltages, path)
        return run_netlist(path)


def matrix(conductance: NDArray[np.float64], wires: Wires, direction: str = "forward") -> NDArray[np.float64]:
    """Return ngspice's non-ideal matrix, one run for each driven wire."""
    driven = conductance.shape[0 if direction == "forward" else 1]
    return np.stack([currents(conductance, wires, volts, direction) for volts in np.eye(driven)])
