"""What a point computes: tasks of xbar by name, the user's own by import path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError
from xbar_core.lab.importing import import_callable, is_import_path
from xbar_core.lab.sweep.setup import Setup

Progress = Callable[[float, str], None]
"""Called by a task with the share that is done (0 to 1) and a few words."""
Metrics = Mapping[str, Any]
"""Numbers by name, or lists of numbers (a value for each epoch)."""


@dataclass(frozen=True)
class Task:
    """One kind of point.

    Attributes
    ----------
    name : str
        As the user gave it.
    function : callable
        Called with the `Setup`, the options as keywords, and ``progress`` if it has such a parameter.
    trains : bool
        Whether recipe, data set and framework mean anything to it.
    metric : str or None
        The metric of tables and figures unless another is asked for; None takes the first.
    """

    name: str
    function: Callable[..., Metrics]
    trains: bool
    metric: str | None

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the keyword arguments that a sweep may set."""
        names = []
        for name, parameter in list(inspect.signature(self.function).parameters.items())[1:]:
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                names.append(name)
        return tuple(name for name in names if name != "progress")

    def run(self, setup: Setup, progress: Progress) -> Metrics:
        """Compute the metrics of one point."""
        extra = {"progress": progress} if "progress" in inspect.signature(self.function).parameters else {}
        return self.function(setup, **setup.options, **extra)


def task_names() -> tuple[str, ...]:
    """Return the names that `find_task` knows besides import paths."""
    return tuple(_BUILT_IN)


def find_task(name: str) -> Task:
    """Return a task by name, or the user's function by import path.

    Raises
    ------
    ConfigError
        An unknown name, a path that cannot be imported, a function that takes no setup.
    """
    if is_import_path(name):
        function = import_callable("task", name)
        if not inspect.signature(function).parameters:
            raise ConfigError(f"task: {name} takes no argument; it is called with the Setup of a point")
        return Task(name, function, trains=True, metric=None)
    if name not in _BUILT_IN:
        raise ConfigError(
            f"task: unknown name {name!r}{nearest(name, _BUILT_IN)}; use one of {', '.join(_BUILT_IN)} or "
            "package.module:function"
        )
    return _BUILT_IN[name]()


def _train() -> Task:
    from xbar_core.lab.sweep.training import train

    return Task("train", train, trains=True, metric="accuracy")


def _circuit() -> Task:
    from xbar_core.lab.sweep.arrays import circuit

    return Task("circuit", circuit, trains=False, metric="error")


_BUILT_IN: Mapping[str, Callable[[], Task]] = {"train": _train, "circuit": _circuit}
