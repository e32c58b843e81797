"""A run: every variant of a network trained one after the other, kept in a folder, to be gone on with.

`run` starts one, `resume` goes on with one that was stopped in any way. `Training` alone, without a folder,
is what a program uses that keeps its results itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xbar_core._checks import check_number
from xbar_core.errors import ConfigError
from xbar_core.lab.checkpoint import Slots
from xbar_core.lab.comparison import Comparison, curves, to_csv
from xbar_core.lab.data import Batches, DataSet, augmentation
from xbar_core.lab.run_folder import CURVES, METRICS, RunFolder
from xbar_core.lab.run_spec import RunSpec, fingerprint, surroundings
from xbar_core.lab.tensorboard import FOLDER, write_board
from xbar_core.lab.trainer import Trainer, trainer_factory
from xbar_core.lab.training import Diverged, Event, Interrupted, Note, Training

__all__ = ["Diverged", "Interrupted", "Options", "RunResult", "Training", "checked_batches", "resume", "run"]

_FACTS = 65536  # bytes set aside for the facts of a checkpoint, and for every epoch of its log
_ROW = 1024
_DRAWING = 20  # curves are drawn anew when this many times the time of the last drawing has passed


@dataclass
class RunResult:
    """What a run found.

    Attributes
    ----------
    comparison : Comparison
        The log.
    diverged : dict of str to str
        Variants that turned to NaN, and where that began.
    """

    comparison: Comparison
    diverged: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """How a run reports and keeps what it finds; nothing here changes a number.

    Parameters
    ----------
    report : callable
        Gets every `Event`.
    stop : callable
        Asked after each step; True ends the run with `Interrupted`.
    minutes : float
        Time between checkpoints within an epoch.
    tensorboard : bool
        Whether to write event files, too.
    """

    report: Callable[[Event], None] = lambda event: None
    stop: Callable[[], bool] = lambda: False
    minutes: float = 5.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_number("checkpoint minutes", self.minutes, minimum=0.0)


def run(
    spec: RunSpec,
    path: Path,
    options: Options = Options(),
    *,
    command: Sequence[str] = (),
    data: DataSet | None = None,
) -> RunResult:
    """Start a run in a folder and train every variant to its end.

    Under ``torchrun`` each process calls this; the first one writes.

    Parameters
    ----------
    spec : RunSpec
        What to train.
    path : Path
        The folder; files of an earlier run in it are replaced.
    options : Options
        How to report and keep.
    command : sequence of str
        What was typed, for ``run.json``.
    data : DataSet or None
        The samples, where the caller has loaded them already.

    Raises
    ------
    ConfigError, ShapeError
        Something cannot work; nothing was written.
    Interrupted
        `Options.stop` said so; `resume` goes on.
    OSError
        A checkpoint could not be written at the end.
    """
    samples = spec.load_data() if data is None else data
    _check(spec, samples)
    facts = {"data": fingerprint(samples), "processes": _place()[1]}
    if _place()[0]:
        folder = RunFolder(path, spec, facts)
    else:
        folder = RunFolder.create(path, spec, command=command, more=facts)
    return _train(folder, samples, options, fresh=True)


def resume(
    path: Path,
    options: Options = Options(),
    *,
    data_folder: str | None = None,
) -> RunResult:
    """Go on with a run from its newest whole checkpoints.

    On the CPU, with the same versions and number of threads, everything comes out bit by bit as it would
    have without the stop.

    Parameters
    ----------
    path : Path
        Folder of the run.
    options : Options
        How to report and keep.
    data_folder : str or None
        Where data sets are, if no longer where they were.

    Raises
    ------
    ConfigError, ShapeError
        The folder holds no run, the data are others, or a checkpoint does not fit.
    """
    folder = RunFolder.open(path)
    if data_folder is not None:
        folder.spec = folder.spec.with_data(data_folder)
    samples = folder.spec.load_data()
    for name, found in fingerprint(samples).items():
        if folder.facts["data"][name] != found:
            raise ConfigError(
                f"data: {samples.name} has changed since the run began ({name}: {folder.facts['data'][name]} "
                f"then, {found} now); give the folder with the same files (--data)"
            )
    processes = _place()[1]
    if folder.facts["processes"] != processes:
        raise ConfigError(
            f"processes: {processes}, but the run began with {folder.facts['processes']}; start as many"
        )
    _check(folder.spec, samples)
    for text in _differences(folder):
        options.report(Note("", text))
    return _train(folder, samples, options, fresh=False)


def checked_batches(spec: RunSpec, data: DataSet) -> Batches:
    """Return this process' batches, the first one tried.

    Raises
    ------
    ConfigError, ShapeError
        The batch does not fit the data or the processes, or the augmentation not the samples.
    """
    recipe, (rank, ranks) = spec.recipe, _place()
    batches = Batches(data, recipe.batch, recipe.seed, augmentation(recipe.augment), rank, ranks)
    for size in (recipe.batch, len(data.train_x) % recipe.batch):
        if size % ranks:
            raise ConfigError(
                f"batch: {recipe.batch} makes a batch of {size} of {len(data.train_x)} samples, which "
                f"{ranks} processes cannot share evenly; choose another size or --limit"
            )
    next(batches.epoch(0))
    return batches


def _check(spec: RunSpec, data: DataSet) -> None:
    """Build every variant once, so that what cannot work ends here."""
    checked_batches(spec, data)
    factory = trainer_factory(spec.framework)
    for chip in spec.variants.values():
        factory(spec.recipe, data, chip)


def _place() -> tuple[int, int]:
    """Return rank and number of the processes that ``torchrun`` started."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def _differences(folder: RunFolder) -> list[str]:
    """Return what has changed since the run began that may change its last bits."""
    now = surroundings(())
    threads = folder.facts["machine"]["threads"], now["machine"]["threads"]
    found = [] if threads[0] == threads[1] else [f"{threads[1]} threads instead of {threads[0]}"]
    for name, version in folder.facts["versions"].items():
        present = now["versions"].get(name, "none")
        if present != version:
            found.append(f"{name} {present} instead of {version}")
    text = ", ".join(found)
    return [f"resumed with {text}: results may differ from an uninterrupted run's"] if found else []


