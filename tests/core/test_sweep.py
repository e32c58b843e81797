"""Sweeps: points computed by workers, results that survive whatever happens, tables and figures."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from xbar_core import AAM, FCM, Wires, effective_conductance
from xbar_core.circuit.report import error_report
from xbar_core.cli import main
from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_core.lab.sweep import (
    Event,
    Plan,
    Setup,
    Store,
    Table,
    estimate,
    estimate_crossed,
    parse_field,
    run_points,
)
from xbar_core.lab.sweep.cluster import local_size
from xbar_core.lab.sweep.figures import sweep_figure
from xbar_core.lab.sweep.results import Row
from xbar_core.lab.sweep.store import Result
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


def test_confidence_interval() -> None:
    """The interval is scipy's for Student's t; it covers the mean as often as it says."""
    rng = np.random.default_rng(0)
    sample = rng.normal(3.0, 2.0, 7)
    found = estimate(sample)
    low, high = stats.t.interval(0.95, 6, loc=sample.mean(), scale=stats.sem(sample))
    assert (found.low, found.high) == pytest.approx((low, high))
    covered = [abs(e.mean - 3.0) <= e.half for e in (estimate(rng.normal(3.0, 2.0, 4)) for _ in range(2000))]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_seeds_that_share_chips() -> None:
    """The interval of n seeds on m chips covers the mean as often as it says, whichever of them differ."""
    rng = np.random.default_rng(1)
    seeds, chips = 4, 6
    for between_seeds, between_chips, within in (
        (1.0, 0.0, 0.1),
        (0.0, 1.0, 0.1),
        (1.0, 1.0, 0.3),
        (0, 0, 1),
    ):
        covered, plainly = [], []
        for _ in range(800):
            value = (
                between_seeds * rng.normal(size=(seeds, 1))
                + between_chips * rng.normal(size=(1, chips))
                + within * rng.normal(size=(seeds, chips))
            )
            rows = [
                Row({"seed": s, "chip.seed": c}, Result(f"{s} {c}", "done", {"accuracy": value[s, c]}))
                for s in range(seeds)
                for c in range(chips)
            ]
            (group,) = Table(rows).groups("accuracy")
            assert group.estimate.count == seeds * chips
            covered.append(abs(group.estimate.mean) <= group.estimate.half)
            plainly.append(abs(value.mean()) <= estimate(value.ravel()).half)
        assert np.mean(covered) >= 0.93
        assert within == 1 or np.mean(plainly) < 0.8


def test_seeds_that_share_nothing_are_plain_repeats() -> None:
    """Where each seed has a chip of its own, as with a bare `seed`, and where points are missing."""
    values = [0.1, 0.4, 0.2, math.nan]
    for names in (("seed",), ("train.seed", "chip.seed")):
        rows = [
            Row(dict.fromkeys(names, k), Result(str(k), "done", {"accuracy": value}))
            for k, value in enumerate(values)
        ]
        assert Table(rows).groups("accuracy")[0].estimate == estimate(values)
    one = {("a", chip): float(chip) for chip in range(4)}
    assert estimate_crossed(one).half == pytest.approx(estimate(one.values()).half)
    assert estimate_crossed({("a", 0): 1.0}).count == 1
    assert estimate_crossed({**one, ("b", 0): math.nan}) == estimate_crossed(one)


def test_findings_need_three_repeats_and_more_than_the_spread() -> None:
    """One or two repeats show no spread; three that differ by more than their mean show nothing."""
    assert not estimate([5.0]).beyond_spread
    assert not estimate([5.0, 5.1]).beyond_spread
    assert not estimate([5.0, -4.0, 1.0]).beyond_spread
    assert estimate([5.0, 5.1, 4.9]).beyond_spread
    assert estimate([math.nan, 5.0, math.nan]).count == 1
    assert math.isnan(estimate([]).mean)


def test_circuit_task_is_the_error_report() -> None:
    """The task `circuit` reports what `error_report` says of the same arrays."""
    points = plan("circuit.kind=aam", "circuit.order=1", "task.arrays=1", "seed=3", task="circuit").points()
    chip = points[0].setup.chip
    assert chip is not None
    from xbar_core.lab.sweep.arrays import circuit
    from xbar_core.random import Purpose, Stream

    found = circuit(points[0].setup, arrays=1)
    uniform = Stream(3, "sweep").generator(Purpose.WEIGHTS).random((64, 64))
    conductance = 1 / (1e5 + 9e5 * uniform)
    report = error_report(conductance, chip.wires, AAM(1))
    assert found["error"] == pytest.approx(report.error, rel=1e-12)
    exact = effective_conductance(conductance, chip.wires, FCM())
    assert found["distortion"] == pytest.approx(np.abs(exact - conductance).max() / conductance.max())


def test_circuit_task_laws() -> None:
    """FCM has no error; perfect wires distort nothing; anchored reuse beats the paper's."""
    from xbar_core.lab.sweep.arrays import circuit

    chip = preset("txsim")
    assert circuit(Setup("circuit", chip), arrays=1)["error"] == 0.0
    perfect = chip.with_("wires", Wires()).with_("circuit.kind", "aam")
    assert circuit(Setup("circuit", perfect), arrays=1)["distortion"] < 1e-15
    kept = chip.with_("wires.r_source", 0.0).with_("wires.r_sense", 0.0)
    kept = kept.with_("circuit", {"kind": "interpolated", "period": 10, "reuse": "distortion"})
    anchored = kept.with_("circuit.reuse", "anchored")
    errors = [circuit(Setup("circuit", c), arrays=1)["error"] for c in (kept, anchored)]
    assert 0 < errors[1] < errors[0]


