"""Data sets have names, fit themselves, and agree with what was published of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core.data_files import image_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from xbar_core import ConfigError, ShapeError
from xbar_core.lab.data import DataSet, data_folder, data_set_names, limited, load_data
from xbar_core.lab.data.digits import enlarge
from xbar_core.lab.data.idx import MNIST

RNG = np.random.default_rng(5)


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

def broken(folder):
    return [][folder]

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
        "own_data_for_test:broken": r"failed: TypeError: .* \(own_data_for_test.py, line 13\)",
        "own_data_nowhere:make": "cannot import 'own_data_nowhere'",
    }.items():
        with pytest.raises(ConfigError, match=text):
            load_data(name, tmp_path)


@pytest.mark.parametrize("module", ["pooch", "sklearn.datasets", "PIL.Image"])
def test_missing_extra_is_named(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a package of the extra is missing, the text says how to install it."""
    image_tree(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
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


@given(count=st.integers(1, 60), tested=st.integers(1, 60), limit=st.integers(1, 70))
def test_limited_data_keep_every_class(count: int, tested: int, limit: int) -> None:
    """At most so many samples remain, in order, with their labels; sorted classes keep their shares."""
    labels = np.arange(count) * 3 // count
    whole = DataSet("x", labels[:, None] * 1.0, labels, np.zeros((tested, 1)), np.zeros(tested, int), 3)
    part = limited(whole, limit)
    assert (len(part.train_x), len(part.test_x)) == (min(limit, count), min(limit, tested))
    assert np.array_equal(part.train_x[:, 0], part.train_y)
    assert (part is whole) == (limit >= max(count, tested)) == (part.note == "")
    share, was = (np.bincount(d.train_y, minlength=3) / len(d.train_y) for d in (part, whole))
    assert np.abs(share - was).max() <= 1 / len(part.train_y) + 1e-12


def test_limit_is_added_to_the_note() -> None:
    """The note says what was left out, after what it said before."""
    data = DataSet("x", X, Y, X, Y, 2, note="half of it")
    assert limited(data, 3).note == "half of it; limited to 3 of 4 training and 3 of 4 test samples"
    with pytest.raises(ConfigError, match="limit: 0 is out of range"):
        limited(data, 0)


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


def test_every_name_is_known_to_load_data(tmp_path: Path) -> None:
    """No listed name is unknown: without files each fails for want of files, not of a name."""
    for name in data_set_names():
        if name != "digits":
            with pytest.raises(ConfigError, match=r"^data: .* put "):
                load_data(name, tmp_path, fetch=False)
