"""A whole sweep as one description: from a TOML file, a command line or Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xbar_core._checks import check_integer, nearest
from xbar_core.config.loading import read_toml
from xbar_core.errors import ConfigError
from xbar_core.lab.sweep.design import assignments
from xbar_core.lab.sweep.fields import Field, Span, field_of
from xbar_core.lab.sweep.points import Base, Point, labelled, make_point, takes_whole_numbers
from xbar_core.lab.sweep.tasks import Task, find_task
from xbar_core.lab.trainer import Recipe


@dataclass(frozen=True)
class Plan:
    """What a sweep visits.

    Parameters
    ----------
    fields : tuple of Field
        What varies, and single values for what is fixed.
    task, preset, dataset, framework : str
        What all points share; see `Base` and `find_task`.
    design : {"grid", "random", "latin"}
        How fields become points; see `assignments`.
    samples : int or None
        Settings to draw, with a random or Latin design.
    design_seed : int
        Seed of those draws.
    chips : int or None
        Monte-Carlo: every setting on this many chips, seeds 0 to chips - 1; the training keeps its seed.
        With several seeds, too, each of them meets the same chips; see `estimate_crossed`.
    listed : tuple of dict
        Points given one by one, values by path; each is combined with all `fields`.
    data_folder : str or None
        Where data sets are.
    """

    fields: tuple[Field, ...] = ()
    task: str = "train"
    preset: str = "txsim-8bit"
    dataset: str = "digits"
    framework: str = "torch"
    design: str = "grid"
    samples: int | None = None
    design_seed: int = 0
    chips: int | None = None
    listed: tuple[dict[str, Any], ...] = ()
    data_folder: str | None = None

    def with_fields(self, fields: Sequence[Field]) -> Plan:
        """Return a plan in which fields of the same name are replaced and others added."""
        named = {field.name: field for field in (*self.fields, *fields)}
        return replace(self, fields=tuple(named.values()))

    def points(self) -> list[Point]:
        """Return all points, every chip and recipe built and checked.

        Raises
        ------
        ConfigError
            The first mistake found; it names the point's values where one point is at fault.
        """
        task = find_task(self.task)
        base = Base(
            task,
            self.preset,
            self.dataset,
            self.framework,
            Recipe(),
            self.data_folder,
        )
        fields = [_whole(task, field) for field in self.fields]
        if self.chips is not None:
            count = check_integer("chips", self.chips, minimum=1, maximum=100_000)
            fields.append(Field(("chip.seed",), tuple(range(count))))
        made = assignments(fields, self.design, samples=self.samples, seed=self.design_seed)
        points = []
        for entry in self.listed or ({},):
            for path in entry:
                if any(path in field.paths for field in fields):
                    raise ConfigError(f"points: {path} is in the fields, too; keep it in one of them")
            for values in made:
                points.append(_point(base, {**entry, **values}))
        return labelled(points)


def read_plan(path: str | Path) -> Plan:
    """Read a sweep file: keys of `Plan`, a table ``fields``, or a list of tables ``points``.

    Raises
    ------
    ConfigError
        No such file, no TOML, an unknown key.
    """
    table = read_toml(path)
    known = ("fields", "points", *_PLAIN)
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: {key}: unknown key{nearest(key, known)}; use {', '.join(known)}")
    fields = table.get("fields", {})
    listed = table.get("points", [])
    if not isinstance(fields, dict):
        raise ConfigError(
            f"{path}: fields: is not a table; write [fields] and lines such as 'update.v_up' = [...]"
        )
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise ConfigError(f"{path}: points: is not a list of tables; write [[points]] before each")
    plain = {name: table[name] for name in _PLAIN if name in table}
    for name, kind in _PLAIN.items():
        if name in plain and (not isinstance(plain[name], kind) or isinstance(plain[name], bool)):
            raise ConfigError(f"{path}: {name}: {plain[name]!r} is not a {kind.__name__}")
    return Plan(
        fields=tuple(field_of(name, value) for name, value in _flat(fields)),
        listed=tuple(dict(_flat(entry)) for entry in listed),
        **plain,
    )


_PLAIN: dict[str, type] = {
    "task": str,
    "preset": str,
    "dataset": str,
    "framework": str,
    "design": str,
    "samples": int,
    "design_seed": int,
    "chips": int,
}


def _flat(table: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Return values by dotted path: ``update.v_up`` may be a quoted key or a table in a table."""
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            found += _flat(value, f"{before}{key}.")
        else:
            found.append((f"{before}{key}", value))
    return found


def _whole(task: Task, field: Field) -> Field:
    """Return the field with a span of whole numbers where it takes no others and both ends are whole."""
    span = field.values
    if not isinstance(span, Span) or not any(takes_whole_numbers(task, path) for path in field.paths):
        return field
    if not (float(span.low).is_integer() and float(span.high).is_integer()):
        return field
    return replace(field, values=replace(span, whole=True))


def _point(base: Base, values: dict[str, Any]) -> Point:
    try:
        return make_point(base, values)
    except ConfigError as error:
        varied = " ".join(f"{path}={value}" for path, value in values.items())
        raise ConfigError(f"{error} (point {varied})" if varied else str(error)) from error
