"""One point of a sweep with everything resolved: what a task is given, what a result is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Self

from xbar_core.config import Chip
from xbar_core.lab.data import DataSet, limited, load_data
from xbar_core.lab.trainer import Recipe

FORMAT = 1
"""Part of every key: a change of what a key means must not find old results."""
_ONLY_FOR_PEOPLE = ("name", "description", "sources")


@dataclass(frozen=True)
class Setup:
    """Everything that a task needs to compute the metrics of one point.

    Parameters
    ----------
    task : str
        Name of a task of xbar, or the user's own function as ``package.module:function``.
    chip : Chip or None
        None trains natively.
    recipe : Recipe or None
        How to train; None for tasks that do not train.
    dataset, framework : str
        Names as `load_data` and `trainer_factory` take them.
    limit : int or None
        Most training and most test samples to use, the same for every point; None uses all.
    options : mapping
        Keyword arguments of the task.
    data_folder : str or None
        Where data sets are; no part of the key.
    """

    task: str
    chip: Chip | None = None
    recipe: Recipe | None = None
    dataset: str = "digits"
    framework: str = "torch"
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    data_folder: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` and JSON take."""
        return {
            "task": self.task,
            "chip": None if self.chip is None else self.chip.to_dict(),
            "recipe": None if self.recipe is None else asdict(self.recipe),
            "dataset": self.dataset,
            "framework": self.framework,
            "limit": self.limit,
            "options": dict(self.options),
            "data_folder": self.data_folder,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the setup of plain data."""
        table = dict(data)
        if table["chip"] is not None:
            table["chip"] = Chip.from_dict(table["chip"])
        if table["recipe"] is not None:
            table["recipe"] = Recipe(**table["recipe"])
        return cls(**table)

    @cached_property
    def key(self) -> str:
        """Hash of everything that a result depends on: 20 hexadecimal digits."""
        table = self.to_dict() | {"format": FORMAT}
        del table["data_folder"]
        if self.recipe is None:
            for unused in ("dataset", "framework", "limit"):
                del table[unused]
        if table["chip"] is not None:
            table["chip"] = {k: v for k, v in table["chip"].items() if k not in _ONLY_FOR_PEOPLE}
        text = json.dumps(table, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()

    def load_data(self) -> DataSet:
        """Return the data set, cut to the limit."""
        data = load_data(self.dataset, self.data_folder)
        return data if self.limit is None else limited(data, self.limit)
