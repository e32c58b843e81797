"""CIFAR-10 and CIFAR-100: Python pickles, read without running anything in them."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbar_core.errors import ConfigError
from xbar_core.lab.data.dataset import DataSet
from xbar_core.lab.data.files import (
    MissingDataError,
    Report,
    check_md5,
    download,
    missing_text,
    read_verified,
    silent,
)

_SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class CifarSource:
    """A published data set of pickled batches.

    Parameters
    ----------
    name, title : str
        Name to load it by, and as people write it.
    folder : str
        Folder of the batches, also inside the archive.
    url, archive_md5 : str
        Address and md5 of the archive.
    train, test : mapping of str to str
        Published md5 of each batch file.
    label_key : bytes
        Entry of a batch that holds the labels.
    classes : int
        Number of classes.
    """

    name: str
    title: str
    folder: str
    url: str
    archive_md5: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    label_key: bytes
    classes: int

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]


CIFAR10 = CifarSource(
    name="cifar10",
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    archive_md5="c58f30108f718f92721af3b95e74349a",
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    label_key=b"labels",
    classes=10,
)
CIFAR100 = CifarSource(
    name="cifar100",
    title="CIFAR-100",
    folder="cifar-100-python",
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    archive_md5="eb9058c3a382ffc7106e4002c42a8d85",
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    label_key=b"fine_labels",
    classes=100,
)


class _Batch(NamedTuple):
    x: NDArray[np.uint8]
    y: NDArray[np.int64]


def load_cifar(source: CifarSource, root: Path, *, fetch: bool = True, report: Report = silent) -> DataSet:
    """Read a data set of pickled batches from the data folder, unpacked or as its archive.

    Where only some of the training batches are there, they are used, and the data set's note says
    so; where there are none, or no test batch, the archive is downloaded if `fetch`.

    Raises
    ------
    ConfigError
        Nothing is there and nothing can be downloaded, or a file is not the published one.
    """
    files = _unpacked(source, root) or _archived(source, root)
    if files is None:
        home = root / source.name
        text = missing_text(source.title, home, [f"{source.archive} or its folder {source.folder}"])
        if not fetch:
            raise MissingDataError(text)
        files = _unpack(source, download(text, source.url, source.archive_md5, home, report))
    train = [_parse(source, *files[name]) for name in source.train if name in files]
    test = [_parse(source, *files[name]) for name in source.test]
    note = ""
    if len(train) < len(source.train):
        count = sum(len(batch.y) for batch in train)
        note = f"{source.title}: {len(train)} of {len(source.train)} training files, {count} images"
    return DataSet(
        name=source.name,
        train_x=np.concatenate([batch.x for batch in train]),
        train_y=np.concatenate([batch.y for batch in train]),
        test_x=np.concatenate([batch.x for batch in test]),
        test_y=np.concatenate([batch.y for batch in test]),
        classes=source.classes,
        note=note,
    )


_Files = dict[str, tuple[Path, bytes]]


def _folders(source: CifarSource, root: Path) -> tuple[Path, ...]:
    return root / source.name, root


def _unpacked(source: CifarSource, root: Path) -> _Files | None:
    """Return the verified batch files of the first folder that has training and test batches."""
    published = {**source.train, **source.test}
    # The data folder itself may be the folder of the batches.
    for folder in (*(parent / source.folder for parent in _folders(source, root)), root):
        present = [name for name in published if (folder / name).is_file()]
        if any(name in source.train for name in present) and all(name in present for name in source.test):
            return {name: (folder / name, read_verified(folder / name, published[name])) for name in present}
    return None


def _archived(source: CifarSource, root: Path) -> _Files | None:
    for folder in _folders(source, root):
        if (folder / source.archive).is_file():
            return _unpack(source, folder / source.archive)
    return None


def _unpack(source: CifarSource, archive: Path) -> _Files:
    """Return the verified batch files inside the archive; nothing is written."""
    published = {f"{source.folder}/{name}": md5 for name, md5 in {**source.train, **source.test}.items()}
    files: _Files = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name in published else None
                if content is not None:
                    name = member.name.rpartition("/")[2]
                    files[name] = archive / member.name, content.read()
                    check_md5(*files[name], published[member.name])
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ConfigError(
            f"{archive}: cannot be unpacked ({error}); it is damaged or incomplete: delete it and download "
            "it again"
        ) from error
    if len(files) < len(published):
        raise ConfigError(f"{archive}: holds {len(files)} of {len(published)} batches; download it again")
    return files


def _parse(source: CifarSource, path: Path, content: bytes) -> _Batch:
    """Return the images (samples, 3, 32, 32) and labels of one batch."""
    entries = read_arrays(path, content)
    x, y = entries.get(b"data"), entries.get(source.label_key)
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != np.prod(_SHAPE):
        raise ConfigError(f"{path}: has no images of 3072 bytes under 'data'; it is no {source.title} batch")
    if not isinstance(y, list) or len(y) != len(x) or not all(type(label) is int for label in y):
        key = source.label_key.decode()
        raise ConfigError(f"{path}: has no label for each image under {key!r}; it is no {source.title} batch")
    return _Batch(x.reshape(-1, *_SHAPE), np.array(y, np.int64))


def read_arrays(path: Path, content: bytes) -> dict[Any, Any]:
    """Return the dictionary in a pickle of plain values and arrays of bytes.

    Unpickling can run any code that a file names. This reader admits the three names that arrays are
    pickled with, and puts its own harmless functions in their place: a file can do no more than
    describe arrays of bytes.

    Parameters
    ----------
    path : Path
        For the text of errors.
    content : bytes
        The pickle; Python 2's strings are returned as bytes.

    Raises
    ------
    ConfigError
        The pickle names anything else, is damaged, or is no dictionary.
    """
    try:
        value = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        if isinstance(value, dict):
            value = {key: item.array() if isinstance(item, _Array) else item for key, item in value.items()}
    except _Forbidden as error:
        raise ConfigError(
            f"{path}: asks for {error}, which no data file needs; it may be malicious and was not run"
        ) from None
    # What a damaged pickle may raise: the pickle module's documentation lists no closed set.
    except Exception as error:
        raise ConfigError(f"{path}: is no pickle of arrays ({type(error).__name__}: {error})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds a {type(value).__name__}; a batch is a dictionary")
    return value


class _Forbidden(Exception):
    """A pickle names something that is no array."""


class _Dtype:
    """What a pickle says of a dtype."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Take no notice of byte order, which bytes do not have."""


class _Array:
    """What a pickle says of an array."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[np.uint8]:
        """Return the array."""
        _, shape, dtype, fortran, content = self.state
        if not isinstance(dtype, _Dtype) or dtype.code != "u1" or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array is not of unsigned bytes")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return a stand-in for the parts of a pickled array; nothing else is admitted."""
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda *_: _Array()
        if module == "numpy" and name in ("ndarray", "dtype"):
            return {"ndarray": lambda *_: _Array(), "dtype": lambda *code: _Dtype(*code)}[name]
        raise _Forbidden(f"{module}.{name}")
