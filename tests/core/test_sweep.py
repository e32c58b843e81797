"""Sweeps: points computed by workers, results that survive whatever happens, tables and figures."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from xbar_core.cli import main
from xbar_core.errors import ConfigError
from xbar_core.lab.sweep import (
    Event,
    Plan,
    Store,
    Table,
    parse_field,
    run_points,
)
from xbar_core.lab.sweep.cluster import local_size
from xbar_core.lab.whole_file import write_whole

# A task that counts its runs, fails where it is told to, and dies once where it is told to.
TASK = """
import os, signal, time
from pathlib import Path

def measure(setup, progress, *, k=0, fail=-1, die=-1, wait=0.0):
    here = Path(os.environ["SWEEP_TEST_FOLDER"])
    with (here / f"ran-{k}").open("a") as file:
        file.write("x")
    progress(0.5, "half")
    time.sleep(wait)
    if k == die and not (here / "died").exists():
        (here / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if k == fail:
        raise ValueError(f"no {k},\\nreally")
    return {"square": k * k, "noisy": k + 0.1 * setup.chip.seed, "steps": [k, k + 1], "bad": float("nan")}

def alone(setup, *, k):
    here = Path(os.environ["SWEEP_TEST_FOLDER"]) / "busy"
    here.touch(exist_ok=False)  # fails if another point is at it
    time.sleep(0.05)
    here.unlink()
    return {"k": k}

def threads(setup):
    import numba
    return {"numba": numba.config.NUMBA_NUM_THREADS, "openmp": int(os.environ["OMP_NUM_THREADS"])}

def words(setup):
    return {"name": "three"}

def nothing(setup):
    return None
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sweep_task.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWEEP_TEST_FOLDER", str(tmp_path))
    return tmp_path


def plan(*fields: str, task: str = "sweep_task:measure") -> Plan:
    return Plan(tuple(parse_field(text) for text in fields), task=task)


def runs(folder: Path) -> dict[int, int]:
    """How often each point ran."""
    return {int(p.name.split("-")[1]): len(p.read_text()) for p in folder.glob("ran-*")}


def test_killed_worker_is_replaced_and_nothing_is_lost(folder: Path) -> None:
    """SIGKILL a worker in the middle: its point runs again elsewhere, the others once."""
    points = plan("task.k=0:6", "task.die=3", "task.wait=0.3").points()
    events: list[Event] = []
    store = Store(folder / "out")
    outcome = run_points(points, store, workers=2, watch=events.append)
    assert (folder / "died").exists()
    assert (outcome.done, outcome.failed, outcome.left) == (6, 0, 0)
    assert runs(folder) == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1, 5: 1}
    assert [event.label for event in events if event.kind == "lost"] == ["task.k=3"]
    assert Counter(event.kind for event in events)["done"] == 6
    assert [row.metric("square") for row in Table.collect(points, store).rows] == [0, 1, 4, 9, 16, 25]


def test_rerun_computes_what_is_missing(folder: Path) -> None:
    """A second run starts nothing; after more values only those; a deleted or damaged result again."""
    store = Store(folder / "out")
    points = plan("task.k=0:3").points()
    assert run_points(points, store, workers=0).done == 3
    again = run_points(points, store, workers=0)
    assert (again.kept, again.done) == (3, 0)
    store.path(points[0].key).unlink()
    store.path(points[1].key).write_text('{"key": "half a fi')
    more = run_points(plan("task.k=0:4").points(), store, workers=0)
    assert (more.kept, more.done) == (1, 3)
    assert runs(folder) == {0: 2, 1: 2, 2: 1, 3: 1}


def test_interrupted_run_keeps_what_is_done(folder: Path) -> None:
    """An interrupt after two points leaves two whole results, and the next run computes the others."""

    def interrupt(event: Event) -> None:
        if event.kind == "done" and event.label == "task.k=1":
            raise KeyboardInterrupt

    store = Store(folder / "out")
    points = plan("task.k=0:4").points()
    with pytest.raises(KeyboardInterrupt):
        run_points(points, store, workers=0, watch=interrupt)
    assert run_points(points, store, workers=0).kept == 2
    assert set(runs(folder).values()) == {1}


