"""Run independent pieces of work on numba's number of threads.

The kernels release the interpreter lock, so ordinary threads serve them; unlike an OpenMP team
they survive ``fork`` and may be used from several Python threads at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import numba

SLICES_PER_THREAD = 4
"""Slices are few, to keep calls few, and more than one for each thread, to even out what takes longer."""


def run_parallel(work: Callable[[int, int], None], count: int) -> None:
    """Call ``work(start, stop)`` for slices of ``range(count)`` on ``numba.get_num_threads()`` threads.

    The calling thread is one of them. The first exception ends what has not begun and is raised here.
    """
    threads = min(count, numba.get_num_threads())
    if threads <= 1:
        work(0, count)
        return
    slices = min(count, SLICES_PER_THREAD * threads)
    waiting = list(pairwise(count * k // slices for k in range(slices + 1)))
    waiting.reverse()
    errors: list[BaseException] = []

    def drain() -> None:
        while True:
            try:
                start, stop = waiting.pop()
            except IndexError:
                return
            try:
                work(start, stop)
            except BaseException as error:
                waiting.clear()
                errors.append(error)

    helpers = [threading.Thread(target=drain) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    drain()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
