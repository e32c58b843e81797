"""Keeps what a run finds: checkpoints, log, curves, event files."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xbar_core._checks import check_number
from xbar_core.errors import ConfigError
from xbar_core.lab.checkpoint import Slots
from xbar_core.lab.comparison import Comparison, curves, to_csv
from xbar_core.lab.processes import place
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.run_names import CURVES, METRICS
from xbar_core.lab.tensorboard import FOLDER, write_board
from xbar_core.lab.trainer import Trainer
from xbar_core.lab.training import Event, Note, Training

_FACTS = 65536  # bytes set aside for the facts of a checkpoint, and for every epoch of its log
_ROW = 1024
_DRAWING = 20  # curves are drawn anew when this many times the time of the last drawing has passed


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


class RunKeeper:
    """Keeps one variant's checkpoints, and the log of all of them.

    Parameters
    ----------
    folder : RunFolder
        Of the run.
    slots : Slots
        Checkpoints of the variant.
    comparison : Comparison
        Log of the run, which grows here.
    options : Options
        How to report and keep.
    """

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
            try:
                training.load(found.facts)
            except (KeyError, TypeError, ValueError) as error:
                raise ConfigError(
                    f"resume: the checkpoint of {training.name!r} was written by another version of xbar "
                    f"({type(error).__name__}: {error}); go on with that version, or train anew"
                ) from error
        if wrong and first:
            self._slots.drop_last()

    def step_done(self, training: Training, *, stopping: bool) -> None:
        """Keep the state if it is time to, and not NaN, which the next step ends with."""
        if not self._reserved:
            self._reserve(training)
        elif not stopping and time.monotonic() - self._kept_at < 60.0 * self._options.minutes:
            return
        if any(np.isnan(array).any() for array in training.trainer.weights().values()):
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

    def give_up(self) -> None:
        """Give back what was set aside for a training that ends early; what is kept stays."""
        self._slots.free()

    def settle(self) -> None:
        """Bring log and curves up to date."""
        if place()[0] == 0 and self._comparison.epochs:
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