def test_failing_point_is_recorded_and_the_rest_goes_on(folder: Path) -> None:
    """An exception becomes a result with its text; a rerun tries it again unless told not to."""
    store = Store(folder / "out")
    points = plan("task.k=0:3", "task.fail=1").points()
    outcome = run_points(points, store, workers=0)
    assert (outcome.done, outcome.failed, outcome.whole) == (2, 1, False)
    failed = store.get(points[1].key)
    assert failed is not None
    assert failed.error == "ValueError: no 1, really"
    assert "in measure" in failed.traceback
    assert run_points(points, store, workers=0, retry_failed=False).done == 0
    assert run_points(points, store, workers=0).failed == 1
    assert runs(folder) == {0: 1, 1: 2, 2: 1}


def test_time_limit_leaves_the_rest(folder: Path) -> None:
    """When the time is over, what is missing is counted and left for another run."""
    points = plan("task.k=0:4", "task.wait=0.2").points()
    outcome = run_points(points, Store(folder / "out"), workers=0, limit=0.1)
    assert (outcome.done, outcome.left, outcome.whole) == (1, 3, False)


@pytest.mark.parametrize(
    ("task", "message"), [("words", "'name': 'three'"), ("nothing", "returned NoneType")]
)
def test_task_must_return_numbers(folder: Path, task: str, message: str) -> None:
    """A task that returns no numbers fails with what it returned."""
    points = plan("seed=0", task=f"sweep_task:{task}").points()
    store = Store(folder / "out")
    run_points(points, store, workers=0)
    result = store.get(points[0].key)
    assert result is not None
    assert message in result.error


@pytest.fixture
def scheduler() -> Iterator[str]:
    """A scheduler with one worker that was started elsewhere, here in threads of this process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=4, processes=False, dashboard_address=None, protocol="tcp://"
    ) as cluster:
        yield cluster.scheduler_address


def test_running_scheduler(folder: Path, scheduler: str) -> None:
    """Points go to an existing cluster; a worker with several threads still runs one point at a time."""
    points = plan("task.k=0:4", task="sweep_task:alone").points()
    store = Store(folder / "out")
    outcome = run_points(points, store, scheduler=scheduler)
    assert outcome.done == 4
    results = [store.get(point.key) for point in points]
    assert all(result is not None and result.worker.endswith(f":{os.getpid()}") for result in results)


def test_scheduler_without_workers(folder: Path) -> None:
    """What is missing is said at once; the points wait for the first worker that comes."""
    distributed = pytest.importorskip("distributed")
    events: list[Event] = []
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp://"
    ) as cluster:

        def watch(event: Event) -> None:
            events.append(event)
            if event.kind == "waiting":
                cluster.scale(1)

        points = plan("task.k=0:2", task="sweep_task:alone").points()
        outcome = run_points(points, Store(folder / "out"), scheduler=cluster.scheduler_address, watch=watch)
    assert outcome.done == 2
    assert [event.kind for event in events[:2]] == ["plan", "waiting"]
    assert "has no workers yet; start some with 'dask worker'" in events[1].text


def test_no_scheduler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address where nothing answers ends with one line."""
    monkeypatch.setattr("xbar_core.lab.sweep.cluster._CONNECT", 0.5)
    with pytest.raises(ConfigError, match="does not answer"):
        run_points(plan("seed=0").points(), Store(folder / "out"), scheduler="tcp://127.0.0.1:9")


