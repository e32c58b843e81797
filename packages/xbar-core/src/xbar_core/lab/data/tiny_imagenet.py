"""Tiny-ImageNet: 200 classes of 64x64 JPEG images, unpacked or in their archive."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from xbar_core.errors import ConfigError
from xbar_core.lab.data.dataset import DataSet
from xbar_core.lab.data.files import (
    MissingDataError,
    Report,
    download,
    missing_text,
    read,
    read_verified,
    silent,
)
from xbar_core.lab.data.image_folder import decode_images

_FOLDER = "tiny-imagenet-200"
URL = f"http://cs231n.stanford.edu/{_FOLDER}.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


def load_tiny_imagenet(root: Path, *, fetch: bool = True, md5: str = MD5, report: Report = silent) -> DataSet:
    """Read Tiny-ImageNet: its training images, and its validation images as the test set.

    The labels of the original test images were never published.

    Parameters
    ----------
    root : Path
        The data folder; it holds ``tiny-imagenet-200/`` or ``tiny-imagenet-200.zip``, itself or in
        ``tiny-imagenet/``.
    fetch : bool
        Download the archive (248 MB) where there is neither.
    md5 : str
        Checksum of the archive. Unpacked images have none.
    report : callable
        Told of a download.

    Raises
    ------
    ConfigError
        Nothing is there and nothing can be downloaded, or files are missing or damaged.
    """
    parents = (root / "tiny-imagenet", root)
    for folder in (*(parent / _FOLDER for parent in parents), root):
        if (folder / "wnids.txt").is_file():
            names = {file.relative_to(folder).as_posix() for file in folder.rglob("*.*") if file.is_file()}
            return _read(folder, names, partial(_read_in, folder))
    archive = next((p / f"{_FOLDER}.zip" for p in parents if (p / f"{_FOLDER}.zip").is_file()), None)
    if archive is None:
        text = missing_text("Tiny-ImageNet", parents[0], [f"{_FOLDER}.zip or its folder {_FOLDER}"])
        if not fetch:
            raise MissingDataError(text)
        archive = download(text, URL, md5, parents[0], report)
    with zipfile.ZipFile(io.BytesIO(read_verified(archive, md5))) as file:
        prefix = f"{_FOLDER}/"
        names = {name.removeprefix(prefix) for name in file.namelist() if not name.endswith("/")}
        return _read(archive, names, lambda name: file.read(prefix + name))


def _read_in(folder: Path, name: str) -> bytes:
    return read(folder / name)


def _read(where: Path, names: set[str], content: Callable[[str], bytes]) -> DataSet:
    """Return the data set from the names of its files and a function that reads one."""

    def text(name: str) -> str:
        if name not in names:
            raise ConfigError(f"{where}: {name} is missing; unpack the archive again")
        return content(name).decode()

    classes = text("wnids.txt").split()
    label = {name: number for number, name in enumerate(sorted(classes))}
    train = sorted(name for name in names if name.startswith("train/") and name.endswith(".JPEG"))
    rows = [line.split("\t") for line in text("val/val_annotations.txt").splitlines()]
    test = [f"val/images/{row[0]}" for row in rows]
    train_classes, test_classes = [name.split("/")[1] for name in train], [row[1] for row in rows]
    unknown = sorted({*train_classes, *test_classes} - label.keys())
    if unknown or not train or not test:
        what = f"class {unknown[0]} is not in wnids.txt" if unknown else "holds no images"
        raise ConfigError(f"{where}: {what}; unpack the archive again")
    gone = [name for name in test if name not in names]
    if gone:
        raise ConfigError(f"{where}: {gone[0]} is missing; unpack the archive again")
    x = decode_images([(where / name, partial(content, name)) for name in (*train, *test)], channels=3)
    return DataSet(
        name="tiny-imagenet",
        train_x=x[: len(train)],
        train_y=np.array([label[name] for name in train_classes]),
        test_x=x[len(train) :],
        test_y=np.array([label[name] for name in test_classes]),
        classes=len(classes),
        class_names=tuple(sorted(classes)),
    )