def _table(fields: dict[str, list[object]]) -> Table:
    rows = []
    for k in range(len(next(iter(fields.values())))):
        for seed in range(2):
            values = {name: column[k] for name, column in fields.items()} | {"seed": seed}
            rows.append(Row(values, Result("", "done", {"accuracy": 0.1 * k + 0.01 * seed})))
    return Table(rows)


def test_points_that_mean_the_same_are_no_repeats() -> None:
    """One result behind several rows counts once: it shows no spread."""
    same = Result("one", "done", {"accuracy": 0.9})
    rows = [Row({"preset": "native", "v": v, "seed": 0}, same, "one") for v in (0.1, 1.0)]
    rows += [
        Row({"preset": "ideal", "v": v, "seed": 0}, Result(f"{v}", "done", {"accuracy": v}), f"{v}")
        for v in (0.1, 1.0)
    ]
    native, ideal = Table(rows).groups("accuracy", ["preset"])
    assert (native.estimate.count, ideal.estimate.count) == (1, 2)
    assert [group.estimate.count for group in Table(rows).groups("accuracy")] == [1, 1, 1, 1]
    absent = Table([replace(row, result=None) for row in rows]).groups("accuracy", ["preset"])
    assert [group.missing for group in absent] == [1, 2]


def test_error_bars_are_of_repeats_only() -> None:
    """A panel for one of three fields has no bars: its spread is the other fields'. Drawn points: no line."""
    pytest.importorskip("matplotlib")
    grid = {"rate": [1, 1, 1, 1, 2, 2, 2, 2], "epochs": [1, 1, 2, 2] * 2, "batch": [1, 2] * 4}
    for axes in sweep_figure(_table(grid), "accuracy").axes:
        assert not axes.containers[0].has_yerr
        assert axes.containers[0][0].get_linestyle() == "-"
    drawn = {"rate": [0.3, 0.1, 0.2], "epochs": [3, 1, 2.5]}
    for axes in [a for a in sweep_figure(_table(drawn), "accuracy").axes if a.get_visible()]:
        assert axes.containers[0].has_yerr
        assert axes.containers[0][0].get_linestyle() == "None"


def test_bars_of_a_terminal() -> None:
    """A bar counts all points, one follows each worker; what fails and what waits is printed."""
    from rich.console import Console
    from rich.progress import Progress

    from xbar_core.cli._sweep_screen import _Bars

    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200)
    progress = Progress(console=console, auto_refresh=False)
    bars = _Bars(progress, "points")
    bars(Event("plan", kept=1, left=2))
    bars(Event("waiting", text="no workers yet"))
    bars(Event("start", "k=0", "host:1"))
    bars(Event("progress", "k=0", "host:1", 0.5, "half"))
    assert [task.completed for task in progress.tasks] == [0, 50]
    bars(Event("done", "k=0", "host:1", 1.0))
    bars(Event("lost", "k=1", "host:1", text="its worker died"))
    bars(Event("start", "k=1", "host:2"))
    bars(Event("failed", "k=1", "host:2", 1.0, "ValueError: no"))
    whole, first, second = progress.tasks
    assert (whole.completed, whole.total, whole.fields["note"]) == (2, 2, "1 failed")
    assert (first.completed, second.completed) == (100, 100)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text in said for text in ("no workers yet", "its worker died", "failed: k=1: ValueError: no"))


def test_figures() -> None:
    """One field is a line with bars at its values, two are a map of all means, more a panel each."""
    pytest.importorskip("matplotlib")
    axes = sweep_figure(_table({"rate": [0.01, 0.1, 1.0]}), "accuracy").axes[0]
    assert axes.get_xscale() == "log"
    line = axes.containers[0]
    np.testing.assert_allclose(line[0].get_xydata(), [[0.01, 0.005], [0.1, 0.105], [1.0, 0.205]])
    assert line.has_yerr
    pair = {"rate": [0.1, 0.2, 0.1, 0.2], "circuit.kind": ["aam", "aam", "fcm", "fcm"]}
    image = sweep_figure(_table(pair), "accuracy").axes[0].images[0]
    np.testing.assert_allclose(image.get_array(), [[0.005, 0.105], [0.205, 0.305]])
    three = {"rate": [1, 2, 3], "epochs": [3, 1, 2], "batch": [2, 3, 1]}
    panels = [a for a in sweep_figure(_table(three), "accuracy").axes if a.get_visible()]
    assert [a.get_xlabel() for a in panels] == ["rate", "epochs", "batch"]


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
