"""CIFAR is read from its pickles, and nothing in them is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core.data_files import md5, served, write
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xbar_core import ConfigError
from xbar_core.lab.data.cifar import CIFAR10, CIFAR100, CifarSource, load_cifar, read_arrays

RNG = np.random.default_rng(5)


def python2_string(text: bytes) -> bytes:
    return pickle.BINSTRING + struct.pack("<i", len(text)) + text


def python2_batch(x: NDArray[np.uint8], y: list[int], key: bytes, dtype: bytes = b"u1") -> bytes:
    """Pickle a batch as Python 2 and its NumPy did, which no Python of today does."""

    def number(value: int) -> bytes:
        return pickle.BININT + struct.pack("<i", value)

    return b"".join(
        [
            pickle.PROTO + b"\x02" + pickle.EMPTY_DICT + pickle.MARK,
            python2_string(b"data"),
            b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n",
            number(0) + pickle.TUPLE1 + python2_string(b"b") + pickle.TUPLE3 + pickle.REDUCE,
            pickle.MARK + number(1) + number(x.shape[0]) + number(x.shape[1]) + pickle.TUPLE2,
            b"cnumpy\ndtype\n" + python2_string(dtype) + number(0) + number(1),
            pickle.TUPLE3 + pickle.REDUCE + pickle.MARK + number(3) + python2_string(b"|"),
            pickle.NONE * 3 + number(-1) * 2 + number(0) + pickle.TUPLE + pickle.BUILD,
            pickle.NEWFALSE + python2_string(x.tobytes()) + pickle.TUPLE + pickle.BUILD,
            python2_string(key) + pickle.EMPTY_LIST + pickle.MARK,
            b"".join(number(label) for label in y) + pickle.APPENDS + pickle.SETITEMS + pickle.STOP,
        ]
    )


def cifar_files(source: CifarSource, images: int = 3) -> dict[str, bytes]:
    return {
        name: python2_batch(
            RNG.integers(0, 256, (images, 3072), dtype=np.uint8),
            [number, source.classes - 1, 0][:images],
            source.label_key,
        )
        for number, name in enumerate([*source.train, *source.test])
    }


def cifar_source(source: CifarSource, files: dict[str, bytes], **changes: Any) -> CifarSource:
    return replace(
        source,
        train={name: md5(files[name]) for name in source.train},
        test={name: md5(files[name]) for name in source.test},
        **changes,
    )


def tar_of(source: CifarSource, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{source.folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("published", [CIFAR10, CIFAR100], ids=lambda source: source.name)
@pytest.mark.parametrize("place", ["named", "root", "itself", "archive"])
def test_cifar_is_found_and_read(tmp_path: Path, published: CifarSource, place: str) -> None:
    """Batches are joined in order, planes become channels, unpacked or in the archive."""
    files = cifar_files(published)
    source = cifar_source(published, files)
    if place == "archive":
        write(tmp_path / source.name / source.archive, tar_of(source, files))
    folder = {"named": f"{source.name}/{source.folder}", "root": source.folder, "itself": "."}.get(place)
    for name, content in files.items():
        if folder:
            write(tmp_path / folder / name, content)
    data = load_cifar(source, tmp_path, fetch=False)
    batches = [read_arrays(Path(name), files[name]) for name in source.train]
    assert np.array_equal(data.train_x, np.concatenate([b[b"data"] for b in batches]).reshape(-1, 3, 32, 32))
    assert data.train_y.tolist() == [label for b in batches for label in b[source.label_key]]
    assert len(data.test_x) == 3
    assert (data.classes, data.note) == (source.classes, "")


def test_part_of_cifar_is_used_with_a_note(tmp_path: Path) -> None:
    """Two training batches and the test batch are enough, and the note says so."""
    files = cifar_files(CIFAR10)
    for name in ("data_batch_2", "data_batch_4", "test_batch"):
        write(tmp_path / CIFAR10.folder / name, files[name])
    data = load_cifar(cifar_source(CIFAR10, files), tmp_path, fetch=False)
    assert len(data.train_x) == 6
    assert data.note == "CIFAR-10: 2 of 5 training files, 6 images"


def test_cifar_without_test_batch_is_missing(tmp_path: Path) -> None:
    """Training batches alone are no data set."""
    files = cifar_files(CIFAR10)
    write(tmp_path / CIFAR10.folder / "data_batch_1", files["data_batch_1"])
    with pytest.raises(ConfigError, match=r"CIFAR-10 is not there; put cifar-10-python.tar.gz or its folder"):
        load_cifar(cifar_source(CIFAR10, files), tmp_path, fetch=False)


def test_cifar_is_downloaded_and_used_from_its_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is fetched once and read without unpacking it on disk."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = cifar_files(CIFAR100)
    archive = tar_of(CIFAR100, files)
    write(tmp_path / "served" / CIFAR100.archive, archive)
    with served(tmp_path / "served") as url:
        source = cifar_source(CIFAR100, files, url=url + CIFAR100.archive, archive_md5=md5(archive))
        data = load_cifar(source, tmp_path)
    assert [path.name for path in (tmp_path / "cifar100").iterdir()] == [CIFAR100.archive]
    assert np.array_equal(load_cifar(source, tmp_path).train_x, data.train_x)


@pytest.mark.parametrize("damage", ["truncated", "changed", "incomplete"])
def test_damaged_cifar_archive_is_refused(tmp_path: Path, damage: str) -> None:
    """An archive that ends early, lacks a batch or holds a changed one is not used."""
    files = cifar_files(CIFAR100)
    source = cifar_source(CIFAR100, files)
    if damage == "changed":
        files["test"] += b"\0"
    if damage == "incomplete":
        del files["test"]
    content = tar_of(source, files)
    write(tmp_path / source.archive, content[: len(content) // 2] if damage == "truncated" else content)
    with pytest.raises(ConfigError, match="unpacked|checksum|holds 1 of 2"):
        load_cifar(source, tmp_path, fetch=False)


class Attack:
    """Runs a command when unpickled by the standard reader."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_malicious_pickle_is_not_run(tmp_path: Path, protocol: int) -> None:
    """A pickle that would run a command raises an error that names it, and nothing runs."""
    victim = tmp_path / "made"
    content = pickle.dumps({"data": Attack(os.mkdir, str(victim))}, protocol=protocol)
    with pytest.raises(ConfigError, match=r"batch: asks for \w+.mkdir, .* was not run"):
        read_arrays(Path("batch"), content)
    assert not victim.exists()
    pickle.loads(content)
    assert victim.exists(), "the attack is none, so the test shows nothing"


