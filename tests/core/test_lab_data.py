"""Data sets come from files in their original formats, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xbar_core import ConfigError, ShapeError
from xbar_core.lab.data import DataSet, data_folder, data_set_names, load_data
from xbar_core.lab.data.cifar import CIFAR10, CIFAR100, CifarSource, load_cifar, read_arrays
from xbar_core.lab.data.digits import enlarge
from xbar_core.lab.data.idx import FASHION_MNIST, MNIST, IdxSource, load_idx, parse_idx
from xbar_core.lab.data.image_folder import load_image_folder
from xbar_core.lab.data.tiny_imagenet import load_tiny_imagenet

RNG = np.random.default_rng(5)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ---------------------------------------------------------------- IDX


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


# ---------------------------------------------------------------- downloads


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Serve a folder over HTTP on this machine; yields (folder, address)."""
    folder = tmp_path_factory.mktemp("served")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_missing_files_are_downloaded(tmp_path: Path, server: Any) -> None:
    """Only what is missing is fetched, verified, and found the next time."""
    files = idx_files()
    have = "train-labels-idx1-ubyte.gz"
    write(tmp_path / "mnist" / have, files[have])
    for name, content in files.items():
        if name != have:
            write(server[0] / name, content)
    source = idx_source(files, url=server[1])
    data = load_idx(source, tmp_path)
    assert sorted(path.name for path in (tmp_path / "mnist").iterdir()) == sorted(files)
    assert np.array_equal(load_idx(source, tmp_path, fetch=False).train_x, data.train_x)


def test_damaged_download_is_not_kept(tmp_path: Path, server: Any) -> None:
    """A download with another checksum is reported and leaves nothing behind."""
    files = idx_files()
    source = idx_source(files, url=server[1])
    for name in files:
        write(server[0] / name, b"an error page")
    with pytest.raises(ConfigError, match=r"put train-images.* the download from .* failed"):
        load_idx(source, tmp_path)
    assert list(tmp_path.iterdir()) == []


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


# ---------------------------------------------------------------- CIFAR


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


def test_cifar_is_downloaded_and_used_from_its_archive(tmp_path: Path, server: Any) -> None:
    """The archive is fetched once and read without unpacking it on disk."""
    files = cifar_files(CIFAR100)
    archive = tar_of(CIFAR100, files)
    write(server[0] / CIFAR100.archive, archive)
    source = cifar_source(CIFAR100, files, url=server[1] + CIFAR100.archive, archive_md5=md5(archive))
    assert len(load_cifar(source, tmp_path).train_x) == 3
    assert [path.name for path in (tmp_path / "cifar100").iterdir()] == [CIFAR100.archive]


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


# ---------------------------------------------------------------- images


def picture(size: tuple[int, int] = (6, 4), mode: str = "RGB", form: str = "PNG", value: int = 9) -> bytes:
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    out = io.BytesIO()
    image_module.new(mode, size, value if mode in ("L", "I;16") else (value, 2, 3)).save(out, form)
    return out.getvalue()


def image_tree(root: Path, **options: Any) -> None:
    for part, number in (("train", 3), ("test", 1)):
        for label, name in enumerate(("ant", "bee")):
            for k in range(number):
                write(root / part / name / f"{k}.png", picture(value=10 * label + k, **options))


def test_image_folder_is_read(tmp_path: Path) -> None:
    """Classes are the folders in the order of their names; pixels keep their channels' order."""
    image_tree(tmp_path)
    write(tmp_path / "train" / "ant" / "notes.txt", b"no image")
    data = load_image_folder(tmp_path)
    assert data.train_x.shape == (6, 3, 4, 6)
    assert data.train_x[:, :, 0, 0].tolist() == [[v, 2, 3] for v in (0, 1, 2, 10, 11, 12)]
    assert data.train_y.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.class_names == ("ant", "bee")
    assert np.array_equal(load_data(f"{tmp_path}/").test_x, data.test_x)


def test_grey_images_have_one_channel_until_one_is_coloured(tmp_path: Path) -> None:
    """All grey: one channel; one in colour: three for all, equal where it was grey."""
    image_tree(tmp_path, mode="L")
    assert load_image_folder(tmp_path).image_shape == (1, 4, 6)
    write(tmp_path / "test" / "bee" / "9.png", picture(mode="RGB"))
    data = load_image_folder(tmp_path)
    assert data.image_shape == (3, 4, 6)
    assert np.array_equal(data.train_x[:, 0], data.train_x[:, 2])


