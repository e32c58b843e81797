"""`xbar evaluate` and `xbar inspect` say what a trained network does, and write it beside the run."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from xbar_core.cli import main
from xbar_core.config import load_chip
from xbar_core.lab.comparison import Epoch
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.run import run as train
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.run_spec import RunSpec
from xbar_core.lab.trained import find_trained

CHIPS = {
    "native": None,
    "pcm": load_chip(
        "txsim-8bit",
        ["name=pcm", "circuit.kind=ideal", "update.noise.gamma=0", "device.drift.nu=0.05"],
    ),
}
SPEC = RunSpec(Recipe("mlp", epochs=2, batch=64), "digits", CHIPS, limit=400)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Epoch]]:
    """A run folder with a trained MLP, natively and on a chip that drifts, and what each scored."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    log = train(SPEC, folder).comparison
    return folder, {name: log.of(name)[-1] for name in CHIPS}


@pytest.fixture
def run(trained: tuple[Path, dict[str, Epoch]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return Path(shutil.copytree(trained[0], tmp_path / "run"))


def readings(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def layers(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["run", "run/pcm", "run/pcm/last.safetensors", "run/pcm/best.safetensors"])
def test_trained_chip_labels_as_it_did_in_training(
    run: Path, trained: tuple[Path, dict[str, Epoch]], name: str
) -> None:
    """A run folder, a variant's folder and a checkpoint all give the scores that the trained chip had."""
    assert main(["evaluate", name]) == 0
    (row,) = readings(run / "evaluation-pcm" / "evaluation.csv")
    assert (row["accuracy"], row["loss"]) == (trained[1]["pcm"].accuracy, trained[1]["pcm"].test_loss)
    assert (run / "evaluation-pcm" / "evaluation.png").stat().st_size > 10_000


def test_chips_and_ages(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Natively trained weights on three other chips at three ages: a reading each, worse with age."""
    changes = ["--set", "device.drift.nu=0.1", "--set", "device.drift.nu_spread=0.05", "--set", "name=mine"]
    arguments = ["--variant", "native", "--preset", "gst-pcm", "--set", "circuit.kind=ideal", *changes]
    assert main(["evaluate", "run", *arguments, "--chips", "3", "--time", "1y,1s,1d", "--out", "found"]) == 0
    rows = readings(Path("found/evaluation.csv"))
    assert [(row["seed"], row["age_s"]) for row in rows] == [
        (seed, age) for seed in (1, 2, 3) for age in (1, 86400, 31557600)
    ]
    young, _, old = (np.mean([row["accuracy"] for row in rows[k::3]]) for k in range(3))
    assert old < young - 0.1
    printed = " ".join(capsys.readouterr().out.split())
    assert "mine: 3 new chip(s)" in printed
    assert f"│ {young:.2%}" in printed
    assert "The same weights without a chip" in printed
    assert not (run / "evaluation-mine").exists()


def test_what_cannot_differ_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A chip without variation stands for all, one without drift for every age."""
    assert main(["evaluate", "run", "--chips", "20", "--set", "device.drift=none", "--time", "1d,1y"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "note: pcm has neither variation nor faults nor noise: all its chips are alike" in printed
    assert "note: pcm does not drift" in printed
    assert len(readings(run / "evaluation-pcm" / "evaluation.csv")) == 1


def test_inspection_is_shown_and_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each layer, on the screen and in the file; age takes conductance away."""
    assert main(["inspect", "run"]) == 0
    assert "layers.1" in capsys.readouterr().out
    assert main(["inspect", "run", "--time", "1d", "--out", "old", "--samples", "20"]) == 0
    assert "20 test samples of digits, 1 d after programming" in capsys.readouterr().out
    new, old = layers(run / "inspection-pcm" / "layers.csv"), layers(Path("old/layers.csv"))
    assert [row["layer"] for row in new] == ["layers.1", "layers.3", "layers.5"]
    for before, after in zip(new, old, strict=True):
        share = float(after["conductance_p50"]) / float(before["conductance_p50"])
        assert share == pytest.approx(86400**-0.05, rel=1e-6)
    assert (run / "inspection-pcm" / "layers.png").stat().st_size > 10_000


def test_damaged_checkpoint_is_passed_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flipped bit in the last checkpoint is reported, and the one before it is used."""
    slots, held = RunFolder.open(run).slots("pcm"), RunFolder.open(run).checkpoint("pcm")
    slots.write(held.state, held.facts, best=False)
    last = run / "pcm" / "last.safetensors"
    content = bytearray(last.read_bytes())
    content[-20] ^= 1
    last.write_bytes(content)
    assert main(["evaluate", "run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "note: " in printed
    assert "is damaged: its checksum is not that of its contents; the one before it is used" in printed
    assert main(["evaluate", "run/pcm/last.safetensors", "--force"]) == 2


def test_device_and_data_folder_can_be_others(run: Path) -> None:
    """What the run was trained with is not needed to look at it."""
    (run / "files").mkdir()
    found = find_trained(run, data_folder=str(run / "files"), device="cpu", checkpoint="best")
    assert (found.spec.data_folder, found.spec.recipe.device) == (str(run / "files"), "cpu")
    assert (found.variant, found.epochs, found.spec.limit) == ("pcm", 2, 400)


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ran"], "run: 'ran' does not exist, did you mean 'run'?"),
        (["."], "run: '.' has no run.json; name a folder that xbar train has written"),
        (["run", "--variant", "pmc"], "variant: 'pmc' is not in this run, did you mean 'pcm'?"),
        (["run/native", "--variant", "pcm"], "variant: 'pcm', but 'run/native' is of 'native'"),
        (["run/native"], "was trained without a chip: "),
        (["run", "--checkpoint", "first"], "checkpoint: unknown value 'first'"),
        (["run/run.json"], "does not lie in a run folder"),
        (["run/pcm/chip.toml"], "is no complete checkpoint"),
        (["run", "--time", "1w"], "time: '1w' has unknown unit 'w'"),
        (["run", "--device", "abacus"], "device: 'abacus' cannot be used here"),
        (["run", "--out", "run/run.json"], "out: 'run/run.json' is a file, not a folder"),
    ],
)
def test_bad_input_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], command: str, arguments: list[str], text: str
) -> None:
    """What cannot be looked at ends with one line and exit code 2, and nothing is written."""
    before = sorted(run.rglob("*"))
    assert main([command, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert text in error
    assert "\n" not in error
    assert sorted(run.rglob("*")) == before


def test_missing_data_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data folder that is not there ends with one line and exit code 2."""
    (run / "run.json").write_text((run / "run.json").read_text().replace('"digits"', '"mnist"'))
    assert main(["inspect", "run", "--data", "nowhere"]) == 2
    error = capsys.readouterr().err.strip()
    assert "nowhere is not a folder; name the folder that holds the data sets" in error
    assert "\n" not in error


def test_other_samples_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples that are not those of the training are named, not evaluated."""
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"limit": 400', '"limit": 300'))
    assert main(["evaluate", "run"]) == 2
    assert "data: digits has changed since the training (train: 400 then, 300 now)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["evaluate", "run", "--chips", "0"], "chips: 0 is out of range"),
        (["evaluate", "run", "--preset", "gst-pmc"], "did you mean 'gst-pcm'"),
        (["evaluate", "run", "--set", "device.drif.nu=1"], "did you mean 'drift'"),
        (["evaluate", "run", "--chips", "many"], "see 'xbar evaluate --help'"),
        (["inspect", "run", "--samples", "0"], "samples: 0 is out of range"),
        (["inspect", "run", "--time", "1s,1d"], "time: '1s,1d' names several"),
    ],
)
def test_bad_options_are_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    """A wrong number or name ends with one line and exit code 2."""
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert text in error
    assert "\n" not in error


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
def test_results_are_not_overwritten(run: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """A second look needs another folder, or --force."""
    assert main([command, "run", "--out", "found"]) == 0
    assert main([command, "run", "--out", "found"]) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert main([command, "run", "--out", "found", "--force"]) == 0
