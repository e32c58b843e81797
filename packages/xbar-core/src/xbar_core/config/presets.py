"""Presets: chip files that come with the package."""

from __future__ import annotations

from importlib import resources

from xbar_core._checks import nearest
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
        raise ConfigError(f"preset: unknown name {name!r}{nearest(name, known)}; known presets: {listed}")
    file = resources.files("xbar_core.config") / "presets" / f"{name}.toml"
    with resources.as_file(file) as path:
        return Chip.from_toml(path)
