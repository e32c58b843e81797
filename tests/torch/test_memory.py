"""What a training step needs at its peak, and whether a run grows, each from a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads memory from Linux' /proc")


def peak(chip: str, batch: int) -> float:
    """Return the peak memory of training steps of ResNet-20 on 32x32 images, MB."""
    options = ["--memory-of", "resnet20", chip, str(batch), "cpu"]
    command = [sys.executable, str(BENCHMARKS / "bench_torch.py"), *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@LINUX
@pytest.mark.parametrize("batch", [32, pytest.param(128, marks=pytest.mark.slow)])
def test_a_step_of_resnet20_needs_at_most_four_times_native_memory(batch):
    """Residuals, matrices and scratch of the 8-bit chip stay within 4 times native torch, ideal within 2."""
    native = peak("native", batch)
    assert peak("txsim-8bit", batch) <= 4 * native
    assert peak("ideal", batch) <= 2 * native


@LINUX
def test_resident_memory_stays_flat_over_epochs():
    """A run with checkpoints and curves keeps nothing of an epoch: a copy of the states alone is 2 MiB."""
    options = ["--memory", "--network", "mlp", "--images", "256", "--batch", "64", "--epochs", "30"]
    command = [sys.executable, str(BENCHMARKS / "bench_training.py"), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \|$", done.stdout, re.MULTILINE)
    resident = {int(epoch): float(size) for epoch, size in rows}
    assert sorted(resident) == [1, 2, 5, 10, 20, 30]
    assert resident[30] - resident[5] < 10.0
