"""`xbar inspect`: what its chip does to each layer of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbar_core._checks import check_integer
from xbar_core.cli._files import written
from xbar_core.cli._options import Force, require_plots
from xbar_core.cli._terminal import say, working
from xbar_core.cli.evaluate import Data, Device, Run, Variant, Which, new_folder
from xbar_core.errors import ConfigError
from xbar_core.lab.ages import age_text, parse_ages
from xbar_core.lab.evaluation import watched_on
from xbar_core.lab.trained import find_trained


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("inspect")(inspect)


def inspect(
    run: Run,
    variant: Variant = None,
    checkpoint: Which = "last",
    time: Annotated[
        str, typer.Option(metavar="TIME", help="Time since programming: 1d (s, min, h, d, y).")
    ] = "",
    samples: Annotated[int, typer.Option(help="Test samples to send through the network.")] = 100,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the results; default in RUN.")
    ] = None,
    data: Data = None,
    device: Device = None,
    force: Force = False,
) -> None:
    """Show arrays, conductances, wires, clipping and the signal-to-noise ratio of every layer."""
    check_integer("samples", samples, minimum=1)
    ages = parse_ages(time) if time else (None,)
    if len(ages) > 1:
        raise ConfigError(f"time: {time!r} names several; inspect the network at one")
    trained = find_trained(
        run, variant, checkpoint=checkpoint, data_folder=None if data is None else str(data), device=device
    )
    chip = trained.own_chip("there is nothing to inspect")
    folder = new_folder(
        out or trained.run / f"inspection-{trained.variant}", ("layers.csv", "layers.png"), force=force
    )
    require_plots()
    for note in trained.notes:
        say(f"note: {note}")
    test = trained.load_data(say)
    trainer = trained.trainer(test)
    trainer.age(ages[0])
    x = test.normalised(test.test_x[:samples])
    with working("inspecting"), watched_on(chip, trained.spec.recipe.network, "the inspection"):
        found = trainer.inspect(x)
    aged = "" if ages[0] is None else f", {age_text(ages[0])} after programming"
    say(f"{trained.spec.recipe.network} on {trained.variant}, {len(x)} test samples of {test.name}{aged}")
    say(str(found))
    folder.mkdir(parents=True, exist_ok=True)
    with written("out", folder / "layers.csv") as part:
        found.write_csv(part)
    with written("out", folder / "layers.png") as part:
        found.figure().savefig(part)
    for name in ("layers.csv", "layers.png"):
        say(f"wrote {folder / name}")