def test_workers_share_the_cores(folder: Path) -> None:
    """A local worker's libraries use its share of the cores."""
    points = plan("seed=0", task="sweep_task:threads").points()
    store = Store(folder / "out")
    run_points(points, store, workers=1)
    found = Table.collect(points, store).rows[0]
    cores = len(os.sched_getaffinity(0))
    assert (found.metric("numba"), found.metric("openmp")) == (cores, cores)
    for count in (1, 3, 7, 100):
        for cores in (1, 2, 16):
            workers, threads = local_size(count, None, cores)
            assert workers * threads <= cores
            assert workers == min(count, cores)


def test_write_is_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half way leaves the old file and no other."""
    path = tmp_path / "a.json"
    write_whole(path, "old")

    def broken(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_table_files(folder: Path) -> None:
    """CSV and Parquet hold every point with values, metrics and errors; NaN stays NaN."""
    parquet = pytest.importorskip("pyarrow.parquet")
    points = plan("task.k=0:3", "task.fail=1", "chip.seed=0:2", "input.bits=8,none").points()
    store = Store(folder / "out")
    run_points(points, store, workers=0)
    table = Table.collect(points, store)
    assert table.fields == ("task.k", "input.bits")
    table.write(folder / "out", "noisy")
    with (folder / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert [row["status"] for row in rows].count("failed") == 4
    assert json.loads(rows[0]["steps"]) == [0, 1]
    frame = parquet.read_table(folder / "out" / "results.parquet").to_pydict()
    assert frame["square"] == [None if row["square"] == "" else int(row["square"]) for row in rows]
    assert math.isnan(table.rows[0].metric("bad"))
    with (folder / "out" / "summary.csv").open() as file:
        summary = list(csv.DictReader(file))
    assert [row["repeats"] for row in summary] == ["2", "2", "0", "0", "2", "2"]
    assert float(summary[0]["noisy"]) == pytest.approx(0.05)


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`xbar sweep` writes results, summary and figures, says what failed, and ends with 1 then."""
    words = ["sweep", "--task", "sweep_task:measure", "task.k=0:3", "--workers", "0", "--out", "out"]
    assert main([*words, "--metric", "noisy", "--chips", "3"]) == 0
    said = capsys.readouterr().out
    assert "9 points" in said
    assert "differ in noise only" in said
    assert "9 computed" in said
    for name in ("results.csv", "results.parquet", "summary.csv", "figure.png", "figure.svg", "command.txt"):
        assert (folder / "out" / name).stat().st_size > 20
    assert (folder / "out" / "command.txt").read_text().startswith("xbar sweep --task sweep_task:measure")
    assert main([*words, "task.fail=2"]) == 1
    assert "first error: ValueError: no 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing varies"),
        (["update.v_pu=1"], "did you mean 'v_up'"),
        (["rate=0.1", "rate=0.2"], "given twice"),
        (["seed=0", "--file", "none.toml"], "no such file"),
    ],
)
def test_command_mistakes(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """A mistake is one line and exit code 2."""
    assert main(["sweep", *words, "--out", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_dry_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dry-run` lists the points and writes nothing."""
    assert main(["sweep", "update.v_up=0.01,0.1", "seed=0:2", "--dry-run", "--out", "out"]) == 0
    assert "update.v_up=0.1 seed=1" in capsys.readouterr().out
    assert not (folder / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="process groups as a terminal has them")
def test_interrupt_at_the_terminal(folder: Path) -> None:
    """Ctrl-C reaches every process of the command: one line, exit code 130, finished points kept."""
    words = ["sweep", "--task", "sweep_task:measure", "task.k=0:40", "task.wait=1", "--out", "out"]
    # Shells start background jobs deaf to interrupts; the command must not inherit that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from xbar_core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen([*command, *words], stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not list(folder.glob("out/points/*.json")) and time.monotonic() < end:
            time.sleep(0.2)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(timeout=30) == 130
    finally:
        running.kill()
    assert (folder / "log").read_text().splitlines()[-1] == "xbar: interrupted"
    assert "Traceback" not in (folder / "log").read_text()
    assert 0 < len(list(folder.glob("out/points/*.json"))) < 40
