"""`xbar train`: three ways, what it writes, stopping and going on, several processes, what it refuses."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist

from xbar_core.cli import main
from xbar_core.cli.train import _stop_asked
from xbar_core.config import preset
from xbar_core.lab.checkpoint import read_checkpoint
from xbar_core.lab.data import limited, load_data
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.trainer import trainer_factory
from xbar_torch.convert import convert
from xbar_torch.zoo import build

NETWORK = """
import math
from torch import nn

def small(classes, image_shape):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(image_shape), 16), nn.ReLU(), nn.Linear(16, classes)
    )
"""
SMALL = ["--network", "small_nets:small", "--limit", "256", "--epochs", "2", "--batch", "32", "--lr", "0.05"]
ALONE = ["--preset", "txsim-8bit", "--compare", ""]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "small_nets.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _metrics(path: Path) -> dict[str, list[dict[str, str]]]:
    rows: dict[str, list[dict[str, str]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["variant"], []).append(row)
    return rows


def test_three_ways(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Native, ideal and a real chip learn; the ideal chip does what native training does."""
    assert main(["train", "--out", "run", *SMALL, "--tensorboard"]) == 0
    metrics = _metrics(folder / "run" / "metrics.csv")
    assert list(metrics) == ["native", "ideal", "txsim-8bit"]
    for rows in metrics.values():
        assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    native, ideal = (float(metrics[name][0]["loss"]) for name in ("native", "ideal"))
    assert ideal == pytest.approx(native, rel=1e-4)
    chip = metrics["txsim-8bit"][-1]
    assert 0.01 < float(chip["distortion"]) < 0.5
    facts = json.loads((folder / "run" / "run.json").read_text())
    assert facts["recipe"]["batch"] == 32
    assert "torch" in facts["versions"]
    assert (folder / "run" / "curves.png").stat().st_size > 10_000
    assert len(list((folder / "run" / "tensorboard").rglob("*tfevents*"))) == 3
    shown = capsys.readouterr().out
    assert "limited to 256" in shown
    assert "by wires" in shown
    assert "accuracy" in shown


def test_saved_chip_is_the_trained_one(folder: Path) -> None:
    """The states and ranges on disk, loaded into a fresh network, label as the log says."""
    changes = ["--set", "update.noise.gamma=0", *ALONE, "--network", "mlp"]
    assert main(["train", "--out", "run", *SMALL, *changes]) == 0
    (name,) = _metrics(folder / "run" / "metrics.csv")
    data = limited(load_data("digits"), 256)
    network = convert(build("mlp", 10, data.image_shape), folder / "run" / name / "chip.toml")
    held = read_checkpoint(folder / "run" / name / "last.safetensors").state
    network.load_state_dict(
        {
            key.removeprefix("model/"): torch.from_numpy(a)
            for key, a in held.items()
            if key.startswith("model/")
        }
    )
    network.eval()
    with torch.no_grad():
        guess = network(torch.from_numpy(data.normalised(data.test_x))).argmax(dim=1).numpy()
    logged = float(_metrics(folder / "run" / "metrics.csv")[name][-1]["accuracy"])
    assert (guess == data.test_y).mean() == logged


