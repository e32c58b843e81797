"""`xbar train` refuses data and networks that cannot work in one line, before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.data_files import image_tree, write

from xbar_core.cli import main
from xbar_core.lab.data.cifar import CIFAR10
from xbar_core.lab.data.idx import MNIST

OWN = """
import numpy as np
from torch import nn
from xbar_core.lab.data import DataSet

def build(classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(image_shape)), classes))

def narrow(classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(7, classes))

def script(classes, image_shape):
    raise SystemExit(3)

def load(folder):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6)), rng.integers(0, 3, 60)
    return DataSet("mine", x[:40], y[:40], x[40:], y[40:], 3, note="made up: 60 samples")

def unlabelled(folder):
    return DataSet("mine", np.zeros((4, 6)), np.zeros(3, int), np.zeros((4, 6)), np.zeros(4, int), 3)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of the user's own, damaged data and no network to download from."""
    (tmp_path / "own_for_train_test.py").write_text(OWN)
    write(tmp_path / "files" / "mnist" / next(iter(MNIST.md5)), b"damaged")
    for name in (*list(CIFAR10.train)[:2], *CIFAR10.test):
        write(tmp_path / "files" / "cifar10" / CIFAR10.folder / name, b"damaged")
    image_tree(tmp_path / "flowers", size=(20, 12))
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--dataset", "mnist", "--data", "files"], "data: MNIST is not there; put train-labels"),
        (["--dataset", "cifar10", "--data", "files"], "data_batch_1: wrong checksum"),
        (["--dataset", "cifar10", "--data", "nowhere"], "nowhere is not a folder"),
        (["--dataset", "cifar-10"], "did you mean 'cifar10'?"),
        (["--dataset", "./flowers", "--network", "lenet5", "--batch", "4"], "does not fit lenet5; it takes"),
        (["--dataset", "./flowers", "--image-size", "0"], "image_size: 0 is out of range"),
        (["--dataset", "digits", "--image-size", "32"], "image_size: 32 is for a folder of images"),
        (["--dataset", "./no-flowers"], "train is not a folder; put images into"),
        (
            ["--dataset", "own_for_train_test:load", "--network", "lstm", "--batch", "4"],
            "(6,) does not fit lstm",
        ),
        (["--dataset", "own_for_train_test:lode"], "has no 'lode', did you mean 'load'?"),
        (["--dataset", "own_for_train_test:unlabelled"], "train_y: 3 labels for 4 samples"),
        (["--network", "vgg16"], "(1, 28, 28) does not fit vgg16; it takes"),
        (["--network", "own_for_train_test:narrow"], "does not take samples of shape (1, 28, 28)"),
        (["--network", "own_for_train_test:script"], "script(10, (1, 28, 28)) failed: SystemExit: 3"),
        (["--optimizer", "adam", "--set", "backward.mode=exact"], "compare: 'adam' cannot train 'ideal'"),
        (["--network", "own_for_train_tests:build"], "cannot import 'own_for_train_tests'"),
        (["--limit", "0"], "limit: 0 is out of range"),
        (["--limit", "30", "--batch", "31"], "batch: 31 is larger than the data; digits has 30"),
        (["--augment", "crop-flip", "--dataset", "own_for_train_test:load", "--batch", "4"], "are no images"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    """Exit code 2, one line on standard error, no run folder, for a dry run as well."""
    fixed = [] if "--network" in arguments else ["--network", "mlp"]
    for mode in (["--out", "run"], ["--dry-run"]):
        assert main(["train", *mode, *fixed, *arguments]) == 2
        error = capsys.readouterr().err.strip()
        assert text in error
        assert "\n" not in error
    assert not (folder / "run").exists()


def test_own_network_and_data_train(capsys: pytest.CaptureFixture[str]) -> None:
    """Both by import path, on a chip, with the data set's note printed every time."""
    own = ["--network", "own_for_train_test:build", "--dataset", "own_for_train_test:load"]
    assert main(["train", "--out", "run", *own, "--epochs", "1", "--batch", "20", "--compare", ""]) == 0
    printed = capsys.readouterr().out
    assert "made up: 60 samples" in printed
    assert "own_for_train_test:build on mine: 40 training and 20 test samples" in printed
    for again in (["train", "--resume", "run"], ["evaluate", "run"]):
        assert main(again) == 0
        assert capsys.readouterr().out.count("note: made up: 60 samples") == 1


def test_image_folder_trains(folder: Path) -> None:
    """A folder of images, scaled to one size."""
    sized = ["--dataset", "./flowers", "--image-size", "8", "--network", "mlp", "--compare", ""]
    assert main(["train", "--out", "run", *sized, "--epochs", "1", "--batch", "3"]) == 0
    log = (folder / "run" / "metrics.csv").read_text().splitlines()
    assert len(log) == 2
    assert np.isfinite(float(log[1].split(",")[2]))


def test_going_on_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run knows its images and its data folder in another working directory and environment, or is told."""
    sized = ["--image-size", "8", "--network", "mlp", "--compare", "", "--epochs", "1", "--batch", "3"]
    monkeypatch.setenv("XBAR_DATA", "flowers")
    assert main(["train", "--out", "path", "--dataset", "./flowers", *sized]) == 0
    assert main(["train", "--out", "root", "--dataset", "image-folder", *sized]) == 0
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    monkeypatch.delenv("XBAR_DATA")
    assert main(["train", "--resume", "../path"]) == main(["train", "--resume", "../root"]) == 0
    (folder / "flowers").rename(folder / "moved")
    assert main(["train", "--resume", "../path"]) == 2
    for name in ("path", "root"):
        assert main(["train", "--resume", f"../{name}", "--data", "../moved"]) == 0
        assert main(["evaluate", f"../{name}", "--data", "../moved"]) == 0


def test_dry_run_tells_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrays, devices, memory and seconds are printed, and no file is made."""
    before = sorted(folder.rglob("*"))
    assert main(["train", "--dry-run", "--network", "lenet5", "--batch", "8", "--limit", "40"]) == 0
    printed = capsys.readouterr().out
    for text in ("conv1", "fc3", "together", "native", "ideal", "txsim-8bit", "20 epochs"):
        assert text in printed
    assert [p for p in sorted(folder.rglob("*")) if "__pycache__" not in p.parts] == before
