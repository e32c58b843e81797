"""Studies of the paper's evaluation: they run, and their verdicts say what the numbers say."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numba
import pytest

from xbar_core.cli import main
from xbar_core.errors import ConfigError
from xbar_core.lab.studies import Finding, Report, find_study, run_study, study_names, write_pages
from xbar_core.lab.studies.choosing import NothingToRun, changed, runnable
from xbar_core.lab.sweep import Setup, parse_field

NEEDS_TRAINING = [name for name in study_names() if name != "fig6"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small arrays on a busy machine: threads that wait for each other cost more than they do."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NEEDS_TRAINING)
def test_smoke(name: str, tmp_path: Path) -> None:
    """Every study runs to its end in seconds, writes all files, and finds nothing in a single seed."""
    if importlib.util.find_spec("xbar_torch") is None:
        pytest.skip("xbar_torch is not installed; this study trains")
    report, outcome = run_study(find_study(name), "smoke", tmp_path, workers=0, command="a command")
    assert outcome.failed == 0
    assert not report.cut
    assert report.findings
    for file in ("results.csv", "results.parquet", "summary.csv", "figure.png", "figure.svg", "verdict.md"):
        assert (tmp_path / file).stat().st_size > 50, file
    if name == "table1":
        runs = [finding for finding in report.findings if not finding.claim.startswith("data set")]
        assert {finding.verdict for finding in runs} == {"shown"}
    else:
        assert {finding.verdict for finding in report.findings} == {"undecided"}
        assert all(finding.reason for finding in report.findings)
    assert Report.read(tmp_path) == report


def test_fig6_smoke_and_page(tmp_path: Path) -> None:
    """A finished study becomes a page whose links lead somewhere, the same every time."""
    report, _ = run_study(
        find_study("fig6"), "smoke", tmp_path / "run", workers=0, command="xbar reproduce fig6"
    )
    assert not report.cut
    written = write_pages([tmp_path / "run"], tmp_path / "docs" / "results.md")
    for page in (path for path in written if path.suffix == ".md"):
        text = page.read_text()
        assert "its numbers mean nothing" in text or page.name == "results.md"
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (page.parent / target).is_file(), target
    first = (tmp_path / "docs" / "results" / "fig6-smoke.md").read_text()
    write_pages([tmp_path / "run"], tmp_path / "docs" / "results.md")
    assert (tmp_path / "docs" / "results" / "fig6-smoke.md").read_text() == first
    assert "[fig6](results/fig6-smoke.md)" in (tmp_path / "docs" / "results.md").read_text()
    with pytest.raises(ConfigError, match="holds no finished study"):
        write_pages([tmp_path], tmp_path / "docs" / "results.md")


def test_page_takes_scales_side_by_side_and_answers(tmp_path: Path) -> None:
    """Scales do not overwrite each other; the page answers from the findings, and says if no GPU ran."""
    findings = {
        "fig5b": [Finding("AAM 1 models training without much loss", "lost 0", "reproduced")],
        "devices": [Finding("gst-pcm, reads: dominated by wires", "9 %", "shown")],
        "fig7": [Finding("fast", "14", "undecided", "spread")],
    }
    folders = []
    for name, scale in (("fig5b", "small"), ("devices", "small"), ("fig7", "small"), ("fig5b", "paper")):
        folder = tmp_path / f"{name}-{scale}"
        folder.mkdir()
        for file in ("figure.png", "figure.svg", "summary.csv"):
            (folder / file).write_text(scale)
        report = Report(
            name, name, scale, "", findings[name], 1, 1, 0, 60.0, 200.0, "EPYC", "0", "xbar reproduce"
        )
        (folder / "study.json").write_text(json.dumps(asdict(report)))
        folders.append(folder)
    write_pages(folders, tmp_path / "results.md")
    assert (tmp_path / "results" / "fig5b-small.csv").read_text() == "small"
    assert (tmp_path / "results" / "fig5b-paper.csv").read_text() == "paper"
    text = (tmp_path / "results.md").read_text()
    assert "no more than half a point of accuracy against AAM 1" in text
    assert "What dominates the errors of reads: wires (gst-pcm)" in text
    assert "No GPU was at hand: fig7 is at the scale small only" in text
    cut = tmp_path / "devices-paper"
    cut.mkdir()
    for file in ("figure.png", "figure.svg", "summary.csv"):
        (cut / file).write_text("paper")
    open_ = [Finding("gst-pcm, reads: dominated by wires", "", "undecided")]
    report = Report("devices", "", "paper", "", open_, 9, 1, 0, 1.0, 1.0, "GPU", "0", "xbar reproduce")
    (cut / "study.json").write_text(json.dumps(asdict(report)))
    write_pages([*folders, cut], tmp_path / "results.md")
    # What was cut short does not take the place of what is whole.
    assert "wires (gst-pcm) ([devices](results/devices-small.md))" in (tmp_path / "results.md").read_text()


def test_a_study_of_times_says_when_they_are_not_of_a_free_machine(tmp_path: Path) -> None:
    """Points timed side by side, or in several runs, are named; one after the other in one run are not."""
    study = replace(find_study("fig6"), timing=True)
    only = [parse_field("order=0"), parse_field("resistance=3k-10k"), parse_field("seed=0")]
    first, _ = run_study(study, "smoke", tmp_path, workers=0, only=only)
    assert "side by side" not in first.conditions
    assert "several runs" not in first.conditions
    second, _ = run_study(study, "smoke", tmp_path, workers=2)
    assert "timed side by side" in second.conditions
    assert "Points of several runs" in second.conditions


def test_a_report_says_where_it_ran_and_what_is_not_the_papers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is named; a part of the points is not the paper's; time by the clock adds up over runs."""
    from xbar_core.lab.studies import frame

    def said(*words: Any, **rest: Any) -> Any:
        return subprocess.CompletedProcess(words, 0, stdout="NVIDIA H100\n")

    monkeypatch.setattr(frame.subprocess, "run", said)
    assert frame.machine("cuda:1").startswith("GPU NVIDIA H100, ")
    assert "GPU" not in frame.machine("cpu")
    study = replace(find_study("fig6"), trains=True)
    only = [parse_field("order=0"), parse_field("resistance=3k-10k"), parse_field("seed=0")]
    first, _ = run_study(study, "smoke", tmp_path, workers=0, only=only)
    second, _ = run_study(study, "smoke", tmp_path, workers=0, only=only)
    assert second.elapsed == first.elapsed > 0.0  # nothing was computed again
    elsewhere = {"machine": "another machine", "command": "the first command", "version": "0.0.9"}
    (tmp_path / "study.json").write_text(json.dumps({**asdict(first), **elsewhere}))
    again, _ = run_study(study, "smoke", tmp_path, workers=0, only=only, command="a later one")
    assert (again.machine, again.command) == ("another machine", "the first command")
    assert again.version == first.version  # the results say it
    third, outcome = run_study(study, "smoke", tmp_path, workers=0)
    assert third.elapsed == pytest.approx(first.elapsed + outcome.seconds)
    paper = replace(study, points=lambda scale: find_study("fig6").points("smoke"))
    assert (
        "not all of it is as in the paper"
        in run_study(paper, "paper", tmp_path / "paper", workers=0, only=only)[0].conditions
    )


