"""What all studies share: points through the engine of sweeps, a figure, findings, files."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xbar_core
from xbar_core._checks import check_choice
from xbar_core.config import Chip
from xbar_core.lab.studies.choosing import changed, listed, only_value, runnable, selected
from xbar_core.lab.studies.tables import reproducible, write_curves, write_summary
from xbar_core.lab.sweep.engine import Event, Outcome, run_points
from xbar_core.lab.sweep.fields import Field
from xbar_core.lab.sweep.points import Point, labelled, text_of
from xbar_core.lab.sweep.results import Row, Table
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.sweep.store import Result, Store
from xbar_core.lab.trainer import Recipe
from xbar_core.lab.whole_file import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scale = Literal["smoke", "small", "paper"]
SCALES: tuple[Scale, ...] = ("smoke", "small", "paper")
_LEADS: dict[Scale, str] = {
    "smoke": "This is a check that the study runs; its numbers mean nothing.",
    "small": "Small scale: smaller networks and data than the paper's; these points are not the paper's.",
    "paper": "The paper's networks and data.",
}
Verdict = Literal["reproduced", "not reproduced", "undecided", "shown", "not shown"]


@dataclass(frozen=True)
class Finding:
    """One claim of the paper beside what was found.

    Parameters
    ----------
    claim : str
        What the paper says, in one sentence.
    found : str
        Numbers.
    verdict : {"reproduced", "not reproduced", "undecided", "shown", "not shown"}
        Undecided where the difference is smaller than the spread, or points are missing; shown or not
        for claims of our own.
    reason : str
        Why it differs or cannot be decided, with evidence.
    """

    claim: str
    found: str
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True)
class Study:
    """One figure or table of the paper.

    Parameters
    ----------
    name : str
        As the command takes it.
    title : str
        For headings.
    points : callable
        From a scale to the points; their values are the study's own labels, with ``seed`` for repeats.
    figure : callable
        From the table of results to the figure.
    findings : callable
        From the table of results to the verdicts.
    conditions : callable
        From a scale to one or two sentences: network, data, epochs, what was left out.
    metric, others : str, tuple of str
        The metrics of ``summary.csv``.
    curve : str
        A metric that is a list over epochs, for ``curves.csv``; none where empty.
    measure : callable
        From a row and a metric to its number.
    timing : bool
        Points are timed, so they run one after the other.
    trains : bool
        False where the small scale is the paper's own, because nothing is trained.
    """

    name: str
    title: str
    points: Callable[[Scale], list[Point]]
    figure: Callable[[Table], Figure]
    findings: Callable[[Table], list[Finding]]
    conditions: Callable[[Scale], str]
    metric: str = "accuracy"
    others: tuple[str, ...] = ()
    curve: str = ""
    measure: Callable[[Row, str], float] = Row.metric
    timing: bool = False
    trains: bool = True


@dataclass(frozen=True)
class Report:
    """What a study left behind.

    Attributes
    ----------
    name, title, scale, conditions : str
        Of the study.
    findings : list of Finding
        One for each claim.
    planned, computed, failed : int
        Points of the study; those with a result; those that failed.
    seconds : float
        Time that all points took together, on however many workers.
    elapsed : float
        Time by the clock, the sum of all runs that computed points; for points of a run that left no
        report, that of its busiest worker.
    machine, version, command : str
        Where and with what it was run.
    """

    name: str
    title: str
    scale: str
    conditions: str
    findings: list[Finding]
    planned: int
    computed: int
    failed: int
    seconds: float
    elapsed: float
    machine: str
    version: str
    command: str

    @property
    def cut(self) -> bool:
        """Whether points are missing."""
        return self.computed < self.planned

    @classmethod
    def read(cls, folder: Path) -> Report:
        """Return the report that `run_study` wrote into a folder."""
        table = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        return cls(**{**table, "findings": [Finding(**finding) for finding in table["findings"]]})


def run_study(
    study: Study,
    scale: str,
    folder: Path,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    limit: float | None = None,
    device: str = "cpu",
    data_folder: str | None = None,
    framework: str = "torch",
    changes: Sequence[Field] = (),
    only: Sequence[Field] = (),
    command: str = "",
    watch: Callable[[Event], None] = lambda event: None,
) -> tuple[Report, Outcome]:
    """Compute what is missing of a study and write data, figure and verdict.

    Parameters
    ----------
    study : Study
    scale : {"smoke", "small", "paper"}
        Seconds, to see that it works; minutes on two cores; the paper's networks, data and epochs.
    folder : Path
        Gets ``results.csv`` and ``.parquet``, ``summary.csv``, ``curves.csv`` where there are some,
        ``figure.png``, ``figure.svg``, ``verdict.md``, ``study.json`` and the points.
    workers, scheduler, limit, watch
        As `run_points` takes them.
    device, framework : str
        Where and with what to train.
    data_folder : str or None
        Where data sets are.
    changes : sequence of Field
        Fields of the recipe, or ``limit``, with one value each, that take the place of the study's own.
    only : sequence of Field
        Labels and the values of those points that are computed; the others count as missing.
    command : str
        For the report.

    Raises
    ------
    ConfigError
        A wrong scale, change or label; or no point can be computed (data sets or adapter missing).
    """
    check_choice("scale", scale, SCALES)
    chosen: Scale = next(known for known in SCALES if known == scale)
    points = [_placed(point, device, framework, data_folder) for point in study.points(chosen)]
    points = labelled([changed(point, changes) for point in points])
    possible, remarks = runnable(selected(points, only))
    remarks += [f"Changed: {field.name} = {text_of(only_value(field))}." for field in changes]
    remarks += [f"Only {field.name} = {listed(field)}." for field in only]
    store = Store(folder)
    if study.timing and workers is None and scheduler is None:
        workers = 1
    if study.timing and (scheduler is not None or workers not in (0, 1)):
        remarks.append(
            "Points were timed side by side on one machine: the times are not those of a free one."
        )
    earlier = _earlier(folder)
    before = _elapsed(earlier, Table.collect(points, store))
    outcome = run_points(possible, store, workers=workers, scheduler=scheduler, limit=limit, watch=watch)
    computing = outcome.done + outcome.failed > 0
    if study.timing and computing and outcome.kept:
        remarks.append("Points of several runs are compared: the machine may have done other work in one.")
    table = Table.collect(points, store)
    results = [row.result for row in table.rows]
    distinct = _distinct(table)
    computed = sum(result is not None and result.status == "done" for result in results)
    lead = [_LEADS[chosen]] if study.trains or scale == "smoke" else []
    if scale == "paper" and lead and (remarks or computed < len(results)):
        lead = [
            "The paper's networks, but not all of it is as in the paper: these points are not the paper's."
        ]
    report = Report(
        name=study.name,
        title=study.title,
        scale=scale,
        conditions=" ".join([*lead, study.conditions(chosen), *remarks]),
        findings=study.findings(table),
        planned=len(results),
        computed=computed,
        failed=sum(result is not None and result.status == "failed" for result in results),
        seconds=sum(result.seconds for result in distinct),
        elapsed=before + (outcome.seconds if computing else 0.0),
        # A rerun that computes nothing leaves whose results these are as it was.
        machine=machine(device) if computing or earlier is None else earlier.machine,
        version=", ".join(sorted({result.version for result in distinct})) or xbar_core.__version__,
        command=command if computing or earlier is None else earlier.command,
    )
    table.write_rows(folder)
    write_summary(table, folder, (study.metric, *study.others), study.measure)
    if study.curve:
        write_curves(table, folder, study.curve)
    figure = study.figure(table)
    cut = f", cut short: {computed} of {len(results)} points" if report.cut else ""
    figure.suptitle(f"{figure.get_suptitle() or study.title}, scale {scale}{cut}", fontsize=10)
    for suffix in (".png", ".svg"):
        part = folder / f".figure.part{suffix}"
        # Without a date, and with identifiers of its own, the same results make the same file.
        with reproducible():
            figure.savefig(part, metadata={"Date": None} if suffix == ".svg" else None)
        part.replace(folder / f"figure{suffix}")
    write_whole(folder / "study.json", json.dumps(asdict(report), indent=1) + "\n")
    from xbar_core.lab.studies.page import verdict_text

    write_whole(folder / "verdict.md", verdict_text(report))
    return report, outcome


def _distinct(table: Table) -> list[Result]:
    """Return every result once, however many points mean the same."""
    results = [row.result for row in table.rows if row.result is not None]
    return list({result.key: result for result in results}.values())


def _earlier(folder: Path) -> Report | None:
    """Return what an earlier run wrote; None for the first run, or where it was interrupted."""
    try:
        return Report.read(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _elapsed(earlier: Report | None, table: Table) -> float:
    """Return the time by the clock of earlier runs: what they wrote, or their busiest worker's."""
    busy: dict[str, float] = {}
    for result in _distinct(table):
        busy[result.worker] = busy.get(result.worker, 0.0) + result.seconds
    known = 0.0 if earlier is None else earlier.elapsed
    return max(known, *busy.values(), 0.0)


