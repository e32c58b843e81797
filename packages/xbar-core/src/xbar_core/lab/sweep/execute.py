"""One point computed, in this process or on a worker: whatever happens becomes a result."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from xbar_core.errors import ConfigError
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.sweep.tasks import Progress, find_task


def execute(setup: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Compute the metrics of one point.

    Parameters
    ----------
    setup : mapping
        From `Setup.to_dict`.
    progress : callable
        Told how far the task is.

    Returns
    -------
    dict
        The fields of `Result` without ``key``, as plain data. An exception of the task is a result, too.
    """
    import xbar_core

    start = time.perf_counter()
    found: dict[str, Any] = {
        "status": "done",
        "metrics": {},
        "error": "",
        "traceback": "",
        "worker": f"{platform.node()}:{os.getpid()}",
        "version": xbar_core.__version__,
    }
    try:
        resolved = Setup.from_dict(setup)
        task = find_task(resolved.task)
        found["metrics"] = _checked(task.name, task.run(resolved, progress))
    except Exception as error:  # the task's own code may fail in any way; the others go on
        text = " ".join(str(error).split())
        found |= {
            "status": "failed",
            "error": f"{type(error).__name__}: {text}" if text else type(error).__name__,
            "traceback": traceback.format_exc(),
        }
    found["seconds"] = time.perf_counter() - start
    return found


def _checked(task: str, metrics: Any) -> dict[str, Any]:
    """Return metrics as Python's numbers and lists, after checking that they are such."""
    if not isinstance(metrics, Mapping) or not metrics:
        raise ConfigError(
            f"task: {task} returned {type(metrics).__name__}; it must return a dict with at least one number"
        )
    plain: dict[str, Any] = {}
    for name, value in metrics.items():
        fault = ConfigError(
            f"task: {task} returned {name!r}: {value!r}; a metric is a number or a list of numbers, by name"
        )
        if isinstance(value, str | bytes) or not isinstance(name, str):
            raise fault
        try:
            array = np.asarray(value)
            numbers = array.astype(float) if array.dtype.kind not in "biu" else array
        except (TypeError, ValueError):
            raise fault from None
        plain[name] = numbers.item() if numbers.ndim == 0 else numbers.ravel().tolist()
    return plain
