"""Checkpoints: one safetensors file each, whole or not there, with a checksum over everything in it.

A file holds the arrays of `Trainer.state` as tensors, and in its header's metadata ``facts``, a JSON text
(position, log, random keys), and ``digest``, a checksum over arrays and facts. Reading is parsing:
no code of the file is run.

Files are written beside their place, forced to the disk and renamed. Their blocks are set aside beforehand
and used again, one file of a fixed size after the other, so that a disk that fills up stops no checkpoint.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbar_core.errors import ConfigError
from xbar_core.lab._optional import optional
from xbar_core.lab.trainer import Arrays

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
_SPARE = ".spare-{}"
_MOST_BLANKS = 1 << 24  # a header that is too long is not read
_FILES = 4  # three with names, and one to write the next into


class CheckpointError(ConfigError):
    """A checkpoint is missing or damaged."""


class Checkpoint(NamedTuple):
    """What one file holds.

    Attributes
    ----------
    state : dict of str to array
        As from `Trainer.state`.
    facts : dict
        Plain data.
    """

    state: Arrays
    facts: dict[str, Any]


def encode(state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], size: int = 0) -> bytes:
    """Return the bytes of a checkpoint, at least `size` of them where 16 MiB of blanks in the header do."""
    text = json.dumps(facts, sort_keys=True)
    metadata = {"format": "xbar-checkpoint-1", "facts": text, "digest": _digest(state, text)}
    arrays = {name: np.asarray(array, order="C") for name, array in state.items()}
    data: bytes = optional("safetensors.numpy", "safetensors", "checkpoint").save(arrays, metadata)
    missing = min(-(-max(size - len(data), 0) // 8) * 8, _MOST_BLANKS)
    if not missing:
        return data
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length] + b" " * missing
    return (length + missing).to_bytes(8, "little") + header + data[8 + length :]


def decode(name: str, data: bytes) -> Checkpoint:
    """Return what the bytes of a checkpoint hold.

    Raises
    ------
    CheckpointError
        They are no complete checkpoint, or the checksum differs; `name` begins the text.
    """
    library = optional("safetensors", "safetensors", "checkpoint")
    try:
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        text, digest = metadata["facts"], metadata["digest"]
        arrays: Arrays = optional("safetensors.numpy", "safetensors", "checkpoint").load(data)
        facts = json.loads(text)
    except (ValueError, KeyError, TypeError, RecursionError, library.SafetensorError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise CheckpointError(f"{name}: is no complete checkpoint ({reason})") from error
    if _digest(arrays, text) != digest:
        raise CheckpointError(f"{name}: is damaged: its checksum is not that of its contents")
    return Checkpoint(arrays, facts)


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what a checkpoint file holds; see `decode`."""
    try:
        return decode(str(path), path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error


def _allocate(descriptor: int, size: int) -> None:
    """Give an open file blocks on the disk for `size` bytes."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    missing = size - os.fstat(descriptor).st_size
    while missing > 0:
        missing -= os.write(descriptor, bytes(min(missing, 1 << 20)))


def _digest(state: Mapping[str, NDArray[Any]], facts: str) -> str:
    found = hashlib.blake2b(facts.encode(), digest_size=16)
    for name in sorted(state):
        array = np.asarray(state[name], order="C")
        found.update(f"{name}\n{array.dtype.str}\n{array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


class Slots:
    """The checkpoints of one network in a folder: the last one, the one before it, and the best one.

    Parameters
    ----------
    folder : Path
        Made by `reserve` if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._size = 0

    def reserve(self, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], room: int) -> None:
        """Set aside blocks for all files of such a state, with `room` bytes for facts that grow.

        Raises
        ------
        OSError
            The disk has no room for them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._size = len(encode(state, facts)) + room
        needed = _FILES - sum((self.folder / name).exists() for name in (LAST, PREVIOUS, BEST))
        for path in list(self._spares())[needed:]:
            path.unlink()
        while len(list(self._spares())) < needed:
            self._unused().touch()
        for path in self._spares():
            with path.open("ab") as file:
                _allocate(file.fileno(), self._size)

    def write(self, state: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], *, best: bool) -> None:
        """Write the last checkpoint, and keep the one before it; write it as the best one, too, if it is.

        The best one comes first: whoever is killed between the two goes on from the last one before, reaches
        this state again and writes both.

        Raises
        ------
        OSError
            It could not be written; the last and the previous one are as they were.
        """
        data = encode(state, facts, self._size)
        last, previous = self.folder / LAST, self.folder / PREVIOUS
        if best:
            part = self._written(data)
            self._retire(self.folder / BEST)
            part.replace(self.folder / BEST)
        part = self._written(data)
        if last.exists():
            self._retire(previous)
            last.replace(previous)
        part.replace(last)
        self._settle()

    def read(self) -> tuple[Checkpoint | None, list[str]]:
        """Return the newest checkpoint that is whole, and what is wrong with those that are not."""
        wrong: list[str] = []
        for name in (LAST, PREVIOUS):
            if (self.folder / name).exists():
                try:
                    return read_checkpoint(self.folder / name), wrong
                except CheckpointError as error:
                    wrong.append(str(error))
        return None, wrong

    def free(self) -> None:
        """Give back the blocks that were set aside; for a network that has been trained to its end."""
        for path in self._spares():
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all files of this class."""
        self.free()
        for name in (LAST, PREVIOUS, BEST):
            (self.folder / name).unlink(missing_ok=True)

    def _spares(self) -> Iterator[Path]:
        return (path for path in sorted(self.folder.glob(_SPARE.format("*"))) if path.is_file())

    def _unused(self) -> Path:
        """Return a name for one more spare file."""
        names = (self.folder / _SPARE.format(number) for number in itertools.count())
        return next(name for name in names if not name.exists())

    def _written(self, data: bytes) -> Path:
        """Return a file with the bytes on the disk, made of blocks that were set aside if there are any."""
        part = next(self._spares(), self.folder / _SPARE.format(0))
        with part.open("r+b" if part.exists() else "xb") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        return part

    def _retire(self, path: Path) -> None:
        """Keep the blocks of a file that is about to be replaced."""
        if path.exists():
            path.replace(self._unused())

    def drop_last(self) -> None:
        """Take a damaged last checkpoint away, so that the next one does not push out the whole one."""
        self._retire(self.folder / LAST)

    def _settle(self) -> None:
        """Force the renamed names to the disk, where the system can."""
        try:
            handle = os.open(self.folder, os.O_RDONLY)
        except OSError:
            return
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
