"""Files of a study for other programs: means of every metric, and curves over epochs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xbar_core.lab.sweep.results import Row, Table, write_csv
from xbar_core.lab.sweep.spread import Estimate


def write_summary(
    table: Table, folder: Path, metrics: Sequence[str], measure: Callable[[Row, str], float] = Row.metric
) -> None:
    """Write ``summary.csv``: a row for each setting and metric that it has.

    Parameters
    ----------
    table : Table
    folder : Path
    metrics : sequence of str
        What to take means of.
    measure : callable
        From a row and a metric to its number.
    """
    lines = []
    for metric in metrics:
        measured = [_with(row, metric, measure(row, metric)) for row in table.rows]
        for group in Table(measured).groups(metric, table.fields):
            absent = group.failed + group.missing
            if group.estimate.count or (absent and metric == metrics[0]):
                lines.append((*group.values, metric, *_numbers(group.estimate), group.failed, group.missing))
    names = (*table.fields, "metric", "mean", "std", "low", "high", "repeats", "failed", "missing")
    _write(folder / "summary.csv", names, lines)


def write_curves(table: Table, folder: Path, metric: str) -> None:
    """Write ``curves.csv``: means over seeds of a list over epochs, as long as the shortest is."""
    lines = []
    for rows in _settings(table):
        series = [(row, found) for row, found in ((row, row.series(metric)) for row in rows) if found]
        for epoch in range(min((len(found) for _, found in series), default=0)):
            measured = [_with(row, metric, found[epoch]) for row, found in series]
            group = Table(measured).groups(metric, [])[0]
            values = [rows[0].values.get(name) for name in table.fields]
            lines.append((*values, epoch + 1, metric, *_numbers(group.estimate)))
    names = (*table.fields, "epoch", "metric", "mean", "std", "low", "high", "repeats")
    _write(folder / "curves.csv", names, lines)


@contextlib.contextmanager
def reproducible() -> Iterator[None]:
    """Save figures without random identifiers: the same figure makes the same SVG file."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "xbar"}):
        yield


def _settings(table: Table) -> list[list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in table.rows:
        key = tuple(repr(row.values.get(name)) for name in table.fields)
        found.setdefault(key, []).append(row)
    return list(found.values())


def _with(row: Row, metric: str, value: float) -> Row:
    if row.result is None or row.result.status != "done":
        return row
    return Row(row.values, replace(row.result, metrics={metric: value}))


def _numbers(value: Estimate) -> tuple[Any, ...]:
    single = value.count < 2
    return value.mean, *(None if single else n for n in (value.std, value.low, value.high)), value.count


def _write(path: Path, names: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    columns = list(zip(*lines, strict=True)) if lines else [()] * len(names)
    write_csv(path, dict(zip(names, columns, strict=True)))
