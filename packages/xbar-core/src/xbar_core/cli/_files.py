"""Files of the command line: arrays in, results out, never half a file."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import (
    CONDUCTANCE_MAX,
    CONDUCTANCE_MIN,
    check_array,
    check_conductance,
    check_voltages,
    nearest,
)
from xbar_core.errors import ConfigError, ShapeError

ARRAY_SUFFIXES = (".npy", ".csv")
FIGURE_SUFFIXES = (".png", ".svg", ".pdf")


def read_conductance(path: Path, *, ohms: bool) -> NDArray[Any]:
    """Return the conductances of one array from a file.

    Parameters
    ----------
    path : Path
        ``.npy`` or ``.csv`` file with rows x cols numbers.
    ohms : bool
        The file holds resistances in ohm (``inf`` is an open cell) instead of conductances.

    Returns
    -------
    ndarray, shape (rows, cols), siemens

    Raises
    ------
    ConfigError, ShapeError
        The file cannot be read, or a value is outside its range.
    """
    array = check_array(str(path), _read(path))
    if array.ndim != 2 or array.size == 0:
        raise ShapeError(f"{path}: shape {array.shape} is not one array (rows, cols); save one 2-D array")
    if ohms:
        array = _conductance_from_ohms(path, array)
    elif np.isfinite(array).all() and array.max() > CONDUCTANCE_MAX:
        index = [int(k) for k in np.argwhere(array > CONDUCTANCE_MAX)[0]]
        raise ConfigError(
            f"{path}{index}: {array[tuple(index)]:g} S is out of range; a conductance is at most "
            f"{CONDUCTANCE_MAX:g} S (add --ohms if the file holds resistances)"
        )
    return check_conductance(str(path), array)


def read_voltages(text: str, rows: int) -> NDArray[Any]:
    """Return row voltages from a number (all rows), a comma list, or a file.

    Returns
    -------
    ndarray, shape (rows,), volt
    """
    if Path(text).suffix in ARRAY_SUFFIXES:
        array = check_array(text, _read(Path(text)))
        values = array.reshape(-1) if array.size == max(array.shape, default=0) else array
    else:
        try:
            values = np.array([float(part) for part in text.split(",")])
        except ValueError:
            raise ConfigError(
                f"voltages: {text!r} is neither a number, a comma list of numbers nor a "
                f"{' or '.join(ARRAY_SUFFIXES)} file; give for example 1.0 or voltages.npy"
            ) from None
        if values.size == 1:
            values = np.full(rows, values[0])
    return check_voltages("voltages", values, rows, batch=False)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write `array` as .npy or .csv (every digit kept), by the suffix of `path`."""
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        digits = 9 if array.dtype == np.float32 else 17
        np.savetxt(path, array, fmt=f"%.{digits}g", delimiter=",")


def check_output(
    field: str,
    path: Path,
    suffixes: tuple[str, ...],
    *,
    force: bool,
    inputs: tuple[Path, ...] = (),
    new_folder: bool = False,
) -> Path:
    """Return `path` if a result may be written there; ask before any work is done.

    `inputs` are the files the command already uses. With `new_folder` the folder may be absent:
    the command makes it.
    """
    if path.suffix not in suffixes:
        raise ConfigError(
            f"{field}: {str(path)!r} ends in {path.suffix or 'no suffix'}{nearest(path.suffix, suffixes)}; "
            f"use one of {', '.join(suffixes)}"
        )
    if path.is_dir():
        raise ConfigError(f"{field}: {str(path)!r} is a folder; give a file name in it")
    if not new_folder and not path.parent.is_dir():
        raise ConfigError(f"{field}: folder {str(path.parent)!r} does not exist; create it first")
    if any(path.resolve() == other.resolve() for other in inputs):
        raise ConfigError(f"{field}: {str(path)!r} is named twice; give every file its own name")
    if path.exists() and not force:
        raise ConfigError(
            f"{field}: {str(path)!r} exists and is not overwritten; add --force or choose another name"
        )
    return path


def check_folder(field: str, path: Path) -> Path:
    """Return `path` if it is a folder or can become one."""
    nearest_one = path
    while not nearest_one.exists() and nearest_one != nearest_one.parent:
        nearest_one = nearest_one.parent
    if not nearest_one.is_dir():
        raise ConfigError(f"{field}: {str(nearest_one)!r} is a file, not a folder; give a folder")
    if not os.access(nearest_one, os.W_OK | os.X_OK):
        raise ConfigError(f"{field}: no permission to write in {str(nearest_one)!r}; choose another folder")
    return path


@contextlib.contextmanager
def written(field: str, path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` only if the block succeeds.

    The name is created at once, so a folder without write permission is found before any work.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        part.touch(exist_ok=False)
    except OSError as error:
        raise ConfigError(
            f"{field}: {str(path)!r} cannot be written ({error.strerror}); choose a folder you may write to"
        ) from error
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    """Return the numbers of a .npy or .csv file."""
    if path.suffix not in ARRAY_SUFFIXES:
        raise ConfigError(
            f"file: {str(path)!r} ends in {path.suffix or 'no suffix'}"
            f"{nearest(path.suffix, ARRAY_SUFFIXES)}; give a file that ends in {' or '.join(ARRAY_SUFFIXES)}"
        )
    try:
        if path.suffix == ".csv":
            return _read_csv(path)
        with path.open("rb") as stream:
            array = np.load(stream, allow_pickle=False)
    except FileNotFoundError:
        raise ConfigError(f"file: {str(path)!r} does not exist; check the name and the folder") from None
    except OSError as error:
        raise ConfigError(
            f"file: {str(path)!r} cannot be read ({error.strerror or error}); name a file that you may read"
        ) from error
    except (ValueError, EOFError, MemoryError, SyntaxError) as error:
        kind = path.suffix[1:]
        raise ConfigError(
            f"file: {str(path)!r} is not a complete {kind} file of numbers ({error}); save it again"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ConfigError(f"file: {str(path)!r} holds an archive; save one array with numpy.save")
    return array


def _read_csv(path: Path) -> NDArray[Any]:
    with path.open(encoding="utf-8-sig") as stream, warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # NumPy only warns about an empty file
        try:
            return np.loadtxt(stream, delimiter=",", ndmin=2, dtype=np.float64)
        except UserWarning:
            raise ValueError("it holds no numbers") from None
        except ValueError as error:
            raise ValueError(str(error).split(";")[0]) from error


def _conductance_from_ohms(path: Path, resistance: NDArray[Any]) -> NDArray[Any]:
    low, high = 1 / CONDUCTANCE_MAX, 1 / CONDUCTANCE_MIN
    bad = ~(((resistance >= low) & (resistance <= high)) | np.isposinf(resistance))
    if bad.any():
        index = [int(k) for k in np.argwhere(bad)[0]]
        raise ConfigError(
            f"{path}{index}: {resistance[tuple(index)]} ohm is out of range; a device resistance is between "
            f"{low:g} and {high:g} ohm, or inf for an open cell"
        )
    return 1 / resistance
