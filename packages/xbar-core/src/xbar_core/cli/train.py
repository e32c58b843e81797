"""`xbar train`: a network trained on a chip, beside native training and other chips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xbar_core.cli._files import check_folder, written
from xbar_core.cli._options import Force
from xbar_core.cli._terminal import say, table
from xbar_core.config import Chip, load_chip
from xbar_core.errors import ConfigError
from xbar_core.lab.comparison import Comparison, Epoch, compare, curves
from xbar_core.lab.data import load_data
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import trainer_factory

NATIVE = "native"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the results; made if absent.")],
    network: Annotated[str, typer.Option(help="Network of the adapter.")] = "lenet5",
    dataset: Annotated[str, typer.Option(help="Data set: digits, mnist, cifar10, ...")] = "digits",
    preset: Annotated[str, typer.Option(help="Chip: a preset's name or a chip file.")] = "txsim-8bit",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change the chip; repeatable.")
    ] = None,
    compare_with: Annotated[
        str, typer.Option("--compare", help="Chips to train beside it, and 'native': a comma list.")
    ] = "native,ideal",
    epochs: Annotated[int, typer.Option(help="Passes over the training samples.")] = 20,
    batch: Annotated[int, typer.Option(help="Samples in a batch.")] = 128,
    rate: Annotated[float, typer.Option("--lr", help="Learning rate, weight units.")] = 0.05,
    momentum: Annotated[float, typer.Option(help="Momentum.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of first weights and of the samples' order.")] = 0,
    data: Annotated[
        Path | None, typer.Option(help="Folder of data files; default $XBAR_DATA, else ./data.")
    ] = None,
    framework: Annotated[str, typer.Option(help="Adapter to train with.")] = "torch",
    force: Force = False,
) -> None:
    """Train a network on a chip and compare it with native training and with other chips."""
    recipe = Recipe(network, epochs, batch, rate, momentum, seed=seed)
    chips = _chips(preset, set_ or [], compare_with)
    check_folder("out", out)
    if out.exists() and any(out.iterdir()) and not force:
        raise ConfigError(f"out: {str(out)!r} holds files already; choose another folder, or add --force")
    factory = trainer_factory(framework)
    samples = load_data(dataset, data)
    if samples.note:
        say(samples.note)
    out.mkdir(parents=True, exist_ok=True)
    say(
        f"{network} on {samples.name}: {len(samples.train_x)} training and {len(samples.test_x)} test "
        f"samples, {epochs} epochs of batches of {batch}"
    )
    result = compare(factory, samples, recipe, chips, out, _line)
    with written("out", out / "curves.png") as part:
        curves(result).savefig(part)
    _show(result)
    for name in ("metrics.csv", "curves.png", "recipe.json", *chips):
        say(f"wrote {out / name}")


def _chips(preset: str, changes: list[str], compare_with: str) -> dict[str, Chip | None]:
    """Return the variants by name, native first, the chip in question last."""
    chips: dict[str, Chip | None] = {}
    for name in filter(None, (part.strip() for part in compare_with.split(","))):
        chips[name] = None if name == NATIVE else load_chip(name)
    chip = load_chip(preset, changes)
    name = chip.name if not changes else f"{chip.name}-changed"
    if name in chips and chips[name] != chip:
        raise ConfigError(f"preset: two different chips are called {name!r}; give one of them another name")
    chips[name] = chip
    return chips


def _line(epoch: Epoch) -> None:
    say(
        f"{epoch.variant:>14s}  epoch {epoch.epoch:3d}  loss {epoch.loss:8.4f}  "
        f"accuracy {epoch.accuracy:7.2%}  {epoch.seconds:6.2f} s"
    )


def _show(result: Comparison) -> None:
    """Print the comparison."""
    native = result.of(NATIVE)
    base = sum(e.seconds for e in native)
    rows = []
    for name in result.variants:
        epochs = result.of(name)
        seconds = sum(e.seconds for e in epochs)
        ratio = f"{seconds / base:.2f} x" if native else "-"
        lost = f"{100 * (native[-1].accuracy - epochs[-1].accuracy):+.2f}" if native else "-"
        cells = (f"{epochs[-1].accuracy:.2%}", lost, f"{epochs[-1].loss:.4f}", f"{seconds:.1f} s", ratio)
        rows.append((name, *cells, str(sum(e.saturated for e in epochs))))
    headings = ("accuracy", "lost", "loss", "training", "ratio", "saturated")
    table(
        f"{result.recipe.network} on {result.data} after {result.recipe.epochs} epochs",
        [("chip", "left"), *((heading, "right") for heading in headings)],
        rows,
        "accuracy: on test samples. lost: against native training, percentage points. ratio: of training "
        "times. saturated: writes that asked a device to go beyond its range.",
    )
