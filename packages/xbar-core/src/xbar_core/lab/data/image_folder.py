"""A folder of images: train/<class>/ and test/<class>/."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError
from xbar_core.lab._optional import optional
from xbar_core.lab.data.dataset import DataSet

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_TEST = ("test", "val", "valid", "validation")
_GREY, _COLOUR = ("1", "L"), ("P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr")


def load_image_folder(root: Path, *, image_size: int | None = None) -> DataSet:
    """Read the images of ``root/train/<class>/`` and ``root/test/<class>/`` (or ``val``).

    Images that are all grey get one channel, others three. Classes are numbered in the order of
    their names.

    Parameters
    ----------
    root : Path
        The folder.
    image_size : int or None
        Images are scaled so that their shorter side has this many pixels, and their middle is cut
        out; None demands that all have the same size.

    Raises
    ------
    ConfigError
        Folders, classes or images that are missing, unreadable, or of different sizes.
    """
    test_root = next((root / name for name in _TEST if (root / name).is_dir()), root / _TEST[0])
    for folder in (root / "train", test_root):
        if not folder.is_dir():
            raise ConfigError(
                f"data: {folder} is not a folder; put images into {root}/train/<class>/ and "
                f"{root}/test/<class>/"
            )
    names = _class_names(root / "train")
    for name in _class_names(test_root):
        if name not in names:
            raise ConfigError(
                f"data: {test_root / name} is a class without training images{nearest(name, names)}; "
                f"add {root / 'train' / name}"
            )
    parts = [_files(folder, names) for folder in (root / "train", test_root)]
    for number, name in enumerate(names):
        if number not in parts[0][1]:
            raise ConfigError(f"data: {root / 'train' / name} holds no images; put some there or remove it")
    files = [file for part, _ in parts for file in part]
    x = decode_images([(file, partial(Path.read_bytes, file)) for file in files], image_size=image_size)
    cut = len(parts[0][0])
    return DataSet(
        name="image-folder",
        train_x=x[:cut],
        train_y=np.array(parts[0][1], np.int64),
        test_x=x[cut:],
        test_y=np.array(parts[1][1], np.int64),
        classes=len(names),
        class_names=names,
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders, sorted; hidden ones are other programs' own."""
    return tuple(sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith(".")))


def _files(folder: Path, names: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Return the images below the class folders, in the order of their names, and their labels."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in _SUFFIXES)
        files += found
        labels += [label] * len(found)
    if not files:
        raise ConfigError(
            f"data: {folder} holds no images; put them into {folder}/<class>/ ({', '.join(_SUFFIXES)})"
        )
    return files, labels


def decode_images(
    images: Sequence[tuple[Path, Callable[[], bytes]]],
    *,
    image_size: int | None = None,
    channels: int | None = None,
) -> NDArray[np.uint8]:
    """Decode images on all cores into one array (images, channels, height, width).

    Parameters
    ----------
    images : sequence of (Path, callable)
        Name for the text of errors, and a function that reads the file.
    image_size : int or None
        See `load_image_folder`.
    channels : 1, 3 or None
        Channels of the result; None gives one if every image is grey, else three.

    Raises
    ------
    ConfigError
        An image cannot be decoded, has more than 8 bits a channel, or another size than the first.
    """
    pillow = optional("PIL.Image", "pillow", "images")

    def decode(item: tuple[Path, Callable[[], bytes]]) -> NDArray[np.uint8]:
        path, read = item
        try:
            with pillow.open(io.BytesIO(read())) as image:
                if image.mode not in _GREY + _COLOUR:
                    raise ConfigError(f"{path}: has mode {image.mode}; save it with 8 bits a channel")
                grey = channels == 1 or (channels is None and image.mode in _GREY)
                image = image.convert("L" if grey else "RGB")
                if image_size is not None:
                    left, top = (side // 2 - min(image.size) // 2 for side in image.size)
                    box = (left, top, left + min(image.size), top + min(image.size))
                    image = image.crop(box).resize((image_size, image_size), pillow.Resampling.BILINEAR)
                pixels = np.asarray(image, np.uint8)
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
            if isinstance(error, ConfigError):
                raise
            unknown = isinstance(error, pillow.UnidentifiedImageError)  # its text is an address in memory
            reason = "it is of no known format" if unknown else error
            raise ConfigError(f"{path}: cannot be read as an image ({reason})") from error
        return pixels[None] if grey else pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = list(pool.map(decode, images, chunksize=64))
    size = decoded[0].shape[1:]
    for (path, _), pixels in zip(images, decoded, strict=True):
        if pixels.shape[1:] != size:
            raise ConfigError(
                f"{path}: has {pixels.shape[2]}x{pixels.shape[1]} pixels and {images[0][0].name} has "
                f"{size[1]}x{size[0]}; give an image size to scale all to"
            )
    depth = max(pixels.shape[0] for pixels in decoded)
    out = np.empty((len(decoded), depth, *size), np.uint8)
    for target, pixels in zip(out, decoded, strict=True):
        target[:] = pixels
    return out
