"""`xbar reproduce`: bad input ends it before anything is computed, a study that cannot run does not."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the extra xbar-core[cli] is not installed")
pytest.importorskip("matplotlib", reason="the extra xbar-core[plots] is not installed")

from xbar_core.cli import main
from xbar_core.errors import ConfigError
from xbar_core.lab.studies import Report, Study, study_names
from xbar_core.lab.studies.choosing import NothingToRun
from xbar_core.lab.sweep import Outcome

Failure = Callable[[str], Exception | None]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Names and commands of the studies that are run: none computes anything."""
    return record(tmp_path, monkeypatch, lambda name: None)


def record(folder: Path, monkeypatch: pytest.MonkeyPatch, failure: Failure) -> list[tuple[str, str]]:
    found = []

    def run_study(study: Study, scale: str, *given: Any, command: str, **rest: Any) -> tuple[Report, Outcome]:
        found.append((study.name, command))
        if (error := failure(study.name)) is not None:
            raise error
        report = Report(study.name, study.title, scale, "", [], 1, 1, 0, 0.0, 0.0, "", "", command)
        return report, Outcome(0, 1, 0, 0, 0.0)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(importlib.import_module("xbar_core.cli.reproduce"), "run_study", run_study)
    return found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "epochs"], "field 'epochs': not of the form path=values"),
        (["--set", "nonsense=1"], "set: 'nonsense' is no field of the recipe"),
        (["--set", "epochs=0"], "epochs: 0 is out of range"),
        (["--set", "epochs=1,2"], "set: epochs has several values"),
        (["--only", "seed"], "field 'seed': not of the form path=values"),
        (["--only", "sede=0"], "only: no point has a label 'sede', did you mean 'seed'?"),
        (["--only", "seed=77"], "only: no point has seed = 77"),
        (["--framework", "torhc"], "framework: no adapter for 'torhc' is installed"),
        (["--workers", "-1"], "workers: -1 is out of range"),
        (["--minutes", "0"], "minutes: 0.0 is out of range"),
    ],
)
def test_bad_input_is_one_line(
    ran: list[tuple[str, str]], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Exit code 2 before any study begins, for all of them as for one."""
    for names in (["all"], ["fig8"]):
        assert main(["reproduce", *names, "--scale", "smoke", *arguments]) == 2
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.err.count("\n") == 1
        assert shown.out == ""
    assert ran == []


def test_studies_that_cannot_run_stop_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A study without its data, or without such points, is named, and the next one runs."""
    need_torch()
    lost: Failure = lambda name: NothingToRun("data: MNIST is not there") if name == "fig5b" else None  # noqa: E731
    ran = record(tmp_path, monkeypatch, lost)
    assert main(["reproduce", "all", "--scale", "smoke"]) == 1
    assert "fig5b: not run: data: MNIST is not there" in capsys.readouterr().out
    assert [name for name, _ in ran] == list(study_names())


def test_scheduler_that_does_not_answer_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What no other study would fare better with ends the command."""
    need_torch()
    text = "scheduler: 'tcp://bad' does not answer"
    ran = record(tmp_path, monkeypatch, lambda name: ConfigError(text))
    assert main(["reproduce", "all", "--scale", "smoke", "--scheduler", "tcp://bad"]) == 2
    assert text in capsys.readouterr().err
    assert len(ran) == 1


def test_command_of_a_report_names_the_framework(ran: list[tuple[str, str]]) -> None:
    """Whoever types it again gets the same: the framework is in it unless it is the usual one."""
    for framework in ("torch", "tf"):
        if importlib.util.find_spec(f"xbar_{framework}") is None:
            pytest.skip(f"xbar_{framework} is not installed")
        assert main(["reproduce", "fig8", "--scale", "smoke", "--framework", framework]) == 0
    assert [command for _, command in ran] == [
        "xbar reproduce fig8 --scale smoke",
        "xbar reproduce fig8 --scale smoke --framework tf",
    ]


def need_torch() -> None:
    if importlib.util.find_spec("xbar_torch") is None:
        pytest.skip("xbar_torch is not installed; most studies train")
