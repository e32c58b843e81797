"""What a solution may cost beyond time: memory, threads, and the interpreter's lock."""

from __future__ import annotations

import subprocess
import sys

import numba
import numpy as np
import pytest

from xbar_core import Wires, effective_conductance, solve

WIRES = Wires(r_row=1.0, r_col=4.6, r_source=500.0, r_sense=100.0)
_MEASURE = """
import sys
import numba, numpy as np
from xbar_core import Wires, effective_conductance, effective_conductance_vjp
numba.set_num_threads(1)
wires = Wires(1.0, 4.6, 500.0, 100.0)
dtype, r_min, derivative = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "vjp"
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
def run(n, r_min):
    g = (1 / np.random.default_rng(0).uniform(r_min, 10 * r_min, (n, n))).astype(dtype)
    if derivative:
        effective_conductance_vjp(g, wires, np.ones_like(g))
    else:
        effective_conductance(g, wires)
for warm_up in (1e6, 1e2):
    run(20, warm_up)
before = peak()
run(256, r_min)
print((peak() - before) * 1024 / 1e6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from Linux' /proc")
@pytest.mark.parametrize("what", ["matrix", "vjp"])
@pytest.mark.parametrize("r_min", ["1e5", "3e3"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scratch_of_a_256_array(dtype: str, r_min: str, what: str) -> None:
    """One thread needs less than 64 MB at 256x256: the process' peak memory says so."""
    command = [sys.executable, "-c", _MEASURE, dtype, r_min, what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 64


def test_threads_do_not_change_the_result() -> None:
    """A batch solved on one and on two threads is the same to the last bit."""
    g = 1 / np.random.default_rng(1).uniform(3e3, 1e6, (5, 20, 30))
    threads = numba.get_num_threads()
    results = []
    for count in (1, threads):
        numba.set_num_threads(count)
        try:
            results.append(effective_conductance(g, WIRES))
        finally:
            numba.set_num_threads(threads)
    np.testing.assert_array_equal(*results)


def test_solve_says_how_it_was_done() -> None:
    """Arrays with weak wires report their sweeps, others direct elimination as 0."""
    v = np.ones(32)
    easy = solve(np.full((32, 32), 1e-6), WIRES, v)
    hard = solve(np.full((32, 32), 1e-2), WIRES, v)
    assert easy.iterations > 0
    assert hard.iterations == 0
    assert max(easy.residual, hard.residual) < 1e-9
