"""MNIST and Fashion-MNIST: gzipped IDX files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xbar_core.errors import ConfigError
from xbar_core.lab.data.dataset import DataSet
from xbar_core.lab.data.files import (
    MissingDataError,
    Report,
    download,
    md5_of,
    missing_text,
    read,
    read_verified,
    silent,
)

TRAIN_X, TRAIN_Y = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_X, TEST_Y = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
_UINT8 = 8  # IDX's code for unsigned bytes


@dataclass(frozen=True)
class IdxSource:
    """A published data set of four gzipped IDX files.

    Parameters
    ----------
    name, title : str
        Name to load it by, and as people write it.
    folders : tuple of str
        Folders of the data folder that may hold it; the first is where downloads go.
    url : str
        Address that the file names are appended to.
    md5 : mapping of str to str
        Published md5 of each file.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    url: str
    md5: Mapping[str, str]


MNIST = IdxSource(
    name="mnist",
    title="MNIST",
    folders=("mnist", "MNIST/raw", "."),
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    md5={
        TRAIN_X: "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        TRAIN_Y: "d53e105ee54ea40749a09fcbcd1e9432",
        TEST_X: "9fb629c4189551a2d022fa330f9573f3",
        TEST_Y: "ec29112dd5afa0611ce80d1b7f02629c",
    },
)
FASHION_MNIST = IdxSource(
    name="fashion-mnist",
    title="Fashion-MNIST",
    folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "."),
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    md5={
        TRAIN_X: "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        TRAIN_Y: "25c81989df183df01b3e8a0aad5dffbe",
        TEST_X: "bef4ecab320f06d8554ea6380940ec79",
        TEST_Y: "bb300cfdad3c16e7a12a480ee83cd310",
    },
)
_SOURCES = (MNIST, FASHION_MNIST)


def load_idx(source: IdxSource, root: Path, *, fetch: bool = True, report: Report = silent) -> DataSet:
    """Read a data set of IDX files from the data folder; missing files are downloaded if `fetch`.

    Raises
    ------
    ConfigError
        A file is missing and cannot be downloaded, or is not the published one.
    """
    folder = _locate(source, root)
    missing = [name for name in source.md5 if not (folder / name).is_file()]
    text = missing_text(source.title, folder, missing)
    if missing and not fetch:
        raise MissingDataError(text)
    for name in missing:
        download(text, source.url + name, source.md5[name], folder, report)
    arrays = {
        name: parse_idx(folder / name, read_verified(folder / name, md5)) for name, md5 in source.md5.items()
    }
    return DataSet(
        name=source.name,
        train_x=_images(arrays[TRAIN_X]),
        train_y=arrays[TRAIN_Y],
        test_x=_images(arrays[TEST_X]),
        test_y=arrays[TEST_Y],
        classes=10,
    )


def parse_idx(path: Path, content: bytes) -> NDArray[np.uint8]:
    """Return the array in a gzipped IDX file of unsigned bytes; `path` is for the text of errors.

    The file begins with two zero bytes, the type's code, the number of axes, and each axis' length
    as a big-endian 32-bit integer; the data follow in C order.

    Raises
    ------
    ConfigError
        The content is not gzipped, ends early, or is not an IDX file of unsigned bytes.
    """
    try:
        data = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be unpacked ({error}); it is damaged or no gzip file") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UINT8:
        raise ConfigError(f"{path}: is no IDX file of unsigned bytes (it begins with {data[:4].hex(' ')})")
    axes = data[3]
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", data[4:start]) if len(data) >= start else ()
    if not shape or len(data) - start != math.prod(shape):
        raise ConfigError(
            f"{path}: holds {max(len(data) - start, 0)} bytes of data for axes {shape}; it is damaged"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _locate(source: IdxSource, root: Path) -> Path:
    """Return the first folder that has any of the files, else the one where they belong."""
    foreign = {md5 for other in _SOURCES if other is not source for md5 in other.md5.values()}
    for name in source.folders:
        # The data sets share their file names: what lies in the open may be the other one.
        for file in (TRAIN_Y, TEST_Y, TRAIN_X, TEST_X):
            if (root / name / file).is_file():
                if md5_of(read(root / name / file)) not in foreign:
                    return root / name
                break
    return root / source.folders[0]


def _images(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return x[:, None]
