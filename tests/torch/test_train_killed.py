"""Killed at random moments and resumed, a run ends bit by bit as one that was left in peace."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, STDOUT

import numpy as np
import psutil
import pytest
from torch import distributed as dist

from xbar_core.lab.checkpoint import read_checkpoint
from xbar_core.lab.comparison import Epoch, from_csv

HERE = Path(__file__).parent
FORKED = ("noisy", "interpolated")


def killed(folder: Path, kills: int, seed: int) -> int:
    """Return how many kills struck."""
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_run.py"), str(folder), str(kills), str(seed)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(done.stdout.split()[-1])


def killed_apart(folder: Path, processes: int, threads: int, kills: int, seed: int) -> None:
    """Train with the command in processes of their own, whole and in parts.

    Every second kill takes one process of those that train together and leaves the rest to ``torchrun``.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": str(threads),
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "xbar_core.cli", "train"]
    chip = ["--preset", "txsim-8bit", "--compare", "", "--set", "device.read_noise.sigma=0.01"]
    training = ["--epochs", "3", "--batch", "8", "--lr", "0.05", "--augment", "crop-flip", *chip]
    start = ["--network", "killed_run:wide", "--dataset", "killed_run:squares", *training]
    often = ["--checkpoint-minutes", "0"]

    def train(name: str) -> subprocess.Popen[str]:
        begun = (folder / name / "run.json").exists()
        options = ["--resume", name] if begun else ["--out", name, "--force", *start]
        return subprocess.Popen(
            [*command, *options, *often], env=environment, cwd=folder, stdout=PIPE, stderr=STDOUT, text=True
        )

    whole = train("whole")
    assert whole.wait() == 0, whole.communicate()[0]
    rng, last = random.Random(seed), folder / "parts" / "txsim-8bit-changed" / "last.safetensors"
    for kill in range(kills):
        running = train("parts")
        for _ in range(rng.randint(1, 8)):
            before = _written(last)
            while _written(last) == before and running.poll() is None:
                time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.02))
        assert running.poll() is None, running.communicate()[0]
        victims = psutil.Process(running.pid).children(recursive=True)
        if kill % 2 == 0 or processes == 1:
            victims.append(psutil.Process(running.pid))
        else:
            victims = [each for each in victims if each.environ().get("RANK") == "1"]
        for victim in victims:
            victim.kill()
        assert running.wait() != 0
        psutil.wait_procs(victims, timeout=10)
        assert not (folder / "parts" / "metrics.csv").exists() or len(_log(folder / "parts")) < 3
    parts = train("parts")
    assert parts.wait() == 0, parts.communicate()[0]


def _written(path: Path) -> int:
    """Return what changes whenever the file is replaced."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _log(folder: Path) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in from_csv((folder / "metrics.csv").read_text())]


def assert_same(folder: Path, variants: Sequence[str], epochs: int) -> None:
    """Every array of every variant, and the log but for its seconds."""
    for variant in variants:
        for which in ("last", "best"):
            whole, parts = (
                read_checkpoint(folder / name / variant / f"{which}.safetensors").state
                for name in ("whole", "parts")
            )
            assert whole.keys() == parts.keys()
            for name, array in whole.items():
                np.testing.assert_array_equal(array, parts[name], err_msg=f"{variant} {which} {name}")
    assert _log(folder / "whole") == _log(folder / "parts")
    assert len(_log(folder / "whole")) == epochs * len(variants)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Device states, optimizer, counters, ranges, references, dropout, augmentation and log are the same."""
    assert killed(tmp_path, kills=8, seed=0) >= 4
    assert_same(tmp_path, FORKED, 4)
    references = read_checkpoint(tmp_path / "parts" / "interpolated" / "last.safetensors").state
    assert any("reference" in name for name in references)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_many_times(tmp_path: Path, seed: int) -> None:
    """Forty kills for each of five seeds."""
    assert killed(tmp_path, kills=40, seed=seed) >= 30
    assert_same(tmp_path, FORKED, 4)


APART = [
    pytest.param(1, 2, id="two threads"),
    pytest.param(
        2, 1, id="torchrun", marks=pytest.mark.skipif(not dist.is_gloo_available(), reason="no gloo in torch")
    ),
]


@pytest.mark.parametrize(("processes", "threads"), APART)
def test_threads_and_processes_killed(tmp_path: Path, processes: int, threads: int) -> None:
    """With two threads, and under torchrun, the command goes on bit by bit, too."""
    killed_apart(tmp_path, processes, threads, kills=processes, seed=0)
    assert_same(tmp_path, ["txsim-8bit-changed"], 3)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "threads"), APART)
def test_threads_and_processes_killed_many_times(tmp_path: Path, processes: int, threads: int) -> None:
    """Twice for each of four seeds."""
    for seed in range(1, 5):
        (tmp_path / str(seed)).mkdir()
        killed_apart(tmp_path / str(seed), processes, threads, kills=2, seed=seed)
        assert_same(tmp_path / str(seed), ["txsim-8bit-changed"], 3)
