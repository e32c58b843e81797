"""`xbar demo`: one array solved exactly and by every circuit model; a weight matrix on preset chips."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from xbar_core import Wires, export_netlist, solve
from xbar_core.cli import _comparison
from xbar_core.cli._files import check_folder, check_output, written
from xbar_core.cli._options import Force
from xbar_core.cli._terminal import engineering, say, working

SIZE, R_MIN, R_MAX = 64, 1e5, 1e6
WIRES = Wires(r_row=1.0, r_col=4.6, r_source=500.0, r_sense=100.0)
FILES = {
    "array": "conductance.npy",
    "exact": "exact.npy",
    "distortion": "distortion.png",
    "errors": "model_errors.png",
    "voltages": "voltages.png",
    "power": "power.png",
    "netlist": "array.cir",
}


def register(app: typer.Typer) -> None:
    """Add the demonstration."""
    app.command("demo")(demo_command)


def demo_command(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the results; made if absent.")],
    force: Force = False,
) -> None:
    """Solve a 64x64 array, compare every circuit model with it, and read a weight matrix on preset chips."""
    from xbar_core import plots

    # The second part needs the extra "lab": say so before the first part has run.
    from xbar_core.cli import _weights

    digits = _weights.digits()
    check_folder("out", out)
    for name, file in FILES.items():
        check_output(f"out ({name})", out / file, (Path(file).suffix,), force=force, new_folder=True)
    resistance = np.random.default_rng(0).uniform(R_MIN, R_MAX, (SIZE, SIZE))
    conductance = 1 / resistance
    full_drive = np.ones(SIZE)
    what = f"{SIZE}x{SIZE} devices, {engineering(R_MIN, 'ohm')} to {engineering(R_MAX, 'ohm')}"
    with working("solving and comparing"):
        rows = list(_comparison.compare(conductance, WIRES, "forward", change=0.02, seed=0))
        solution = solve(conductance, WIRES, full_drive)
    exact = rows[0].report.exact
    figures = {
        "distortion": plots.distortion_map(conductance, exact, title=what),
        "errors": _comparison.figure(rows, "forward"),
        "voltages": plots.voltage_figure(solution, title=f"{what}, all rows at 1 V"),
        "power": plots.power_figure(solution, title=f"{what}, all rows at 1 V"),
    }
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        parts = {name: stack.enter_context(written("out", out / file)) for name, file in FILES.items()}
        np.save(parts["array"], conductance)
        np.save(parts["exact"], exact)
        for name, figure in figures.items():
            figure.savefig(parts[name])
        export_netlist(conductance, WIRES, full_drive, parts["netlist"])
    wires = ", ".join(f"{name} {getattr(WIRES, name):g}" for name in WIRES.__dataclass_fields__)
    _comparison.show(rows, f"{what}; {wires} ohm", 0.02)
    say("")
    say(
        f"All rows at 1 V: {engineering(float(solution.currents.sum()), 'A')} sensed, "
        f"{engineering(float(solution.power.total), 'W')} drawn; solved in {solution.iterations} iterations, "
        f"residual {solution.residual:.1e}."
    )
    say("")
    with working("programming and reading chips"):
        chips = list(_weights.rows(digits))
    _weights.show(chips, digits)
    for file in FILES.values():
        say(f"wrote {out / file}")
