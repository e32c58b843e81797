"""Results on disk: one JSON file for each point, whole or not there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from xbar_core.errors import ConfigError
from xbar_core.lab.sweep.points import Point
from xbar_core.lab.whole_file import write_whole


@dataclass(frozen=True)
class Result:
    """What became of one point.

    Attributes
    ----------
    key : str
        Of its setup.
    status : {"done", "failed"}
        Whether `metrics` or `error` says what was found.
    metrics : dict
        Numbers, or lists of numbers, by name; NaN where a number is not finite.
    error, traceback : str
        Why it failed, in one line and in full.
    seconds : float
        Time that it took.
    worker : str
        Host and process that computed it.
    version : str
        Of xbar-core.
    """

    key: str
    status: Literal["done", "failed"]
    metrics: Mapping[str, Any]
    error: str = ""
    traceback: str = ""
    seconds: float = 0.0
    worker: str = ""
    version: str = ""


class Store:
    """A folder of results, read and written by one process.

    Parameters
    ----------
    folder : Path
        Made if absent; results lie in ``points/`` below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._points = folder / "points"
        try:
            self._points.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"out: {str(folder)!r} cannot be made ({error.strerror}); choose another folder"
            ) from error

    def path(self, key: str) -> Path:
        """Return where the result of a key is."""
        return self._points / f"{key}.json"

    def get(self, key: str) -> Result | None:
        """Return a result, None where there is none or its file is damaged."""
        try:
            table = json.loads(self.path(key).read_text(encoding="utf-8"))
            known = {name: table[name] for name in Result.__dataclass_fields__}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        known["metrics"] = {name: _numbers(value) for name, value in known["metrics"].items()}
        return Result(**known)

    def put(self, point: Point, result: Result) -> None:
        """Write a result under its name only when it is complete and on the disk."""
        table = {
            **asdict(result),
            "metrics": {name: _plain(value) for name, value in result.metrics.items()},
            "values": dict(point.values),
            "setup": point.setup.to_dict(),
        }
        write_whole(self.path(result.key), json.dumps(table, indent=1, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    """Return a metric as JSON has it: null for what is not finite."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return math.nan if value is None else value
