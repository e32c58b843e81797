"""Checkpoints are whole or not there: every damage is found, and no kill or full disk loses the newest."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xbar_core.lab import checkpoint
from xbar_core.lab.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    CheckpointError,
    Slots,
    decode,
    encode,
    read_checkpoint,
)

pytest.importorskip("safetensors", reason="checkpoints need safetensors (the extra 'lab')")

DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_])
ARRAYS = st.dictionaries(
    st.text("abcde/._0", min_size=1, max_size=12),
    DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))),
    max_size=5,
)
FACTS = st.dictionaries(
    st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(), max_size=3
)


def state(number: int) -> dict[str, np.ndarray]:
    return {"model/w": np.full((40, 30), float(number)), "rng/steps": np.asarray(number)}


def number_of(path: Path) -> int:
    return int(read_checkpoint(path).state["rng/steps"])


@settings(deadline=None, max_examples=40)
@given(ARRAYS, FACTS, st.integers(0, 5000))
def test_what_is_written_is_read(arrays: dict[str, Any], facts: dict[str, Any], size: int) -> None:
    """Arrays come back to the bit, facts as they were, whatever the padding."""
    data = encode(arrays, facts, size)
    assert len(data) >= size
    found = decode("x", data)
    assert found.facts == facts
    assert found.state.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.state[name].dtype == array.dtype
        assert found.state[name].tobytes() == array.tobytes()
        assert found.state[name].shape == array.shape


def test_facts_keep_every_digit() -> None:
    """Sums of losses go through JSON to the bit."""
    values = [0.1 + 0.2, 1e-300, 3.0, float(np.nextafter(1.0, 2.0))]
    assert decode("x", encode({}, {"v": values})).facts["v"] == values


def test_file_is_plain_safetensors(tmp_path: Path) -> None:
    """The padded file is one that safetensors itself loads: it holds numbers, and no code."""
    from safetensors.numpy import load_file

    path = tmp_path / "x.safetensors"
    path.write_bytes(encode(state(3), {"a": 1}, 20000))
    np.testing.assert_array_equal(load_file(path)["model/w"], state(3)["model/w"])


@pytest.mark.parametrize("size", [0, 12000])
def test_every_flipped_bit_is_found(size: int) -> None:
    """A flipped bit anywhere is reported, or stands in a blank or name that changes nothing that is read."""
    data = encode(state(1), {"epoch": 1}, size)
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    places = [*range(64), *rng.integers(0, header, 200), *rng.integers(header, len(data), 300)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            found = decode("x", bytes(damaged))
        except CheckpointError:
            continue
        assert place < header
        assert found.facts == {"epoch": 1}
        assert {k: v.tobytes() for k, v in found.state.items()} == {
            k: v.tobytes() for k, v in state(1).items()
        }


def test_every_truncation_is_found() -> None:
    """A file cut anywhere, or with bytes behind it, is reported in one line."""
    data = encode(state(1), {"epoch": 1})
    for length in [*range(0, 400, 7), *range(400, len(data), 501), len(data) - 1]:
        with pytest.raises(CheckpointError, match="x: ") as caught:
            decode("x", data[:length])
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError):
        decode("x", data + b"\0")


@pytest.mark.parametrize("data", [b"", b"\x80\x04cos\nsystem\n", b"[" * 200_000, b"{}" * 30, bytes(64)])
def test_other_files_are_no_checkpoints(data: bytes) -> None:
    """A pickle, deep JSON, zeros: reported as no checkpoint, nothing is run."""
    for prefix in (b"", len(data).to_bytes(8, "little")):
        with pytest.raises(CheckpointError, match="no complete checkpoint"):
            decode("x", prefix + data)


def test_last_previous_and_best(tmp_path: Path) -> None:
    """Each write moves the last one back; the best one stays until a better one comes."""
    slots = Slots(tmp_path)
    slots.reserve(state(0), {}, 1000)
    for number, best in enumerate([True, False, True, False, False]):
        slots.write(state(number), {}, best=best)
    assert [number_of(tmp_path / name) for name in (LAST, PREVIOUS, BEST)] == [4, 3, 2]
    assert len(list(tmp_path.iterdir())) <= 6
    slots.free()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([LAST, PREVIOUS, BEST])


def test_previous_is_used_where_the_last_is_damaged(tmp_path: Path) -> None:
    """A truncated last checkpoint is reported and the one before it read; it never pushes that one out."""
    slots = Slots(tmp_path)
    for number in range(3):
        slots.write(state(number), {}, best=False)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:-9])
    found, wrong = slots.read()
    assert found is not None
    assert int(found.state["rng/steps"]) == 1
    assert len(wrong) == 1
    assert LAST in wrong[0]
    slots.drop_last()
    slots.write(state(7), {}, best=False)
    assert (number_of(tmp_path / LAST), number_of(tmp_path / PREVIOUS)) == (7, 1)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_kill_between_any_two_operations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a write is cut off, the newest whole checkpoint is read; a new last one has its best."""
    calls = {"left": 0}

    def killing(function: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            calls["left"] -= 1
            if calls["left"] < 0:
                raise Killed
            return function(*arguments, **named)

        return wrapped

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, killing(getattr(Path, name)))
    monkeypatch.setattr(os, "fsync", killing(os.fsync))
    written, finished = 0, 0
    for last in range(14):
        for best in (False, True):
            slots = Slots(tmp_path)
            calls["left"] = 1000
            slots.reserve(state(0), {}, 100)
            slots.write(state(written), {}, best=best)
            calls["left"] = last
            try:
                slots.write(state(written + 1), {}, best=best)
                finished += 1
            except Killed:
                pass
            found, wrong = slots.read()
            assert not wrong
            assert found is not None
            number = int(found.state["rng/steps"])
            assert number in (written, written + 1)
            if best and number == written + 1:  # nobody would write the best one again
                assert number_of(tmp_path / BEST) == number
            written += 2
    assert 0 < finished < 28


