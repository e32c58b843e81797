"""From values by path to a resolved point; every mistake is found here, before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from xbar_core._checks import check_integer, nearest
from xbar_core.config import Chip, load_chip
from xbar_core.config._codec import hints, split_hint
from xbar_core.errors import ConfigError
from xbar_core.lab.sweep.setup import Setup
from xbar_core.lab.sweep.tasks import Task
from xbar_core.lab.trainer import Recipe

NATIVE = "native"
"""The preset's name that means training without a chip."""
_NAMES = ("preset", "dataset", "framework")
_LIMIT = "limit"
_TASK, _CHIP, _TRAIN = "task.", "chip.", "train."


@dataclass(frozen=True)
class Base:
    """What all points share unless a field says otherwise.

    Parameters
    ----------
    task : Task
        What a point computes.
    preset : str
        Name of a preset, a chip file, or ``native``.
    dataset, framework : str
        As `Setup` takes them.
    recipe : Recipe
        How to train.
    data_folder : str or None
        Where data sets are.
    """

    task: Task
    preset: str = "txsim-8bit"
    dataset: str = "digits"
    framework: str = "torch"
    recipe: Recipe = field(default_factory=Recipe)
    data_folder: str | None = None


@dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Parameters
    ----------
    values : mapping
        What was asked for, by path.
    setup : Setup
        What that means.
    label : str
        The values that tell it from the other points, on one line.
    """

    values: Mapping[str, Any]
    setup: Setup
    label: str = "the only point"

    @property
    def key(self) -> str:
        """What its result is known by."""
        return self.setup.key


def text_of(value: Any) -> str:
    """Return a value as people write it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def labelled(points: Sequence[Point]) -> list[Point]:
    """Return the points with labels that leave out what all have in common."""
    seen: dict[str, set[str]] = {}
    for point in points:
        for path, value in point.values.items():
            seen.setdefault(path, set()).add(text_of(value))
    found = []
    for point in points:
        told = [f"{path}={text_of(v)}" for path, v in point.values.items() if len(seen[path]) > 1]
        found.append(replace(point, label=" ".join(told)) if told else point)
    return found


def make_point(base: Base, values: Mapping[str, Any]) -> Point:
    """Return the point of some values, its chip and recipe built and checked.

    Parameters
    ----------
    base : Base
        What the values change.
    values : mapping
        By path: dotted chip paths (also with ``chip.`` before them), fields of the recipe (also with
        ``train.``), ``seed`` (chip and training), ``preset``, ``dataset``, ``framework``,
        ``limit`` (samples), and ``task.NAME`` for the task's own arguments.

    Raises
    ------
    ConfigError
        An unknown path (with the nearest known one), a value out of range, an impossible chip.
    """
    chip_values: dict[str, Any] = {}
    recipe_values: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    options: dict[str, Any] = {}
    recipe_names = {each.name for each in fields(Recipe)}
    chip_names = set(hints(Chip))
    for path, value in values.items():
        head = path.partition(".")[0]
        if path in (*_NAMES, _LIMIT):
            rest[path] = value
        elif path == "seed":
            chip_values["seed"] = recipe_values["seed"] = value
        elif path.startswith(_TASK):
            options[_option(base.task, path)] = value
        elif path.startswith(_TRAIN) and path.removeprefix(_TRAIN) in recipe_names:
            recipe_values[path.removeprefix(_TRAIN)] = value
        elif path.startswith(_CHIP):
            chip_values[path.removeprefix(_CHIP)] = value
        elif path in recipe_names:
            recipe_values[path] = value
        elif head in chip_names and ("." in path or path not in recipe_names):
            chip_values[path] = value
        else:
            known = [*recipe_names, *chip_names, *_chip_paths(Chip), *_NAMES, _LIMIT, *_options(base.task)]
            raise ConfigError(
                f"{path}: unknown field{nearest(path, known)}; a field is a chip path such as update.v_up, "
                "a field of the recipe such as epochs, or one of seed, preset, dataset, framework, "
                "limit, task.NAME"
            )
    # `seed` sets both; one of its own wins over it.
    for path, table in (("chip.seed", chip_values), ("train.seed", recipe_values)):
        if path in values:
            table["seed"] = values[path]
    if not base.task.trains:
        _refuse_training(base.task, {*recipe_values, *rest} - {"seed", "preset"}, values)
    if rest.get(_LIMIT) is not None:
        check_integer(_LIMIT, rest[_LIMIT], minimum=1)
    for name in _NAMES:
        if name in rest and not isinstance(rest[name], str):
            raise ConfigError(f"{name}: {rest[name]!r} is not a name; write it as text")
    return Point(
        dict(values),
        Setup(
            task=base.task.name,
            chip=_chip(rest.get("preset", base.preset), chip_values),
            recipe=replace(base.recipe, **recipe_values) if base.task.trains else None,
            dataset=rest.get("dataset", base.dataset),
            framework=rest.get("framework", base.framework),
            limit=rest.get(_LIMIT),
            options=options,
            data_folder=base.data_folder,
        ),
    )


def _chip(preset: str, values: Mapping[str, Any]) -> Chip | None:
    if preset == NATIVE:
        # Native training knows no chip: a grid over presets may hold it, its chip values mean nothing.
        return None
    return load_chip(preset).with_values(values)


def _options(task: Task) -> list[str]:
    return [f"{_TASK}{name}" for name in task.options]


def _option(task: Task, path: str) -> str:
    known = _options(task)
    if path not in known:
        raise ConfigError(
            f"{path}: task {task.name!r} has no such argument{nearest(path, known)} "
            f"(it has: {', '.join(known) or 'none'})"
        )
    return path.removeprefix(_TASK)


def _refuse_training(task: Task, names: set[str], values: Mapping[str, Any]) -> None:
    for path in values:
        if path.removeprefix(_TRAIN) in names or path == "train.seed":
            raise ConfigError(f"{path}: task {task.name!r} does not train, so it means nothing; leave it out")


def _chip_paths(model: Any) -> Iterator[str]:
    """Yield every dotted path of a tree of dataclasses."""
    for path, _ in _chip_fields(model):
        yield path


def _chip_fields(model: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted path of a tree of dataclasses with its type."""
    for name, hint in hints(model).items():
        path = f"{before}{name}"
        inner, tagged = split_hint(hint)
        yield path, inner
        for part in tagged.models.values() if tagged is not None else [inner]:
            if is_dataclass(part):
                yield from _chip_fields(part, f"{path}.")
        if tagged is not None:
            yield f"{path}.{tagged.tag}", str


def takes_whole_numbers(task: Task, path: str) -> bool:
    """Whether a path takes whole numbers only: of the chip, the recipe or the task, or ``limit``.

    An argument of the task does if its annotation says so, or its default where there is none.
    """
    if path.startswith(_TASK):
        return _takes_int(task, path.removeprefix(_TASK))
    recipe = hints(Recipe)
    name = path.removeprefix(_TRAIN)
    if name in recipe:
        return bool(split_hint(recipe[name])[0] is int)
    found = [hint for known, hint in _chip_fields(Chip) if known == path.removeprefix(_CHIP)]
    return path == _LIMIT or (bool(found) and all(hint is int for hint in found))


def _takes_int(task: Task, name: str) -> bool:
    parameter = inspect.signature(task.function).parameters.get(name)
    if parameter is None:
        return False
    hint = parameter.annotation
    if hint is parameter.empty:
        hint = type(parameter.default)
    # A text is not evaluated: it may hold names that only a type checker knows.
    return hint in ("int", "int | None") or bool(split_hint(hint)[0] is int)
