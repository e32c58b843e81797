"""What a running sweep shows: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from xbar_core.cli._terminal import say
from xbar_core.lab.sweep.engine import Event, Watch

_WIDTH = 48


@contextlib.contextmanager
def screen(title: str) -> Iterator[Watch]:
    """Yield what a sweep is to be watched by: one bar for all points and one for each worker.

    Without a terminal every finished point is a line.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress, title)


class _Lines:
    """Events as lines on standard output."""

    def __init__(self) -> None:
        self._count = self._total = 0

    def __call__(self, event: Event) -> None:
        if event.kind == "plan":
            self._total = event.left
            kept = f", {event.kept} known already" if event.kept else ""
            say(f"{event.left} points to compute{kept}")
        elif event.kind in ("done", "failed"):
            self._count += 1
            what = event.text if event.kind == "done" else f"failed: {event.text}"
            say(f"[{self._count}/{self._total}] {event.label}: {what} ({event.worker})")
        elif event.kind == "waiting":
            say(event.text)
        elif event.kind == "lost":
            say(f"{event.label}: {event.text}")


class _Bars:
    """Events as bars of a live display."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._all = progress.add_task(title, total=None, note="")
        self._workers: dict[str, TaskID] = {}
        self._where: dict[str, str] = {}
        self._failed = 0

    def __call__(self, event: Event) -> None:
        if event.kind == "plan":
            note = f"{event.kept} known already" if event.kept else ""
            self._progress.update(self._all, total=event.left, note=note)
        elif event.kind in ("done", "failed"):
            self._failed += event.kind == "failed"
            note = f"{self._failed} failed" if self._failed else ""
            self._progress.update(self._all, advance=1, note=note)
            row = self._workers.get(self._where.pop(event.label, ""))
            if row is not None:
                self._progress.update(row, completed=100, note=f"{event.kind}: {event.label}"[:_WIDTH])
            if event.kind == "failed":
                self._progress.console.print(f"failed: {event.label}: {event.text}", markup=False)
        elif event.kind == "waiting":
            self._progress.console.print(event.text, markup=False)
        elif event.kind == "lost":
            self._progress.console.print(f"{event.label}: {event.text}", markup=False)
        else:
            self._where[event.label] = event.worker
            row = self._workers.get(event.worker)
            if row is None:
                row = self._progress.add_task(f"  worker {event.worker}", total=100, note="")
                self._workers[event.worker] = row
            note = " ".join(filter(None, (event.label, event.text)))
            self._progress.update(row, completed=100 * event.share, note=note[:_WIDTH])
