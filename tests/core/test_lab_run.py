"""Runs, with a trainer of NumPy: what they leave, what is refused before, what is said of no learning."""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core.fake_runs import DATA, RECIPE, SPEC, STEPS, Stopper, train_fakes
from core.fake_trainer import FakeTrainer

from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab.checkpoint import BEST, LAST, PREVIOUS
from xbar_core.lab.comparison import Epoch, from_csv
from xbar_core.lab.data import DataSet
from xbar_core.lab.run import Interrupted, Options, RunResult, resume, run
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.run_spec import RunSpec
from xbar_core.lab.training import Event, Note, Progress

pytest.importorskip("safetensors", reason="checkpoints need safetensors (the extra 'lab')")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> type[FakeTrainer]:
    return train_fakes(monkeypatch, curves=request.node.name == "test_what_a_run_leaves")


def test_what_a_run_leaves(tmp_path: Path) -> None:
    """Settings, versions, command, log, curves, chips and checkpoints are in the folder."""
    events: list[Event] = []
    found = run(SPEC, tmp_path / "r", Options(events.append, tensorboard=True), command=["xbar", "train"])
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    assert facts["recipe"]["seed"] == 3
    assert facts["command"] == ["xbar", "train"]
    assert {"python", "numpy", "xbar-core"} <= facts["versions"].keys()
    assert facts["machine"]["threads"] >= 1
    assert RunFolder.open(tmp_path / "r").spec == SPEC
    assert (tmp_path / "r" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "r_row" in (tmp_path / "r" / "txsim" / "chip.toml").read_text()
    log = from_csv((tmp_path / "r" / "metrics.csv").read_text())
    assert log == found.comparison.epochs
    assert [(e.variant, e.epoch) for e in log] == [(v, k + 1) for v in SPEC.variants for k in range(4)]
    assert log[-1].accuracy > 0.9
    assert (log[0].saturated, log[-1].saturated) == (0, 2 * STEPS)
    assert (log[-1].at_end, log[-1].clipped, log[-1].distortion) == (0.4, 0.02, 0.05)
    assert log[1].rate == RECIPE.rate_at(1)
    for variant in SPEC.variants:
        assert sorted(p.name for p in (tmp_path / "r" / variant).iterdir() if p.suffix != ".toml") == sorted(
            [LAST, PREVIOUS, BEST]
        )
        folder = RunFolder.open(tmp_path / "r")
        best = folder.checkpoint(variant, "best").facts
        assert max(e.accuracy for e in log if e.variant == variant) == best["log"][-1]["accuracy"]
        assert folder.checkpoint(variant, "last").facts["position"]["epoch"] == 4
    assert sum(isinstance(event, Progress) for event in events) == 2 * 4 * STEPS
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.step, last.steps, last.epoch, last.epochs) == (STEPS, STEPS, 4, 4)
    assert last.left >= 0.0


