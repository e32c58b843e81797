"""What a training step needs at its peak, each number from a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "bench_torch.py"


def peak(chip: str, batch: int) -> float:
    """Return the peak memory of training steps of ResNet-20 on 32x32 images, MB."""
    command = [sys.executable, str(BENCHMARK), "--memory-of", "resnet20", chip, str(batch), "cpu"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from Linux' /proc")
@pytest.mark.parametrize("batch", [32, pytest.param(128, marks=pytest.mark.slow)])
def test_a_step_of_resnet20_needs_at_most_four_times_native_memory(batch):
    """Residuals, matrices and scratch of the 8-bit chip stay within 4 times native torch, ideal within 2."""
    native = peak("native", batch)
    assert peak("txsim-8bit", batch) <= 4 * native
    assert peak("ideal", batch) <= 2 * native