def test_same_seed_same_first_weights() -> None:
    """Variants start from the same weights, and the seed decides which."""
    data = load_data("digits")
    make = trainer_factory("torch")
    x, y = data.normalised(data.train_x[:64]), data.train_y[:64]
    losses = [make(Recipe("mlp", seed=seed), data, None).step(x, y, 0.05).loss for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_options_reach_the_recipe(folder: Path) -> None:
    """Every option of the recipe is in run.json, augmentation by data set unless given."""
    given = {
        "epochs": 3, "batch": 64, "rate": 0.001, "momentum": 0.5, "optimizer": "adamw", "weight_decay": 0.01,
        "schedule": "step", "warmup": 1, "clip": 2.0, "augment": "crop-flip", "seed": 4, "device": "cpu",
        "dtype": "float64",
    }  # fmt: skip
    options = [
        part
        for name, value in given.items()
        for part in (f"--{name.replace('_', '-').replace('rate', 'lr')}", str(value))
    ]
    options += ["--network", "small_nets:small", "--limit", "64", "--preset", "native", "--compare", ""]
    assert main(["train", "--out", "run", *options]) == 0
    facts = json.loads((folder / "run" / "run.json").read_text())
    assert facts["recipe"] == {"network": "small_nets:small", **given}
    assert list(facts["variants"]) == ["native"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_stopped_and_resumed(folder: Path, number: signal.Signals) -> None:
    """A stop leaves a checkpoint and, on the last line, the command that goes on; the end is the same."""
    options = [*SMALL, *ALONE, "--epochs", "10"]
    process = subprocess.Popen(
        [sys.executable, "-m", "xbar_core.cli", "train", "--out", "a run", *options],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch   2" in line:
            break
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert error.strip().splitlines()[-1] == "xbar: stopped; to go on: xbar train --resume 'a run'"
    facts = RunFolder.open(folder / "a run").checkpoint("txsim-8bit", "last").facts
    assert 2 <= facts["position"]["epoch"] < 10
    if number == signal.SIGINT:
        assert main(["train", "--resume", "a run"]) == 0
        assert len(_metrics(folder / "a run" / "metrics.csv")["txsim-8bit"]) == 10
        assert main(["train", "--out", "whole", *options]) == 0
        whole, parts = (
            read_checkpoint(folder / name / "txsim-8bit" / "last.safetensors").state
            for name in ("whole", "a run")
        )
        for name, array in whole.items():
            np.testing.assert_array_equal(array, parts[name], err_msg=name)


@pytest.mark.parametrize("processes", [1, 2])
def test_second_signal(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    """The second signal stops at once; of several processes, not the one that torchrun repeats."""
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with _stop_asked(quiet=True) as asked:
        signal.raise_signal(signal.SIGINT)
        assert asked()
        with contextlib.nullcontext() if processes > 1 else pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr("xbar_core.cli.train.time.monotonic", lambda: float("inf"))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_nan_ends_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate that makes weights explode: exit code 1, and one line names epoch, step, layer and stage."""
    arguments = ["--preset", "native", "--compare", "", "--lr", "1e30"]
    assert main(["train", "--out", "run", *SMALL, *arguments]) == 1
    error = capsys.readouterr().err.strip()
    assert "native turned to NaN or infinity in epoch 1, step 2: layer '" in error
    assert "\n" not in error


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrays and seconds are shown; no folder is made."""
    assert main(["train", "--out", "run", *SMALL, *ALONE, "--dry-run"]) == 0
    assert not (folder / "run").exists()
    assert "arrays" in capsys.readouterr().out


def test_full_disk_says_how_to_go_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk without room for checkpoints ends the run with code 1, one line and the command to go on."""

    def full(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("xbar_core.lab.checkpoint._allocate", full)
    arguments = ["--preset", "native", "--compare", ""]
    assert main(["train", "--out", "run", *SMALL, *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err == "xbar: run: No space left on device: no room for checkpoints\n"
    assert shown.out.endswith("to go on from the last checkpoint: xbar train --resume run\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "lenet6"], "did you mean 'lenet5'?"),
        (["--network", "small_nets:smal"], "did you mean 'small'?"),
        (["--dataset", "digit"], "did you mean 'digits'?"),
        (["--preset", "txsim-8bits"], "txsim-8bit"),
        (["--set", "update.v_upp=1"], "v_up"),
        (["--framework", "torsh"], "did you mean 'torch'?"),
        (["--epochs", "0"], "epochs"),
        (["--batch", "5000"], "larger than the data"),
        (["--compare", "nativ"], "did you mean 'native'?"),
        (["--preset", "native", "--set", "update.v_up=1"], "native training has no chip"),
        (["--dataset", "os:system", "--data", "."], "in a module of Python itself"),
        (["--device", "meta"], "device: 'meta' cannot be used here"),
        (["--optimizer", "adma"], "did you mean 'adam'?"),
        (["--optimizer", "adam"], "backward.mode=exact"),
        (["--schedule", "cosin"], "did you mean 'cosine'?"),
        (["--device", "cuda:77"], "device"),
        (["--augment", "flip"], "augment"),
        (["--dtype", "float16"], "dtype"),
        (["--resume", "run"], "leave out --"),
        (["--network", "vgg16"], "at least 32x32 pixels"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """A wrong name or number ends before training, with one line and exit code 2, nothing written."""
    assert main(["train", "--out", "run", *SMALL, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (folder / "run").exists()


def test_compared_chip_file_goes_by_its_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A chip file of any folder is compared under its chip's name; two chips of one name are refused."""
    (folder / "chips").mkdir()
    for file, name, seed in (("mine", "mine", 1), ("twin", "ideal", 2)):
        preset("ideal").with_values({"name": name, "seed": seed}).to_toml(folder / "chips" / f"{file}.toml")
    chosen = ["--preset", "ideal", "--out", "run"]
    assert main(["train", *SMALL, *chosen, "--compare", "ideal,native,chips/mine.toml"]) == 0
    assert list(RunFolder.open(folder / "run").spec.variants) == ["native", "mine", "ideal"]
    assert main(["train", *SMALL, *chosen, "--force", "--compare", "chips/twin.toml"]) == 2
    assert "two different chips are called 'ideal'" in capsys.readouterr().err


def test_neither_out_nor_resume(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run needs a folder; a folder without a run cannot be resumed."""
    assert main(["train", *SMALL]) == 2
    assert "out: missing" in capsys.readouterr().err
    assert main(["train", "--resume", "nowhere"]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_results_are_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with files in it is refused unless --force is given."""
    (folder / "run").mkdir()
    (folder / "run" / "mine.txt").write_text("kept")
    assert main(["train", "--out", "run", *SMALL]) == 2
    assert "--force" in capsys.readouterr().err
    assert [path.name for path in (folder / "run").iterdir()] == ["mine.txt"]


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_train_as_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under torchrun two processes write what one writes, in float64 to 1e-9; then one of them resumes."""
    noisy = ["--set", "device.read_noise.sigma=0.01", "--dtype", "float64", "--augment", "crop-flip"]
    options = [*SMALL, *ALONE, *noisy]
    assert main(["train", "--out", "one", *options]) == 0
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "xbar_core.cli"]
    done = subprocess.run(
        [sys.executable, *launch, "train", "--out", "two", *options],
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("epoch   1  loss") == 1
    (name,) = _metrics(folder / "one" / "metrics.csv")
    one, two = (_metrics(folder / each / "metrics.csv")[name] for each in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        for key in set(first) - {"variant", "seconds"}:
            assert float(second[key]) == pytest.approx(float(first[key]), rel=1e-9, abs=1e-12), key
    states = [read_checkpoint(folder / each / name / "last.safetensors").state for each in ("one", "two")]
    for key, array in states[0].items():
        np.testing.assert_allclose(states[1][key], array, rtol=1e-9, atol=1e-9, err_msg=key)
    assert main(["train", "--resume", "two"]) == 2
    assert "the run began with 2" in capsys.readouterr().err
