"""Measured update curves: one conductance trace per device, cycle and direction, out of a CSV file."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import CONDUCTANCE_MAX, CONDUCTANCE_MIN, nearest
from xbar_core.config._csv import number, read_rows, resolve
from xbar_core.errors import ConfigError

COLUMNS = ("cycle", "direction", "pulse", "conductance")
MIN_PULSES = 4
UP_WORDS = ("up", "ltp", "p", "potentiation", "set")
DOWN_WORDS = ("down", "ltd", "d", "depression", "reset")


@dataclass(frozen=True, eq=False)
class Trace:
    """One sweep of pulses of one direction.

    Attributes
    ----------
    device, cycle : str
        Labels of the file.
    up : bool
        Potentiation (True) or depression.
    conductance : ndarray, shape (pulses + 1,)
        Before the first and after every pulse, siemens.
    """

    device: str
    cycle: str
    up: bool
    conductance: NDArray[np.float64]

    @property
    def pulses(self) -> int:
        """Number of pulses."""
        return self.conductance.size - 1


def read_traces(csv: str | Path) -> list[Trace]:
    """Read measured curves.

    Parameters
    ----------
    csv : str or Path
        File with a header line and the columns ``cycle``, ``direction`` (up or down), ``pulse``
        (0 is before the first pulse) and ``conductance`` (siemens), and ``device`` if there are several.
        Other columns are ignored; lines that start with # are comments.

    Returns
    -------
    list of Trace
        In the order of the file.

    Raises
    ------
    ConfigError
        A foreign or truncated file; the text names file, line and fix.
    """
    path = resolve(csv, Path(), "csv")
    rows = read_rows(path, "csv")
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    for name in COLUMNS:
        if name not in header:
            raise ConfigError(
                f"csv: {str(path)!r} has no column {name!r}{nearest(name, header)}; the first line names the "
                f"columns {', '.join(COLUMNS)} and optionally device"
            )
    points: dict[tuple[str, str, bool], dict[int, float]] = defaultdict(dict)
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise ConfigError(
                f"csv: {str(path)!r} line {line} has {len(cells)} cells for {len(header)} columns; "
                "the file may be truncated"
            )
        row = dict(zip(header, cells, strict=True))
        pulse = number(row["pulse"], path, line, "pulse", "csv")
        if pulse < 0 or pulse != int(pulse):
            raise ConfigError(
                f"csv: {str(path)!r} line {line}, column pulse: {row['pulse']!r} is not a pulse number; "
                "count 0 (before the first pulse), 1, 2, ..."
            )
        key = (row.get("device", "0"), row["cycle"], _is_up(row["direction"], path, line))
        if int(pulse) in points[key]:
            raise ConfigError(
                f"csv: {str(path)!r} line {line}: pulse {int(pulse)} of this cycle occurs twice; "
                "give every cycle its own number (and every device its own label)"
            )
        points[key][int(pulse)] = _conductance(row["conductance"], path, line)
    traces = [_trace(path, *key, values) for key, values in points.items()]
    for up in (True, False):
        if not any(trace.up is up for trace in traces):
            word = "up" if up else "down"
            raise ConfigError(
                f"csv: {str(path)!r} holds no curve of direction {word!r}; measure both directions"
            )
    return traces


def _is_up(word: str, path: Path, line: int) -> bool:
    if word.lower() in UP_WORDS:
        return True
    if word.lower() in DOWN_WORDS:
        return False
    raise ConfigError(
        f"csv: {str(path)!r} line {line}, column direction: unknown word {word!r}; write up or down"
    )


def _conductance(cell: str, path: Path, line: int) -> float:
    value = number(cell, path, line, "conductance", "csv")
    if not CONDUCTANCE_MIN <= value <= CONDUCTANCE_MAX:
        raise ConfigError(
            f"csv: {str(path)!r} line {line}, column conductance: {value:g} S is out of range; "
            f"it must be between {CONDUCTANCE_MIN:g} and {CONDUCTANCE_MAX:g} S (write siemens, not ohm)"
        )
    return value


def _trace(path: Path, device: str, cycle: str, up: bool, values: dict[int, float]) -> Trace:
    """Check that a sweep is complete, long enough and goes the way it says."""
    word = "up" if up else "down"
    where = f"csv: {str(path)!r}, device {device}, cycle {cycle}, {word}"
    if len(values) <= MIN_PULSES:
        raise ConfigError(
            f"{where}: {len(values)} points are too few; a curve needs pulse 0 and at least {MIN_PULSES} more"
        )
    missing = next((k for k in range(max(values) + 1) if k not in values), None)
    if missing is not None:
        raise ConfigError(f"{where}: pulse {missing} is missing; give every pulse from 0 to the last one")
    trace = Trace(device, cycle, up, np.array([values[k] for k in range(len(values))]))
    third = max(1, trace.conductance.size // 3)
    rise = trace.conductance[-third:].mean() - trace.conductance[:third].mean()
    if bool(rise > 0.0) is not up:
        raise ConfigError(
            f"{where}: the conductance {'rises' if rise > 0 else 'does not rise'}; "
            "an up curve rises and a down curve falls: check the direction column "
            "(and that the values are conductances, not resistances)"
        )
    return trace
