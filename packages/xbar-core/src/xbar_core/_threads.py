"""Run independent pieces of work on numba's number of threads.

The kernels release the interpreter lock, so ordinary threads serve them; unlike an OpenMP team
they survive ``fork`` and may be used from several Python threads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba


def run_parallel(work: Callable[[int], None], count: int) -> None:
    """Call ``work(0) ... work(count - 1)`` on ``numba.get_num_threads()`` threads."""
    threads = min(count, numba.get_num_threads())
    if threads <= 1:
        for index in range(count):
            work(index)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, index) for index in range(count)]:
            done.result()
