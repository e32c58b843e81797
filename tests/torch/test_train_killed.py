"""Killed at random moments and resumed, a run ends bit by bit as one that was left in peace."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xbar_core.lab.checkpoint import read_checkpoint
from xbar_core.lab.comparison import from_csv

HERE = Path(__file__).parent


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


def assert_same(folder: Path) -> None:
    """Every array of every variant, and the log but for its seconds."""
    for variant in ("noisy", "interpolated"):
        for which in ("last", "best"):
            whole, parts = (
                read_checkpoint(folder / name / variant / f"{which}.safetensors").state
                for name in ("whole", "parts")
            )
            assert whole.keys() == parts.keys()
            for name, array in whole.items():
                np.testing.assert_array_equal(array, parts[name], err_msg=f"{variant} {which} {name}")
    whole_log, parts_log = (
        [replace(epoch, seconds=0.0) for epoch in from_csv((folder / name / "metrics.csv").read_text())]
        for name in ("whole", "parts")
    )
    assert whole_log == parts_log
    assert len(whole_log) == 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Device states, optimizer, counters, ranges, references, dropout, augmentation and log are the same."""
    assert killed(tmp_path, kills=8, seed=0) >= 4
    assert_same(tmp_path)
    references = read_checkpoint(tmp_path / "parts" / "interpolated" / "last.safetensors").state
    assert any("reference" in name for name in references)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_many_times(tmp_path: Path, seed: int) -> None:
    """Forty kills for each of five seeds."""
    assert killed(tmp_path, kills=40, seed=seed) >= 30
    assert_same(tmp_path)
