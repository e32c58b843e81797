"""What a run is: everything that has to be known to train it again."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numba
import numpy as np

from xbar_core._checks import nearest
from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_core.lab.data import DataSet, limited, load_data
from xbar_core.lab.data.registry import is_folder
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.run_names import check_variant

FORMAT = 1
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_PACKAGES = ("xbar-core", "xbar-torch", "xbar-tf", "torch", "tensorflow", "keras", "numpy", "scipy", "numba")


@dataclass(frozen=True)
class RunSpec:
    """A network, its data, how it is trained, and on what.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    dataset : str
        As `xbar_core.lab.data.load_data` takes it.
    variants : mapping of str to Chip or None
        Chips by name, in the order of their training; None trains natively.
    framework : str
        Adapter.
    limit : int or None
        Most training and most test samples to use.
    data_folder : str or None
        Where data sets are; None is the default.
    image_size : int or None
        Height and width of a folder's images.
    """

    recipe: Recipe
    dataset: str = "digits"
    variants: Mapping[str, Chip | None] = field(default_factory=lambda: {"native": None})
    framework: str = "torch"
    limit: int | None = None
    data_folder: str | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        if not self.variants:
            raise ConfigError("variants: none given; give at least one chip, or 'native'")
        for name, chip in self.variants.items():
            check_variant(name, native=chip is None)

    def load_data(self, report: Callable[[str], None] = lambda text: None) -> DataSet:
        """Return the samples; `report` is told of downloads."""
        data = load_data(self.dataset, self.data_folder, image_size=self.image_size, report=report)
        return data if self.limit is None else limited(data, self.limit)

    def chip(self, variant: str) -> Chip | None:
        """Return the chip of a variant, None for native training.

        Raises
        ------
        ConfigError
            The run has no variant of this name.
        """
        if variant not in self.variants:
            raise ConfigError(
                f"variant: {variant!r} is not in this run{nearest(variant, self.variants)}; "
                f"it has {', '.join(self.variants)}"
            )
        return self.variants[variant]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` and JSON take."""
        return {
            "framework": self.framework,
            "dataset": self.dataset,
            "data_folder": self.data_folder,
            "limit": self.limit,
            "image_size": self.image_size,
            "recipe": asdict(self.recipe),
            "variants": {
                name: None if chip is None else chip.to_dict() for name, chip in self.variants.items()
            },
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Self:
        """Return what `to_dict` described."""
        variants = {
            name: None if chip is None else Chip.from_dict(chip) for name, chip in table["variants"].items()
        }
        return cls(
            Recipe(**table["recipe"]),
            table["dataset"],
            variants,
            table["framework"],
            table["limit"],
            table["data_folder"],
            table["image_size"],
        )

    def with_data(self, folder: str | None) -> Self:
        """Return the same run with its data in another folder.

        Parameters
        ----------
        folder : str or None
            The data folder, or the folder of images where the data set is one. None leaves it where it was
            or, where nothing is there any more, takes the default.
        """
        if folder is not None:
            images = is_folder(self.dataset)
            return replace(self, dataset=folder) if images else replace(self, data_folder=folder)
        gone = self.data_folder is not None and not Path(self.data_folder).is_dir()
        return replace(self, data_folder=None) if gone else self


def surroundings(command: Sequence[str]) -> dict[str, Any]:
    """Return what a run was started with: command, versions, machine, threads."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": list(command),
        "versions": {"python": platform.python_version(), **versions},
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": numba.get_num_threads(),
            "threads_set": {name: os.environ[name] for name in _THREADS if name in os.environ},
            "byteorder": sys.byteorder,
        },
    }


def fingerprint(data: DataSet) -> dict[str, Any]:
    """Return what tells whether samples are the same ones."""
    sums = {
        name: f"{zlib.crc32(np.ascontiguousarray(getattr(data, name)).data):08x}"
        for name in ("train_x", "train_y", "test_x", "test_y")
    }
    return {"train": len(data.train_x), "test": len(data.test_x), "crc32": sums}
