"""`xbar sweep`: any fields of chip and training varied, side by side on this machine or a cluster."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from xbar_core.cli._files import check_folder, written
from xbar_core.cli._options import command_line, require_plots
from xbar_core.cli._sweep_screen import screen
from xbar_core.cli._terminal import say, table
from xbar_core.errors import ConfigError
from xbar_core.lab.sweep import Field, Outcome, Plan, Point, Store, Table, parse_field, read_plan, run_points
from xbar_core.lab.sweep.points import text_of
from xbar_core.lab.sweep.tasks import find_task
from xbar_core.lab.sweep.training import check_training
from xbar_core.lab.whole_file import write_whole

_SHOWN = 40  # rows of a table on the screen


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sweep")(sweep)


def sweep(
    context: typer.Context,
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH=VALUES]...",
            help="What varies: update.v_up=0.01,0.1,1  circuit.kind=fcm,aam  epochs=5  seed=0:5  "
            "wires.r_row=log(0.1,10,5)",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Results; a rerun computes only what is missing there.")
    ] = Path("runs/sweep"),
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="Sweep file, .toml.")] = None,
    task: Annotated[
        str | None, typer.Option(help="What a point computes: train, circuit or package.module:function.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Chip that the fields change: a preset's name, a chip file or native.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set: digits, mnist, ...")] = None,
    framework: Annotated[str | None, typer.Option(help="Adapter to train with.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of data files; default $XBAR_DATA, else ./data.")
    ] = None,
    design: Annotated[str | None, typer.Option(help="grid, random or latin (hypercube).")] = None,
    samples: Annotated[int | None, typer.Option(help="Settings to draw, for random and latin.")] = None,
    design_seed: Annotated[int | None, typer.Option(help="Seed of those draws.")] = None,
    chips: Annotated[
        int | None,
        typer.Option(help="Monte-Carlo: every setting on this many chips, variation and faults drawn anew."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Metric of summary and figure.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; default: as many as cores or points. 0: this one.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A running Dask scheduler: tcp://host:8786.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time; a rerun goes on.")] = None,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Do not try failed points again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and list the points; run nothing.")
    ] = False,
) -> None:
    """Vary fields of the chip and the training, and show which one hurts, and by how much."""
    given = {
        "task": task,
        "preset": preset,
        "dataset": dataset,
        "framework": framework,
        "design": design,
        "samples": samples,
        "design_seed": design_seed,
        "chips": chips,
        "data_folder": None if data is None else str(data),
    }
    plan = _plan(file, fields or [], given)
    kind = find_task(plan.task)
    points = plan.points()
    check_folder("out", out)
    _announce(plan, points)
    if dry_run:
        _list(points)
        return
    require_plots()
    if kind.trains and kind.name == "train":
        check_training([point.setup for point in points])
    store = Store(out)
    write_whole(out / "command.txt", f"{shlex.join(command_line(context))}\n")
    with screen("points") as watch:
        outcome = run_points(
            points,
            store,
            workers=workers,
            scheduler=scheduler,
            limit=None if minutes is None else 60 * minutes,
            retry_failed=not keep_failed,
            watch=watch,
        )
    found = Table.collect(points, store)
    chosen = found.main_metric(metric or (kind.metric if kind.metric in found.metrics else None))
    _show(found, chosen)
    _write(found, chosen, out, plan)
    _end(outcome, found)


def _plan(file: Path | None, fields: list[str], given: dict[str, Any]) -> Plan:
    """Return the plan of a file, changed by the command line."""
    plan = Plan() if file is None else read_plan(file)
    parsed: list[Field] = [parse_field(text) for text in fields]
    names = [field.name for field in parsed]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name}: is given twice; put its values into one list")
    plan = replace(plan, **{name: value for name, value in given.items() if value is not None})
    plan = plan.with_fields(parsed)
    if not plan.fields and not plan.listed and plan.chips is None:
        raise ConfigError("fields: nothing varies; write for example update.v_up=0.01,0.1,1 or give --file")
    return plan


def _announce(plan: Plan, points: list[Point]) -> None:
    distinct = len({point.key for point in points})
    repeated = f" ({len(points)} with those that mean the same)" if distinct < len(points) else ""
    say(f"task {plan.task}: {distinct} points{repeated}, {plan.design} design")
    chip = points[0].setup.chip
    if plan.chips is not None and chip is not None and not _varies(chip):
        say(
            f"note: {chip.name} has neither variation, faults, programming error nor drift spread; its chips "
            "differ in noise only"
        )


def _varies(chip: Any) -> bool:
    names = ("variation", "faults", "programming_error", "programming", "drift")
    return any(getattr(chip.device, name, None) is not None for name in names)


def _list(points: list[Point]) -> None:
    for point in points[:_SHOWN]:
        say(point.label)
    if len(points) > _SHOWN:
        say(f"... and {len(points) - _SHOWN} more")


def _show(found: Table, metric: str) -> None:
    """Print the means, best first where there are too many."""
    groups = found.groups(metric)
    rows = []
    for group in groups[:_SHOWN]:
        estimate = group.estimate
        spread = "-" if estimate.count < 2 else f"± {estimate.half:.2g}"
        lost = f"{group.failed} / {group.missing}" if group.failed or group.missing else "-"
        mean = f"{estimate.mean:.5g}" if estimate.count else "-"
        rows.append((*(text_of(value) for value in group.values), mean, spread, str(estimate.count), lost))
    columns = [(name, "right") for name in found.fields]
    columns += [(metric, "right"), ("95 %", "right"), ("repeats", "right"), ("failed / missing", "right")]
    note = "95 %: confidence interval of the mean over repeats (seeds, chips)."
    if len(groups) > _SHOWN:
        note += f" The first {_SHOWN} of {len(groups)}; summary.csv has all."
    table("Summary", columns, rows, note)


def _write(found: Table, metric: str, out: Path, plan: Plan) -> None:
    from xbar_core.lab.sweep.figures import sweep_figure

    paths = found.write(out, metric)
    figure = sweep_figure(found, metric, f"{plan.task}, {plan.preset}")
    for suffix in (".png", ".svg"):
        with written("out", out / f"figure{suffix}") as part:
            figure.savefig(part)
        paths.append(out / f"figure{suffix}")
    for path in paths:
        say(f"wrote {path}")


def _end(outcome: Outcome, found: Table) -> None:
    say(
        f"{outcome.done} computed, {outcome.kept} known before, {outcome.failed} failed, "
        f"{outcome.left} left; {outcome.seconds:.1f} s"
    )
    first = next(
        (row for row in found.rows if row.result is not None and row.result.status == "failed"), None
    )
    if first is not None and first.result is not None:
        say(f"first error: {first.result.error}; results.csv has all, points/ the tracebacks")
    if not outcome.whole or first is not None:
        raise typer.Exit(1)
