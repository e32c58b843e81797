"""`xbar evaluate`: a trained network on new chips, from the day they are programmed to years later."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbar_core._checks import check_integer
from xbar_core.cli._files import check_folder, written
from xbar_core.cli._options import Force, require_plots
from xbar_core.cli._terminal import say, table, working
from xbar_core.config import load_chip
from xbar_core.config.loading import apply_overrides
from xbar_core.errors import ConfigError
from xbar_core.lab.ages import age_text, parse_ages
from xbar_core.lab.evaluation import Evaluation, Reading, deployed, evaluate_chips, evaluate_trained
from xbar_core.lab.trained import find_trained

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder that xbar train wrote, or a checkpoint in it.")
]
Variant = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which of the run's chips, or native; default the last.")
]
Which = Annotated[str, typer.Option("--checkpoint", metavar="WHICH", help="last or best.")]
Data = Annotated[Path | None, typer.Option(help="Folder of data files, if not the run's.")]
Device = Annotated[str | None, typer.Option(help="Where to compute, if not as the run: cpu, cuda, ...")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    run: Run,
    chips: Annotated[
        int | None,
        typer.Option(help="Program so many new chips; without it the trained chip itself is read."),
    ] = None,
    time: Annotated[
        str, typer.Option(metavar="TIMES", help="Times since programming: 1s,1d,1y (s, min, h, d, y).")
    ] = "",
    variant: Variant = None,
    preset: Annotated[
        str | None, typer.Option(help="Program another chip: a preset's name or a chip file.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change the chip; repeatable.")
    ] = None,
    checkpoint: Which = "last",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the results; default in RUN.")
    ] = None,
    data: Data = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Label the test samples with a trained network, on one or many chips, new and aged.

    New chips differ in variation, faults, drift and errors of programming; each is programmed with the
    trained weights, calibrated, and read at every time.
    """
    ages = parse_ages(time) if time else ()
    if chips is not None:
        check_integer("chips", chips, minimum=1)
    trained = find_trained(
        run, variant, checkpoint=checkpoint, data_folder=None if data is None else str(data), device=device
    )
    fresh = chips is not None or preset is not None or bool(set_)
    chip = load_chip(preset) if preset is not None else trained.own_chip("name one to program with --preset")
    if fresh:
        chip = apply_overrides(deployed(chip), set_ or [])
    name = chip.name.replace("/", "-")
    folder = new_folder(
        out or trained.run / f"evaluation-{name}", ("evaluation.csv", "evaluation.png"), force=force
    )
    require_plots()
    for note in trained.notes:
        say(f"note: {note}")
    samples = trained.load_data(say)
    if samples.note:
        say(f"note: {samples.note}")
    trainer = trained.trainer(samples)
    say(
        f"{trained.spec.recipe.network} trained on {trained.variant} for {trained.epochs} epochs; "
        f"{len(samples.test_x)} test samples of {samples.name}"
    )
    if fresh:
        found = evaluate_chips(
            trained.factory,
            trained.spec.recipe,
            samples,
            chip,
            trainer.weights(),
            chips=chips or 1,
            ages=ages,
            report=_reading,
        )
    else:
        with working("evaluating the trained chip"):
            found = evaluate_trained(trainer, trained.spec.recipe, samples, chip, ages=ages)
    show(found, fresh=fresh)
    folder.mkdir(parents=True, exist_ok=True)
    with written("out", folder / "evaluation.csv") as part:
        found.write_csv(part)
    with written("out", folder / "evaluation.png") as part:
        found.figure().savefig(part)
    for file in ("evaluation.csv", "evaluation.png"):
        say(f"wrote {folder / file}")


def new_folder(folder: Path, names: tuple[str, ...], *, force: bool) -> Path:
    """Return a folder for results, after asking that nothing in it will be overwritten unasked."""
    check_folder("out", folder)
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        raise ConfigError(
            f"out: {str(folder / there[0])!r} exists and is not overwritten; choose another --out, or add "
            "--force"
        )
    return folder


def show(found: Evaluation, *, fresh: bool) -> None:
    """Print a line for each age, and what the reader must know."""
    ages = found.summary()
    rows = [
        (
            age_text(age.age) if found.drifts else "any",
            str(age.chips),
            f"{age.mean:.2%}",
            f"{age.low:.2%} .. {age.high:.2%}",
            f"{age.worst:.2%}",
            f"{age.best:.2%}",
        )
        for age in ages
    ]
    of = f"{ages[0].chips} new chip(s)" if fresh else "the trained chip"
    heads = ("age", "chips", "accuracy", "95 % confidence", "worst", "best")
    about = "over chips" if ages[0].chips > 1 else "over test samples"
    digital = "" if found.digital is None else f" The same weights without a chip: {found.digital:.2%}."
    table(
        f"{found.chip.name}: {of}",
        [(head, "right") for head in heads],
        rows,
        f"Confidence of the mean {about}.{digital}",
    )
    for note in found.notes:
        say(f"note: {note}")


def _reading(reading: Reading) -> None:
    say(
        f"chip {reading.chip + 1} (seed {reading.seed}), {age_text(reading.age):>8s}: accuracy "
        f"{reading.accuracy:7.2%}, loss {reading.loss:.4f}"
    )
