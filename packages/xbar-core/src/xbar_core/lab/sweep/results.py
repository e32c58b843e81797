"""The table of a sweep: a row for each point, means over repeats, files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError
from xbar_core.lab._optional import optional
from xbar_core.lab.sweep.fields import SEEDS
from xbar_core.lab.sweep.points import Point, text_of
from xbar_core.lab.sweep.spread import LEVEL, Estimate, estimate, estimate_crossed
from xbar_core.lab.sweep.store import Result, Store
from xbar_core.lab.whole_file import whole_file


@dataclass(frozen=True)
class Row:
    """One point with its result.

    Attributes
    ----------
    values : mapping
        By path, in the order of the plan.
    result : Result or None
        None where it is missing.
    key : str
        Of the point: rows of one key have one result, and count once. Empty for a row of its own.
    """

    values: Mapping[str, Any]
    result: Result | None
    key: str = ""

    def metric(self, name: str) -> float:
        """Return a number of the result, NaN where there is none."""
        if self.result is None or self.result.status != "done":
            return math.nan
        value = self.result.metrics.get(name, math.nan)
        return math.nan if isinstance(value, list) else float(value)

    def series(self, name: str) -> list[float]:
        """Return a list of the result, empty where there is none."""
        if self.result is None or self.result.status != "done":
            return []
        return [float(value) for value in self.result.metrics.get(name, [])]


@dataclass(frozen=True)
class Group:
    """All repeats of one setting.

    Attributes
    ----------
    values : tuple
        Of the varied fields.
    estimate : Estimate
        Of the metric over the repeats that have it.
    failed, missing : int
        Repeats that failed, and that were not computed.
    """

    values: tuple[Any, ...]
    estimate: Estimate
    failed: int
    missing: int


class Table:
    """What a sweep found.

    Parameters
    ----------
    rows : sequence of Row
        In the order of the plan.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.fields = self._varied()

    @classmethod
    def collect(cls, points: Sequence[Point], store: Store) -> Table:
        """Return the points with what the store holds of them."""
        return cls([Row(point.values, store.get(point.key), point.key) for point in points])

    @property
    def metrics(self) -> list[str]:
        """Names of all single numbers that were found."""
        names: dict[str, None] = {}
        for row in self.rows:
            if row.result is not None:
                names |= dict.fromkeys(n for n, v in row.result.metrics.items() if not isinstance(v, list))
        return list(names)

    def main_metric(self, wanted: str | None) -> str:
        """Return the metric to show: the wanted one, else the first.

        Raises
        ------
        ConfigError
            No point has it.
        """
        known = self.metrics
        if wanted is None or (wanted not in known and not known):
            return known[0] if known else wanted or "metric"
        if wanted not in known:
            raise ConfigError(
                f"metric: no point has {wanted!r}{nearest(wanted, known)}; use one of {', '.join(known)}"
            )
        return wanted

    def groups(self, metric: str, fields: Sequence[str] | None = None, level: float = LEVEL) -> list[Group]:
        """Return one group for each combination of `fields` (default: all that vary), in order.

        Points that mean the same have one result and count once in a group, such as the chip values of
        native training.
        """
        names = self.fields if fields is None else fields
        gathered: dict[str, list[Row]] = {}
        for row in self.rows:
            gathered.setdefault(json.dumps([row.values.get(name) for name in names], default=str), []).append(
                row
            )
        found = []
        for rows in map(_distinct, gathered.values()):
            failed = sum(row.result is not None and row.result.status == "failed" for row in rows)
            found.append(
                Group(
                    tuple(rows[0].values.get(name) for name in names),
                    _over_repeats(rows, metric, level),
                    failed,
                    sum(row.result is None for row in rows),
                )
            )
        return found

    def write(self, folder: Path, metric: str) -> list[Path]:
        """Write ``results.csv``, ``results.parquet`` (a row for each point) and ``summary.csv``."""
        paths = [*self.write_rows(folder), folder / "summary.csv"]
        groups = self.groups(metric)
        summary: dict[str, list[Any]] = {
            name: [group.values[k] for group in groups] for k, name in enumerate(self.fields)
        }
        estimates = [group.estimate for group in groups]
        summary |= {
            f"{metric}": [e.mean for e in estimates],
            "std": [e.std for e in estimates],
            "low": [e.low for e in estimates],
            "high": [e.high for e in estimates],
            "repeats": [e.count for e in estimates],
            "failed": [group.failed for group in groups],
            "missing": [group.missing for group in groups],
        }
        write_csv(paths[2], summary)
        return paths

    def write_rows(self, folder: Path) -> list[Path]:
        """Write ``results.csv`` and ``results.parquet``."""
        columns = self.columns()
        paths = [folder / name for name in ("results.csv", "results.parquet")]
        write_csv(paths[0], columns)
        _write_parquet(paths[1], columns)
        return paths

    def columns(self) -> dict[str, list[Any]]:
        """Return everything by column: values, metrics (lists, too), status, error, seconds, worker, key."""
        names: dict[str, None] = {}
        metrics: dict[str, None] = {}
        for row in self.rows:
            names |= dict.fromkeys(row.values)
            if row.result is not None:
                metrics |= dict.fromkeys(row.result.metrics)
        found: dict[str, list[Any]] = {n: [row.values.get(n) for row in self.rows] for n in names}
        for name in metrics:
            # A metric may be called as a field is.
            column = name if name not in found else f"metric.{name}"
            found[column] = [None if r.result is None else r.result.metrics.get(name) for r in self.rows]
        results = [row.result for row in self.rows]
        found["status"] = ["missing" if result is None else result.status for result in results]
        found["error"] = ["" if result is None else result.error for result in results]
        found["point_seconds"] = [None if result is None else result.seconds for result in results]
        found["worker"] = ["" if result is None else result.worker for result in results]
        found["key"] = ["" if result is None else result.key for result in results]
        return found

    def _varied(self) -> tuple[str, ...]:
        """Return the paths that vary, without seeds and without paths that always follow another one."""
        paths: dict[str, None] = {}
        for row in self.rows:
            paths |= dict.fromkeys(row.values)
        found: dict[str, list[str]] = {}
        for path in paths:
            column = [json.dumps(row.values.get(path), default=str) for row in self.rows]
            if path not in SEEDS and len(set(column)) > 1 and column not in found.values():
                found[path] = column
        return tuple(found)


