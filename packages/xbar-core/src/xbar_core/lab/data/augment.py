"""Augmentation: random crops and mirror images of whole batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_choice, check_integer
from xbar_core.errors import ShapeError


class Augmentation(Protocol):
    """A random change of a batch's samples."""

    def __call__(self, x: NDArray[Any], rng: np.random.Generator, first: int, count: int) -> NDArray[Any]:
        """Return changed samples.

        Parameters
        ----------
        x : ndarray, shape (samples, channels, height, width)
            Samples ``[first, first + samples)`` of a global batch.
        rng : numpy.random.Generator
            Draws for the whole global batch come from here, and each sample takes its own.
        first, count : int
            Index of the first sample in the global batch, and the global batch's length.
        """
        ...


@dataclass(frozen=True)
class PadCrop:
    """Surround images with `pad` pixels of 0 and cut out a random part of the original size."""

    pad: int = 4

    def __post_init__(self) -> None:
        check_integer("pad", self.pad, minimum=1)

    def __call__(self, x: NDArray[Any], rng: np.random.Generator, first: int, count: int) -> NDArray[Any]:
        """Return the cropped images; see `Augmentation`."""
        _check_images(x)
        top, left = rng.integers(0, 2 * self.pad + 1, size=(2, count))[:, first : first + len(x)]
        height, width = x.shape[2:]
        padded = np.zeros((*x.shape[:2], height + 2 * self.pad, width + 2 * self.pad), x.dtype)
        padded[:, :, self.pad : self.pad + height, self.pad : self.pad + width] = x
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        return windows[np.arange(len(x)), :, top, left]


@dataclass(frozen=True)
class Flip:
    """Mirror images left to right, each with probability one half."""

    def __call__(self, x: NDArray[Any], rng: np.random.Generator, first: int, count: int) -> NDArray[Any]:
        """Return the images, half of them mirrored; see `Augmentation`."""
        _check_images(x)
        chosen = rng.integers(0, 2, size=count)[first : first + len(x)] == 1
        out = x.copy()
        out[chosen] = x[chosen, :, :, ::-1]
        return out


def augmentation(name: str) -> tuple[Augmentation, ...]:
    """Return the augmentation called ``"none"`` or ``"crop-flip"`` (pad 4 and crop, then flip)."""
    check_choice("augmentation", name, ("none", "crop-flip"))
    return () if name == "none" else (PadCrop(4), Flip())


def default_augmentation(data_set: str) -> str:
    """Return the name of the augmentation that a data set is usually trained with."""
    return "crop-flip" if data_set in ("cifar10", "cifar100", "tiny-imagenet") else "none"


def _check_images(x: NDArray[Any]) -> None:
    if x.ndim != 4:
        raise ShapeError(
            f"augmentation: samples of shape {x.shape[1:]} are no images (channels, height, width); "
            "use 'none'"
        )