def test_result_holds_log(tmp_path: Path) -> None:
    """The result is the log, in the order of training."""
    found = run(SPEC, tmp_path)
    assert isinstance(found, RunResult)
    assert found.comparison.variants == ["native", "txsim"]
    assert found.comparison.best("txsim").accuracy == max(e.accuracy for e in found.comparison.of("txsim"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": replace(RECIPE, network="unknown")}, "network: unknown name"),
        ({"recipe": replace(RECIPE, batch=97)}, "larger than the data"),
        ({"variants": {}}, "variants: none given"),
        ({"variants": {"a/b": None}}, "cannot name a folder"),
    ],
)
def test_what_cannot_work_writes_nothing(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """An error before training leaves no folder, and an earlier run's files as they were."""
    run(SPEC, tmp_path / "old")
    before = {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()}
    for folder in ("new", "old"):
        with pytest.raises((ConfigError, ShapeError), match=message):
            run(replace(SPEC, **change), tmp_path / folder)
    assert not (tmp_path / "new").exists()
    assert {path: path.read_bytes() for path in (tmp_path / "old").rglob("*") if path.is_file()} == before


def test_new_run_leaves_no_old_checkpoint(tmp_path: Path) -> None:
    """A run in the folder of another one cannot be resumed into the other one's states."""
    run(SPEC, tmp_path)
    with pytest.raises(Interrupted):
        run(replace(SPEC, variants={"native": None}), tmp_path, Options(stop=Stopper(1)))
    assert not (tmp_path / "txsim" / LAST).exists()
    assert RunFolder.open(tmp_path).checkpoint("native", "last").facts["position"]["step"] == 2


def test_replaced_run_leaves_no_chip_and_no_events(tmp_path: Path) -> None:
    """What belonged to the variants of the run before is gone; other files are left alone."""
    run(SPEC, tmp_path, Options(tensorboard=True))
    (tmp_path / "txsim" / "mine.txt").write_text("kept")
    run(replace(SPEC, variants={"native": None}), tmp_path)
    assert [path.name for path in (tmp_path / "txsim").iterdir()] == ["mine.txt"]
    assert not list(tmp_path.rglob("events.out.*"))


def test_run_of_another_process_is_left_alone(tmp_path: Path) -> None:
    """A run that is being trained can neither be resumed nor replaced; a killed process lets it go."""
    fcntl = pytest.importorskip("fcntl", reason="needs file locks")
    run(SPEC, tmp_path)
    with (tmp_path / "run.json").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for start in (lambda: resume(tmp_path), lambda: run(SPEC, tmp_path)):
            with pytest.raises(ConfigError, match="is being trained by another process"):
                start()
    resume(tmp_path)


def test_processes_must_share_batches_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch, or the last one of an epoch, that two processes cannot halve is refused."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    for batch in (15, 21):
        with pytest.raises(ConfigError, match="2 processes cannot share evenly"):
            run(replace(SPEC, recipe=replace(RECIPE, batch=batch)), tmp_path)
    monkeypatch.delenv("WORLD_SIZE")
    run(SPEC, tmp_path / "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="processes"):
        resume(tmp_path / "one")


def test_only_the_first_process_touches_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks set aside belong to the process that writes: another one may end while it still does."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    spare = tmp_path / "native" / ".spare-0"
    spare.parent.mkdir()
    spare.write_bytes(bytes(100))
    run(SPEC, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [spare]


def test_augmentation_needs_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cropping samples that are no images ends before training."""
    flat = DataSet(
        "flat", DATA.train_x[:, 0, 0], DATA.train_y, DATA.test_x[:, 0, 0], DATA.test_y, DATA.classes
    )
    monkeypatch.setattr(RunSpec, "load_data", lambda spec: flat)
    with pytest.raises(ShapeError, match="are no images"):
        run(replace(SPEC, recipe=replace(RECIPE, augment="crop-flip")), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_unknown_variant_and_missing_checkpoint(tmp_path: Path) -> None:
    """Names that are not in a run are answered with the nearest one; no checkpoint yet is said."""
    folder = RunFolder.create(tmp_path, SPEC, more={"data": {}, "processes": 1})
    with pytest.raises(ConfigError, match="did you mean 'txsim'"):
        folder.checkpoint("txsin")
    for which in ("best", "last"):
        with pytest.raises(ConfigError, match="native"):
            folder.checkpoint("native", which)


def test_one_network_at_a_time(tmp_path: Path, fake: type[FakeTrainer]) -> None:
    """Trainers that refer to themselves are collected before the next one is built."""
    made: list[weakref.ref[FakeTrainer]] = []
    alive: list[int] = []

    def factory(self: FakeTrainer, *given: Any) -> None:
        FakeTrainer.__init__(self, *given)
        self.itself = self  # type: ignore[attr-defined]
        alive.append(sum(each() is not None for each in made))
        made.append(weakref.ref(self))

    fake.__init__ = factory  # type: ignore[method-assign,assignment]
    gc.disable()
    try:
        run(replace(SPEC, recipe=replace(RECIPE, epochs=1)), tmp_path)
    finally:
        gc.enable()
    assert alive == [0] * 2 * len(SPEC.variants)


def test_memory_stays_flat(tmp_path: Path) -> None:
    """From the 20th to the 60th epoch a run holds no more than the lines that its log has gained."""
    held: dict[int, int] = {}

    def report(event: Event) -> None:
        if isinstance(event, Epoch) and event.epoch in (20, 60):
            gc.collect()
            held[event.epoch] = tracemalloc.get_traced_memory()[0]

    spec = replace(SPEC, recipe=replace(RECIPE, epochs=60), variants={"native": None})
    tracemalloc.start()
    try:
        run(spec, tmp_path, Options(report))
    finally:
        tracemalloc.stop()
    assert held[60] - held[20] < 40 * 2000


def test_run_that_does_not_learn_says_so(tmp_path: Path, fake: type[FakeTrainer]) -> None:
    """After 50 steps at chance one note names the numbers and the layer that stands out; once only."""
    fake.learns = False
    recipe = replace(RECIPE, epochs=80)
    events: list[Event] = []
    run(replace(SPEC, recipe=recipe), tmp_path, Options(events.append, minutes=60))
    notes = [event for event in events if isinstance(event, Note)]
    assert [note.variant for note in notes] == ["native", "txsim"]
    assert "epoch 9: it does not learn: over the last 25 of 50 steps" in notes[0].text
    assert "loss 1.386 is not below its first values (1.386)" in notes[0].text
    assert "no layer's weights move" in notes[0].text
    assert "layer 'out', states: 40% of its devices" in notes[1].text


def test_run_that_learns_is_left_in_peace(tmp_path: Path) -> None:
    """No note in a healthy run."""
    events: list[Event] = []
    run(replace(SPEC, recipe=replace(RECIPE, epochs=60)), tmp_path, Options(events.append, minutes=60))
    assert not [event for event in events if isinstance(event, Note)]
