"""Files that are whole or as they were, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write to, which becomes `path` when all is on the disk, and vanishes after an error.

    The name is this process's own: several may write the same file, and the last one is kept.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is whole or as it was."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")
