"""Plain data in and out of trees of frozen dataclasses; unions are tagged by one field.

A field's type hint says everything: a nested dataclass is a table, ``Annotated[A | B,
Tagged("kind", {...})]`` is a table whose ``kind`` picks the class, ``X | None`` may be absent.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from xbar_core._checks import check_number, nearest
from xbar_core.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Tagged:
    """A union of dataclasses told apart by one field.

    Parameters
    ----------
    tag : str
        The field that names the model, such as ``kind``.
    models : mapping of str to type
        The dataclass of every name.
    default : str or None
        The model of a table without the tag; None makes the tag obligatory.
    shorthand : str or None
        The model that a bare list stands for (its only field is that list).
    read_file : callable or None
        Turns a table with a ``path`` key into the same table with the content of that file.
    """

    tag: str
    models: Mapping[str, type]
    default: str | None = None
    shorthand: str | None = None
    read_file: Callable[[dict[str, Any], Path, str], dict[str, Any]] | None = None

    def name_of(self, model: object) -> str:
        """Return the tag of an instance of one of the models."""
        return next(name for name, kind in self.models.items() if kind is type(model))


def check_list(field: str, value: object, *, minimum: float, maximum: float) -> tuple[float, ...]:
    """Return a list of finite numbers within bounds as a tuple of floats."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ConfigError(f"{field}: {value!r} is not a list of numbers; write [0.1, 0.2]")
    return tuple(
        check_number(f"{field}[{k}]", item, minimum=minimum, maximum=maximum) for k, item in enumerate(value)
    )


def check_text(field: str, value: object) -> None:
    """Raise unless `value` is a text."""
    if not isinstance(value, str):
        raise ConfigError(f"{field}: {value!r} is not a text; put it in quotes")


@cache
def hints(model: type) -> dict[str, Any]:
    """Return the type of every field of a dataclass, with its annotations."""
    found = typing.get_type_hints(model, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(model)}


def split_hint(hint: Any) -> tuple[Any, Tagged | None]:
    """Return the type without None and Annotated, and the union's description if it is one."""
    tagged: Tagged | None = None
    while True:
        if typing.get_origin(hint) is Annotated:
            tagged = next((m for m in hint.__metadata__ if isinstance(m, Tagged)), tagged)
            hint = hint.__origin__
        elif typing.get_origin(hint) in (typing.Union, types.UnionType):
            inner = [a for a in typing.get_args(hint) if a is not type(None)]
            if len(inner) != 1:
                return hint, tagged
            hint = inner[0]
        else:
            return hint, tagged


def encode(value: Any, hint: Any) -> Any:
    """Return plain data (dict, list, str, numbers) for a value of a field of type `hint`."""
    tagged = split_hint(hint)[1]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if tagged is not None and tagged.shorthand == tagged.name_of(value):
            (only,) = dataclasses.fields(value)
            return _plain(getattr(value, only.name))
        table = {tagged.tag: tagged.name_of(value)} if tagged is not None else {}
        for name, field_hint in hints(type(value)).items():
            item = getattr(value, name)
            if item is not None:
                table[name] = encode(item, field_hint)
        return table
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def decode(data: Any, hint: Any, path: str, folder: Path) -> Any:
    """Return the value of type `hint` that plain `data` describes.

    Parameters
    ----------
    data : plain data
        What a TOML or JSON parser returned.
    hint : type
        A field's type hint.
    path : str
        Dotted path of the field, for error texts.
    folder : Path
        Where relative file paths start.

    Raises
    ------
    ConfigError
        An unknown key, an unknown tag, or a value that breaks its rule; the text starts with the path.
    """
    inner, tagged = split_hint(hint)
    if data is None:
        return None
    if tagged is not None:
        if tagged.shorthand is not None and isinstance(data, Sequence) and not isinstance(data, str):
            model = tagged.models[tagged.shorthand]
            return _build(model, {next(iter(hints(model))): data}, path, folder)
        if isinstance(data, tuple(tagged.models.values())):
            return data
        table = dict(_table(data, path))
        name = table.pop(tagged.tag, tagged.default)
        where = f"{path}.{tagged.tag}"
        listed = ", ".join(repr(known) for known in tagged.models)
        if name is None:
            raise ConfigError(f"{where}: missing; it names the model: use one of {listed}")
        if not isinstance(name, str) or name not in tagged.models:
            raise ConfigError(
                f"{where}: unknown value {name!r}{nearest(name, tagged.models)}; use one of {listed}"
            )
        if tagged.read_file is not None and "path" in table:
            table = tagged.read_file(table, folder, path)
        _name_strangers(table, tagged, name, path)
        return _build(tagged.models[name], table, path, folder)
    if dataclasses.is_dataclass(inner) and isinstance(inner, type):
        return data if isinstance(data, inner) else _build(inner, dict(_table(data, path)), path, folder)
    return data


def _table(data: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path}: {data!r} is not a table; write [{path}] with its keys below, or {{...}}")
    return data


def _name_strangers(table: Mapping[str, Any], tagged: Tagged, name: str, path: str) -> None:
    """Raise where a key belongs to another model of the union."""
    for key in table:
        owners = [other for other, model in tagged.models.items() if key in hints(model)]
        if owners and name not in owners:
            listed = " or ".join(repr(owner) for owner in owners)
            raise ConfigError(
                f"{path}.{key}: unknown key of {tagged.tag} = {name!r}; it belongs to {listed}: "
                f"set {path}.{tagged.tag} too, or leave it out"
            )


def _build(model: type, table: dict[str, Any], path: str, folder: Path) -> Any:
    """Construct a dataclass from a table, naming unknown and missing keys."""
    known = hints(model)
    prefix = f"{path}." if path else ""
    for key in table:
        if key not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(f"{prefix}{key}: unknown key{nearest(key, known)}; known keys: {listed}")
    for field in dataclasses.fields(model):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and table.get(field.name) is None:
            raise ConfigError(f"{prefix}{field.name}: missing; it has no default, give it a value")
    values = {
        key: decode(item, known[key], f"{prefix}{key}", folder)
        for key, item in table.items()
        if item is not None
    }
    try:
        return model(**values)
    except ConfigError as error:
        text = str(error)
        top = path.split(".")[0]
        if not path or text.startswith((f"{top}.", f"{top}:")):
            raise
        raise ConfigError(f"{path}.{text}") from error
