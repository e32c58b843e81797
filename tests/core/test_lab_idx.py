"""MNIST and Fashion-MNIST are read or fetched whole, or not at all."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
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
from xbar_core.lab.data.idx import FASHION_MNIST, MNIST, IdxSource, load_idx, parse_idx

RNG = np.random.default_rng(5)


def idx(array: NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def idx_files(labels: int = 7) -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte.gz": idx(RNG.integers(0, 256, (labels, 5, 4), dtype=np.uint8)),
        "train-labels-idx1-ubyte.gz": idx(np.arange(labels, dtype=np.uint8)),
        "t10k-images-idx3-ubyte.gz": idx(RNG.integers(0, 256, (2, 5, 4), dtype=np.uint8)),
        "t10k-labels-idx1-ubyte.gz": idx(np.array([3, 9], np.uint8)),
    }


def idx_source(files: dict[str, bytes], **changes: Any) -> IdxSource:
    return replace(MNIST, md5={name: md5(content) for name, content in files.items()}, **changes)


@pytest.mark.parametrize("place", ["mnist", "MNIST/raw", "."])
def test_idx_files_are_found_and_read(tmp_path: Path, place: str) -> None:
    """Images become (samples, 1, height, width) and labels int64, wherever the four files lie."""
    files = idx_files()
    for name, content in files.items():
        write(tmp_path / place / name, content)
    data = load_idx(idx_source(files), tmp_path, fetch=False)
    raw = gzip.decompress(files["train-images-idx3-ubyte.gz"])[16:]
    assert data.train_x.tobytes() == raw
    assert data.image_shape == (1, 5, 4)
    assert data.train_y.tolist() == list(range(7))
    assert data.test_y.tolist() == [3, 9]
    assert data.train_y.dtype == np.int64


def test_missing_files_are_named_with_their_place(tmp_path: Path) -> None:
    """One line says which files to put where."""
    files = idx_files()
    write(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz", files["t10k-labels-idx1-ubyte.gz"])
    with pytest.raises(ConfigError) as caught:
        load_idx(idx_source(files), tmp_path, fetch=False)
    text = str(caught.value)
    assert "\n" not in text
    assert "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz" in text
    assert str(tmp_path / "mnist") in text
    assert "t10k-labels" not in text


def test_wrong_checksum_is_refused(tmp_path: Path) -> None:
    """A file with one changed bit is not used."""
    files = idx_files()
    source = idx_source(files)
    name = "t10k-images-idx3-ubyte.gz"
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])
    for file, content in files.items():
        write(tmp_path / "mnist" / file, content)
    with pytest.raises(ConfigError, match=r"t10k-images-idx3-ubyte.gz: wrong checksum .* download it again"):
        load_idx(source, tmp_path, fetch=False)


@settings(max_examples=30)
@given(cut=st.integers(0, 70))
def test_truncated_gzip_is_refused(cut: int) -> None:
    """No beginning of a gzipped IDX file is taken for the file."""
    content = idx(np.arange(200, dtype=np.uint8).reshape(2, 10, 10))
    assert parse_idx(Path("x"), content).shape == (2, 10, 10)
    with pytest.raises(ConfigError, match="damaged|no IDX"):
        parse_idx(Path("x"), content[:cut])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",  # float32
        b"\0\0\x08\x01\0\0",  # header ends early
        b"\0\0\x08\x00",  # no axis
        b"\0\0\x08\x01\0\0\0\x03ab",  # fewer bytes than said
        b"\0\0\x08\x01\0\0\0\x01ab",  # more bytes than said
        b"PNG?" * 9,
    ],
)
def test_bad_idx_is_refused(data: bytes) -> None:
    """A file whose header and length disagree is no IDX file of bytes."""
    with pytest.raises(ConfigError, match="IDX|damaged"):
        parse_idx(Path("x"), gzip.compress(data))


def test_the_other_data_set_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST and Fashion-MNIST share file names; files of the one in the open are not the other's."""
    files = idx_files()
    for name, content in files.items():
        write(tmp_path / name, content)
    mine, other = idx_source(files), replace(FASHION_MNIST, md5={**FASHION_MNIST.md5})
    monkeypatch.setattr("xbar_core.lab.data.idx._SOURCES", (mine, other))
    assert load_idx(mine, tmp_path, fetch=False).classes == 10
    with pytest.raises(ConfigError, match=r"Fashion-MNIST is not there; .*fashion-mnist"):
        load_idx(other, tmp_path, fetch=False)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a served folder and its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path_factory.mktemp("served")
    with served(folder) as address:
        yield folder, address


def test_missing_files_are_downloaded(
    tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what is missing is fetched, told of, verified, and found the next time."""
    files = idx_files()
    have = "train-labels-idx1-ubyte.gz"
    write(tmp_path / "mnist" / have, files[have])
    for name, content in files.items():
        if name != have:
            write(server[0] / name, content)
    source = idx_source(files, url=server[1])
    told: list[str] = []
    data = load_idx(source, tmp_path, report=told.append)
    assert told == [
        f"downloading {server[1]}{name} into {tmp_path / 'mnist'}" for name in files if name != have
    ]
    assert capsys.readouterr() == ("", "")
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(files)
    assert np.array_equal(load_idx(source, tmp_path, fetch=False).train_x, data.train_x)


def test_damaged_download_is_not_kept(tmp_path: Path, server: Any) -> None:
    """A download with another checksum is reported and leaves nothing behind, no folder either."""
    files = idx_files()
    source = idx_source(files, url=server[1])
    for name in files:
        write(server[0] / name, b"an error page")
    kept = tmp_path / "kept"
    kept.mkdir()
    for root in (tmp_path, tmp_path / "data", tmp_path / "more" / "data", kept):
        with pytest.raises(ConfigError, match=r"put train-images.* the download from .* failed"):
            load_idx(source, root)
        assert list(tmp_path.rglob("*")) == [kept]


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/", "404"])
def test_failed_download_names_files_and_address(tmp_path: Path, server: Any, address: str) -> None:
    """Without a network, or where the file is gone, one line says what to put where."""
    url = server[1] if address == "404" else address
    with pytest.raises(ConfigError) as caught:
        load_idx(replace(MNIST, url=url), tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    assert f"into {tmp_path / 'mnist'}" in text
    assert f"download from {url}train-images-idx3-ubyte.gz failed" in text
    assert list(tmp_path.iterdir()) == []