def _train(folder: RunFolder, data: DataSet, options: Options, *, fresh: bool) -> RunResult:
    spec, first = folder.spec, _place()[0] == 0
    options = options if first else Options()
    result = RunResult(Comparison(data.name, spec.recipe))
    batches, factory = checked_batches(spec, data), trainer_factory(spec.framework)
    for name, chip in spec.variants.items():
        keeper = _Keeper(folder, folder.slots(name), result.comparison, options)
        trainer = factory(spec.recipe, data, chip)
        training = Training(
            name, trainer, data, spec.recipe, batches, report=options.report, stop=options.stop
        )
        if not fresh:
            keeper.load(training, trainer, first=first)
        result.comparison.epochs += training.log
        if training.finished:
            if name == list(spec.variants)[-1]:  # it may have ended before its log was written
                keeper.settle()
            continue
        try:
            training.run(keeper if first else None)
        except Diverged as error:
            result.diverged[name] = str(error)
            options.report(Note(name, str(error)))
        else:
            keeper.finish(training)
        finally:
            keeper.settle()
    return result


class _Keeper:
    """Keeps one variant's checkpoints, and the log of all of them."""

    def __init__(
        self,
        folder: RunFolder,
        slots: Slots,
        comparison: Comparison,
        options: Options,
    ) -> None:
        self._folder, self._slots, self._comparison = folder, slots, comparison
        self._options = options
        self._reserved = False
        self._unwritten: OSError | None = None
        self._kept_at = time.monotonic()
        self._drawn_at, self._drawing, self._drawn = float("-inf"), 0.0, 0

    def load(self, training: Training, trainer: Trainer, *, first: bool) -> None:
        """Put a training where its newest whole checkpoint stands."""
        found, wrong = self._slots.read()
        for text in wrong:
            instead = "starting anew" if found is None else "using the one before it"
            self._options.report(Note(training.name, f"{text}; {instead}"))
        if found is not None:
            trainer.load(found.state)
            training.load(found.facts)
        if wrong and first:
            self._slots.drop_last()

    def step_done(self, training: Training, *, stopping: bool) -> None:
        """Keep the state if it is time to."""
        if not self._reserved:
            self._reserve(training)
        elif not stopping and time.monotonic() - self._kept_at < 60.0 * self._options.minutes:
            return
        self._keep(training, best=False)

    def epoch_done(self, training: Training) -> None:
        """Keep state, log, curves."""
        self._comparison.epochs.append(training.log[-1])
        self._keep(training, best=training.improved)
        self._write_log()
        if time.monotonic() - self._drawn_at > _DRAWING * self._drawing:
            self._draw()

    def finish(self, training: Training) -> None:
        """Make sure that the end is kept, and give back what was set aside."""
        if self._unwritten is not None:
            self._slots.write(training.trainer.state(), training.facts(), best=training.improved)
        self._slots.free()

    def settle(self) -> None:
        """Bring log and curves up to date."""
        if _place()[0] == 0 and self._comparison.epochs:
            self._write_log()
            if self._drawn != len(self._comparison.epochs):
                self._draw()

    def _write_log(self) -> None:
        epochs = self._comparison.epochs
        self._try(METRICS, lambda: self._folder.write_metrics(to_csv(epochs)))
        if self._options.tensorboard:
            self._try(FOLDER, lambda: write_board(self._folder.path, epochs))

    def _draw(self) -> None:
        """Draw the curves, and note how long that took: it is not to take a good part of the time."""
        start = time.monotonic()
        self._try(CURVES, lambda: self._folder.write_curves(curves(self._comparison)))
        self._drawn_at, self._drawn = time.monotonic(), len(self._comparison.epochs)
        self._drawing = self._drawn_at - start

    def _reserve(self, training: Training) -> None:
        """Set the blocks of all checkpoints aside: a disk that is too small is found at the first step."""
        room = _FACTS + _ROW * training.recipe.epochs
        try:
            self._slots.reserve(training.trainer.state(), training.facts(), room)
        except OSError as error:
            path = str(self._folder.path)
            raise OSError(error.errno, f"{error.strerror}: no room for checkpoints", path) from error
        self._reserved = True

    def _keep(self, training: Training, *, best: bool) -> None:
        try:
            self._slots.write(training.trainer.state(), training.facts(), best=best)
        except OSError as error:
            if self._unwritten is None:
                self._say(
                    training.name, f"checkpoint not written: {error.strerror or error}; the run goes on"
                )
            self._unwritten = error
        else:
            self._unwritten = None
        self._kept_at = time.monotonic()

    def _try(self, what: str, write: Callable[[], None]) -> None:
        """Write something that can be made again from a checkpoint."""
        try:
            write()
        except OSError as error:
            self._say("", f"{what} not written: {error.strerror or error}; the checkpoints hold the log")

    def _say(self, variant: str, text: str) -> None:
        self._options.report(Note(variant, text))
