"""Which points of a study are computed here: those asked for, and those whose data are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from xbar_core._checks import check_integer, nearest
from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab.sweep.fields import Field
from xbar_core.lab.sweep.points import Point, text_of
from xbar_core.lab.sweep.training import check_training
from xbar_core.lab.trainer import Recipe


class NothingToRun(ConfigError):
    """Not one point of a study can be computed here, or has the labels asked for; another study's may."""


def changed(point: Point, changes: Sequence[Field]) -> Point:
    """Return a point that trains with some fields of its recipe, or its ``limit``, changed."""
    recipe = point.setup.recipe
    known = [each.name for each in fields(Recipe)]
    values: dict[str, Any] = {}
    for field in changes:
        if field.name not in (*known, "limit"):
            raise ConfigError(
                f"set: {field.name!r} is no field of the recipe{nearest(field.name, [*known, 'limit'])}; "
                f"use one of {', '.join(known)}, limit"
            )
        values[field.name] = only_value(field)
    limit = values.pop("limit", point.setup.limit)
    if limit is not None:
        check_integer("limit", limit, minimum=1)
    if recipe is None:
        return point
    return replace(point, setup=replace(point.setup, recipe=replace(recipe, **values), limit=limit))


def only_value(field: Field) -> Any:
    """Return the value of a field that must have exactly one."""
    if not isinstance(field.values, tuple) or len(field.values) != 1:
        raise ConfigError(f"set: {field.name} has several values; give one, or use xbar sweep")
    return field.values[0]


def listed(field: Field) -> str:
    """Return the values of a field as people write them."""
    return ", ".join(map(text_of, field.values)) if isinstance(field.values, tuple) else str(field.values)


def selected(points: Sequence[Point], only: Sequence[Field]) -> list[Point]:
    """Return the points whose labels have one of the values asked for.

    Raises
    ------
    NothingToRun
        There is none.
    """
    chosen = list(points)
    for field in only:
        labels = list(dict.fromkeys(name for point in points for name in point.values))
        if field.name not in labels:
            raise NothingToRun(
                f"only: no point has a label {field.name!r}{nearest(field.name, labels)}; "
                f"use one of {', '.join(labels)}"
            )
        wanted = [text_of(value) for value in field.values] if isinstance(field.values, tuple) else []
        known = list(dict.fromkeys(text_of(p.values[field.name]) for p in points if field.name in p.values))
        for value in wanted:
            if value not in known:
                raise NothingToRun(
                    f"only: no point has {field.name} = {value}{nearest(value, known)}; "
                    f"there are {', '.join(known)}"
                )
        chosen = [point for point in chosen if text_of(point.values.get(field.name)) in wanted]
    if not chosen:
        raise NothingToRun("only: no point has all of these labels; leave one out")
    return chosen


def runnable(points: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """Return the points whose data sets and networks can be had, and remarks for the report.

    Remarks say what was left out and why, and what the data sets say of themselves, such as that only a
    part of one was found.

    Raises
    ------
    NothingToRun
        Not one point can be computed; the first reason.
    """
    kept: list[Point] = []
    remarks: list[str] = []
    first: ConfigError | ShapeError | None = None
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        setup = point.setup
        source: tuple[Any, ...] = () if setup.recipe is None else (setup.dataset, setup.limit)
        groups.setdefault(source, []).append(point)
    for key, group in groups.items():
        try:
            check_training([replace(point.setup, task="train") for point in group])
        except (ConfigError, ShapeError) as error:
            first = first or error
            # Only what is wrong: the rest tells about folders of this machine.
            why = str(error).partition(";")[0].rstrip(".")
            remarks.append(f"Left out, {len(group)} points on {key[0]}: {why}.")
            continue
        kept += group
        note = group[0].setup.load_data().note if key else ""
        if note:
            remarks.append(f"{note[:1].upper()}{note[1:]}.")
    if first is not None and not kept:
        raise NothingToRun(str(first)) from first
    return kept, list(dict.fromkeys(remarks))
