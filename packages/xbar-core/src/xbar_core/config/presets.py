"""Presets: chip files that come with the package."""

from __future__ import annotations

import tomllib
from importlib import resources

from xbar_core._checks import nearest
from xbar_core.config.schema import Chip
from xbar_core.errors import ConfigError


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, sorted."""
    folder = resources.files("xbar_core.config") / "presets"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


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
    return Chip.from_dict(tomllib.loads(file.read_text(encoding="utf-8")))
