"""`xbar train` and `xbar evaluate` on networks that turn to NaN or fail: one line, and what there is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xbar_core.cli import main
from xbar_core.config import preset

OWN = """
import math
from torch import nn

def normed(classes, image_shape):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(image_shape), 16), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Dropout(0.2), nn.Linear(16, classes),
    )

class Odd(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def forward(self, x):
        if len(x) == 31:
            raise KeyError("thirty-one")
        return self.fc(x.flatten(1))

def odd(classes, image_shape):
    return Odd(math.prod(image_shape), classes)

class Unfit(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def forward(self, x):
        if self.training:
            raise TypeError("only in training")
        return self.fc(x.flatten(1))

def unfit(classes, image_shape):
    return Unfit(math.prod(image_shape), classes)
"""
NORMED = ["--network", "failing_nets:normed", "--batch", "32", "--epochs", "3"]
ALONE = ["--preset", "native", "--compare", ""]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "failing_nets.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nan_of_the_last_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One step an epoch explodes: every variant says where, and only files that exist are listed."""
    explode = ["--limit", "32", "--lr", "1e30"]
    assert main(["train", "--out", "run", *NORMED, *explode, "--compare", "ideal,native"]) == 1
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    for name in ("ideal", "native", "txsim-8bit"):
        assert f"{name} turned to NaN or infinity in epoch 1, after its last step: layer '" in shown.err
    written = [line.removeprefix("wrote ") for line in shown.out.splitlines() if line.startswith("wrote")]
    assert written == ["run/run.json", "run/ideal", "run/native", "run/txsim-8bit"]
    assert all((folder / name).exists() for name in written)
    assert not list((folder / "run").rglob(".spare-*"))
    for more in ([], ["--chips", "1"], ["--variant", "native", "--preset", "ideal"]):
        assert main(["evaluate", "run", *more]) == 1
        error = capsys.readouterr().err
        assert "is not finite on this chip" in error
        assert error.count("\n") == 1


def test_last_batch_of_one_sample(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Batch normalisation cannot train on one sample: said before training, for a dry run as well."""
    for mode in (["--out", "run"], ["--dry-run"]):
        assert main(["train", *mode, *NORMED, *ALONE, "--limit", "129"]) == 2
        error = capsys.readouterr().err
        assert "batch: 32 leaves one sample for the last batch of an epoch of 129" in error
        assert error.count("\n") == 1
    assert not (folder / "run").exists()


def test_own_network_fails_in_training(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the network raises is one line with its place in the user's file, and exit code 1."""
    arguments = ["--network", "failing_nets:odd", *ALONE, "--limit", "63", "--batch", "32"]
    assert main(["train", "--out", "run", *arguments]) == 1
    shown = capsys.readouterr()
    assert "to go on from the last checkpoint: xbar train --resume run" in shown.out
    error = shown.err
    assert (
        "failing_nets:odd failed in the training of native, epoch 1, step 2, a batch of (31, 1, 28," in error
    )
    assert "KeyError: 'thirty-one' (failing_nets.py, line 18)" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("limit", ["64", "65"])
def test_own_network_fails_in_a_dry_run(capsys: pytest.CaptureFixture[str], limit: str) -> None:
    """One line as in training, whatever the last batch holds."""
    arguments = ["--network", "failing_nets:unfit", *ALONE, "--limit", limit, "--batch", "32"]
    assert main(["train", "--dry-run", *arguments]) == 1
    error = capsys.readouterr().err
    assert (
        "network: failing_nets:unfit failed in step 1 of the dry run of native: TypeError: only in training"
        in error
    )
    assert error.count("\n") == 1


def test_own_network_fails_before_its_run_begins(capsys: pytest.CaptureFixture[str]) -> None:
    """An older run in the folder, which --force would have replaced, is none to go on with."""
    train = ["train", "--out", "run", *ALONE, "--batch", "32", "--epochs", "1", "--network"]
    assert main([*train, "mlp", "--limit", "32"]) == 0
    capsys.readouterr()
    assert main([*train, "failing_nets:unfit", "--limit", "65", "--force"]) == 1
    shown = capsys.readouterr()
    assert "failing_nets:unfit failed in a first step, a batch of two samples: TypeError" in shown.err
    assert "to go on" not in shown.out


def test_own_network_fails_when_it_is_looked_at(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network that was changed after its training: one line of `xbar evaluate` and `xbar inspect`."""
    arguments = ["--network", "failing_nets:odd", "--compare", "", "--limit", "32", "--batch", "32"]
    assert main(["train", "--out", "run", *arguments, "--epochs", "1"]) == 0
    (folder / "failing_nets.py").write_text(OWN.replace("len(x) == 31", "len(x) == 32"))
    sys.modules.pop("failing_nets")
    capsys.readouterr()
    for command, doing in (("evaluate", "evaluation"), ("inspect", "inspection")):
        assert main([command, "run"]) == 1
        error = capsys.readouterr().err
        assert f"failing_nets:odd failed in the {doing} on txsim-8bit: KeyError: 'thirty-one'" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "nativ"], "preset: unknown name 'nativ', did you mean 'native'?"),
        (["--preset", "Native"], "preset: unknown name 'Native', did you mean 'native'?"),
        (["--preset", "txsim-8bits"], "did you mean 'txsim-8bit'?; use native, "),
        (["--lr", "1e38"], "rate: 1e+38 is out of range"),
        (["--weight-decay", "1e39"], "weight_decay: 1e+39 is out of range"),
        (["--preset", "taken.toml"], "'metrics.csv' is a file or folder of the run itself"),
        (["--preset", "native.toml", "--compare", ""], "'native' stands for training without a chip"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Exit code 2, and nothing is written."""
    for file, name in (("taken", "metrics.csv"), ("native", "native")):
        preset("ideal").with_("name", name).to_toml(folder / f"{file}.toml")
    assert main(["train", "--out", "run", "--network", "mlp", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (folder / "run").exists()
