"""The processes of a data-parallel run, as ``torchrun`` tells them: environment only, no framework."""

from __future__ import annotations

import os


def place() -> tuple[int, int]:
    """Return which process this is, from 0 up, of how many that train together."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return (int(os.environ.get("RANK", "0")), processes) if processes > 1 else (0, 1)
