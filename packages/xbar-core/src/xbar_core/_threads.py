"""Run independent pieces of work on numba's number of threads.

The kernels release the interpreter lock, so ordinary threads serve them; unlike an OpenMP team
they survive ``fork`` and may be used from several Python threads at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numba

SLICES_PER_THREAD = 4
"""Slices are few, to keep calls few, and more than one for each thread, to even out what takes longer."""


def run_parallel(work: Callable[[int, int], None], count: int) -> None:
    """Call ``work(start, stop)`` for slices of ``range(count)`` on ``numba.get_num_threads()`` threads."""
    threads = min(count, numba.get_num_threads())
    if threads <= 1:
        work(0, count)
        return
    slices = min(count, SLICES_PER_THREAD * threads)
    ends = pairwise(count * k // slices for k in range(slices + 1))
    run_all([partial(work, start, stop) for start, stop in ends])


def run_all(pieces: Sequence[Callable[[], None]]) -> None:
    """Call all `pieces`, in about their order, on ``numba.get_num_threads()`` threads.

    The calling thread is one of them. The first exception ends what has not begun and is raised here.
    """
    waiting = list(reversed(pieces))
    errors: list[BaseException] = []

    def drain() -> None:
        while True:
            try:
                piece = waiting.pop()
            except IndexError:
                return
            try:
                piece()
            except BaseException as error:
                waiting.clear()
                errors.append(error)

    helpers = [threading.Thread(target=drain) for _ in range(min(len(pieces), numba.get_num_threads()) - 1)]
    for helper in helpers:
        helper.start()
    drain()
    for helper in helpers:
        helper.join()
    if errors:
        raise errors[0]
