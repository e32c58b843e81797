"""Batches: shuffled, augmented and normalised, the same for the same seed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_integer
from xbar_core.errors import ConfigError
from xbar_core.lab.data.augment import Augmentation
from xbar_core.lab.data.dataset import DataSet

_T = TypeVar("_T")
_ORDER, _AUGMENT = 0, 1  # what a stream of random numbers is for


def shard(count: int, rank: int, ranks: int) -> slice:
    """Return the part of a global batch of `count` samples that process `rank` of `ranks` takes.

    The parts follow each other and differ in length by one at most; ``.start`` is the index of a
    part's first sample in the global batch.
    """
    return slice(rank * count // ranks, (rank + 1) * count // ranks)


@dataclass(frozen=True, eq=False)
class Batches:
    """The training samples of a data set, batch by batch.

    The order of an epoch is keyed by (seed, epoch), the augmentation of a batch by (seed, epoch,
    step) for the global batch. So a run can be resumed at any step, and processes that share
    a batch see together what one process sees alone.

    Parameters
    ----------
    data : DataSet
        Where the samples come from; its training mean and deviation normalise them.
    size : int
        Samples in a global batch; the last batch of an epoch may be smaller.
    seed : int
        Seed of order and augmentation.
    augmentation : tuple of Augmentation
        Applied one after the other to the raw samples.
    rank, ranks : int
        This process, and how many share each batch; see `shard`.

    Raises
    ------
    ConfigError
        A batch larger than the data, or smaller than the number of processes.
    """

    data: DataSet
    size: int
    seed: int = 0
    augmentation: tuple[Augmentation, ...] = ()
    rank: int = 0
    ranks: int = 1

    def __post_init__(self) -> None:
        check_integer("seed", self.seed, minimum=0)
        check_integer("ranks", self.ranks, minimum=1)
        check_integer("rank", self.rank, minimum=0, maximum=self.ranks - 1)
        check_integer("batch", self.size, minimum=self.ranks)
        if self.size > len(self.data.train_x):
            raise ConfigError(
                f"batch: {self.size} is larger than the data; {self.data.name} has "
                f"{len(self.data.train_x)} training samples"
            )
        if (
            len(self.data.train_x) % self.size % self.ranks
            and len(self.data.train_x) % self.size < self.ranks
        ):
            raise ConfigError(
                f"batch: the last batch of an epoch has {len(self.data.train_x) % self.size} samples for "
                f"{self.ranks} processes; use another batch size than {self.size}"
            )

    def __len__(self) -> int:
        """Steps in an epoch."""
        return -(-len(self.data.train_x) // self.size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of the training samples in an epoch: a permutation of their indices."""
        return self._generator(_ORDER, epoch).permutation(len(self.data.train_x))

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Yield this process' samples (float32, normalised) and labels (int64), batch by batch.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 0 up.
        start : int
            First step, for a run that is resumed within an epoch.
        """
        order = self.order(epoch)
        for step in range(start, len(self)):
            chosen = order[step * self.size : (step + 1) * self.size]
            part = shard(len(chosen), self.rank, self.ranks)
            x = self.data.train_x[chosen[part]]
            for number, change in enumerate(self.augmentation):
                x = change(x, self._generator(_AUGMENT, epoch, step, number), part.start, len(chosen))
            yield self.data.normalised(x), self.data.train_y[chosen[part]]

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, *key])))


def evaluation_batches(data: DataSet, size: int) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
    """Yield the test samples (float32, normalised) and labels in order, `size` at a time."""
    check_integer("batch", size, minimum=1)
    for start in range(0, len(data.test_x), size):
        part = slice(start, start + size)
        yield data.normalised(data.test_x[part]), data.test_y[part]


def ahead(items: Iterable[_T], depth: int = 2) -> Iterator[_T]:
    """Yield the items, made up to `depth` ahead by a thread of its own.

    NumPy lets other threads run while it copies, so the next batch is made while the framework
    computes. An exception in the thread is raised here in its place; a caller that stops early ends
    the thread.
    """
    check_integer("depth", depth, minimum=1)
    made: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, Any]) -> None:
        while not stopped.is_set():
            try:
                return made.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((True, item))
                if stopped.is_set():
                    return
            put((False, None))
        except BaseException as error:  # whatever it is, it belongs to the caller
            put((False, error))

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        while True:
            more, item = made.get()
            if more:
                yield item
            elif item is None:
                return
            else:
                raise item
    finally:
        stopped.set()
        thread.join()