def test_image_size_scales_the_middle(tmp_path: Path) -> None:
    """Different sizes are refused, or scaled and cut to one; the middle square is kept."""
    image_tree(tmp_path)
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 2:6] = 200
    pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pillow.fromarray(pixels).save(tmp_path / "test" / "bee" / "wide.png")
    with pytest.raises(ConfigError, match=r"wide.png: has 8x4 pixels and 0.png has 6x4; give an image size"):
        load_image_folder(tmp_path)
    data = load_image_folder(tmp_path, image_size=3)
    assert data.image_shape == (3, 3, 3)
    assert (data.test_x[-1] == 200).all()


@pytest.mark.parametrize(
    ("path", "content", "text"),
    [
        ("train/ant/x.png", b"not an image", "x.png: cannot be read as an image"),
        ("train/ant/x.png", "half", "x.png: cannot be read as an image"),
        ("train/ant/x.png", "16 bit", "x.png: has mode I;16; save it with 8 bits"),
        ("test/be/x.png", b"", "class without training images, did you mean 'bee'"),
        ("train/cat/x.txt", b"", "cat holds no images"),
    ],
)
def test_bad_image_folders_are_refused(tmp_path: Path, path: str, content: Any, text: str) -> None:
    """Damaged images and classes without images are named."""
    image_tree(tmp_path)
    if content == "half":
        content = picture((60, 40))[:80]
    elif content == "16 bit":
        content = picture(mode="I;16")
    write(tmp_path / path, content)
    with pytest.raises(ConfigError, match=text):
        load_image_folder(tmp_path)


def test_missing_image_folder_says_the_layout(tmp_path: Path) -> None:
    """Without train/ or test/ the text gives the layout."""
    with pytest.raises(ConfigError, match=r"train is not a folder; put images into .*/train/<class>/"):
        load_image_folder(tmp_path)


def tiny_files() -> dict[str, bytes]:
    classes = ("n02", "n01")
    jpeg = {name: picture((64, 64), form="JPEG", value=50 * k) for k, name in enumerate(classes)}
    grey = picture((64, 64), "L", "JPEG", value=77)
    files = {f"train/{n}/images/{n}_{k}.JPEG": jpeg[n] for n in classes for k in range(2)}
    files |= {"val/images/val_0.JPEG": jpeg["n01"], "val/images/val_1.JPEG": grey}
    boxes = "".join(f"val_{k}.JPEG\t{name}\t0\t0\t9\t9\n" for k, name in enumerate(("n01", "n02")))
    return {**files, "val/val_annotations.txt": boxes.encode(), "wnids.txt": b"n02\nn01\n"}


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_is_read(tmp_path: Path, packed: bool) -> None:
    """Labels follow the sorted class names; grey images get three channels; zip or folder."""
    files = tiny_files()
    checksum = ""
    if packed:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"tiny-imagenet-200/{name}", content)
        checksum = md5(write(tmp_path / "tiny-imagenet-200.zip", out.getvalue()).read_bytes())
    for name, content in files.items():
        if not packed:
            write(tmp_path / "tiny-imagenet" / "tiny-imagenet-200" / name, content)
    data = load_tiny_imagenet(tmp_path, fetch=False, md5=checksum)
    assert data.image_shape == (3, 64, 64)
    assert data.train_y.tolist() == [0, 0, 1, 1]
    assert data.train_x[:, 0, 9, 9].tolist() == pytest.approx([50, 50, 0, 0], abs=3)
    assert data.test_y.tolist() == [0, 1]
    assert (data.test_x[1] == 77).all()


@pytest.mark.parametrize("name", ["val/images/val_1.JPEG", "val/val_annotations.txt"])
def test_incomplete_tiny_imagenet_is_refused(tmp_path: Path, name: str) -> None:
    """A file that the data set must have is named."""
    for file, content in tiny_files().items():
        if file != name:
            write(tmp_path / file, content)
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        load_tiny_imagenet(tmp_path, fetch=False)


