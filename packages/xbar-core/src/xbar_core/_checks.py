"""Checks at the public edge: each names the field, the value, the rule and the fix.

Kernels behind the edge trust their input.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core.errors import ConfigError, ShapeError

RESISTANCE_MIN, RESISTANCE_MAX = 1e-6, 1e9
CONDUCTANCE_MIN, CONDUCTANCE_MAX = 1e-15, 1e3


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the closest known name, or an empty string."""
    match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f", did you mean '{match[0]}'?" if match else ""


def check_number(
    field: str,
    value: object,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    open_minimum: bool = False,
) -> float:
    """Return `value` as a finite float within its bounds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(
            f"{field}: {value!r} is not a real number (a {type(value).__name__}); give a number"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    low = number > minimum if open_minimum else number >= minimum
    if not (math.isfinite(number) and low and number <= maximum):
        above = "above" if open_minimum else "at least"
        rule = [f"{above} {minimum:g}"] if minimum > -math.inf else []
        rule += [f"at most {maximum:g}"] if maximum < math.inf else []
        text = " and ".join(["finite", *rule])
        raise ConfigError(f"{field}: {value!r} is out of range; it must be {text}")
    return number


def check_integer(field: str, value: object, *, minimum: int, maximum: int | None = None) -> int:
    """Return `value` as an int within its bounds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigError(f"{field}: {value!r} is not an integer; give a whole number")
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise ConfigError(f"{field}: {number} is out of range; it must be at least {minimum}{upper}")
    return number


def check_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        listed = ", ".join(repr(c) for c in known)
        raise ConfigError(f"{field}: unknown value {value!r}{nearest(value, known)}; use one of {listed}")


def check_mapping(field: str, value: object, what: str) -> dict[Any, Any]:
    """Return a mapping as a dict, empty where `value` is None; `what` to what, for the message."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{field}: {value!r} is a {type(value).__name__}; give a mapping of {what}")
    return dict(value)


def check_by_name(field: str, value: object, names: Iterable[str], what: str) -> dict[str, float]:
    """Return numbers above 0 by name, none for None; where there is one name the number alone will do."""
    known = tuple(names)
    if len(known) == 1 and value is not None and not isinstance(value, Mapping):
        value = {known[0]: value}
    given = check_mapping(field, value, f"{what} ({', '.join(known)}) to number")
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{field}: {name!r} is no {what}{nearest(name, known)}; they are {', '.join(known)}"
            )
    return {
        name: check_number(f"{field}[{name!r}]", each, minimum=0.0, open_minimum=True)
        for name, each in given.items()
    }


def check_resistance(field: str, value: object) -> float:
    """Return a resistance in ohm: 0, or between 1e-6 and 1e9."""
    number = check_number(field, value, minimum=0.0, maximum=RESISTANCE_MAX)
    if 0.0 < number < RESISTANCE_MIN:
        raise ConfigError(
            f"{field}: {value!r} ohm is out of range; it must be 0 or between "
            f"{RESISTANCE_MIN:g} and {RESISTANCE_MAX:g} ohm (use 0 for a perfect wire)"
        )
    return number


def check_rtol(field: str, value: object) -> float | None:
    """Return a relative tolerance between 1e-13 and 0.1, or None for the dtype's default."""
    if value is None:
        return None
    return check_number(field, value, minimum=1e-13, maximum=0.1)


def check_array(field: str, value: Any) -> NDArray[Any]:
    """Return `value` as a float32 or float64 NumPy array; integers become float64."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            f"{field}: cannot be read as an array ({error}); give numbers on the host"
        ) from error
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    # Foreign byte order is only a matter of storage: files hold it, kernels do not.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype not in (np.float32, np.float64):
        raise ShapeError(
            f"{field}: dtype {array.dtype} is not supported; use float32 or float64 (or integers)"
        )
    return array


def check_conductance(field: str, value: Any) -> NDArray[Any]:
    """Return conductances ``(..., rows, cols)`` in siemens, each 0 or within 1e-15 to 1e3 S."""
    array = check_array(field, value)
    if array.ndim < 2 or 0 in array.shape[-2:]:
        raise ShapeError(
            f"{field}: shape {array.shape} is not (..., rows, cols) with at least one row and column"
        )
    if array.size == 0 or (array.min() >= CONDUCTANCE_MIN and array.max() <= CONDUCTANCE_MAX):
        return array  # the common case, in two passes; NaN and open cells go on
    bad = ~((array == 0) | ((array >= CONDUCTANCE_MIN) & (array <= CONDUCTANCE_MAX)))
    if bad.any():
        index = tuple(int(k) for k in np.argwhere(bad)[0])
        fix = "; give 1 / resistance for ohm" if array[index] > CONDUCTANCE_MAX else ""
        raise ConfigError(
            f"{field}{list(index)}: {array[index]!s} S is out of range; a conductance must be 0 (open) "
            f"or between {CONDUCTANCE_MIN:g} and {CONDUCTANCE_MAX:g} S{fix}"
        )
    return array


def check_voltages(field: str, value: Any, rows: int, *, batch: bool = True) -> NDArray[Any]:
    """Return finite voltages ``(rows,)``, or with `batch` also ``(batch, rows)``, in volt."""
    array = check_array(field, value)
    wanted = f"({rows},) or (batch, {rows})" if batch else f"({rows},)"
    if array.ndim not in ((1, 2) if batch else (1,)) or array.shape[-1] != rows or array.size == 0:
        raise ShapeError(
            f"{field}: shape {array.shape} does not fit; give {wanted}, one voltage for each row"
        )
    bad = ~np.isfinite(array)
    if bad.any():
        index = tuple(int(k) for k in np.argwhere(bad)[0])
        raise ConfigError(f"{field}{list(index)}: {array[index]!s} V is not finite; give finite voltages")
    return array
