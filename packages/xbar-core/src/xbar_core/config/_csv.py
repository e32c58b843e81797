"""Columns of numbers out of CSV files, with errors that name file, line and fix."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError


def resolve(name: object, folder: Path, field: str) -> Path:
    """Return the path of an existing file; a relative name starts at `folder`."""
    if not isinstance(name, str | Path):
        raise ConfigError(f"{field}: {name!r} is not a file name; give a string")
    path = folder / Path(name).expanduser()
    if not path.is_file():
        near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else ""
        raise ConfigError(
            f"{field}: no file {str(path)!r}{near}; relative names start at the chip file's folder"
        )
    return path


def read_rows(path: Path, field: str) -> list[tuple[int, list[str]]]:
    """Return (line number, cells) of a CSV file without blank lines and ``#`` comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{field}: {str(path)!r} cannot be read as a CSV text file ({error})") from error
    if "\0" in text:
        raise ConfigError(f"{field}: {str(path)!r} is not a CSV text file (it holds NUL bytes)")
    lines = [(k, line.strip()) for k, line in enumerate(text.splitlines(), 1)]
    return [
        (k, [cell.strip() for cell in next(csv.reader([line]))])
        for k, line in lines
        if line and not line.startswith("#")
    ]


def number(cell: str, path: Path, line: int, column: str, field: str) -> float:
    """Return one cell as a finite float."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            f"{field}: {str(path)!r} line {line}, column {column}: {cell!r} is not a finite number"
        )
    return value


def read_columns(path: Path, required: Sequence[str], field: str) -> dict[str, NDArray[np.float64]]:
    """Return the required columns of a CSV file with a header line, as float64 arrays.

    Raises
    ------
    ConfigError
        The file is empty, lacks a required column, or has a short line or a cell that is no number.
    """
    rows = read_rows(path, field)
    if len(rows) < 2:
        raise ConfigError(f"{field}: {str(path)!r} holds no data; expected a header line and rows of numbers")
    header = [cell.lower() for cell in rows[0][1]]
    for name in required:
        if name not in header:
            raise ConfigError(
                f"{field}: {str(path)!r} has no column {name!r}{nearest(name, header)}; "
                f"its header is {header}"
            )
    columns: dict[str, list[float]] = {name: [] for name in required}
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise ConfigError(
                f"{field}: {str(path)!r} line {line} has {len(cells)} cells for {len(header)} columns; "
                "the file may be truncated"
            )
        for name in required:
            columns[name].append(number(cells[header.index(name)], path, line, name, field))
    return {name: np.array(values) for name, values in columns.items()}
