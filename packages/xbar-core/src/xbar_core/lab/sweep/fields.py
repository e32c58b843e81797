"""What varies in a sweep: dotted paths with lists of values, ranges or spans."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xbar_core._checks import check_integer, check_number
from xbar_core.errors import ConfigError

SEEDS = ("seed", "chip.seed", "train.seed")
"""Fields that repeat a point instead of changing it."""
_RANGE = re.compile(r"(-?\d+):(-?\d+)(?::(-?\d+))?")
_SPAN = re.compile(r"(lin|log)\(([^)]*)\)")
_MOST = 100_000


@dataclass(frozen=True)
class Span:
    """A continuous range, to draw from or to divide.

    Parameters
    ----------
    low, high : float
        Its ends, both included.
    log : bool
        Equal ratios instead of equal steps.
    whole : bool
        Whole numbers only, both ends included: the field takes no others.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> float:
        """Return the value at a share (0 to 1) of the way from `low` to `high`."""
        if self.whole:
            # Every whole number gets the part of the range that rounds to it.
            low, high = self.low - 0.5, self.high + 0.5
            value = low * (high / low) ** share if self.log else low + (high - low) * share
            return int(min(max(round(value), self.low), self.high))
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return float(self.low + (self.high - self.low) * share)

    def divided(self, count: int) -> tuple[float, ...]:
        """Return `count` values from end to end, whole numbers where both ends are whole and far apart."""
        values = [self.at(k / (count - 1)) for k in range(count)]
        values[-1] = self.high
        # Twelve digits: 0.001, not 0.0010000000000000002.
        return tuple(float(f"{value:.12g}") for value in values)


@dataclass(frozen=True)
class Field:
    """One thing that varies: every path gets the same value.

    Parameters
    ----------
    paths : tuple of str
        Chip paths (``update.v_up``), fields of the recipe (``epochs``), ``seed``, ``preset``, ...
    values : tuple or Span
        What they take, in order.
    """

    paths: tuple[str, ...]
    values: tuple[Any, ...] | Span

    @property
    def name(self) -> str:
        """The paths, joined as they are written."""
        return "+".join(self.paths)

    @property
    def repeats(self) -> bool:
        """Whether this is a seed, which repeats points."""
        return all(path in SEEDS for path in self.paths)


def parse_field(text: str) -> Field:
    """Return the field of ``path=values``.

    Values are a comma list (``0.01,0.1,1``, ``fcm,aam``), whole numbers ``a:b`` or ``a:b:step`` (b is
    left out, as in Python), ``lin(a, b, n)`` or ``log(a, b, n)``: n values from a to b. Without n they
    are spans, which a random design draws from. ``path+path=values`` gives several paths one value.

    Raises
    ------
    ConfigError
        The text has another form; it says which one is meant.

    Examples
    --------
    >>> parse_field("update.v_up=0.01,0.1").values
    (0.01, 0.1)
    >>> parse_field("array.rows+array.cols=log(16, 256, 5)").values
    (16, 32, 64, 128, 256)
    >>> parse_field("seed=0:3")
    Field(paths=('seed',), values=(0, 1, 2))
    """
    names, sign, raw = text.partition("=")
    paths = tuple(path.strip() for path in names.split("+"))
    if not sign or not all(paths) or not raw.strip():
        raise ConfigError(
            f"field {text!r}: not of the form path=values; write for example update.v_up=0.01,0.1"
        )
    return Field(paths, parse_values(paths[0], raw.strip()))


def field_of(path: str, value: Any) -> Field:
    """Return the field of an entry of a TOML file: a list, one value, or a text as `parse_field` takes."""
    paths = tuple(part.strip() for part in path.split("+"))
    if isinstance(value, str):
        return Field(paths, parse_values(path, value))
    if isinstance(value, list):
        if not value:
            raise ConfigError(f"fields.{path}: an empty list; give at least one value")
        return Field(paths, tuple(value))
    return Field(paths, (value,))


def parse_values(field: str, raw: str) -> tuple[Any, ...] | Span:
    """Return the values that a text names; see `parse_field`."""
    if span := _SPAN.fullmatch(raw):
        return _span(field, raw, *span.groups())
    values: list[Any] = []
    for part in _split(raw):
        if whole := _RANGE.fullmatch(part):
            start, stop, step = (None if g is None else int(g) for g in whole.groups())
            found = range(start or 0, stop or 0, 1 if step is None else step or _no_step(field, part))
            if not 0 < len(found) <= _MOST:
                raise ConfigError(
                    f"{field}: {part!r} holds {len(found)} values; a range a:b runs from a up to b - 1: "
                    "write for example 0:5"
                )
            values.extend(found)
        else:
            values.append(_value(field, part))
    return tuple(values)


def _no_step(field: str, part: str) -> int:
    raise ConfigError(f"{field}: {part!r} has step 0; write for example 0:10:2")


def _span(field: str, raw: str, kind: str, inside: str) -> tuple[float, ...] | Span:
    try:
        numbers = [float(part) for part in inside.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3):
        raise ConfigError(
            f"{field}: {raw!r} is not {kind}(a, b, n) or {kind}(a, b); write {kind}(0.01, 1, 5)"
        )
    log = kind == "log"
    low = check_number(field, numbers[0], minimum=0.0 if log else -np.inf, open_minimum=log)
    high = check_number(field, numbers[1], minimum=low, open_minimum=True)
    span = Span(low, high, log)
    if len(numbers) == 2:
        return span
    count = check_integer(field, int(numbers[2]), minimum=2, maximum=_MOST)
    values = span.divided(count)
    if all(value.is_integer() for value in values) and "." not in inside and "e" not in inside:
        return tuple(int(value) for value in values)
    return values


def _split(raw: str) -> list[str]:
    """Split at commas outside quotes and brackets."""
    parts, depth, quote, start = [], 0, "", 0
    for k, letter in enumerate(raw):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(raw[start:k].strip())
            start = k + 1
    parts.append(raw[start:].strip())
    return parts


def _value(field: str, part: str) -> Any:
    """Return one value: TOML, a bare word for a text, ``none`` for none."""
    if not part:
        raise ConfigError(f"{field}: an empty value between commas; write for example 0.01,0.1")
    if part in ("none", "None"):
        return None
    try:
        table: Mapping[str, Any] = tomllib.loads(f"value = {part}")
    except tomllib.TOMLDecodeError:
        if part[0] in "[{\"'":
            raise ConfigError(f"{field}: {part!r} is not a TOML value; check quotes and brackets") from None
        return part
    return table["value"]