def _over_repeats(rows: Sequence[Row], metric: str, level: float) -> Estimate:
    """Return the estimate over the rows, crossed where training seeds and chips vary each on their own."""
    values: dict[tuple[Any, Any], float] = {}
    for row in rows:
        seeds = row.values.get("seed")
        pair = row.values.get("train.seed", seeds), row.values.get("chip.seed", seeds)
        if pair in values:
            return estimate([row.metric(metric) for row in rows], level)  # something else varies, too
        values[pair] = row.metric(metric)
    trainings, chips = ({pair[side] for pair in values} for side in (0, 1))
    if len(values) > max(len(trainings), len(chips)):
        return estimate_crossed(values, level)
    return estimate(values.values(), level)


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without those that have, or will have, the result of an earlier one."""
    first: dict[str, Row] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.key or f"row {number}", row)
    return list(first.values())


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length under their names."""
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([_cell(value) for value in row])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value)
    return repr(value) if isinstance(value, float) else str(value)


def _write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    arrow = optional("pyarrow", "pyarrow", "sweep", extra="sweep")
    parquet = optional("pyarrow.parquet", "pyarrow", "sweep", extra="sweep")
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = arrow.array(list(values))
        except (arrow.ArrowInvalid, arrow.ArrowTypeError):  # texts and numbers in one column
            arrays[name] = arrow.array([None if v is None else text_of(v) for v in values])
    with whole_file(path) as part:
        parquet.write_table(arrow.table(arrays), part)
