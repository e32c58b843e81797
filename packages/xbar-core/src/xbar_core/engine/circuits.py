"""The one place that calls a circuit model: arrays of many layers, grouped into few batches.

Host arrays (NumPy, torch on the CPU) go through views, without a copy of their own; tensors of a device
stay on it and take the array-API ladder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from xbar_core._arrays import array_like, namespace, to_numpy
from xbar_core._threads import run_all
from xbar_core.circuit._dispatch import effective_conductance, interpolation_apply, interpolation_begin
from xbar_core.circuit.base import AAM, CircuitModel, Direction, Ideal, Interpolated, Wires
from xbar_core.circuit.interpolated import InterpolationState

Shape = tuple[int, int]
Arrays = dict[Shape, Any]
_PIECE_WORK = 3 * 64**3  # cell visits: about a millisecond of exact solving
_POOL_WORK = 4 * 64**3  # less is done sooner than threads are made


class Reference(NamedTuple):
    """What one exact solution of a layer leaves for the updates that follow (one direction).

    Attributes
    ----------
    factor, offset : array (cells,)
        As in `xbar_core.circuit.interpolated.InterpolationState`, over all physical arrays of the layer.
    update : int
        Number of updates done when it was made.
    """

    factor: Any
    offset: Any
    update: int


class Job(NamedTuple):
    """The arrays of one layer, to be solved in one direction.

    Attributes
    ----------
    wires, model : Wires, CircuitModel
        The circuit.
    direction : {"forward", "backward"}
        As in `xbar_core.effective_conductance`.
    arrays : dict
        Conductances by physical shape, (tiles, devices, rows, cols), siemens.
    reference : Reference or None
        Of the last exact solution (Interpolated).
    update : int
        Number of updates done.
    """

    wires: Wires
    model: CircuitModel
    direction: Direction
    arrays: Arrays
    reference: Reference | None = None
    update: int = 0

    @property
    def due(self) -> bool:
        """Whether an interpolated layer needs its exact solution."""
        assert isinstance(self.model, Interpolated)
        return self.reference is None or self.update - self.reference.update >= self.model.period


def solve_arrays(jobs: Sequence[Job]) -> list[tuple[Arrays, Reference | None]]:
    """Solve the arrays of all jobs; equal circuits, shapes and dtypes share one batched call.

    Parameters
    ----------
    jobs : sequence of Job
        One for each layer and direction.

    Returns
    -------
    list of (dict, Reference or None)
        Non-ideal conductances by forward shape, (tiles, devices, rows, cols) or, backward,
        (tiles, devices, cols, rows); and the reference to keep.
    """
    solved: list[Arrays] = [{} for _ in jobs]
    references: list[Reference | None] = [job.reference for job in jobs]
    groups: dict[tuple[Any, ...], list[tuple[int, Shape]]] = {}
    for k, job in enumerate(jobs):
        if isinstance(job.model, Interpolated):
            solved[k], references[k] = _interpolate(job)
            continue
        for shape, arrays in job.arrays.items():
            key = (job.wires, job.model, job.direction, shape, str(arrays.dtype), _place(arrays))
            groups.setdefault(key, []).append((k, shape))
    tasks: list[_Task] = []
    for (wires, model, direction, shape, _, _), members in groups.items():
        batch = [jobs[k].arrays[shape] for k, _ in members]
        if isinstance(model, Ideal) or not _on_host(batch[0]):
            results = _on_device(batch, wires, model, direction)
        else:
            results = _split_host(batch, wires, model, direction, tasks)
        for (k, _), result in zip(members, results, strict=True):
            solved[k][shape] = result
    _run(tasks)
    return list(zip(solved, references, strict=True))


class _Task(NamedTuple):
    """A piece of a batch on the host: solve `given` into `result`."""

    work: float
    given: NDArray[Any]
    result: NDArray[Any]
    wires: Wires
    model: CircuitModel
    direction: Direction

    def run(self) -> None:
        """Solve on one thread: the pool is the only parallelism here."""
        threads = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            self.result[:] = effective_conductance(self.given, self.wires, self.model, self.direction)
        finally:
            numba.set_num_threads(threads)


def _run(tasks: list[_Task]) -> None:
    """Run all pieces: on all threads, largest first, or on this one where threads cost more."""
    if min(numba.get_num_threads(), len(tasks)) < 2 or sum(task.work for task in tasks) < _POOL_WORK:
        for task in tasks:
            task.run()
        return
    run_all([task.run for task in sorted(tasks, key=lambda task: -task.work)])


def _split_host(
    batch: Sequence[Any], wires: Wires, model: CircuitModel, direction: Direction, tasks: list[_Task]
) -> list[Any]:
    """Append the pieces of a batch of one shape to `tasks`; return the arrays that they will fill."""
    rows, cols = batch[0].shape[-2:]
    given = np.concatenate([to_numpy(g).reshape(-1, rows, cols) for g in batch])
    out = (cols, rows) if direction == "backward" else (rows, cols)
    result = np.empty((given.shape[0], *out), given.dtype)
    # Closed forms visit a cell a few times, an exact solution once or more for every line that is driven.
    each = float(rows * cols) * (1.0 if isinstance(model, AAM) and model.order < 2 else min(rows, cols))
    pieces = int(min(given.shape[0], max(1.0, each * given.shape[0] // _PIECE_WORK)))
    ends = [given.shape[0] * k // pieces for k in range(pieces + 1)]
    for start, stop in pairwise(ends):
        work = each * (stop - start)
        tasks.append(_Task(work, given[start:stop], result[start:stop], wires, model, direction))
    parts, start = [], 0
    for g in batch:
        stop = start + g.shape[0] * g.shape[1]
        parts.append(array_like(result[start:stop].reshape(*g.shape[:2], *out), g))
        start = stop
    return parts


def _place(arrays: Any) -> str:
    return str(arrays.device) if is_torch_array(arrays) else type(arrays).__module__


def _on_host(arrays: Any) -> bool:
    return not is_torch_array(arrays) or arrays.device.type == "cpu"


def _on_device(batch: Sequence[Any], wires: Wires, model: CircuitModel, direction: Direction) -> list[Any]:
    """Return the solved arrays of each member (tiles, devices, rows, cols) of a batch of one shape."""
    xp = namespace(batch[0])
    if isinstance(model, Ideal):
        return [xp.matrix_transpose(g) if direction == "backward" else g for g in batch]
    from xbar_core.circuit import ladder

    rows, cols = batch[0].shape[-2:]
    together = xp.concat([xp.reshape(g, (-1, rows, cols)) for g in batch])
    result = ladder.effective_conductance(together, wires, model, direction)
    parts, start = [], 0
    for g in batch:
        stop = start + g.shape[0] * g.shape[1]
        parts.append(xp.reshape(result[start:stop, ...], (*g.shape[:2], *result.shape[-2:])))
        start = stop
    return parts


def _interpolate(job: Job) -> tuple[Arrays, Reference]:
    """Solve one layer exactly and keep its distortion, or apply the one that was kept."""
    model = job.model
    assert isinstance(model, Interpolated)
    solved: Arrays = {}
    factors, offsets, start = [], [], 0
    for shape, arrays in job.arrays.items():
        host = to_numpy(arrays)
        flat = np.ascontiguousarray(host).reshape(-1, *shape)
        if job.due:
            # Applied at once, too: reads before and after a checkpoint then agree to the bit.
            _, state = interpolation_begin(flat, job.wires, model, job.direction)
            factors.append(state.factor.reshape(-1))
            offsets.append(state.offset.reshape(-1))
        else:
            assert job.reference is not None
            stop = start + flat.size
            factor = to_numpy(job.reference.factor)[start:stop].reshape(flat.shape)
            offset = to_numpy(job.reference.offset)[start:stop].reshape(flat.shape)
            state = InterpolationState(factor, offset, model.reuse)
            start = stop
        matrices = interpolation_apply(state, flat, job.wires, job.direction)
        solved[shape] = array_like(matrices.reshape(*host.shape[:2], *matrices.shape[-2:]), arrays)
    if not job.due:
        assert job.reference is not None
        return solved, job.reference
    like = next(iter(job.arrays.values()))
    factor, offset = (array_like(np.concatenate(parts), like) for parts in (factors, offsets))
    return solved, Reference(factor, offset, job.update)