@pytest.mark.parametrize(
    "name", [b"cbuiltins\neval\n", b"cnumpy\nload\n", b"cnumpy.core.multiarray\nscalar\n"]
)
def test_nothing_but_arrays_is_named(name: bytes) -> None:
    """Neither a builtin nor another function of NumPy can be reached, not even without a call."""
    with pytest.raises(ConfigError, match="may be malicious"):
        read_arrays(Path("batch"), pickle.PROTO + b"\x02c" + name + b"\n" + pickle.STOP)


@pytest.mark.parametrize("dtype", [b"O", b"f8", b"V8"])
def test_arrays_of_other_types_are_refused(dtype: bytes) -> None:
    """Only arrays of bytes are described; one of objects would hold pointers from the file."""
    content = python2_batch(np.zeros((1, 3072), np.uint8), [0], b"labels", dtype)
    with pytest.raises(ConfigError, match="not of unsigned bytes"):
        read_arrays(Path("batch"), content)


@settings(max_examples=40)
@given(cut=st.integers(0, 6336))
def test_truncated_pickle_is_refused(cut: int) -> None:
    """No beginning of a batch is taken for the batch."""
    content = python2_batch(np.zeros((2, 3072), np.uint8), [0, 1], b"labels")
    assert len(content) == 6337
    with pytest.raises(ConfigError, match="no pickle of arrays"):
        read_arrays(Path("batch"), content[:cut])


@pytest.mark.parametrize("batch", [{b"data": 3}, {b"labels": [0]}, {}, [1, 2], {b"data": b"x" * 3072}])
def test_pickles_that_are_no_batches_are_refused(tmp_path: Path, batch: Any) -> None:
    """A pickle of plain values that is no batch says what it lacks."""
    content = pickle.dumps(batch)
    files = {**cifar_files(CIFAR100), "train": content}
    for name, data in files.items():
        write(tmp_path / CIFAR100.folder / name, data)
    with pytest.raises(ConfigError, match="no CIFAR-100 batch|is a dictionary"):
        load_cifar(cifar_source(CIFAR100, files), tmp_path, fetch=False)
