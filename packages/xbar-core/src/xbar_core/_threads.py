"""Run independent pieces of work on numba's number of threads.

The kernels release the interpreter lock, so ordinary threads serve them; unlike an OpenMP team
they survive ``fork`` and may be used from several Python threads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba

SLICES_PER_THREAD = 4


def run_parallel(work: Callable[[int, int], None], count: int) -> None:
    """Call ``work(start, stop)`` for slices of ``range(count)`` on ``numba.get_num_threads()`` threads."""
    threads = min(count, numba.get_num_threads())
    if threads <= 1:
        work(0, count)
        return
    # A few slices for each thread: even out what takes longer, and keep the calls few.
    slices = min(count, SLICES_PER_THREAD * threads)
    ends = [count * k // slices for k in range(slices + 1)]
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, a, b) for a, b in pairwise(ends)]:
            done.result()
