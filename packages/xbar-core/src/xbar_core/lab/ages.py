"""Times after programming, as people write them: ``1s,1d,1y``."""

from __future__ import annotations

import re

from xbar_core._checks import check_number
from xbar_core.errors import ConfigError

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "y": 365.25 * 86400.0}
"""Seconds in each unit; a year is a Julian one."""

_LONGEST = 1e12
_AGE = re.compile(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_ages(text: str) -> tuple[float, ...]:
    """Return the seconds of a comma list of times, rising, each once.

    Raises
    ------
    ConfigError
        A part is no number with a unit, or not above 0.

    Examples
    --------
    >>> parse_ages("1s, 1h, 0.5d")
    (1.0, 3600.0, 43200.0)
    """
    return tuple(sorted({_seconds(part) for part in text.split(",")}))


def _seconds(part: str) -> float:
    match = _AGE.fullmatch(part)
    rule = f"write a number with one of the units {', '.join(UNITS)}, for example 1s,1d,1y"
    if match is None:
        raise ConfigError(f"time: {part.strip()!r} is no time; {rule}")
    number, unit = match.groups()
    if unit not in UNITS:
        what = f"unknown unit {unit!r}" if unit else "no unit"
        raise ConfigError(f"time: {part.strip()!r} has {what}; {rule}")
    try:
        seconds = float(number) * UNITS[unit]
    except ValueError:
        raise ConfigError(f"time: {part.strip()!r} is no time; {rule}") from None
    return check_number("time", seconds, minimum=0.0, maximum=_LONGEST, open_minimum=True)


def age_text(seconds: float) -> str:
    """Return a time in the largest unit that leaves a number of 1 or more.

    Examples
    --------
    >>> age_text(86400.0), age_text(5400.0), age_text(0.25)
    ('1 d', '1.5 h', '0.25 s')
    """
    unit = next((name for name, size in reversed(UNITS.items()) if seconds >= size), "s")
    return f"{seconds / UNITS[unit]:.3g} {unit}"
