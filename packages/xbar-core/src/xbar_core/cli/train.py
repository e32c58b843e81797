"""`xbar train`: a network trained on a chip, beside native training and other chips."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from xbar_core._checks import nearest
from xbar_core.cli._dry_run import show_dry_run
from xbar_core.cli._files import check_folder
from xbar_core.cli._options import Force, command_line
from xbar_core.cli._terminal import say
from xbar_core.cli._train_screen import TrainScreen, show_result
from xbar_core.config import Chip, load_chip, preset_names
from xbar_core.errors import ConfigError, ConvergenceError
from xbar_core.lab.data import DataSet, default_augmentation
from xbar_core.lab.data.registry import is_folder
from xbar_core.lab.dry_run import dry_run as estimate
from xbar_core.lab.importing import OwnCodeError
from xbar_core.lab.processes import place
from xbar_core.lab.recipe import Recipe, check_optimizer
from xbar_core.lab.run import Diverged, Interrupted, Options, RunResult, checked_batches, resume, run
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.run_names import CURVES, METRICS, NATIVE, RUN
from xbar_core.lab.run_spec import RunSpec
from xbar_core.lab.trainer import check_network, trainer_factory

_ECHO = 1.0  # seconds in which a signal to several processes comes again
_STOPPED = (ConvergenceError, OwnCodeError, OSError)  # what a run can go on after, once it is mended
_WITH_RESUME = ("resume_", "data", "tensorboard", "checkpoint_minutes")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train")(train)


def train(
    context: typer.Context,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for the results; made if absent.")
    ] = None,
    resume_: Annotated[
        Path | None,
        typer.Option(
            "--resume", metavar="FOLDER", help="Go on with the run in this folder, with its settings."
        ),
    ] = None,
    network: Annotated[
        str, typer.Option(help="Network of the adapter, or your own as package.module:function.")
    ] = "lenet5",
    dataset: Annotated[
        str,
        typer.Option(help="Data set (digits, mnist, ...), ./folder of images, or package.module:function."),
    ] = "digits",
    preset: Annotated[
        str, typer.Option(help="Chip: a preset's name or a chip file; or native.")
    ] = "txsim-8bit",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change the chip; repeatable.")
    ] = None,
    compare_with: Annotated[
        str, typer.Option("--compare", help="Chips to train beside it, and 'native': a comma list.")
    ] = "native,ideal",
    epochs: Annotated[int, typer.Option(help="Passes over the training samples.")] = 20,
    batch: Annotated[int, typer.Option(help="Samples in a batch, of all processes together.")] = 128,
    rate: Annotated[float, typer.Option("--lr", help="Learning rate, weight units.")] = 0.05,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: cosine, constant or step.")] = "cosine",
    warmup: Annotated[int, typer.Option(help="Epochs over which the rate rises.")] = 0,
    optimizer: Annotated[
        str, typer.Option(help="sgd, adam or adamw; on a chip the latter need backward.mode=exact.")
    ] = "sgd",
    momentum: Annotated[float, typer.Option(help="Momentum of sgd.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="Weight decay, weight units.")] = 0.0,
    clip: Annotated[
        float | None, typer.Option(help="Largest norm of the gradient; unlimited unless given.")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="none or crop-flip; crop-flip for CIFAR and Tiny-ImageNet unless given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of first weights and of the samples' order.")] = 0,
    limit: Annotated[
        int | None, typer.Option(help="Most training and test samples to use, spread over the data.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Height and width that a folder's images are scaled to.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of data files; default $XBAR_DATA, else ./data.")
    ] = None,
    framework: Annotated[str, typer.Option(help="Adapter to train with.")] = "torch",
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write event files, too.")] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Time between checkpoints within an epoch.")
    ] = 5.0,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Print arrays, memory and seconds per step; train nothing.")
    ] = False,
    force: Force = False,
) -> None:
    """Train a network on a chip and compare it with native training and with other chips."""
    options = Options(minutes=checkpoint_minutes, tensorboard=tensorboard)
    if resume_ is not None:
        _only_settings_of_the_run(context)
        _introduce_again(resume_)
        elsewhere = None if data is None else str(data.absolute())
        _run(resume_, options, lambda given: resume(resume_, given, data_folder=elsewhere))
        return
    recipe = Recipe(
        network,
        epochs,
        batch,
        rate,
        momentum,
        cast(Any, optimizer),
        weight_decay,
        cast(Any, schedule),
        warmup,
        clip,
        default_augmentation(dataset) if augment is None else augment,
        seed,
        device,
        cast(Any, dtype),
    )
    chips = _chips(preset, set_ or [], compare_with)
    check_network(framework, network)
    _check_optimizer(recipe, chips, preset)
    if is_folder(dataset):
        dataset = str(Path(dataset).expanduser().absolute())
    spec = RunSpec(recipe, dataset, chips, framework, limit, _data_folder(data), image_size)
    if dry:
        _dry_run(spec)
        return
    if out is None:
        raise ConfigError("out: missing; name a folder for the results (--out runs/first), or --resume one")
    _check_out(out, force)
    samples = spec.load_data(_tell)
    _introduce(spec, samples)
    _run(
        out,
        options,
        lambda given: run(spec, out, given, command=command_line(context), data=samples),
        replaced=_stamp(out),
    )


def _run(
    path: Path, options: Options, start: Callable[[Options], RunResult], *, replaced: int | None = None
) -> None:
    """Train with everything on the screen; Ctrl-C stops after the step at hand.

    `replaced` is the stamp of a run that the new one takes the place of: nothing to go on with.
    """
    first = _is_first()
    with TrainScreen(quiet=not first) as screen, _stop_asked(quiet=not first) as asked:
        try:
            result = start(
                Options(screen, asked if first else lambda: False, options.minutes, options.tensorboard)
            )
        except (Interrupted, KeyboardInterrupt):
            if _stamp(path) in (None, replaced):
                raise KeyboardInterrupt from None
            raise Interrupted(f"stopped; to go on: {_resume_command(path)}") from None
        except (RuntimeError, OSError) as error:
            if not first and asked() and not isinstance(error, ConvergenceError | OSError):
                sys.exit(130)  # the first process has stopped and is gone
            if first and _stamp(path) not in (None, replaced) and isinstance(error, _STOPPED):
                say(f"to go on from the last checkpoint: {_resume_command(path)}")
            raise
    if not first:
        return
    show_result(result, NATIVE)
    for name in dict.fromkeys((METRICS, CURVES, RUN, *result.comparison.variants, *result.diverged)):
        if (path / name).exists():  # a variant that diverges in its first epoch leaves no log
            say(f"wrote {path / name}")
    if result.diverged:
        raise Diverged("; ".join(result.diverged.values()))


def _stamp(path: Path) -> int | None:
    """Return what tells a run in a folder from the one after it; None where there is none."""
    return (path / RUN).stat().st_mtime_ns if (path / RUN).exists() else None


def _dry_run(spec: RunSpec) -> None:
    samples = spec.load_data(_tell)
    if samples.note:
        say(samples.note)
    checked_batches(spec, samples)
    runs = estimate(trainer_factory(spec.framework), spec.recipe, samples, spec.variants)
    show_dry_run(runs, spec.recipe, samples)


def _data_folder(given: Path | None) -> str | None:
    """Return where data are, for going on from another folder and environment; None if nothing is there."""
    if given is not None:
        return str(given.absolute())
    usual = Path(os.environ.get("XBAR_DATA") or "data").expanduser()
    return str(usual.absolute()) if usual.is_dir() else None


def _check_optimizer(recipe: Recipe, chips: Mapping[str, Chip | None], preset: str) -> None:
    """Refuse chips that the optimizer cannot train, each with what can be done about it."""
    own = NATIVE if preset == NATIVE else list(chips)[-1]
    check_optimizer(recipe, chips[own])
    for name, chip in chips.items():
        if name != own and chip is not None and chip.backward.mode != "exact" and recipe.optimizer != "sgd":
            raise ConfigError(
                f"compare: {recipe.optimizer!r} cannot train {name!r}, whose backward.mode is "
                f"{chip.backward.mode!r} (--set changes the chip of --preset only); leave it out: "
                "--compare native"
            )


def _introduce(spec: RunSpec, samples: DataSet) -> None:
    if not _is_first():
        return
    if samples.note:
        say(samples.note)
    say(
        f"{spec.recipe.network} on {samples.name}: {len(samples.train_x)} training and {len(samples.test_x)} "
        f"test samples, {_epochs(spec)} of batches of {spec.recipe.batch}"
    )


def _introduce_again(path: Path) -> None:
    spec = RunFolder.open(path).spec
    if _is_first():
        say(f"going on with {path}: {spec.recipe.network} on {spec.dataset}, {_epochs(spec)}")


def _epochs(spec: RunSpec) -> str:
    return f"{spec.recipe.epochs} epoch{'s' if spec.recipe.epochs > 1 else ''}"


def _check_out(out: Path, force: bool) -> None:
    """Refuse a folder that holds something already; the first process asks for all of them."""
    check_folder("out", out)
    if not force and _is_first() and out.exists() and any(out.iterdir()):
        more = f", --resume {out} to go on with its run" if (out / RUN).exists() else ""
        raise ConfigError(
            f"out: {str(out)!r} holds files already; choose another folder{more}, or add --force"
        )


def _only_settings_of_the_run(context: typer.Context) -> None:
    """Refuse options that a resumed run has settled."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in _WITH_RESUME:
            parameter = next(each for each in context.command.params if each.name == name)
            raise ConfigError(
                f"resume: a run goes on with its own settings; leave out {parameter.opts[0]}, or start "
                "another run with --out"
            )


