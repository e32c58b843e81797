"""Presets: chip files that come with the package."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from xbar_core._checks import nearest
from xbar_core.config.loading import apply_overrides
from xbar_core.config.schema import Chip
from xbar_core.errors import ConfigError


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    folder = resources.files("xbar_core.config") / "presets"
    files = (file.name for file in folder.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml")))


def preset(name: str) -> Chip:
    """Return a preset chip by name.

    Raises
    ------
    ConfigError
        No preset has this name; the text gives the nearest one.
    """
    known = preset_names()
    if name not in known:
        listed = ", ".join(known)
        raise ConfigError(
            f"preset: unknown name {name!r}{nearest(name, known)}; known presets: {listed} "
            "(a chip file ends in .toml or .json)"
        )
    file = resources.files("xbar_core.config") / "presets" / f"{name}.toml"
    with resources.as_file(file) as path:
        return Chip.from_toml(path)


def load_chip(name: str | Path, overrides: Iterable[str] = ()) -> Chip:
    """Return a chip by preset name or chip file, with overrides applied.

    Parameters
    ----------
    name : str or Path
        A preset's name, or a ``.toml`` or ``.json`` file.
    overrides : iterable of str
        ``path=value`` strings; relative file names in them start at the working directory.

    Raises
    ------
    ConfigError
        No such preset or file, a file that is no chip file, or an impossible chip.
    """
    path = Path(name)
    if path.suffix == ".json":
        chip = Chip.from_json(path)
    elif path.suffix == ".toml":
        chip = Chip.from_toml(path)
    elif path.exists():
        raise ConfigError(
            f"chip: {str(name)!r} ends in {path.suffix or 'no suffix'}; a chip file ends in .toml or .json"
        )
    else:
        chip = preset(str(name))
    return apply_overrides(chip, overrides)
