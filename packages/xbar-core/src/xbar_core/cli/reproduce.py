"""`xbar reproduce`: the studies of the paper's evaluation, and the pages that show them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, cast

import typer

from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.cli._files import check_folder
from xbar_core.cli._options import require_plots
from xbar_core.cli._sweep_screen import screen
from xbar_core.cli._terminal import say, table
from xbar_core.errors import ConfigError
from xbar_core.lab.studies import (
    Report,
    Scale,
    Study,
    check_page,
    find_study,
    run_study,
    study_names,
    write_pages,
)
from xbar_core.lab.studies.choosing import NothingToRun, changed, only_value, selected
from xbar_core.lab.studies.frame import SCALES
from xbar_core.lab.sweep import Field, parse_field
from xbar_core.lab.trainer import check_network, trainer_factory

_ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reproduce")(reproduce)


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Studies, or all; without, they are listed."),
    ] = None,
    scale: Annotated[
        str, typer.Option(help="smoke (seconds, a check), small (minutes on 2 cores), paper (GPU and data).")
    ] = "small",
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Results, in FOLDER/NAME-SCALE; a rerun goes on there.")
    ] = Path("runs/studies"),
    page: Annotated[
        Path | None,
        typer.Option(metavar="FILE.md", help="Write a page over all studies in --out."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, ...")] = "cpu",
    framework: Annotated[str, typer.Option(help="Adapter to train with.")] = "torch",
    data: Annotated[
        Path | None, typer.Option(help="Folder of data files; default $XBAR_DATA, else ./data.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; default: as many as cores. 0: this one.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A running Dask scheduler: tcp://host:8786.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Train otherwise: epochs=10, limit=5000; repeatable."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=VALUES", help="Compute these points only: seed=0; repeatable."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Stop each study after this time; it is reported as cut short.")
    ] = None,
) -> None:
    """Compute figures and tables of the TxSim paper again, with a verdict on each claim."""
    check_choice("scale", scale, SCALES)
    chosen = list(study_names()) if names == [_ALL] else list(names or [])
    if not chosen and page is None:
        _list()
        return
    studies = [find_study(name) for name in chosen]
    changes = [parse_field(text) for text in set_ or ()]
    labels = [parse_field(text) for text in only or ()]
    if workers is not None:
        check_integer("workers", workers, minimum=0)
    if minutes is not None:
        check_number("minutes", minutes, minimum=0.0, open_minimum=True)
    if studies:
        _check_points(studies, scale, changes, labels, framework)
    check_folder("out", out)
    if page is not None:
        check_page(page)
    require_plots()
    whole = True
    for study in studies:
        say(f"{study.title} ({study.name}, scale {scale})")
        try:
            with screen(study.name) as watch:
                report, outcome = run_study(
                    study,
                    scale,
                    out / f"{study.name}-{scale}",
                    workers=workers,
                    scheduler=scheduler,
                    limit=None if minutes is None else 60 * minutes,
                    device=device,
                    data_folder=None if data is None else str(data),
                    framework=framework,
                    changes=changes,
                    only=labels,
                    command=_command(study.name, scale, device, framework, set_ or [], only or []),
                    watch=watch,
                )
        except NothingToRun as error:
            if len(studies) == 1:
                raise
            say(f"{study.name}: not run: {error}")  # such as a data set that is not here
            whole = False
            continue
        _show(report)
        say(f"wrote {out / f'{study.name}-{scale}'} in {outcome.seconds:.0f} s")
        whole = whole and not report.cut
    if page is not None:
        _pages(out, scale, page)
    if not whole:
        raise typer.Exit(1)


def _check_points(
    studies: list[Study], scale: str, changes: list[Field], only: list[Field], framework: str
) -> None:
    """Raise for what is wrong in every study: a change, a label that no point has, the framework."""
    lacking: list[NothingToRun] = []
    trains = False
    for study in studies:
        points = [changed(point, changes) for point in study.points(cast(Scale, scale))]
        trains = trains or any(point.setup.recipe is not None for point in points)
        try:
            selected(points, only)
        except NothingToRun as error:
            lacking.append(error)
    if len(lacking) == len(studies):
        raise lacking[0]
    if trains:
        trainer_factory(framework)
    for field in changes:
        if field.name == "network":
            check_network(framework, only_value(field))


def _command(name: str, scale: str, device: str, framework: str, changes: list[str], only: list[str]) -> str:
    words = ["xbar", "reproduce", name, "--scale", scale]
    words += [] if device == "cpu" else ["--device", device]
    words += [] if framework == "torch" else ["--framework", framework]
    for option, texts in (("--set", changes), ("--only", only)):
        words += [word for text in texts for word in (option, text)]
    return shlex.join(words)


def _list() -> None:
    rows = [(name, find_study(name).title) for name in study_names()]
    table(
        "Studies", [("name", "left"), ("what", "left")], rows, "xbar reproduce NAME --scale small runs one."
    )


def _show(report: Report) -> None:
    if report.cut:
        say(
            f"cut short: {report.computed} of {report.planned} points have a result, {report.failed} failed; "
            "the same command goes on"
        )
    rows = [(finding.claim, finding.found, finding.verdict) for finding in report.findings]
    columns = (("claim", "left"), ("found", "left"), ("verdict", "left"))
    table(report.title, columns, rows, report.conditions)


def _pages(out: Path, scale: str, page: Path) -> None:
    # All scales that are results, and the one that was asked for.
    shown = [each for each in SCALES if each == scale or each != "smoke"]
    folders = [out / f"{name}-{each}" for name in study_names() for each in shown]
    present = [folder for folder in folders if (folder / "study.json").is_file()]
    if not any(folder.name.endswith(f"-{scale}") for folder in present):
        raise ConfigError(f"page: {str(out)!r} holds no study of scale {scale!r}; run one first")
    for path in write_pages(present, page):
        say(f"wrote {path}")