def test_tiny_imagenet_needs_its_archive_whole(tmp_path: Path) -> None:
    """A missing archive is named with its place, a damaged one by its checksum."""
    with pytest.raises(ConfigError, match="tiny-imagenet-200.zip or its folder"):
        load_tiny_imagenet(tmp_path, fetch=False)
    write(tmp_path / "tiny-imagenet-200.zip", b"PK")
    with pytest.raises(ConfigError, match="wrong checksum"):
        load_tiny_imagenet(tmp_path, fetch=False)


# ---------------------------------------------------------------- digits, names, own data


def test_digits_need_no_files() -> None:
    """1797 scans of 28x28, split by class, the same every time."""
    data = load_data("digits", "no/such/folder")
    assert data.train_x.shape == (1442, 1, 28, 28)
    assert data.test_x.shape == (355, 1, 28, 28)
    assert int(data.train_x.sum()) + int(data.test_x.sum()) == 109_665_917
    assert np.bincount(data.test_y).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]


def test_enlarging_is_linear_interpolation() -> None:
    """Pixels agree with interpolation between pixel centres, to the rounding of one level."""
    images = RNG.integers(0, 17, (5, 8, 8))
    centre = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    wide = np.array([[np.interp(centre, np.arange(8), row) for row in image] for image in images])
    both = np.array([[np.interp(centre, np.arange(8), row) for row in image.T] for image in wide])
    assert np.abs(enlarge(images) - both.transpose(0, 2, 1) * 255 / 16).max() <= 0.5 + 1e-9


def test_unknown_name_suggests_the_nearest() -> None:
    """A mistyped name gets the nearest one and the list."""
    with pytest.raises(ConfigError, match=r"'cifar-10', did you mean 'cifar10'\?; use one of digits, mnist"):
        load_data("cifar-10")


def test_data_folder_is_argument_then_variable_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument wins over XBAR_DATA, which wins over ./data; a named folder must exist."""
    monkeypatch.setenv("XBAR_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    assert data_folder(tmp_path / "..") == tmp_path / ".."
    monkeypatch.setenv("XBAR_DATA", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"XBAR_DATA: .*gone is not a folder"):
        data_folder()
    with pytest.raises(ConfigError, match=r"data: nowhere is not a folder"):
        data_folder("nowhere")
    monkeypatch.delenv("XBAR_DATA")
    assert data_folder() == Path("data")


OWN = """
import numpy as np
from xbar_core.lab.data import DataSet

def make(folder):
    x = np.zeros((4, 2), np.float32)
    return DataSet("mine", x, np.arange(4) % 2, x, np.arange(4) % 2, 2, note=folder.name)

def wrong(folder):
    return 3

