"""The engine: points computed side by side by Dask workers, each result kept as it arrives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from xbar_core._checks import check_integer, check_number
from xbar_core.lab.sweep.execute import execute
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.store import Result, Store


@dataclass(frozen=True)
class Event:
    """Something that happened while a sweep runs.

    Attributes
    ----------
    kind : {"plan", "waiting", "start", "progress", "done", "failed", "lost"}
        ``plan`` comes first, with the numbers of points in `kept` and `left`; ``waiting`` is a scheduler
        that has no workers yet; ``lost`` is a worker that died: its point goes to another one.
    label : str
        The point's values.
    worker : str
        Where it runs.
    share : float
        How much of the point is done, 0 to 1.
    text : str
        A few words: progress, error.
    kept, left : int
        Points that have a result already, and that have none.
    """

    kind: Literal["plan", "waiting", "start", "progress", "done", "failed", "lost"]
    label: str = ""
    worker: str = ""
    share: float = 0.0
    text: str = ""
    kept: int = 0
    left: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run of a sweep ended.

    Attributes
    ----------
    kept, done, failed, left : int
        Points whose result was there before; computed now; failed now; not computed, because the time
        was over.
    seconds : float
        Time of the whole run.
    """

    kept: int
    done: int
    failed: int
    left: int
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether every point has a result."""
        return self.failed == 0 and self.left == 0


Watch = Callable[[Event], None]


def run_points(
    points: Sequence[Point],
    store: Store,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    limit: float | None = None,
    retry_failed: bool = True,
    watch: Watch = lambda event: None,
) -> Outcome:
    """Compute every point that has no result yet.

    Parameters
    ----------
    points : sequence of Point
        Points that mean the same are computed once.
    store : Store
        Where results are and go.
    workers : int or None
        Processes on this machine, each with its share of the cores; None takes as many as cores or
        points (one, where a point trains on a GPU), 0 computes in this process, one point after the other.
    scheduler : str or None
        Address of a running Dask scheduler, ``tcp://host:8786``, instead of workers of our own.
    limit : float or None
        Seconds after which no further result is awaited; what is missing is left for another run.
    retry_failed : bool
        Compute points again that failed before.
    watch : callable
        Called with every `Event`, by one thread at a time.

    Raises
    ------
    ConfigError
        Dask is missing, or the scheduler cannot be reached.
    """
    start = time.monotonic()
    if workers is not None:
        check_integer("workers", workers, minimum=0)
    if limit is not None:
        check_number("limit", limit, minimum=0.0, open_minimum=True)
    missing = _missing(points, store, retry_failed)
    kept = len({point.key for point in points}) - len(missing)
    watch(Event("plan", kept=kept, left=len(missing)))
    done = failed = 0
    if missing:
        arriving: Iterable[tuple[Point, Result]]
        if workers == 0 and scheduler is None:
            arriving = _here(list(missing.values()), watch, None if limit is None else start + limit)
        else:
            from xbar_core.lab.sweep.cluster import on_cluster

            if workers is None and any(_on_gpu(point) for point in missing.values()):
                workers = 1
            arriving = on_cluster(list(missing.values()), workers, scheduler, limit, watch)
        for point, result in arriving:
            store.put(point, result)
            if result.status == "done":
                done += 1
                watch(Event("done", point.label, result.worker, 1.0, f"{result.seconds:.1f} s"))
            else:
                failed += 1
                watch(Event("failed", point.label, result.worker, 1.0, result.error))
    return Outcome(kept, done, failed, len(missing) - done - failed, time.monotonic() - start)


def _on_gpu(point: Point) -> bool:
    recipe = point.setup.recipe
    return recipe is not None and recipe.device != "cpu"


def _missing(points: Sequence[Point], store: Store, retry_failed: bool) -> dict[str, Point]:
    found: dict[str, Point] = {}
    for point in points:
        key = point.key
        if key not in found:
            result = store.get(key)
            if result is None or (result.status == "failed" and retry_failed):
                found[key] = point
    return found


def _here(points: list[Point], watch: Watch, end: float | None) -> Iterable[tuple[Point, Result]]:
    """Compute points in this process."""
    for point in points:
        if end is not None and time.monotonic() > end:
            return
        watch(Event("start", point.label, "here"))

        def progress(share: float, text: str, label: str = point.label) -> None:
            watch(Event("progress", label, "here", share, text))

        yield point, Result(key=point.key, **execute(point.setup.to_dict(), progress))
