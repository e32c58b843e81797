"""scikit-learn's handwritten digits: real scans that come inside a package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xbar_core.lab._optional import optional
from xbar_core.lab.data.dataset import DataSet

_SIDE = 28
_LEVELS = 16  # the scans' pixels count set pixels of 4x4 blocks: 0 to 16
_TEST_EVERY = 5


def load_digits() -> DataSet:
    """Return the 1797 digits, enlarged from 8x8 to 28x28 pixels.

    Every fifth image of each digit is for testing (355 of 1797), so the split is the same
    everywhere and holds every digit about equally often.

    References
    ----------
    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998.
    """
    raw = optional("sklearn.datasets", "scikit-learn", "data set digits").load_digits()
    x = enlarge(raw.images.astype(np.int64))[:, None]
    y = raw.target.astype(np.int64)
    test = np.zeros(len(y), bool)
    for digit in range(10):
        test[np.flatnonzero(y == digit)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return DataSet(
        name="digits",
        train_x=x[~test],
        train_y=y[~test],
        test_x=x[test],
        test_y=y[test],
        classes=10,
    )


def enlarge(images: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Enlarge images (samples, 8, 8) of levels 0 to 16 to (samples, 28, 28) of 0 to 255.

    Linear interpolation between pixel centres; the border's pixels continue outwards. It is done in
    integers, so the result is the same on every machine: the weights are multiples of 1/14.
    """
    small = images.shape[-1]
    centre = 2 * (2 * np.arange(_SIDE) + 1) * small  # in units of 1/(4 * 28) of a small pixel
    position = np.clip(centre - 2 * _SIDE, 0, 4 * _SIDE * (small - 1))
    left, rest = np.divmod(position, 4 * _SIDE)
    weights = np.zeros((_SIDE, small), np.int64)
    rows = np.arange(_SIDE)
    weights[rows, left] += 4 * _SIDE - rest
    weights[rows, np.minimum(left + 1, small - 1)] += rest
    scale = _LEVELS * (4 * _SIDE) ** 2
    big = weights @ images @ weights.T
    return ((big * 255 + scale // 2) // scale).astype(np.uint8)