def _resume_command(path: Path) -> str:
    processes = RunFolder.open(path).facts.get("processes", 1)
    program = "xbar" if processes == 1 else f"torchrun --nproc-per-node {processes} -m xbar_core.cli"
    return f"{program} train --resume {shlex.quote(str(path))}"


def _tell(text: str) -> None:
    if _is_first():
        say(text)


def _is_first() -> bool:
    """Tell whether this is the first, or only, process of the run."""
    return place()[0] == 0


@contextlib.contextmanager
def _stop_asked(*, quiet: bool) -> Iterator[Callable[[], bool]]:
    """Yield what tells whether somebody asked to stop: once politely, the second time at once.

    Of several processes the first one decides; the others wait for it. They get each signal twice, from
    the terminal and from ``torchrun``.
    """
    asked = threading.Event()
    last, echo = float("-inf"), _ECHO if place()[1] > 1 else 0.0
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def note(number: int, frame: object) -> None:
        nonlocal last
        repeated, last = time.monotonic() - last < echo, time.monotonic()
        if asked.is_set():
            if repeated:
                return
            raise KeyboardInterrupt
        asked.set()
        if not quiet:
            print("xbar: stopping after this step; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _chips(preset: str, changes: list[str], compare_with: str) -> dict[str, Chip | None]:
    """Return the variants by name: those to compare with as given, the chip in question last.

    Native training in question comes first instead.
    """
    chips: dict[str, Chip | None] = {}
    for given in filter(None, (part.strip() for part in compare_with.split(","))):
        compared = None if given == NATIVE else _chip("compare", given)
        _add(chips, NATIVE if compared is None else compared.name, compared)
    if preset == NATIVE:
        if changes:
            raise ConfigError(
                f"set: {changes[0]!r}, but native training has no chip to change; name one with --preset"
            )
        return {NATIVE: None} | {name: chips[name] for name in chips if name != NATIVE}
    chip = _chip("preset", preset, changes)
    _add(chips, chip.name if not changes else f"{chip.name}-changed", chip)
    return chips


def _chip(field: str, given: str, changes: Sequence[str] = ()) -> Chip:
    """Return a chip by the name of a preset or by its file; `field` is the option it was given for."""
    path = Path(given)
    if not path.suffix and not path.exists() and given not in preset_names():
        known = (NATIVE, *preset_names())
        raise ConfigError(
            f"{field}: unknown name {given!r}{nearest(given, known)}; use {', '.join(known)}, or a chip file "
            "(.toml or .json)"
        )
    return load_chip(given, changes)


def _add(chips: dict[str, Chip | None], name: str, chip: Chip | None) -> None:
    """Put a variant behind the others."""
    if name in chips and chips.pop(name) != chip:
        raise ConfigError(f"preset: two different chips are called {name!r}; give one of them another name")
    chips[name] = chip
