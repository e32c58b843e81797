"""Dask: a local cluster sized to the machine, or any scheduler that is running."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from xbar_core.errors import ConfigError
from xbar_core.lab._optional import optional
from xbar_core.lab.sweep.engine import Event, Watch
from xbar_core.lab.sweep.execute import execute
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.sweep.store import Result

THREADS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)
"""Environment variables that set how many threads a library uses."""
_CONNECT = 20.0  # seconds
_REPORT_EVERY = 0.5  # seconds between two progress events of a point


def machine_cores() -> int:
    """Return how many cores this process may use, limits of containers included."""
    cores: int = _dask("dask.system").CPU_COUNT
    return cores


def local_size(points: int, workers: int | None, cores: int) -> tuple[int, int]:
    """Return workers and threads of each, so that workers x threads is at most the cores.

    Examples
    --------
    >>> local_size(points=100, workers=None, cores=16), local_size(points=3, workers=None, cores=16)
    ((16, 1), (3, 5))
    >>> local_size(points=100, workers=4, cores=16)
    (4, 4)
    """
    count = min(points, cores if workers is None else workers)
    return count, max(1, cores // count)


def on_cluster(
    points: list[Point], workers: int | None, scheduler: str | None, limit: float | None, watch: Watch
) -> Iterator[tuple[Point, Result]]:
    """Yield every point with its result as it arrives; see `run_points` for the arguments.

    A worker that dies is replaced by Dask, and its point computed by another one; a point that has
    killed several workers is a failed one.
    """
    distributed = _dask("distributed")
    lock = threading.Lock()

    def tell(event: Event) -> None:
        with lock:
            watch(event)

    labels = {point.key: point.label for point in points}
    started: set[str] = set()
    topic = f"xbar-sweep-{uuid.uuid4().hex}"

    def heard(event: tuple[float, Any]) -> None:
        _, message = event
        if isinstance(message, Mapping) and message.get("key") in labels:
            key, label = message["key"], labels[message["key"]]
            if message["kind"] == "start" and key in started:
                tell(Event("lost", label, message["worker"], text="its worker died; it starts again"))
            started.add(key)
            tell(Event(message["kind"], label, message["worker"], message["share"], message["text"]))

    end = None if limit is None else time.monotonic() + limit
    with _client(distributed, len(points), workers, scheduler) as client:
        if scheduler is not None and not client.scheduler_info()["workers"]:
            tell(Event("waiting", text=f"{scheduler} has no workers yet; start some with 'dask worker'"))
        client.register_plugin(_one_point(distributed), name="xbar-sweep")
        client.subscribe_topic(topic, heard)
        futures = {
            client.submit(
                run_on_worker,
                point.key,
                point.setup.to_dict(),
                topic,
                key=f"xbar-{point.key}-{topic}",
                pure=False,
            ): point
            for point in points
        }
        try:
            yield from _arriving(distributed, client, futures, end)
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                client.cancel(list(futures), force=True)
                client.unsubscribe_topic(topic)


def run_on_worker(key: str, setup: Mapping[str, Any], topic: str) -> dict[str, Any]:
    """Compute one point on the worker that this runs on, and tell the client how far it is."""
    worker = _dask("distributed").get_worker()
    name = worker.address.partition("://")[2]
    last = 0.0

    def tell(kind: str, share: float, text: str) -> None:
        message = {"kind": kind, "key": key, "worker": name, "share": float(share), "text": text}
        worker.log_event(topic, message)

    def progress(share: float, text: str) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_EVERY:
            last = time.monotonic()
            tell("progress", share, text)

    # Numba's threads and the frameworks' are a worker's as a whole: one point at a time.
    with worker.plugins["xbar-sweep"].lock:
        tell("start", 0.0, "")
        return execute(setup, progress)


def _arriving(
    distributed: Any, client: Any, futures: dict[Any, Point], end: float | None
) -> Iterator[tuple[Point, Result]]:
    rest = None if end is None else max(end - time.monotonic(), 0.01)
    arriving = distributed.as_completed(list(futures), loop=client.loop, timeout=rest)
    while True:
        try:
            future = next(arriving)
        except StopIteration:
            return
        except TimeoutError:
            return
        point = futures[future]
        if future.status == "finished":
            yield point, Result(key=point.key, **future.result())
        elif future.status == "error":
            yield point, Result(point.key, "failed", {}, error=_why(future.exception()))
        else:
            raise ConfigError(
                "scheduler: the connection was lost; what had finished is kept: run the same command again"
            )
        future.release()


def _why(error: BaseException | None) -> str:
    if type(error).__name__ == "KilledWorker":
        return (
            "KilledWorker: several workers died on this point, usually for lack of memory; use fewer "
            "workers, or a smaller batch"
        )
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextlib.contextmanager
def _client(distributed: Any, points: int, workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Yield a client of the scheduler, or of a cluster of our own that ends with it."""
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"scheduler: {scheduler!r} does not answer ({type(error).__name__}); start one with "
                "'dask scheduler' and give its address, such as tcp://host:8786"
            ) from error
        with client:
            yield client
        return
    count, threads = local_size(points, workers, machine_cores())
    environment = dict.fromkeys(THREADS, str(threads))
    settings = {
        # A worker takes its next point when it is free, so that slow points hold up nothing.
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.nanny.pre-spawn-environ": environment,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(_dask("dask").config.set(settings))
        with _deaf_to_interrupts():
            cluster = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # any free port: sweeps run side by side
                    silence_logs=logging.CRITICAL,
                    env=environment,
                )
            )
        yield stack.enter_context(distributed.Client(cluster, set_as_default=False))


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Start processes that ignore Ctrl-C: the terminal sends it to all, this process ends the others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _one_point(distributed: Any) -> Any:
    """Return the plugin that holds each worker's lock."""

    class OnePoint(distributed.WorkerPlugin):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            self.lock = threading.Lock()

    return OnePoint()


def _dask(module: str) -> Any:
    return optional(module, "distributed", "sweep", extra="sweep")