number = 3
"""


def test_own_data_set_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function in the working directory is found by import path and gets the data folder."""
    (tmp_path / "own_data_for_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    data = load_data("own_data_for_test:make", tmp_path)
    assert (data.name, data.note, data.image_shape) == ("mine", tmp_path.name, (2,))
    for name, text in {
        "own_data_for_test:mak": "has no 'mak', did you mean 'make'",
        "own_data_for_test:number": "holds no callable 'number'",
        "own_data_for_test:wrong": "returned a int; it must return",
        "own_data_nowhere:make": "cannot import 'own_data_nowhere'",
    }.items():
        with pytest.raises(ConfigError, match=text):
            load_data(name, tmp_path)


@pytest.mark.parametrize("module", ["pooch", "sklearn.datasets", "PIL.Image"])
def test_missing_extra_is_named(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a package of the extra is missing, the text says how to install it."""
    image_tree(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    name = {"pooch": "mnist", "sklearn.datasets": "digits", "PIL.Image": "image-folder"}[module]
    with pytest.raises(ConfigError, match=r"pip install 'xbar-core\[lab\]'"):
        load_data(name, tmp_path)


X, Y = np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"train_y": Y[:3]}, ShapeError, "train_y: 3 labels for 4 samples"),
        ({"train_y": Y + 1}, ConfigError, r"train_y\[1\]: label 2 is out of range"),
        ({"test_y": -Y}, ConfigError, r"test_y\[1\]: label -1"),
        ({"train_y": Y * 1.0}, ShapeError, "no labels"),
        ({"test_x": X[:, :, :1]}, ShapeError, "differ from train_x"),
        ({"train_x": X[:0], "train_y": Y[:0]}, ShapeError, "at least one sample"),
        ({"train_x": X.astype(np.int32)}, ShapeError, "dtype int32 is not supported"),
        ({"train_x": np.full((4, 3), np.nan)}, ConfigError, r"train_x\[0, 0\]: nan is not finite"),
        ({"classes": 0}, ConfigError, "classes: 0 is out of range"),
        ({"class_names": ("a",)}, ConfigError, "1 names for 2 classes"),
    ],
)
def test_bad_data_sets_are_refused(change: dict[str, Any], kind: type[Exception], text: str) -> None:
    """Arrays that do not fit each other are named with the rule."""
    good = {"name": "x", "train_x": X, "train_y": Y, "test_x": X, "test_y": Y, "classes": 2}
    assert DataSet(**good).image_shape == (1, 2, 2)
    with pytest.raises(kind, match=text):
        DataSet(**{**good, **change})


@settings(max_examples=25)
@given(
    shape=st.sampled_from([(9, 3, 4, 5), (7, 1, 2, 2), (8, 6), (5, 3, 2)]),
    dtype=st.sampled_from([np.uint8, np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_normalised_training_data_has_mean_0_and_deviation_1(
    shape: tuple[int, ...], dtype: type, seed: int
) -> None:
    """The training samples, normalised, have mean 0 and deviation 1, per channel for images."""
    x = np.random.default_rng(seed).integers(0, 256, shape).astype(dtype)
    y = np.zeros(len(x), int)
    data = DataSet("x", x, y, x[:2], y[:2], 1)
    out = data.normalised(x)
    axes = (0, 2, 3) if x.ndim == 4 else None
    assert out.dtype == np.float32
    np.testing.assert_allclose(out.mean(axis=axes, dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(out.std(axis=axes, dtype=float), 1, rtol=1e-6)


@pytest.mark.parametrize("x", [np.full((3000, 2, 3, 3), 137, np.uint8), np.full((3000, 2), 0.1, np.float32)])
def test_constant_channels_become_zero(x: NDArray[Any]) -> None:
    """A channel without any spread is centred and not divided by nothing."""
    data = DataSet("x", x, np.zeros(len(x), int), x, np.zeros(len(x), int), 1)
    assert data.std.ravel().tolist() == [1.0] * data.std.size
    assert np.abs(data.normalised(x)).max() < 1e-6
    with pytest.raises(ShapeError, match="do not fit"):
        data.normalised(x[:, :1])


# ---------------------------------------------------------------- the real ones


def test_real_mnist(data_folder: Path) -> None:
    """MNIST has its published counts, mean and deviation."""
    if not any((data_folder / name / "train-images-idx3-ubyte.gz").is_file() for name in MNIST.folders):
        pytest.skip(f"no MNIST in {data_folder}")
    data = load_data("mnist", data_folder, fetch=False)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(data.train_y).tolist() == counts
    assert np.bincount(data.test_y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.mean.item() / 255 == pytest.approx(0.1306605, abs=1e-7)
    assert data.std.item() / 255 == pytest.approx(0.3081078, abs=1e-7)


def test_real_cifar10(data_folder: Path) -> None:
    """CIFAR-10's test batch has 1000 images a class; the whole training set its published mean."""
    places = [data_folder / "cifar10", data_folder]
    if not any((p / "cifar-10-batches-py" / "test_batch").is_file() for p in places):
        pytest.skip(f"no CIFAR-10 in {data_folder}")
    data = load_data("cifar10", data_folder, fetch=False)
    assert np.bincount(data.test_y).tolist() == [1000] * 10
    assert data.test_y[:4].tolist() == [3, 8, 8, 0]  # cat, ship, ship, airplane
    whole = len(data.train_x) == 50000
    assert whole == (data.note == "")
    published = [0.49139968, 0.48215841, 0.44653091]
    np.testing.assert_allclose(data.mean / 255, published, atol=1e-7 if whole else 5e-3)


def test_every_name_is_known_to_load_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No listed name is unknown: without files each fails for want of files, not of a name."""
    for name in data_set_names():
        if name != "digits":
            with pytest.raises(ConfigError, match=r"^data: .* put "):
                load_data(name, tmp_path, fetch=False)
