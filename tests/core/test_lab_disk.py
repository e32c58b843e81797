"""Runs on disks that fill up or fail, with a trainer of NumPy: no epoch is lost, and it is said."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from core.fake_runs import SPEC, train_fakes

from xbar_core.config import preset
from xbar_core.lab import checkpoint
from xbar_core.lab.comparison import Epoch, from_csv
from xbar_core.lab.run import Options, resume, run
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.training import Event, Note

pytest.importorskip("safetensors", reason="checkpoints need safetensors (the extra 'lab')")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    train_fakes(monkeypatch)


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


def test_disk_without_room_is_said_at_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks for all checkpoints are set aside before the second step."""
    events: list[Event] = []

    def full(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_allocate", full)
    with pytest.raises(OSError, match="No space left on device: no room for checkpoints"):
        run(SPEC, tmp_path, Options(events.append))
    assert len(events) == 1


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
