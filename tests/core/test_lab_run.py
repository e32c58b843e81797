"""Runs, with a trainer of NumPy: what is kept, going on after any stop, full disks, NaN, no learning."""

from __future__ import annotations

import errno
import gc
import itertools
import json
import shutil
import struct
import tracemalloc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core.fake_trainer import FakeTrainer, fake_data
from matplotlib.figure import Figure

from xbar_core.config import preset
from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab import checkpoint, keeper
from xbar_core.lab import run as run_module
from xbar_core.lab.checkpoint import BEST, LAST, PREVIOUS, read_checkpoint
from xbar_core.lab.comparison import Epoch, from_csv
from xbar_core.lab.data import DataSet
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.run import Interrupted, Options, RunResult, resume, run
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.run_spec import RunSpec
from xbar_core.lab.tensorboard import EVENTS, _masked
from xbar_core.lab.training import Event, Note, Progress

pytest.importorskip("safetensors", reason="checkpoints need safetensors (the extra 'lab')")

RECIPE = Recipe("fake", epochs=4, batch=16, rate=0.1, seed=3)
SPEC = RunSpec(RECIPE, "corners", {"native": None, "txsim": preset("txsim")})
STEPS = 6  # in an epoch
DATA = fake_data()


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> type[FakeTrainer]:
    """Train `FakeTrainer`s on `DATA`, with blank curves where a test is not about them."""
    made = type("Fake", (FakeTrainer,), {})
    monkeypatch.setattr(run_module, "trainer_factory", lambda name: made)
    monkeypatch.setattr(RunSpec, "load_data", lambda spec: DATA)
    if request.node.name != "test_what_a_run_leaves":
        monkeypatch.setattr(keeper, "curves", lambda comparison: Figure(figsize=(1, 1)))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return made


def results(folder: Path) -> tuple[dict[str, dict[str, bytes]], list[Epoch]]:
    """Return the last state of every variant, and the log without its seconds."""
    spec = RunFolder.open(folder).spec
    states = {name: read_checkpoint(folder / name / LAST).state for name in spec.variants}
    log = [replace(epoch, seconds=0.0) for epoch in from_csv((folder / "metrics.csv").read_text())]
    return {name: {key: a.tobytes() for key, a in state.items()} for name, state in states.items()}, log


class Stopper:
    """Asks a run to stop after so many steps, as Ctrl-C does."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


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


def test_event_files_hold_every_epoch(tmp_path: Path) -> None:
    """TensorBoard's messages and record format: every epoch of every variant is in its file."""
    events = pytest.importorskip("tensorboard.compat.proto.event_pb2", reason="needs tensorboard")
    found = run(SPEC, tmp_path / "r", Options(tensorboard=True))
    for variant in SPEC.variants:
        (file,) = (tmp_path / "r" / "tensorboard" / variant).iterdir()
        data, read, versions = file.read_bytes(), {}, []
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = events.Event.FromString(data[12 : 12 + length])
            assert data[8:12] == _masked(data[:8])
            assert data[12 + length : 16 + length] == _masked(data[12 : 12 + length])
            data = data[16 + length :]
            versions.append(event.file_version)
            read.update({(value.tag, event.step): value.simple_value for value in event.summary.value})
        assert versions == ["brain.Event:2"] + [""] * RECIPE.epochs
        for epoch in found.comparison.of(variant):
            assert read["accuracy/test", epoch.epoch] == np.float32(epoch.accuracy)
            assert read["loss/training", epoch.epoch] == np.float32(epoch.loss)
        assert len(read) == 10 * RECIPE.epochs


def test_event_files_go_on(tmp_path: Path) -> None:
    """A run that began with event files goes on with them, unasked."""
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path, Options(stop=Stopper(8), tensorboard=True))
    resume(tmp_path)
    for variant in SPEC.variants:
        data = (tmp_path / "tensorboard" / variant / EVENTS).read_bytes()
        assert data.count(b"accuracy/test") == RECIPE.epochs


def test_checksum_of_records() -> None:
    """CRC-32C of ``123456789`` is E3069283 (RFC 3720), then rotated and shifted."""
    crc = 0xE3069283
    assert _masked(b"123456789") == struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


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


