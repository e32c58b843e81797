"""What a sweep finds: means over repeats with their intervals, the task of circuits, figures."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from xbar_core import AAM, FCM, Wires, effective_conductance
from xbar_core.circuit.report import error_report
from xbar_core.config import preset
from xbar_core.lab.sweep import Event, Plan, Setup, Table, estimate, estimate_crossed, parse_field
from xbar_core.lab.sweep.figures import sweep_figure
from xbar_core.lab.sweep.results import Row
from xbar_core.lab.sweep.store import Result


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
    fields = ("circuit.kind=aam", "circuit.order=1", "task.arrays=1", "seed=3")
    points = Plan(tuple(map(parse_field, fields)), task="circuit").points()
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