def machine(device: str = "cpu") -> str:
    """Return one line on the machine: GPU where one is used, processor, cores, system."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass  # not Linux, or no such line: the plain name stays
    graphics = f"{_graphics(device)}, " if device != "cpu" else ""
    return (
        f"{graphics}{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )


def _graphics(device: str) -> str:
    """Return the name of a GPU, or of the device where it has none."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return f"GPU ({device})"
    words = ["nvidia-smi", f"--id={number or 0}", "--query-gpu=name", "--format=csv,noheader"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        said = ""
    return f"GPU {said or device}"


def trained(labels: Mapping[str, Any], chip: Chip | None, recipe: Recipe, **where: Any) -> Point:
    """Return a point that trains, its chip and recipe seeded by the label ``seed``."""
    seed = int(labels.get("seed", 0))
    setup = Setup(
        "train",
        None if chip is None else chip.with_("seed", seed),
        replace(recipe, seed=seed),
        **where,
    )
    return Point(dict(labels), setup)


def thinned(values: Sequence[Any], scale: Scale) -> Sequence[Any]:
    """Return the values, only the first and the last at the scale ``smoke``."""
    return (values[0], values[-1]) if scale == "smoke" and len(values) > 2 else values


def seeds(scale: Scale, count: int = 3) -> range:
    """Return the seeds that a setting is repeated for."""
    return range(1 if scale == "smoke" else count)


def lenet(scale: Scale) -> tuple[Recipe, dict[str, Any], str]:
    """Return recipe, data and one sentence about them: LeNet-5 on MNIST, on a part of it, on digits."""
    if scale == "paper":
        return (
            Recipe("lenet5", epochs=20, batch=128, rate=0.05),
            {"dataset": "mnist"},
            "LeNet-5 on MNIST, 20 epochs of batches of 128, rate 0.05.",
        )
    if scale == "small":
        return (
            Recipe("lenet5", epochs=6, batch=64, rate=0.05),
            {"dataset": "mnist", "limit": 2000},
            "LeNet-5 on a part of MNIST (2000 training and 2000 test images), 6 epochs of batches of 64, "
            "rate 0.05.",
        )
    return (
        Recipe("lenet5", epochs=1, batch=16, rate=0.02),
        {"dataset": "digits", "limit": 32},
        "LeNet-5 on 32 digits, one epoch: a check that the study runs, no result.",
    )


def _placed(point: Point, device: str, framework: str, data_folder: str | None) -> Point:
    setup = replace(point.setup, framework=framework, data_folder=data_folder)
    if setup.recipe is not None:
        setup = replace(setup, recipe=replace(setup.recipe, device=device))
    return replace(point, setup=setup)
