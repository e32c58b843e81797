"""Which layers of a network go on which chip: names and patterns, for every framework."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from xbar_core._checks import nearest
from xbar_core.config import Chip
from xbar_core.errors import ConfigError

FIRST, LAST = "<first>", "<last>"


@dataclass
class Planned:
    """One layer of a network and what becomes of it.

    Attributes
    ----------
    native : Module or Layer
        The native layer.
    names : list of str
        All its names in the model.
    twin : type or None
        Its layer on crossbars, None where there is none.
    chip : Chip or None
        Its chip; None where it stays digital.
    note : str
        Why it stays digital, or what it is tied to.
    signed_input : bool
        Whether its inputs can be negative.
    """

    native: Any
    names: list[str]
    twin: Any = None
    chip: Any = None
    note: str = ""
    signed_input: bool = True

    @property
    def name(self) -> str:
        """The first name."""
        return self.names[0]

    @property
    def on_chip(self) -> bool:
        """Whether it goes on crossbars."""
        return self.twin is not None and self.chip is not None

    @property
    def listed(self) -> bool:
        """Whether a report lists it."""
        return True


E = TypeVar("E", bound=Planned)


def on_crossbars_already(name: str, layer: Any) -> ConfigError:
    """Return the error that says that a network has a layer on crossbars where a native one is wanted."""
    return ConfigError(
        f"model: layer {name or 'model'!r} ({type(layer).__name__}) is on crossbars already; "
        "convert the native model, or to_native(model)"
    )


def choose(
    entries: Sequence[Planned],
    overrides: Mapping[str, Chip | None],
    unsigned: str | Iterable[str],
    *,
    kind: str = "layer",
    names: str = "names of its layers",
) -> None:
    """Give the entries the chips and signs that patterns ask for; later patterns win.

    Parameters
    ----------
    entries : sequence of Planned
        In the order of the model, each with the chip that it has without a pattern.
    overrides : mapping of str to Chip or None
        By pattern: a name, or one with wildcards, of a layer or of what it is in; `FIRST` or `LAST` of the
        layers that can go on crossbars. None keeps it digital.
    unsigned : str or iterable of str
        Patterns of layers whose inputs cannot be negative.
    kind, names : str
        What the framework calls a layer, and where its name is found.

    Raises
    ------
    ConfigError
        Nothing can go on crossbars; a pattern is no string, matches nothing, or asks for a chip for what
        cannot go on crossbars.
    """
    if all(entry.twin is None for entry in entries):
        why = [
            f"{entry.name or 'model'!r} ({type(entry.native).__name__}): {entry.note}"
            for entry in entries
            if entry.listed
        ]
        raise ConfigError(
            f"model: nothing in it can go on crossbars: {'; '.join(why[:3])}; "
            "give a network with linear, convolution, recurrent or attention layers"
        )
    words = kind, names
    for pattern in _patterns("overrides", overrides):
        choice = overrides[pattern]
        for entry in _matched("overrides", pattern, entries, words, explicit=choice is not None):
            entry.chip = choice
            if entry.twin is not None:
                entry.note = "" if choice is not None else f"kept digital by {pattern!r}"
    for pattern in _patterns("unsigned", unsigned):
        for entry in _matched("unsigned", pattern, entries, words, explicit=True):
            entry.signed_input = False


def _patterns(field: str, given: object) -> Iterator[str]:
    """Yield patterns, one or several."""
    if not isinstance(given, Iterable):
        raise ConfigError(f"{field}: {_with_type(given)}; give a pattern, or several in a list")
    for pattern in (given,) if isinstance(given, str) else given:
        if not isinstance(pattern, str):
            raise ConfigError(f"{field}: {_with_type(pattern)}; give a pattern, a string")
        yield pattern


def _with_type(value: object) -> str:
    return f"{value!r} is no string but of type {type(value).__name__}"


def _matched(
    field: str, pattern: str, entries: Sequence[E], words: tuple[str, str], *, explicit: bool
) -> list[E]:
    """Return the entries that a pattern matches, itself or by a layer that they are in."""
    able = [entry for entry in entries if entry.twin is not None]
    if pattern in (FIRST, LAST):
        return [able[0 if pattern == FIRST else -1]]
    found = [
        entry
        for entry in entries
        if any(fnmatchcase(name, pattern) for each in entry.names for name in _ancestors(each))
    ]
    if not found:
        known = [name for entry in entries for name in entry.names if name]
        raise ConfigError(
            f"{field}: pattern {pattern!r} matches no {words[0]} of the model{nearest(pattern, known)}; "
            f"use {words[1]}, with wildcards * and ?"
        )
    literal = not any(character in pattern for character in "*?[")
    if explicit and literal and not any(entry.twin is not None for entry in found):
        first = found[0]
        raise ConfigError(
            f"{field}: {pattern!r} ({type(first.native).__name__}) cannot go on crossbars: "
            f"{first.note or 'nothing in it can'}; leave it out"
        )
    return found


def _ancestors(name: str) -> Iterator[str]:
    """Yield a name and the names of all layers that it is in; of the model, its own empty one alone."""
    yield name
    while name := name.rpartition(".")[0]:
        yield name
