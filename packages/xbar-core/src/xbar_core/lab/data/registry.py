"""Data sets by name."""

from __future__ import annotations

import os
from pathlib import Path

from xbar_core._checks import check_integer, nearest
from xbar_core.errors import ConfigError
from xbar_core.lab.data.cifar import CIFAR10, CIFAR100, load_cifar
from xbar_core.lab.data.dataset import DataSet
from xbar_core.lab.data.digits import load_digits
from xbar_core.lab.data.files import Report, data_folder, silent
from xbar_core.lab.data.idx import FASHION_MNIST, MNIST, load_idx
from xbar_core.lab.data.image_folder import load_image_folder
from xbar_core.lab.data.tiny_imagenet import load_tiny_imagenet
from xbar_core.lab.importing import call_own, is_import_path

_IDX = {source.name: source for source in (MNIST, FASHION_MNIST)}
_CIFAR = {source.name: source for source in (CIFAR10, CIFAR100)}


def data_set_names() -> tuple[str, ...]:
    """Return the names that `load_data` knows; it also takes import paths and folders of images."""
    return ("digits", *_IDX, *_CIFAR, "tiny-imagenet", "image-folder")


def load_data(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    fetch: bool = True,
    image_size: int | None = None,
    report: Report = silent,
) -> DataSet:
    """Return a data set, read from files in their original format.

    Parameters
    ----------
    name : str
        A name of `data_set_names`; a folder of images, written with a slash (``./flowers``); or the
        import path of the user's own function, ``package.module:function``, which is called with
        the data folder and returns a `DataSet`.
    folder : path or None
        The data folder; None takes ``$XBAR_DATA``, else ``./data``. ``image-folder`` is that
        folder itself.
    fetch : bool
        Download what is missing.
    image_size : int or None
        Height and width that a folder's images are scaled and cut to; None takes them as they are, and
        other data sets allow nothing else.
    report : callable
        Told of every download, for it may take minutes.

    Raises
    ------
    ConfigError
        An unknown name, missing or damaged files: one line that says which and what to do.
    """
    if image_size is not None:
        check_integer("image_size", image_size, minimum=1)
        if not is_folder(name) and name != "image-folder":
            raise ConfigError(
                f"image_size: {image_size!r} is for a folder of images; leave it out for data set {name!r}"
            )
    if is_folder(name):
        return load_image_folder(Path(name).expanduser(), image_size=image_size)
    if is_import_path(name):
        return _own(name, data_folder(folder))
    if name not in data_set_names():
        raise ConfigError(
            f"data set: unknown name {name!r}{nearest(name, data_set_names())}; use one of "
            f"{', '.join(data_set_names())}, a folder of images (./folder) or package.module:function"
        )
    if name == "digits":
        return load_digits()
    root = data_folder(folder)
    if name in _IDX:
        return load_idx(_IDX[name], root, fetch=fetch, report=report)
    if name in _CIFAR:
        return load_cifar(_CIFAR[name], root, fetch=fetch, report=report)
    if name == "tiny-imagenet":
        return load_tiny_imagenet(root, fetch=fetch, report=report)
    return load_image_folder(root, image_size=image_size)


def is_folder(name: str) -> bool:
    """Tell whether a data set's name is that of a folder of images."""
    return os.sep in name or "/" in name


def _own(name: str, root: Path) -> DataSet:
    """Return the data set that the user's function makes."""
    made = call_own("data set", name, root)
    if not isinstance(made, DataSet):
        raise ConfigError(
            f"data set: {name} returned a {type(made).__name__}; it must return an xbar_core.lab.data.DataSet"
        )
    return made
