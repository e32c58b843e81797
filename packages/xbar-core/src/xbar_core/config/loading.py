"""Chip files: TOML and JSON in and out, and values set by dotted path."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from xbar_core._checks import nearest
from xbar_core.config._codec import hints, split_hint
from xbar_core.errors import ConfigError

if TYPE_CHECKING:
    from xbar_core.config.schema import Chip

ABSENT = ("none", "None")
"""An override with this value takes an optional value away."""


def read_text(path: str | Path) -> str:
    """Return the text of a file; a missing, binary or foreign one is a ConfigError."""
    file = Path(path)
    if not file.is_file():
        near = nearest(file.name, (p.name for p in file.parent.iterdir())) if file.parent.is_dir() else ""
        raise ConfigError(
            f"{file}: no such file{near}; give the path of a chip file, or the name of a preset"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as text ({error}); a chip file is TOML or JSON") from error
    if not text.strip():
        raise ConfigError(f"{file}: the file is empty; a chip file holds at least a name")
    return text


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the tables of a TOML file."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not a TOML file, or a truncated one: {error}") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object of a JSON file."""
    try:
        data = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a JSON file, or a truncated one: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}; a chip file holds one object {{...}}")
    return data


def toml_text(data: Mapping[str, Any]) -> str:
    """Return plain data as TOML."""
    return tomli_w.dumps(data)


def json_text(data: Mapping[str, Any]) -> str:
    """Return plain data as indented JSON."""
    return json.dumps(data, indent=2) + "\n"


def write(path: str | Path | None, text: str) -> str:
    """Write `text` to `path` unless it is None, and return it."""
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def parse_override(text: str) -> tuple[str, Any]:
    """Return path and value of ``path=value``; the value is TOML, or a bare word for a text.

    Examples
    --------
    >>> parse_override("update.v_up=0.5")
    ('update.v_up', 0.5)
    >>> parse_override("circuit.kind=fcm")
    ('circuit.kind', 'fcm')
    """
    path, sign, raw = text.partition("=")
    path, raw = path.strip(), raw.strip()
    if not sign or not path or not raw:
        raise ConfigError(f"override {text!r}: not of the form path=value; write for example update.v_up=0.5")
    if raw in ABSENT:
        return path, None
    try:
        return path, tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        if raw[0] in "[{\"'":
            raise ConfigError(
                f"override {text!r}: {raw!r} is not a TOML value; check quotes and brackets"
            ) from None
        return path, raw


def apply_overrides(chip: Chip, overrides: Iterable[str], *, folder: str | Path = ".") -> Chip:
    """Return the chip with ``path=value`` strings applied, all at once and checked once.

    Raises
    ------
    ConfigError
        A string is not of that form, a path does not exist or is set twice, or the chip is impossible.
    """
    values: dict[str, Any] = {}
    for text in overrides:
        path, value = parse_override(text)
        if path in values:
            raise ConfigError(f"override {text!r}: {path} is set twice; keep one")
        values[path] = value
    return chip.with_values(values, folder=folder)


def set_values(chip: Chip, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the chip as plain data with values at dotted paths replaced.

    Shorter paths are set first, and tags before their neighbours: a new tag drops what its model
    does not know, then the other values are set.
    """
    data = chip.to_dict()
    model: type = type(chip)
    known = hints(model)

    def order(path: str) -> tuple[int, bool, str]:
        keys = path.split(".")
        return len(keys), keys[-1] not in ("kind", "rule", "encoding", "law", "mode"), path

    for path in sorted(values, key=order):
        _set(data, known, path.split("."), values[path], path)
        if path.split(".")[0] not in ("sources", "name", "seed", "description"):
            _forget_source(data["sources"], path)
    return data


def _set(data: dict[str, Any], known: Mapping[str, Any], keys: list[str], value: Any, path: str) -> None:
    """Set one value in nested tables, `known` being the field types of the table `data`."""
    done = path.split(".")[: len(path.split(".")) - len(keys)]
    head, rest = keys[0], keys[1:]
    where = ".".join([*done, head])
    if head not in known:
        # The decoder names an unknown key, with the model that it may belong to.
        data[head] = value
        return
    if done == [] and head == "sources":
        if not rest:
            raise ConfigError("sources: set one entry, as sources.<dotted path>")
        data["sources"][".".join(rest)] = value
        return
    inner, tagged = split_hint(known[head])
    if not rest:
        data[head] = value
        return
    model: Any = inner
    table = data.get(head)
    if tagged is not None:
        if rest == [tagged.tag]:
            # On a command line the word none means no value, but it is also the name of a noise law.
            name = "none" if value is None and "none" in tagged.models else value
            data[head] = _retag(table, tagged.models, tagged.tag, name)
            return
        if isinstance(table, list) and tagged.shorthand is not None:
            model = tagged.models[tagged.shorthand]
            table = {tagged.tag: tagged.shorthand, next(iter(hints(model))): table}
        name = (table or {}).get(tagged.tag, tagged.default)
        if name is None and not table:
            raise ConfigError(f"{path}: {where} is not set; set {where}.{tagged.tag} too")
        model = tagged.models.get(str(name))
        if model is None:
            # An unknown tag set just before: let the decoder name it.
            return
    if not hasattr(model, "__dataclass_fields__"):
        raise ConfigError(f"{path}: {where} is a plain value, it has nothing below it; set {where} itself")
    table = dict(table) if isinstance(table, dict) else {}
    _set(table, hints(model), rest, value, path)
    data[head] = table


def _retag(table: Any, models: Mapping[str, type], tag: str, value: Any) -> dict[str, Any]:
    """Return a table with a new tag and only the keys that the new model knows."""
    kept = table if isinstance(table, dict) else {}
    if kept.get(tag) == value:
        return dict(kept)
    model = models.get(value) if isinstance(value, str) else None
    known = hints(model) if model is not None else {}
    return {tag: value, **{key: item for key, item in kept.items() if key in known}}


def _forget_source(sources: dict[str, str], path: str) -> None:
    """Mark a changed value as the user's own where the chip tells the sources of its values."""
    covered = any(path == entry or path.startswith(f"{entry}.") for entry in sources)
    below = [entry for entry in sources if entry == path or entry.startswith(f"{path}.")]
    for entry in below:
        del sources[entry]
    if covered or below:
        sources[path] = "set by the user"
