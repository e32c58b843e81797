"""A data set in memory: NumPy arrays, what they are, and their normalisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_integer
from xbar_core.errors import ConfigError, ShapeError

_CHUNK = 2048  # samples at a time, so that statistics need no second copy of the data
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class DataSet:
    """Training and test samples with their labels.

    Parameters
    ----------
    name : str
        Name that it was loaded by.
    train_x, test_x : ndarray, shape (samples, channels, height, width) or (samples, ...)
        Samples: uint8 images (0 to 255), or float32 or float64 numbers of any shape.
    train_y, test_y : ndarray, shape (samples,)
        Labels, 0 to ``classes - 1``; kept as int64.
    classes : int
        Number of classes.
    note : str
        What a user must know, such as that only part of the data was found; empty if nothing.
    class_names : tuple of str
        Names of the classes in the order of the labels; empty if they have none.

    Raises
    ------
    ShapeError, ConfigError
        Arrays that do not fit each other, labels out of range, numbers that are not finite.
    """

    name: str
    train_x: NDArray[Any]
    train_y: NDArray[Any]
    test_x: NDArray[Any]
    test_y: NDArray[Any]
    classes: int
    note: str = ""
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", check_integer("classes", self.classes, minimum=1))
        for part in ("train", "test"):
            x = _check_samples(f"{part}_x", getattr(self, f"{part}_x"))
            y = _check_labels(f"{part}_y", getattr(self, f"{part}_y"), self.classes)
            if len(x) != len(y):
                raise ShapeError(
                    f"{part}_y: {len(y)} labels for {len(x)} samples of {part}_x; give one label for each"
                )
            object.__setattr__(self, f"{part}_x", x)
            object.__setattr__(self, f"{part}_y", y)
        if self.train_x.shape[1:] != self.test_x.shape[1:] or self.train_x.dtype != self.test_x.dtype:
            raise ShapeError(
                f"test_x: samples of {self.test_x.shape[1:]} {self.test_x.dtype} differ from train_x with "
                f"{self.train_x.shape[1:]} {self.train_x.dtype}; give both the same shape and dtype"
            )
        if self.class_names and len(self.class_names) != self.classes:
            raise ConfigError(
                f"class_names: {len(self.class_names)} names for {self.classes} classes; "
                "give one for each class, or none"
            )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one sample, (channels, height, width) for images."""
        return tuple(self.train_x.shape[1:])

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        """Mean of the training samples, per channel for images, else one number; in their own unit."""
        return self._statistics[0].astype(np.float32)

    @cached_property
    def std(self) -> NDArray[np.float32]:
        """Standard deviation of the training samples, like `mean`; 1 where a channel is constant."""
        return self._statistics[1].astype(np.float32)

    def normalised(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return samples as float32 with the training data's mean removed, divided by its deviation.

        Parameters
        ----------
        x : ndarray, shape (samples, ...)
            Samples like `train_x`: all of them, or a batch.
        """
        if x.shape[1:] != self.image_shape:
            raise ShapeError(
                f"x: samples of shape {x.shape[1:]} do not fit; {self.name} has {self.image_shape}"
            )
        shape = (-1, *[1] * (x.ndim - 2)) if self.mean.ndim else ()
        out: NDArray[np.float32] = np.subtract(
            x, self.mean.reshape(shape), dtype=np.float32, casting="same_kind"
        )
        out *= (1.0 / self.std).reshape(shape)
        return out

    @cached_property
    def _statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of the training samples, per channel for images."""
        x = self.train_x
        images = x.ndim == 4
        axes = (0, 2, 3) if images else tuple(range(x.ndim))
        count = x.size // (x.shape[1] if images else 1)
        chunks = [x[start : start + _CHUNK] for start in range(0, len(x), _CHUNK)]
        if x.dtype == np.uint8:
            # In integers, hence exact: sums of pixels and of their squares.
            total = np.sum([c.sum(axis=axes, dtype=np.int64) for c in chunks], axis=0)
            squares = np.sum(
                [np.square(c, dtype=np.uint16).sum(axis=axes, dtype=np.int64) for c in chunks], 0
            )
            pairs = zip(np.ravel(total).tolist(), np.ravel(squares).tolist(), strict=True)
            variance = np.reshape([(count * q - s * s) / count**2 for s, q in pairs], total.shape)
            mean = total / count
        else:
            mean = np.sum([c.sum(axis=axes, dtype=np.float64) for c in chunks], axis=0) / count
            offset = mean.reshape(-1, 1, 1) if images else mean
            variance = np.sum([np.square(c - offset).sum(axis=axes) for c in chunks], axis=0) / count
        deviation = np.sqrt(variance)
        # Of equal numbers only rounding is left.
        return np.asarray(mean), np.where(deviation > _ROUNDING * np.abs(mean), deviation, 1.0)


def limited(data: DataSet, limit: int) -> DataSet:
    """Return a data set of at most `limit` training and `limit` test samples, and note it.

    They lie evenly spread over the whole, so that every class keeps its share where samples are sorted.

    Parameters
    ----------
    data : DataSet
        The whole.
    limit : int
        Number of samples to keep of each part, from 1 up.
    """
    check_integer("limit", limit, minimum=1)
    total, tested = len(data.train_x), len(data.test_x)
    if limit >= max(total, tested):
        return data
    train, test = (_spread(limit, count) for count in (total, tested))
    kept = f"limited to {len(train)} of {total} training and {len(test)} of {tested} test samples"
    return replace(
        data,
        train_x=data.train_x[train],
        train_y=data.train_y[train],
        test_x=data.test_x[test],
        test_y=data.test_y[test],
        note=f"{data.note}; {kept}" if data.note else f"{data.name}: {kept}",
    )


def _spread(limit: int, count: int) -> NDArray[np.int64]:
    """Return at most `limit` indices of `count` samples, evenly spread."""
    kept = min(limit, count)
    return np.arange(kept) * count // kept


def _check_samples(field: str, value: Any) -> NDArray[Any]:
    x = np.asarray(value)
    if x.dtype not in (np.uint8, np.float32, np.float64):
        raise ShapeError(f"{field}: dtype {x.dtype} is not supported; use uint8, float32 or float64")
    if x.ndim < 2 or x.size == 0:
        raise ShapeError(
            f"{field}: shape {x.shape} is not (samples, ...) with at least one sample; images are "
            "(samples, channels, height, width)"
        )
    if x.dtype != np.uint8:
        bad = ~np.isfinite(x)
        if bad.any():
            index = [int(k) for k in np.argwhere(bad)[0]]
            raise ConfigError(f"{field}{index}: {x[tuple(index)]!s} is not finite; give finite numbers")
    return x


def _check_labels(field: str, value: Any, classes: int) -> NDArray[np.int64]:
    y = np.asarray(value)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ShapeError(
            f"{field}: {y.dtype} of shape {y.shape} are no labels; give integers of shape (samples,)"
        )
    bad = np.flatnonzero((y < 0) | (y >= classes))
    if bad.size:
        raise ConfigError(
            f"{field}[{bad[0]}]: label {y[bad[0]]} is out of range; labels go from 0 to {classes - 1}"
        )
    return y.astype(np.int64)