def test_nan_within_an_epoch_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that a step made NaN do not replace the last checkpoint, which a run goes on from."""
    step = FakeTrainer.step

    def fourth_breaks(trainer: FakeTrainer, *arguments: Any) -> Any:
        found = step(trainer, *arguments)
        if trainer.steps == 4:
            trainer.weight[0, 0] = np.nan
        return found

    monkeypatch.setattr(FakeTrainer, "step", fourth_breaks)
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path, Options(stop=Stopper(3), minutes=0.0))
    kept = read_checkpoint(tmp_path / "native" / LAST)
    assert kept.facts["position"]["step"] == 3
    assert all(np.isfinite(array).all() for array in kept.state.values())


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


def test_full_disk_loses_no_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills after two epochs: log and curves fail with a note, checkpoints and training go on."""
    opened, fills = Path.open, {"now": False}

    def full(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if fills["now"] and any(sign in mode for sign in "xwa"):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return opened(path, mode, *arguments, **named)

    def report(event: Event) -> None:
        events.append(event)
        fills["now"] = fills["now"] or (isinstance(event, Epoch) and event.epoch == 2)

    events: list[Event] = []
    monkeypatch.setattr(Path, "open", full)
    spec = replace(SPEC, variants={"txsim": preset("txsim")})
    run(spec, tmp_path, Options(report))
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("metrics.csv not written: No space left" in text for text in notes)
    kept = RunFolder.open(tmp_path).checkpoint("txsim", "last").facts
    assert [row["epoch"] for row in kept["log"]] == [1, 2, 3, 4]
    assert len(from_csv((tmp_path / "metrics.csv").read_text())) == 2
    fills["now"] = False
    resume(tmp_path)
    assert len(from_csv((tmp_path / "metrics.csv").read_text())) == 4


def test_checkpoint_that_fails_at_the_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the blocks set aside do not help, each failure is noted once and the run ends with it."""
    events: list[Event] = []

    def broken(descriptor: int) -> None:
        if any(isinstance(event, Epoch) for event in events):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("xbar_core.lab.checkpoint.os.fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        run(SPEC, tmp_path, Options(events.append))
    notes = [event.text for event in events if isinstance(event, Note) and "checkpoint" in event.text]
    assert sum("checkpoint not written" in text for text in notes) == 1
    assert RunFolder.open(tmp_path).checkpoint("native", "last").facts["position"]["epoch"] == 1


def test_nan_ends_a_variant_with_its_place(tmp_path: Path, fake: type[FakeTrainer]) -> None:
    """The layer and stage are named; the others go on; the last checkpoint is from before."""
    fake.bad_step = 8
    spec = replace(SPEC, variants={"txsim": preset("txsim"), "native": None})
    events: list[Event] = []
    found = run(spec, tmp_path, Options(events.append, minutes=0.0))
    assert list(found.diverged) == ["txsim", "native"]
    assert "epoch 2, step 3: layer 'fc', gradient" in found.diverged["txsim"]
    assert any(isinstance(event, Note) and "turned to NaN" in event.text for event in events)
    state = RunFolder.open(tmp_path).checkpoint("txsim", "last").state
    assert state["rng/steps"][0] == 8


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


def test_disk_without_room_is_said_at_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks for all checkpoints are set aside before the second step."""
    events: list[Event] = []

    def full(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_allocate", full)
    with pytest.raises(OSError, match="No space left on device: no room for checkpoints"):
        run(SPEC, tmp_path, Options(events.append))
    assert len(events) == 1


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


def test_removed_variant_is_trained_anew(tmp_path: Path) -> None:
    """Whoever removes a variant's folder and resumes gets it again, bit by bit."""
    run(SPEC, tmp_path)
    before = results(tmp_path)
    shutil.rmtree(tmp_path / "txsim")
    resume(tmp_path)
    assert results(tmp_path) == before


def test_unknown_variant_and_missing_checkpoint(tmp_path: Path) -> None:
    """Names that are not in a run are answered with the nearest one; no checkpoint yet is said."""
    folder = RunFolder.create(tmp_path, SPEC, more={"data": {}, "processes": 1})
    with pytest.raises(ConfigError, match="did you mean 'txsim'"):
        folder.checkpoint("txsin")
    for which in ("best", "last"):
        with pytest.raises(ConfigError, match="native"):
            folder.checkpoint("native", which)


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


def test_replaced_run_leaves_no_chip_and_no_events(tmp_path: Path) -> None:
    """What belonged to the variants of the run before is gone; other files are left alone."""
    run(SPEC, tmp_path, Options(tensorboard=True))
    (tmp_path / "txsim" / "mine.txt").write_text("kept")
    run(replace(SPEC, variants={"native": None}), tmp_path)
    assert [path.name for path in (tmp_path / "txsim").iterdir()] == ["mine.txt"]
    assert not list(tmp_path.rglob("events.out.*"))


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


def test_augmentation_needs_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cropping samples that are no images ends before training."""
    flat = DataSet(
        "flat", DATA.train_x[:, 0, 0], DATA.train_y, DATA.test_x[:, 0, 0], DATA.test_y, DATA.classes
    )
    monkeypatch.setattr(RunSpec, "load_data", lambda spec: flat)
    with pytest.raises(ShapeError, match="are no images"):
        run(replace(SPEC, recipe=replace(RECIPE, augment="crop-flip")), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_result_holds_log(tmp_path: Path) -> None:
    """The result is the log, in the order of training."""
    found = run(SPEC, tmp_path)
    assert isinstance(found, RunResult)
    assert found.comparison.variants == ["native", "txsim"]
    assert found.comparison.best("txsim").accuracy == max(e.accuracy for e in found.comparison.of("txsim"))


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        (Recipe(epochs=4, rate=0.4, schedule="constant"), [0.4] * 4),
        (Recipe(epochs=4, rate=0.4, schedule="cosine"), [0.4, 0.34142136, 0.2, 0.05857864]),
        (Recipe(epochs=4, rate=0.4, schedule="step"), [0.4, 0.4, 0.04, 0.004]),
        (Recipe(epochs=5, rate=0.4, schedule="constant", warmup=3), [0.1, 0.2, 0.3, 0.4, 0.4]),
        (Recipe(epochs=5, rate=0.4, schedule="cosine", warmup=1), [0.2, 0.4, 0.34142136, 0.2, 0.05857864]),
    ],
)
def test_rates(recipe: Recipe, wanted: list[float]) -> None:
    """The rate of every epoch, computed by hand."""
    np.testing.assert_allclose([recipe.rate_at(k) for k in range(recipe.epochs)], wanted, rtol=1e-7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("rate", 0.0),
        ("momentum", 1.0),
        ("optimizer", "sdg"),
        ("schedule", "cosin"),
        ("warmup", 4),
        ("clip", 0.0),
        ("augment", "flip"),
        ("weight_decay", -1.0),
        ("dtype", "float16"),
        ("batch", 1.5),
        ("seed", -1),
    ],
)
def test_recipe_checks_its_values(field: str, value: Any) -> None:
    """A value out of range names its field."""
    with pytest.raises(ConfigError, match=field):
        replace(RECIPE, **{field: value})
