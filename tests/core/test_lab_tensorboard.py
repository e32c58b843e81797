"""Event files of a run: TensorBoard's messages and records, whole after any stop."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from core.fake_runs import RECIPE, SPEC, Stopper, train_fakes

from xbar_core.lab.run import Interrupted, Options, resume, run
from xbar_core.lab.tensorboard import EVENTS, _masked

pytest.importorskip("safetensors", reason="checkpoints need safetensors (the extra 'lab')")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    train_fakes(monkeypatch)


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
