"""Runs that go on, with a trainer of NumPy: after any stop, from damaged files, where things have changed."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core.fake_runs import DATA, RECIPE, SPEC, Stopper, results, train_fakes

from xbar_core.errors import ConfigError
from xbar_core.lab import checkpoint
from xbar_core.lab.checkpoint import LAST, PREVIOUS, read_checkpoint
from xbar_core.lab.comparison import from_csv
from xbar_core.lab.data import DataSet
from xbar_core.lab.run import Interrupted, Options, resume, run
from xbar_core.lab.run_spec import RunSpec
from xbar_core.lab.training import Event, Note

pytest.importorskip("safetensors", reason="checkpoints need safetensors (the extra 'lab')")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    train_fakes(monkeypatch)


@pytest.mark.parametrize("stops", [[1], [5], [6], [7], [12, 1, 1], [3] * 15, [24], [25], [47]])
def test_goes_on_as_if_nothing_had_happened(tmp_path: Path, stops: list[int]) -> None:
    """Stopped after any steps and resumed, everything but the seconds comes out to the bit."""
    run(SPEC, tmp_path / "whole")
    todo = iter(stops)
    start: Any = lambda options: run(SPEC, tmp_path / "parts", options)  # noqa: E731
    for steps in itertools.chain(todo, [10**9]):
        try:
            start(Options(stop=Stopper(steps)))
            break
        except Interrupted:
            start = lambda options: resume(tmp_path / "parts", options)  # noqa: E731
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_finished_run_resumes_to_its_results(tmp_path: Path) -> None:
    """Nothing is left to do; a lost log is written again from the checkpoints."""
    wanted = run(SPEC, tmp_path)
    (tmp_path / "metrics.csv").unlink()
    (tmp_path / "native" / ".spare-0").write_bytes(bytes(100))  # killed before it was given back
    events: list[Event] = []
    assert resume(tmp_path, Options(events.append)) == wanted
    assert not (tmp_path / "native" / ".spare-0").exists()
    assert from_csv((tmp_path / "metrics.csv").read_text()) == wanted.comparison.epochs
    assert events == []


def test_removed_variant_is_trained_anew(tmp_path: Path) -> None:
    """Whoever removes a variant's folder and resumes gets it again, bit by bit."""
    run(SPEC, tmp_path)
    before = results(tmp_path)
    shutil.rmtree(tmp_path / "txsim")
    resume(tmp_path)
    assert results(tmp_path) == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "absent"])
def test_damaged_checkpoint(tmp_path: Path, damage: str) -> None:
    """A damaged last checkpoint is reported, the one before it is used, and nothing differs at the end."""
    run(SPEC, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path / "parts", Options(stop=Stopper(15), minutes=0.0))
    path = tmp_path / "parts" / "native" / LAST
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[-5] ^= 4
        path.write_bytes(data)
    else:
        path.unlink()
    events: list[Event] = []
    resume(tmp_path / "parts", Options(events.append))
    notes = [event.text for event in events if isinstance(event, Note)]
    if damage != "absent":
        assert "native/last.safetensors" in notes[0]
        assert "using the one before it" in notes[0]
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_both_checkpoints_damaged(tmp_path: Path) -> None:
    """Where no checkpoint is whole, that is said, and the variant starts anew."""
    run(SPEC, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path / "parts", Options(stop=Stopper(15), minutes=0.0))
    for name in (LAST, PREVIOUS):
        (tmp_path / "parts" / "native" / name).write_bytes(b"x" * 100)
    events: list[Event] = []
    resume(tmp_path / "parts", Options(events.append))
    assert sum("starting anew" in event.text for event in events if isinstance(event, Note)) == 2
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_checkpoint_of_another_version(tmp_path: Path) -> None:
    """Facts that lack something are one line that names it, and the checkpoint stays."""
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path, Options(stop=Stopper(4), minutes=0.0))
    path = tmp_path / "native" / LAST
    found = read_checkpoint(path)
    del found.facts["watch"]["windows"]
    path.write_bytes(checkpoint.encode(found.state, found.facts))
    with pytest.raises(ConfigError, match=r"'native' was written by another version.*'windows'"):
        resume(tmp_path)
    assert path.exists()


def test_other_data_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is not resumed on samples that have changed."""
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path, Options(stop=Stopper(3)))
    other = DataSet("corners", DATA.train_x + 1, DATA.train_y, DATA.test_x, DATA.test_y, DATA.classes)
    monkeypatch.setattr(RunSpec, "load_data", lambda spec: other)
    with pytest.raises(ConfigError, match="data: corners has changed since the run began"):
        resume(tmp_path)


def test_data_are_found_elsewhere(tmp_path: Path) -> None:
    """Another data folder, or another folder of images; the default where the run's is gone."""
    spec = replace(SPEC, data_folder=str(tmp_path))
    assert spec.with_data(None).data_folder == str(tmp_path)
    assert replace(spec, data_folder=str(tmp_path / "gone")).with_data(None).data_folder is None
    assert spec.with_data("there").data_folder == "there"
    images = replace(spec, dataset="./flowers").with_data("there")
    assert (images.dataset, images.data_folder) == ("there", str(tmp_path))


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"format": 99}'])
def test_folder_without_a_run(tmp_path: Path, content: str | None) -> None:
    """A folder that holds no run, or a damaged one, is one line."""
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match="run") as caught:
        resume(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["data", "processes", "versions", "machine", "recipe", "variants", "crc32"])
def test_run_file_that_lacks_something(tmp_path: Path, name: str) -> None:
    """Whatever is missing in run.json is named in one line."""
    run(replace(SPEC, recipe=replace(RECIPE, epochs=1)), tmp_path)
    facts = json.loads((tmp_path / "run.json").read_text())
    del (facts["data"] if name == "crc32" else facts)[name]
    (tmp_path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=f"is damaged .*{name}"):
        resume(tmp_path)


def test_threads_and_versions_that_changed_are_noted(tmp_path: Path) -> None:
    """Resuming with other versions says that the last bits may differ."""
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path, Options(stop=Stopper(3)))
    facts = json.loads((tmp_path / "run.json").read_text())
    facts["versions"]["numpy"] = "1.0"
    (tmp_path / "run.json").write_text(json.dumps(facts))
    events: list[Event] = []
    resume(tmp_path, Options(events.append))
    assert any(isinstance(event, Note) and "instead of 1.0" in event.text for event in events)


def test_thread_settings_that_changed_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another number of threads for linear algebra may change the last bits: it is said, both ways."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path, Options(stop=Stopper(3)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MKL_NUM_THREADS")
    events: list[Event] = []
    resume(tmp_path, Options(events.append))
    (note,) = (event.text for event in events if isinstance(event, Note))
    assert "MKL_NUM_THREADS=unset instead of 3, OMP_NUM_THREADS=1 instead of unset" in note
