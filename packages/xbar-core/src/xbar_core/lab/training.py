"""The loop: one network trained from wherever it stands to its last epoch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

from xbar_core.lab.comparison import Epoch
from xbar_core.lab.data import Batches, DataSet, evaluation_batches
from xbar_core.lab.data.batches import ahead
from xbar_core.lab.importing import own_code
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.trainer import Arrays, Trainer
from xbar_core.lab.watch import Watch, standing_still, suspect

EVALUATED = 500
"""Samples that are evaluated at a time."""
SLOWER = "lower the learning rate, or clip the gradient"
"""What helps against a training that turns to NaN."""
_LOOKED_AT = 64  # test samples of the fixed batch that the health of layers is measured on


class Diverged(RuntimeError):
    """A training turned to NaN or infinity; the text says where that began."""


class Interrupted(Exception):
    """Somebody asked the training to stop; its state is whole."""


@contextlib.contextmanager
def watched(
    network: str, doing: str, broken: str, advice: str, where: Callable[[FloatingPointError], str] = str
) -> Iterator[None]:
    """Put what goes wrong with a network into one line: its own code's errors, and what is not finite.

    Parameters
    ----------
    network : str
        Its name, or the import path of the user's own.
    doing : str
        What is being done; see `own_code`.
    broken, advice : str
        Begin and end the text of `Diverged`.
    where : callable
        Returns where that begins, for the text.

    Raises
    ------
    OwnCodeError
        The user's own network raised something.
    Diverged
        Something is not finite.
    """
    try:
        with own_code("network", network, doing):
            yield
    except FloatingPointError as error:
        raise Diverged(f"{broken}: {where(error)}; {advice}") from error


@dataclass(frozen=True)
class Progress:
    """How far a training is, after a step.

    Attributes
    ----------
    variant : str
        Name of the chip, or ``native``.
    epoch, epochs, step, steps : int
        Epoch from 1 up of how many, and steps done of how many in it.
    loss, accuracy : float
        Mean over the epoch so far, while the weights moved.
    rate : float
        Samples per second, of training alone, since the epoch began or was resumed.
    left : float
        Seconds that the rest of this variant takes at this rate, with its evaluations.
    """

    variant: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    rate: float
    left: float


@dataclass(frozen=True)
class Note:
    """Something that a person should read."""

    variant: str
    text: str


Event = Progress | Epoch | Note


class Keeper(Protocol):
    """Who keeps what a training finds."""

    def epoch_done(self, training: Training) -> None:
        """Keep the log and the state after an epoch."""
        ...

    def step_done(self, training: Training, *, stopping: bool) -> None:
        """Keep the state within an epoch, if it is time to or the training stops here."""
        ...


@dataclass
class Position:
    """Where a training stands: epochs finished, and what the present one has summed up."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: int = 0
    samples: int = 0
    saturated: int = 0
    seconds: float = 0.0


