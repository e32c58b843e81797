"""`xbar solve`, `xbar compare` and `xbar netlist`: one array of conductances at a time."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from xbar_core import FCM, Interpolated, Wires, effective_conductance, export_netlist, solve
from xbar_core._checks import check_integer, check_number
from xbar_core.circuit import CircuitModel
from xbar_core.circuit.base import Direction
from xbar_core.circuit.report import compare_matrices
from xbar_core.cli import _comparison
from xbar_core.cli._files import (
    ARRAY_SUFFIXES,
    FIGURE_SUFFIXES,
    check_output,
    read_conductance,
    read_voltages,
    write_array,
    written,
)
from xbar_core.cli._models import model_name, parse_model
from xbar_core.cli._options import (
    Array,
    Force,
    Model,
    Ohms,
    RCol,
    RRow,
    RSense,
    RSource,
    Way,
    check_direction,
    require_plots,
)
from xbar_core.cli._terminal import engineering, say, table, working
from xbar_core.errors import ConvergenceError


def register(app: typer.Typer) -> None:
    """Add the circuit commands."""
    app.command("solve")(solve_command)
    app.command("compare")(compare_command)
    app.command("netlist")(netlist_command)


def solve_command(
    file: Array,
    r_row: RRow = 0.0,
    r_col: RCol = 0.0,
    r_source: RSource = 0.0,
    r_sense: RSense = 0.0,
    model: Model = "fcm",
    direction: Way = "forward",
    ohms: Ohms = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Non-ideal matrix, .npy or .csv.")] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Print what the wires and the model do to this array.")
    ] = False,
    map_: Annotated[
        Path | None,
        typer.Option("--map", metavar="FILE", help="Map: distortion (fcm) or the model's error (others)."),
    ] = None,
    force: Force = False,
) -> None:
    """Turn an array of conductances into its non-ideal conductance matrix.

    Without --out and --map the report is printed.
    """
    wires = Wires(r_row, r_col, r_source, r_sense)
    chosen, way = parse_model(model), check_direction(direction)
    taken = [file]
    for field, path, suffixes in (("out", out, ARRAY_SUFFIXES), ("map", map_, FIGURE_SUFFIXES)):
        if path is not None:
            taken.append(check_output(field, path, suffixes, force=force, inputs=tuple(taken)))
    if map_ is not None:
        require_plots()
    conductance = read_conductance(file, ohms=ohms)
    with contextlib.ExitStack() as stack:
        part = stack.enter_context(written("out", out)) if out else None
        picture = stack.enter_context(written("map", map_)) if map_ else None
        with working(f"solving {file.name}"):
            matrix = effective_conductance(conductance, wires, chosen, way)
            if part:
                write_array(part, matrix)
            if picture:
                from xbar_core import plots

                title = f"{model_name(chosen)}, {file.name}, {way} read"
                if isinstance(chosen, FCM | Interpolated):
                    figure = plots.distortion_map(conductance, _turned(matrix, way), title=title)
                else:
                    exact = _turned(effective_conductance(conductance, wires, FCM(), way), way)
                    figure = plots.error_map(_turned(matrix, way), exact, title=title)
                figure.savefig(picture)
        if report or not (out or map_):
            _report(file, conductance, wires, chosen, way, matrix)
    for path in (out, map_):
        if path:
            say(f"wrote {path}")


def compare_command(
    file: Array,
    r_row: RRow = 0.0,
    r_col: RCol = 0.0,
    r_source: RSource = 0.0,
    r_sense: RSense = 0.0,
    direction: Way = "forward",
    change: Annotated[
        float, typer.Option(help="Relative change of the devices that the interpolated models must bridge.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="Seed of that change.")] = 0,
    ohms: Ohms = False,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Error maps of all models: .png, .svg or .pdf.")
    ] = None,
    force: Force = False,
) -> None:
    """Compare every circuit model with the exact one on an array: errors and cost."""
    wires = Wires(r_row, r_col, r_source, r_sense)
    way = check_direction(direction)
    check_number("change", change, minimum=0.0, maximum=0.5)
    check_integer("seed", seed, minimum=0)
    if figure is not None:
        check_output("figure", figure, FIGURE_SUFFIXES, force=force, inputs=(file,))
        require_plots()
    conductance = read_conductance(file, ohms=ohms)
    with contextlib.ExitStack() as stack:
        picture = stack.enter_context(written("figure", figure)) if figure else None
        with working(f"comparing circuit models on {file.name}"):
            rows = list(_comparison.compare(conductance, wires, way, change=change, seed=seed))
        if picture:
            _comparison.figure(rows, way).savefig(picture)
        _comparison.show(rows, f"{file.name}: {_size(conductance)}, {way} read", change)
    if figure:
        say(f"wrote {figure}")


def netlist_command(
    file: Array,
    voltages: Annotated[
        str, typer.Option(metavar="V", help="Volts of the rows: one number, a comma list, or a file.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Netlist to write: .cir, .sp, .spice or .net.")],
    r_row: RRow = 0.0,
    r_col: RCol = 0.0,
    r_source: RSource = 0.0,
    r_sense: RSense = 0.0,
    ohms: Ohms = False,
    force: Force = False,
) -> None:
    """Write an array and its input voltages as a netlist that ngspice runs unchanged."""
    wires = Wires(r_row, r_col, r_source, r_sense)
    check_output("out", out, (".cir", ".sp", ".spice", ".net"), force=force, inputs=(file,))
    conductance = read_conductance(file, ohms=ohms)
    volts = read_voltages(voltages, conductance.shape[0])
    with written("out", out) as part:
        export_netlist(conductance, wires, volts, part)
    say(f"wrote {out}; run it with: ngspice -b {out}")


def _report(
    file: Path,
    conductance: NDArray[Any],
    wires: Wires,
    model: CircuitModel,
    way: Direction,
    matrix: NDArray[Any],
) -> None:
    present = conductance[conductance > 0]
    exact = effective_conductance(conductance, wires, FCM(), way)
    ideal = compare_matrices(exact, _turned(conductance, way))
    mine = compare_matrices(exact, matrix)
    lines = [("array", f"{_size(conductance)}, {conductance.dtype}")]
    if present.size:
        low, high = (engineering(1 / float(g), "ohm") for g in (present.max(), present.min()))
        lines.append(("devices", f"{low} to {high}"))
    lines.append(("open cells", str(conductance.size - present.size)))
    lines.append(("wires", ", ".join(f"{n} {getattr(wires, n):g} ohm" for n in wires.__dataclass_fields__)))
    lines.append(("model", f"{model_name(model)}, {way} read"))
    lines.append(("error of ideal wires", f"{ideal.error:.2e} (worst cell {ideal.elementwise_max:.2e})"))
    lines.append(("error of the model", f"{mine.error:.2e} (worst cell {mine.elementwise_max:.2e})"))
    driven = "rows"
    if way == "backward":  # `solve` drives rows: turn the array until its columns are
        driven = "columns"
        conductance = conductance[::-1, ::-1].T
        wires = Wires(wires.r_col, wires.r_row, wires.r_source, wires.r_sense)
    title = f"Report of {file.name}"
    try:
        full = solve(conductance, wires, np.ones(conductance.shape[0]))
    except ConvergenceError as error:  # the matrix stands; only the branch currents miss the tolerance
        lines.append(("solver", f"currents not resolved: residual {error.residual:.1e}"))
        table(title, (("what", "left"), ("value", "left")), lines)
        return
    lines.append(("solver", f"{full.iterations} iterations, residual {full.residual:.1e}"))
    lines.append((f"all {driven} at 1 V", f"{engineering(float(full.currents.sum()), 'A')} sensed"))
    power = full.power
    parts = {"devices": power.devices, "wires": power.wires, "source": power.source, "sense": power.sense}
    total = float(power.total)
    share = [f"{name} {float(part) / total if total else 0:.1%}" for name, part in parts.items()]
    lines.append(("power", f"{engineering(total, 'W')}: {', '.join(share)}"))
    table(title, (("what", "left"), ("value", "left")), lines)


def _size(conductance: NDArray[Any]) -> str:
    return f"{conductance.shape[0]} rows x {conductance.shape[1]} columns"


def _turned(matrix: NDArray[Any], way: Direction) -> NDArray[Any]:
    """Turn the matrix of a read into (rows, cols), as the array is drawn, or back."""
    return matrix if way == "forward" else matrix.T