def test_full_disk_stops_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once blocks are set aside, no new file is made: a disk without room for one takes every checkpoint."""
    slots = Slots(tmp_path)
    slots.reserve(state(0), {}, 4000)
    opened = Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if "x" in mode or ("w" in mode or "a" in mode):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return opened(path, mode, *arguments, **named)

    monkeypatch.setattr(Path, "open", full)
    for number in range(12):
        slots.write(state(number), {"log": ["x" * 100] * number}, best=number % 3 == 0)
        assert number_of(tmp_path / LAST) == number
        assert (tmp_path / LAST).stat().st_size == (tmp_path / BEST).stat().st_size


def test_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that cannot be written raises OSError; the last one is still whole."""
    slots = Slots(tmp_path)
    slots.write(state(1), {}, best=False)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        slots.write(state(2), {}, best=False)
    assert number_of(tmp_path / LAST) == 1


def test_small_disk_for_real(tmp_path: Path) -> None:
    """On a disk of 1 MB that another program fills, checkpoints go on; too small a one is said first."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1024k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted: {mounted.stderr.decode().strip()}")
    try:
        slots = Slots(disk)
        big = {"w": np.random.default_rng(0).normal(size=50_000)}
        with pytest.raises(OSError, match=r"No space left|\[Errno 28\]"):
            slots.reserve(big, {}, 1000)
        slots.clear()
        small = {"w": np.random.default_rng(0).normal(size=20_000)}
        slots.reserve(small, {}, 8000)
        slots.write(small, {"epoch": 0}, best=True)
        with pytest.raises(OSError, match="No space left"):
            (disk / "other").write_bytes(bytes(1 << 20))
        for epoch in range(1, 6):
            slots.write(small, {"epoch": epoch, "log": ["y" * 80] * epoch}, best=epoch % 2 == 0)
            found, wrong = slots.read()
            assert found is not None
            assert (found.facts["epoch"], wrong) == (epoch, [])
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_header_is_json() -> None:
    """The facts of a file can be read without this program: they are JSON in the header's metadata."""
    data = encode(state(1), {"epoch": 4})
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["facts"]) == {"epoch": 4}
