"""`xbar train`: what it prints and writes is what was trained."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xbar_core.cli import main
from xbar_core.lab.data import load_data
from xbar_core.lab.trainer import Recipe, trainer_factory
from xbar_torch.convert import convert
from xbar_torch.zoo import build

SMALL = ["--network", "mlp", "--epochs", "2", "--batch", "64", "--lr", "0.05"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    assert main(["train", "--out", "run", *SMALL]) == 0
    metrics = _metrics(folder / "run" / "metrics.csv")
    assert list(metrics) == ["native", "ideal", "txsim-8bit"]
    for rows in metrics.values():
        assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    # Later a few weights want to leave the ideal chip's range, too.
    native, ideal = (float(metrics[name][0]["loss"]) for name in ("native", "ideal"))
    assert ideal == pytest.approx(native, rel=1e-4)
    assert json.loads((folder / "run" / "recipe.json").read_text())["batch"] == 64
    assert (folder / "run" / "curves.png").stat().st_size > 10_000
    assert "accuracy" in capsys.readouterr().out


def test_saved_chip_is_the_trained_one(folder: Path) -> None:
    """The states and ranges on disk, loaded into a fresh network, label as the log says."""
    changes = ["--set", "update.noise.gamma=0", "--preset", "txsim-8bit", "--compare", ""]
    assert main(["train", "--out", "run", *SMALL, *changes]) == 0
    (name,) = _metrics(folder / "run" / "metrics.csv")
    data = load_data("digits")
    saved = folder / "run" / name
    network = convert(build("mlp", 10, data.image_shape), saved / "chip.toml")
    held = load_file(saved / "weights.safetensors")
    network.load_state_dict(
        {key.removeprefix("model/"): value for key, value in held.items() if key.startswith("model/")}
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "lenet6"], "did you mean 'lenet5'?"),
        (["--dataset", "digit"], "did you mean 'digits'?"),
        (["--preset", "txsim-8bits"], "txsim-8bit"),
        (["--set", "update.v_upp=1"], "v_up"),
        (["--framework", "torsh"], "did you mean 'torch'?"),
        (["--epochs", "0"], "epochs"),
        (["--batch", "5000"], "larger than the data"),
        (["--compare", "nativ"], "nativ"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """A wrong name or number ends before training, with one line and exit code 2, nothing written."""
    assert main(["train", "--out", "run", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not list(folder.glob("run/*.csv"))


def test_results_are_not_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with files in it is refused unless --force is given."""
    (folder / "run").mkdir()
    (folder / "run" / "mine.txt").write_text("kept")
    assert main(["train", "--out", "run", *SMALL]) == 2
    assert "--force" in capsys.readouterr().err
    assert (folder / "run" / "mine.txt").read_text() == "kept"
