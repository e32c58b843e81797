"""Netlists: hand one array with its input voltages to a circuit simulator.

Written for ngspice's batch mode, which is the reference that the exact solver is checked against.
Two of its habits decide the form of the netlist: a resistor of 0 ohm is silently replaced by
1 milliohm, so a zero resistance is written as a voltage source of 0 V; and printed numbers have 6
digits, so ``numdgt`` is raised to 15. No option is set: the circuit is linear, so the tolerances of
the Newton iteration (``reltol``, ``abstol``) play no part, it has no junction that ``gmin`` would be
added to, and lowering ``pivtol`` changes no digit even with all conductances at 1e-15 S. What is left
is the rounding of nodal analysis itself: currents agree with exact elimination to 1e-12 for ordinary
arrays, 1e-9 with wires of 1 milliohm behind a driver of 500 ohm, and 1e-4 with devices of 1e3 S
behind wires of 1e9 ohm, where a node's small conductance drowns in its large one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xbar_core._checks import check_conductance, check_voltages
from xbar_core.circuit.base import Wires
from xbar_core.errors import ConfigError, ShapeError


def export_netlist(
    conductance: ArrayLike, wires: Wires, voltages: ArrayLike, path: str | os.PathLike[str]
) -> None:
    """Write one array and its row voltages as a netlist that ``ngspice -b`` runs unchanged.

    The run prints one line ``i(vsense_J) = ...`` for each column J: the current, in ampere, that
    leaves the column through ``r_sense`` into virtual ground. Nodes are named ``rowI_J`` (row wire I
    at column J) and ``colI_J`` (column wire J at row I); devices are ``Rcell_I_J``. Open cells are
    left out, and zero resistances are sources of 0 V.

    Parameters
    ----------
    conductance : array_like, shape (rows, cols)
        Device conductances, siemens; 0 is an open cell.
    wires : Wires
        The four resistances, ohm.
    voltages : array_like, shape (rows,)
        Source voltage of each row, volt.
    path : str or path-like
        File to write. It is replaced as a whole: after an error the old file, if any, is untouched.

    Raises
    ------
    ConfigError
        A conductance, voltage or path cannot be used.
    ShapeError
        `conductance` is not one array, or `voltages` does not have one entry for each row.

    References
    ----------
    ngspice user's manual, section 17.5 (control commands) and 15.1 (simulator variables).
    """
    g = check_conductance("conductance", conductance)
    if g.ndim != 2:
        raise ShapeError(
            f"conductance: shape {g.shape} is a batch; a netlist holds one array (rows, cols), index one"
        )
    if not isinstance(wires, Wires):
        raise ConfigError(f"wires: {wires!r} is not a Wires; give Wires(r_row, r_col, r_source, r_sense)")
    v = check_voltages("voltages", voltages, g.shape[0], batch=False)
    text = "\n".join(_lines(g.astype(np.float64), wires, v.astype(np.float64))) + "\n"
    _replace(path, text)


def _lines(g: NDArray[np.float64], wires: Wires, v: NDArray[np.float64]) -> Iterator[str]:
    rows, cols = g.shape
    yield f"* crossbar array: {rows} rows, {cols} columns"
    yield (
        f"* r_row={wires.r_row!r} r_col={wires.r_col!r} "
        f"r_source={wires.r_source!r} r_sense={wires.r_sense!r} ohm; zero resistances are 0 V sources"
    )
    for i in range(rows):
        yield f"Vin_{i} in{i} 0 dc {float(v[i])!r}"
        yield _wire(f"source_{i}", f"in{i}", f"row{i}_0", wires.r_source)
        for j in range(1, cols):
            yield _wire(f"row_{i}_{j}", f"row{i}_{j - 1}", f"row{i}_{j}", wires.r_row)
    for j in range(cols):
        for i in range(1, rows):
            yield _wire(f"col_{i}_{j}", f"col{i - 1}_{j}", f"col{i}_{j}", wires.r_col)
        yield _wire(f"out_{j}", f"col{rows - 1}_{j}", f"out{j}", wires.r_sense)
        yield f"Vsense_{j} out{j} 0 dc 0"
    for i, j in np.argwhere(g):
        yield f"Rcell_{i}_{j} row{i}_{j} col{i}_{j} {1.0 / float(g[i, j])!r}"
    yield ".control"
    yield "set numdgt=15"
    yield "op"
    for j in range(cols):
        yield f"print i(vsense_{j})"
    yield "quit"
    yield ".endc"
    yield ".end"


def _wire(name: str, start: str, end: str, resistance: float) -> str:
    if resistance == 0.0:
        return f"V{name} {start} {end} dc 0"
    return f"R{name} {start} {end} {resistance!r}"


def _replace(path: str | os.PathLike[str], text: str) -> None:
    try:
        target = Path(path)
    except TypeError as error:
        raise ConfigError(f"path: {path!r} is not a file name; give a str or a Path") from error
    if os.path.isdir(target) or not os.path.isdir(target.parent):
        what = "is a directory" if os.path.isdir(target) else "lies in a directory that does not exist"
        raise ConfigError(f"path: {str(target)!r} {what}; give a file name in an existing directory")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="ascii")
        os.replace(partial, target)
    except (OSError, ValueError) as error:
        raise ConfigError(f"path: cannot write {str(target)!r} ({error}); choose another place") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
