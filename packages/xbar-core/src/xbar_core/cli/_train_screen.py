"""A training on the screen: live in a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from xbar_core.cli._dry_run import duration_text
from xbar_core.cli._terminal import table
from xbar_core.lab.comparison import Comparison, Epoch
from xbar_core.lab.run import RunResult
from xbar_core.lab.training import Event, Note
from xbar_core.lab.training import Progress as Position

_QUIET = 30.0  # seconds between lines within an epoch, where there is no terminal
_REFRESH = 0.1


class TrainScreen:
    """Shows the events of a run.

    Parameters
    ----------
    quiet : bool
        Show nothing: all but the first of several processes.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(highlight=False, markup=False, soft_wrap=True, quiet=quiet)
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._shown, self._rate = time.monotonic(), 0.0
        if self._console.is_terminal and not quiet:
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[numbers]}"),
                console=self._console,
                transient=True,
                auto_refresh=False,
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._quiet:
            return
        match event:
            case Epoch():
                self._say(_epoch_line(event, self._rate))
            case Note():
                self._say(f"note: {event.variant + ': ' if event.variant else ''}{event.text}")
            case Position():
                self._show(event)

    def _say(self, text: str) -> None:
        self._shown = time.monotonic()
        self._console.print(text)

    def _show(self, at: Position) -> None:
        now, self._rate = time.monotonic(), at.rate
        if now - self._shown < (_QUIET if self._live is None else _REFRESH):
            return
        self._shown = now
        numbers = (
            f"loss {_loss(at.loss)}  accuracy {at.accuracy:6.2%}  {at.rate:,.0f} images/s  "
            f"{duration_text(at.left)} left"
        )
        name = f"{at.variant:>14s}  epoch {at.epoch:3d} of {at.epochs}"
        if self._live is None:
            self._console.print(f"{name}  step {at.step:5d} of {at.steps}  {numbers}")
            return
        if self._task is None:
            self._task = self._live.add_task("", numbers="")
        self._live.update(
            self._task, description=name, numbers=numbers, completed=at.step, total=at.steps, refresh=True
        )


def _epoch_line(epoch: Epoch, rate: float) -> str:
    line = (
        f"{epoch.variant:>14s}  epoch {epoch.epoch:3d}  loss {_loss(epoch.loss):>8s}  "
        f"accuracy {epoch.accuracy:7.2%}  {epoch.seconds:6.2f} s  {rate:6,.0f} images/s"
    )
    facts = []
    if epoch.saturated:
        facts.append(f"{epoch.saturated} writes saturated")
    for share, what in (
        (epoch.at_end, "at an end"),
        (epoch.clipped, "clipped"),
        (epoch.distortion, "by wires"),
    ):
        if share:
            facts.append(f"{_share(share)} {what}")
    return "  ".join([line, ", ".join(facts)]).rstrip()


def _share(value: float) -> str:
    return f"{100 * value:.2g}%" if value < 0.995 else f"{value:.0%}"


def _loss(value: float) -> str:
    """Return a loss with four digits after the point, or as a power of ten where it has exploded."""
    return f"{value:.4f}" if value < 1000.0 else f"{value:.2e}"


def show_result(result: RunResult, native: str) -> None:
    """Print what the variants reached, beside native training if that is one of them."""
    comparison = result.comparison
    rows = [_row(comparison, name, native, name in result.diverged) for name in comparison.variants]
    if not rows:
        return
    epochs = comparison.recipe.epochs
    headings = ("accuracy", "lost", "loss", "training", "ratio", "saturated")
    table(
        f"{comparison.recipe.network} on {comparison.data} after {epochs} epoch{'s' if epochs > 1 else ''}",
        [("chip", "left"), *((heading, "right") for heading in headings)],
        rows,
        "accuracy: on test samples, after the last epoch. lost: against native training, percentage points. "
        "ratio: of training times. saturated: writes that asked a device to go beyond its range.",
    )


def _row(comparison: Comparison, name: str, native: str, diverged: bool) -> tuple[str, ...]:
    epochs, base = comparison.of(name), comparison.of(native)
    seconds = sum(e.seconds for e in epochs)
    whole = bool(base) and len(base) == len(epochs)
    return (
        f"{name} (diverged)" if diverged else name,
        f"{epochs[-1].accuracy:.2%}",
        f"{100 * (base[-1].accuracy - epochs[-1].accuracy):+.2f}" if whole else "-",
        _loss(epochs[-1].loss),
        f"{seconds:.1f} s",
        f"{seconds / sum(e.seconds for e in base):.2f} x" if whole else "-",
        str(sum(e.saturated for e in epochs)),
    )
