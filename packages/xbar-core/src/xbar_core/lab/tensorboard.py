"""The log of a run as event files that TensorBoard shows; no package is needed to write them.

A file is a row of records (length, its checksum, bytes, their checksum); a record is one ``Event`` message
in the wire format of protocol buffers, of which four fields are used.

References
----------
TensorFlow, ``core/lib/io/record_writer.cc`` (records), ``core/util/event.proto`` and
``core/framework/summary.proto`` (messages); M. Castagnoli et al., IEEE Trans. Commun. 41(6), 1993 (CRC-32C).
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path

from xbar_core.lab.comparison import Epoch

FOLDER, EVENTS = "tensorboard", "events.out.tfevents.0.xbar"
_TAGS = {
    "loss": "loss/training",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/training",
    "accuracy": "accuracy/test",
    "rate": "training/rate",
    "seconds": "training/seconds",
    "saturated": "chip/saturated_writes",
    "at_end": "chip/devices_at_end",
    "clipped": "chip/clipped_conversions",
    "distortion": "chip/wire_distortion",
}


def write_board(folder: Path, epochs: list[Epoch]) -> None:
    """Write one event file for each variant under ``tensorboard/`` in a run folder, whole or as it was.

    Parameters
    ----------
    folder : Path
        The run folder.
    epochs : list of Epoch
        The log so far: files are written anew, so that a resumed run shows every epoch once.
    """
    for variant in dict.fromkeys(epoch.variant for epoch in epochs):
        path = folder / FOLDER / variant
        path.mkdir(parents=True, exist_ok=True)
        file = path / EVENTS
        part = path / ".events.part"
        data = _record(_event(0, _bytes(3, b"brain.Event:2")))
        for epoch in epochs:
            if epoch.variant == variant:
                data += _record(_event(epoch.epoch, _bytes(5, _summary(epoch))))
        try:
            part.write_bytes(data)
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)


def _summary(epoch: Epoch) -> bytes:
    numbers = asdict(epoch)
    values = (
        _bytes(1, tag.encode()) + _key(2, 5) + struct.pack("<f", float(numbers[name]))
        for name, tag in _TAGS.items()
    )
    return b"".join(_bytes(1, value) for value in values)


def _event(step: int, what: bytes) -> bytes:
    return _key(1, 1) + struct.pack("<d", time.time()) + _key(2, 0) + _varint(step) + what


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked(length) + data + _masked(data)


def _masked(data: bytes) -> bytes:
    """Return the CRC-32C of some bytes, rotated and shifted as the record format asks."""
    table, found = _crc_table(), 0xFFFFFFFF
    for byte in data:
        found = table[(found ^ byte) & 0xFF] ^ found >> 8
    found ^= 0xFFFFFFFF
    return struct.pack("<I", ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)
