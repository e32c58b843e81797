"""The names that a run folder uses itself, beside a folder for each variant."""

from __future__ import annotations

from xbar_core.errors import ConfigError
from xbar_core.lab.tensorboard import FOLDER

NATIVE = "native"
"""The variant without a chip."""

RUN, METRICS, CURVES = "run.json", "metrics.csv", "curves.png"

_TAKEN = (RUN, METRICS, CURVES, FOLDER)


def check_variant(name: str, *, native: bool) -> None:
    """Raise unless a variant of this name can have a folder of its own in a run folder.

    Parameters
    ----------
    name : str
        Of the chip, or ``native``.
    native : bool
        Whether it has no chip.

    Raises
    ------
    ConfigError
        The name is no folder's, or the run folder uses it itself.
    """
    rename = "give the chip another name (its file's 'name')"
    if not name or name in (".", "..") or any(sign in name for sign in "/\\\0"):
        raise ConfigError(f"variants: {name!r} cannot name a folder; {rename}")
    if name.casefold() in _TAKEN:  # some file systems take both cases for one
        raise ConfigError(f"variants: {name!r} is a file or folder of the run itself; {rename}")
    if name.casefold() == NATIVE and not native:
        raise ConfigError(f"variants: {name!r} stands for training without a chip; {rename}")
