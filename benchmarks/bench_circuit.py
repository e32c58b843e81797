"""Time the exact circuit solution against SciPy's SuperLU, one thread, side by side in one run.

    python benchmarks/bench_circuit.py            # the targets: ratios, AAM, threads
    python benchmarks/bench_circuit.py --scaling  # time and sweeps against size and resistance

SuperLU gets the assembled nodal matrix (assembly is not timed), one BLAS thread, and the better of
two orderings; its time is factorisation plus solution for all sources. Medians.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import scipy.sparse as sparse
from machine import describe
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from xbar_core import AAM, FCM, Wires, effective_conductance
from xbar_core.circuit.fcm import exact_matrices

WIRES = Wires(r_row=1.0, r_col=4.6, r_source=500.0, r_sense=100.0)


def array(n: int, r_min: float, r_max: float, dtype: Any = np.float64) -> NDArray[Any]:
    """Return an n x n array with resistances uniform in their range, seed 0."""
    return (1 / np.random.default_rng(0).uniform(r_min, r_max, (n, n))).astype(dtype)


def median_time(call: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds of `repeats` calls after one to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def nodal(g: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
    """Assemble the nodal matrix of an array and its right-hand sides, one for each source."""
    n, m = g.shape
    u = np.arange(n * m).reshape(n, m)
    w = u + n * m
    edges = [
        (u, w, g),
        (u[:, :-1], u[:, 1:], np.full((n, m - 1), 1 / WIRES.r_row)),
        (w[:-1], w[1:], np.full((n - 1, m), 1 / WIRES.r_col)),
    ]
    first = np.concatenate([a.ravel() for a, _, _ in edges])
    second = np.concatenate([b.ravel() for _, b, _ in edges])
    value = np.concatenate([c.ravel() for _, _, c in edges])
    ends = np.concatenate([u[:, 0], w[-1]])
    end_value = np.concatenate([np.full(n, 1 / WIRES.r_source), np.full(m, 1 / WIRES.r_sense)])
    rows = np.concatenate([first, second, first, second, ends])
    cols = np.concatenate([first, second, second, first, ends])
    data = np.concatenate([value, value, -value, -value, end_value])
    matrix = sparse.csc_matrix((data, (rows, cols)), shape=(2 * n * m, 2 * n * m))
    sources = np.zeros((2 * n * m, n))
    sources[u[:, 0], np.arange(n)] = 1 / WIRES.r_source
    return matrix, sources


def superlu_time(n: int, r_min: float, r_max: float, repeats: int) -> float:
    """Return SuperLU's seconds for the full matrix, the better of two orderings."""
    matrix, sources = nodal(array(n, r_min, r_max))
    return min(
        median_time(lambda order=order: splu(matrix, permc_spec=order).solve(sources), repeats)
        for order in ("MMD_AT_PLUS_A", "COLAMD")
    )


def targets() -> None:
    """Print the ratios that the project promises."""
    numba.set_num_threads(1)
    print("full matrix, one thread            SuperLU [ms]   xbar [ms]    ratio")
    for n, r_min, r_max, repeats in ((64, 1e5, 1e6, 9), (64, 3e3, 1e4, 9), (256, 1e5, 1e6, 3)):
        slow = superlu_time(n, r_min, r_max, repeats)
        for dtype in (np.float64, np.float32):
            g = array(n, r_min, r_max, dtype)
            fast = median_time(lambda g=g: effective_conductance(g, WIRES, FCM()), 5 * repeats)
            name = f"{n}x{n} {r_min / 1e3:g}k-{r_max / 1e3:g}k {np.dtype(dtype).name}"
            print(f"{name:34s} {slow * 1e3:12.1f} {fast * 1e3:11.3f} {slow / fast:8.1f}")
    print("\nAAM(order=1) against the exact matrix, 64x64 100k-1M")
    for dtype in (np.float64, np.float32):
        g = array(64, 1e5, 1e6, dtype)
        exact = median_time(lambda g=g: effective_conductance(g, WIRES, FCM()), 100)
        aam = median_time(lambda g=g: effective_conductance(g, WIRES, AAM(1)), 100)
        print(f"{np.dtype(dtype).name}: {aam * 1e3:.4f} ms, {exact / aam:.1f} times faster")
    if numba.config.NUMBA_NUM_THREADS >= 2:
        threads()


def threads() -> None:
    """Print what two threads and two processes do in the time of one; the three take turns."""
    batch = 1 / np.random.default_rng(0).uniform(1e5, 1e6, (64, 64, 64))
    times: dict[str, list[float]] = {"one": [], "two threads": [], "two processes": []}
    for _ in range(5):
        for name, count in (("one", 1), ("two threads", 2)):
            numba.set_num_threads(count)
            times[name].append(median_time(lambda: effective_conductance(batch, WIRES, FCM()), 9))
        times["two processes"].append(two_processes())
    one, two, both = (float(np.median(t)) for t in times.values())
    print("\n64 arrays of 64x64 100k-1M: throughput against one thread")
    print(f"two threads {one / two:.2f}, two processes {2 * one / both:.2f}; ratio {both / two / 2:.2f}")


def _solve_batch(start: Any) -> float:
    """Wait for the other process, then return the median seconds of a batch on one thread."""
    numba.set_num_threads(1)
    batch = 1 / np.random.default_rng(0).uniform(1e5, 1e6, (64, 64, 64))
    effective_conductance(batch, WIRES, FCM())
    start.wait()
    return median_time(lambda: effective_conductance(batch, WIRES, FCM()), 15)


def two_processes() -> float:
    """Return the seconds of a batch when two processes solve one each at the same time."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(2) as pool:
        start = manager.Barrier(2)
        return float(np.mean(pool.map(_solve_batch, [start, start], chunksize=1)))


def scaling() -> None:
    """Print time and sweeps against size and against the smallest resistance."""
    numba.set_num_threads(1)
    print("| size | R_min | sweeps (0: elimination) | float64 [ms] | float32 [ms] |")
    print("|---|---|---|---|---|")
    cases = [(n, 1e5) for n in (16, 32, 64, 128, 256, 512)]
    cases += [(64, r) for r in (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)] + [(256, 1e3), (512, 1e3)]
    for n, r_min in cases:
        repeats = 15 if n <= 64 else 3
        times, sweeps = [], []
        for dtype in (np.float64, np.float32):
            g = array(n, r_min, 10 * r_min, dtype)
            sweeps.append(int(exact_matrices(g[None], WIRES)[1][0]))
            times.append(median_time(lambda g=g: effective_conductance(g, WIRES, FCM()), repeats))
        print(
            f"| {n} | {r_min:g} | {sweeps[0]}, {sweeps[1]} | {times[0] * 1e3:.2f} | {times[1] * 1e3:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    print(describe("numpy", "scipy", "numba"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scaling", action="store_true", help="time against size and resistance")
    (scaling if parser.parse_args().scaling else targets)()