class Training:
    """One network, natively or on a chip, on its way through the epochs of a recipe.

    Parameters
    ----------
    name : str
        Of the variant.
    trainer : Trainer
        The network.
    data : DataSet
        Samples.
    recipe : Recipe
        How to train.
    batches : Batches
        This process' batches.
    report : callable
        Gets every `Event`.
    stop : callable
        Asked after each step; True ends the training with `Interrupted`.

    Attributes
    ----------
    log : list of Epoch
        What the finished epochs did.
    position : Position
        Where it stands.
    """

    def __init__(
        self,
        name: str,
        trainer: Trainer,
        data: DataSet,
        recipe: Recipe,
        batches: Batches,
        *,
        report: Callable[[Event], None] = lambda event: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name, self.trainer, self.data, self.recipe = name, trainer, data, recipe
        self._batches, self._report, self._stop = batches, report, stop
        self.log: list[Epoch] = []
        self.position = Position()
        self._watch = Watch(data.train_y, len(batches))
        self._evaluation = 0.0
        self._looked_at = data.normalised(data.test_x[:_LOOKED_AT]), data.test_y[:_LOOKED_AT]

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.position.epoch >= self.recipe.epochs

    @property
    def improved(self) -> bool:
        """Whether the last epoch labelled more test samples rightly than all before it."""
        return bool(self.log) and all(self.log[-1].accuracy > epoch.accuracy for epoch in self.log[:-1])

    def facts(self) -> dict[str, Any]:
        """Return all that a checkpoint needs beside the trainer's state, as plain data."""
        return {
            "variant": self.name,
            "position": asdict(self.position),
            "log": [asdict(epoch) for epoch in self.log],
            "watch": self._watch.to_dict(),
        }

    def load(self, facts: dict[str, Any]) -> None:
        """Go on from where `facts` was taken; the trainer's state is the caller's to load."""
        self.position = Position(**facts["position"])
        self.log = [Epoch(**row) for row in facts["log"]]
        self._watch.load(facts["watch"])

    def run(self, keeper: Keeper | None = None) -> list[Epoch]:
        """Train to the end of the recipe and return the log.

        Raises
        ------
        Diverged
            A loss or gradient is not finite: the trainer holds the weights before that step. Or the step
            itself made the weights so, and the evaluation after the last one of an epoch, or a look at the
            layers within it (before a note that nothing is learned), has met them: the trainer holds those
            after the step, of which the keeper was handed none.
        Interrupted
            `stop` said so; everything done so far has been kept.
        OwnCodeError
            The user's own network raised something.
        """
        while not self.finished:
            self._train_epoch(keeper)
            self._finish_epoch()
            if keeper is not None:
                keeper.epoch_done(self)
            self._report(self.log[-1])
            if self._stop() and not self.finished:
                raise Interrupted
        return self.log

    def _train_epoch(self, keeper: Keeper | None) -> None:
        """Take the steps that are left of the present epoch."""
        position, rate = self.position, self.recipe.rate_at(self.position.epoch)
        before, spent, mark = position.samples, 0.0, time.perf_counter()
        made = ahead(self._batches.epoch(position.epoch, start=position.step))
        with contextlib.closing(cast(Any, made)):
            for x, y in made:
                with self._watched(f"step {position.step + 1}", x, y, f", a batch of {x.shape}"):
                    held = self.trainer.weights() if self._watch.doubts else {}
                    step = self.trainer.step(x, y, rate)
                count = len(y) * self._batches.ranks
                position.step += 1
                position.loss += step.loss * count
                position.right += step.right
                position.samples += count
                position.saturated += step.saturated
                now = time.perf_counter()
                position.seconds += now - mark
                spent += now - mark
                self._report(self._progress((position.samples - before) / max(spent, 1e-9)))
                if position.epoch >= self.recipe.warmup:
                    self._warn(self._watch.see(step, count), held)
                # Stopping after the last step leaves evaluation and log of the epoch to be done first.
                stopping = self._stop() and position.step < len(self._batches)
                if keeper is not None:
                    keeper.step_done(self, stopping=stopping)
                if stopping:
                    raise Interrupted
                mark = time.perf_counter()

    def _finish_epoch(self) -> None:
        self.trainer.finish_epoch()
        start = time.perf_counter()
        with self._watched("after its last step", *self._looked_at):
            scores = self.trainer.evaluate(evaluation_batches(self.data, EVALUATED))
            if not math.isfinite(scores.loss):
                raise FloatingPointError(f"the loss of the test samples is {scores.loss}")
            layers = self.trainer.health(self._looked_at[0])
        self._evaluation = time.perf_counter() - start
        at = self.position
        row = Epoch(
            self.name,
            at.epoch + 1,
            at.loss / at.samples,
            at.right / at.samples,
            scores.accuracy,
            scores.loss,
            at.seconds,
            self.recipe.rate_at(at.epoch),
            at.saturated,
            max((layer.saturated for layer in layers), default=0.0),
            max((layer.clipped for layer in layers), default=0.0),
            max((layer.distortion for layer in layers), default=0.0),
        )
        self.log.append(row)
        self.position = Position(epoch=at.epoch + 1)

    def _progress(self, rate: float) -> Progress:
        at, epochs = self.position, self.recipe.epochs
        left = (epochs - at.epoch) * len(self.data.train_x) - at.samples
        return Progress(
            self.name,
            at.epoch + 1,
            epochs,
            at.step,
            len(self._batches),
            at.loss / at.samples,
            at.right / at.samples,
            rate,
            left / rate + self._evaluation * (epochs - at.epoch),
        )

    def _warn(self, why: str, before: Arrays) -> None:
        """Say that nothing is learned; `before` are the weights before the last step, if there are any."""
        if why:
            x, y = self._looked_at
            with self._watched(f"after step {self.position.step}", x, y):
                still = standing_still(before, self.trainer.weights()) if before else ""
                where = suspect(self.trainer.health(x), still)
            self._report(
                Note(self.name, f"epoch {self.position.epoch + 1}: it does not learn: {why}; {where}")
            )

    def _watched(self, when: str, x: Any, y: Any, on: str = "") -> contextlib.AbstractContextManager[None]:
        """Say in one line where the user's network failed, or where in a batch NaN or infinity begins."""
        when = f"epoch {self.position.epoch + 1}, {when}"

        def where(error: FloatingPointError) -> str:
            try:
                return self.trainer.diagnose(x, y) or str(error)
            except FloatingPointError as worse:
                return str(worse)

        doing = f"the training of {self.name}, {when}{on}"
        broken = f"{self.name} turned to NaN or infinity in {when}"
        return watched(self.recipe.network, doing, broken, SLOWER, where)