def test_one_study_that_cannot_run_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without its data a study is named, the next ones run, the page is written; the exit code is 1."""
    if importlib.util.find_spec("xbar_torch") is None:
        pytest.skip("xbar_torch is not installed; this study trains")
    command = importlib.import_module("xbar_core.cli.reproduce")

    def without_data(study: Any, *words: Any, **rest: Any) -> Any:
        if study.name == "fig5b":
            raise NothingToRun("data: MNIST is not there")
        return run_study(study, *words, **rest)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "run_study", without_data)
    words = ["--scale", "smoke", "--workers", "0", "--page", "results.md"]
    assert main(["reproduce", "fig5b", "fig6", *words]) == 1
    assert "fig5b: not run: data: MNIST is not there" in capsys.readouterr().out
    assert (tmp_path / "results" / "fig6-smoke.md").is_file()
    assert main(["reproduce", "fig5b", *words]) == 2


def test_cut_short_is_said(tmp_path: Path) -> None:
    """A study that ran out of time says so first; another run completes it."""
    study = find_study("fig6")
    report, outcome = run_study(study, "smoke", tmp_path, workers=0, limit=1e-6)
    assert outcome.left > 0
    assert report.cut
    text = (tmp_path / "verdict.md").read_text()
    assert f"**Cut short: {report.computed} of {report.planned} points" in text
    report, _ = run_study(study, "smoke", tmp_path, workers=0)
    assert not report.cut
    assert "Cut short" not in (tmp_path / "verdict.md").read_text()


def test_only_some_points(tmp_path: Path) -> None:
    """Points that were not asked for count as missing, and the report says which were."""
    study = find_study("fig6")
    only = [parse_field("order=0"), parse_field("resistance=3k-10k,20k-200k")]
    report, outcome = run_study(study, "smoke", tmp_path, workers=0, only=only)
    assert (outcome.done, report.computed, report.planned) == (4, 4, 12)
    assert "Only order" in report.conditions
    for text, message in (("ordr=0", "did you mean 'order'"), ("order=7", "there are 0, 3")):
        with pytest.raises(ConfigError, match=message):
            run_study(study, "smoke", tmp_path, workers=0, only=[parse_field(text)])


def test_changed_training() -> None:
    """A study can be trained otherwise; its labels stay, its keys do not."""
    point = find_study("fig8").points("paper")[0]
    shorter = changed(point, [parse_field("epochs=2"), parse_field("limit=500")])
    assert (shorter.setup.recipe.epochs, shorter.setup.limit) == (2, 500)  # type: ignore[union-attr]
    assert shorter.values == point.values
    assert shorter.key != point.key
    for text, message in (("epoch=2", "did you mean 'epochs'"), ("epochs=1,2", "several values")):
        with pytest.raises(ConfigError, match=message):
            changed(point, [parse_field(text)])


def test_missing_data_leave_points_out(tmp_path: Path) -> None:
    """Points whose data set is not here are left out and named; with none left it is an error."""
    if importlib.util.find_spec("xbar_torch") is None:
        pytest.skip("xbar_torch is not installed; this study trains")
    points = find_study("fig8").points("smoke")[:2]
    lost = [replace(p, setup=replace(p.setup, dataset="no_such_module:data")) for p in points]
    kept, remarks = runnable([*points, *lost])
    assert kept == points
    assert any("Left out, 2 points" in remark for remark in remarks)
    with pytest.raises(ConfigError, match="no_such_module"):
        runnable(lost)


def test_fig6_at_small_scale_measures_what_the_physics_page_says() -> None:
    """One 64x64 array without source and sense resistance: order 1 of AAM is 4.6e-4, 8e-3 and 0.33 wrong."""
    from xbar_core.lab.studies.fig6 import error_map

    for name, least, most in (("100k-1M", 2e-4, 1e-3), ("20k-200k", 3e-3, 2e-2), ("3k-10k", 0.1, 0.6)):
        (point,) = (
            p
            for p in find_study("fig6").points("small")
            if p.values == {"resistance": name, "ends": "none", "order": 1, "seed": 0}
        )
        found = error_map(point.setup)
        assert least < float(found["worst"]) < most  # type: ignore[arg-type]


def test_damage_of_an_ideal_chip_is_none() -> None:
    """An ideal chip loses nothing in reads and updates; noise of law txsim is proportional to gamma."""
    if importlib.util.find_spec("xbar_torch") is None:
        pytest.skip("xbar_torch is not installed; this study trains")
    from xbar_core.config import preset
    from xbar_core.lab.studies.damage import reads, updates
    from xbar_core.lab.studies.frame import lenet, trained

    recipe, where, _ = lenet("smoke")

    def setup(**values: Any) -> Setup:
        return trained({}, preset("ideal").with_values(values), recipe, **where).setup

    assert reads(setup())["error"] < 1e-5
    assert updates(setup())["error"] < 1e-5
    single, double = (
        updates(setup(**{"update.noise": {"law": "txsim", "gamma": gamma}}))["error"] for gamma in (0.2, 0.4)
    )
    assert single > 0.1
    # float32 weights hold a small change of them to a few parts in a thousand.
    assert double == pytest.approx(2 * single, rel=1e-2)


def test_scales_grow() -> None:
    """Smoke has at most as many points as small, small at most the settings of paper."""
    for name in study_names():
        study = find_study(name)
        smoke, small, paper = (len(study.points(scale)) for scale in ("smoke", "small", "paper"))
        assert smoke < small <= paper, name
        keys = [point.key for point in study.points("small")]
        assert len(keys) == len(study.points("small"))


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`xbar reproduce` lists studies, runs one, and writes the pages."""
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in study_names())
    assert main(["reproduce", "fig6", "--scale", "smoke", "--workers", "0", "--page", "docs/results.md"]) == 0
    assert (tmp_path / "docs" / "results.md").is_file()
    assert json.loads((tmp_path / "runs/studies/fig6-smoke/study.json").read_text())["scale"] == "smoke"
    for wrong in ("docs", "fig.md"):  # no page, and a page whose folder would be a file
        (tmp_path / "fig").touch()
        assert main(["reproduce", "fig6", "--scale", "smoke", "--page", wrong]) == 2
        assert "page: " in capsys.readouterr().err
    assert main(["reproduce", "fig13"]) == 2
    assert "did you mean 'fig1" in capsys.readouterr().err
    assert main(["reproduce", "fig6", "--scale", "smal"]) == 2
    assert "did you mean 'small'" in capsys.readouterr().err
    assert main(["reproduce", "--page", "docs/results.md", "--scale", "paper"]) == 2
    assert "holds no study" in capsys.readouterr().err
