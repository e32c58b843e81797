"""One chip on one screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xbar_core.cli._models import model_name
from xbar_core.cli._terminal import engineering, table
from xbar_core.config import Chip, ChipSummary, summarize
from xbar_core.errors import ConfigError

UNITS = {
    "r_row": "ohm",
    "r_col": "ohm",
    "r_source": "ohm",
    "r_sense": "ohm",
    "r_min": "ohm",
    "r_max": "ohm",
    "v_read": "V",
    "offset_error": "A",
    "noise": "A",
    "t0": "s",
}
HEAD = ("name", "seed", "description", "sources")
BASICS = ("array.rows", "array.cols", "device.r_min", "device.r_max", "circuit.kind", "mapping.kind")
LEGEND = "p published, m measured, a assumed, u set by the user, no letter: default. --sources tells more."


def show_chip(chip: Chip, *, sources: bool) -> None:
    """Print values with their sources, then derived numbers, then the errors of the circuit models."""
    title = f"{chip.name} (seed {chip.seed})" + (f": {chip.description}" if chip.description else "")
    if sources:
        rows = [(path, value, source or "default") for path, value, source in _values(chip)]
        table(title, (("value", "left"), ("", "right"), ("source", "left")), rows)
    else:
        table(title, (("part", "left"), ("values", "left")), _parts(chip), LEGEND)
    try:
        summary = summarize(chip)
    except ConfigError as error:
        table("Derived numbers", (("", "left"),), [(str(error),)])
        return
    left, right = _device_numbers(chip), _array_numbers(summary)
    pairs = [(*a, *b) for a, b in zip(left, right, strict=True)]
    sides = (("device", "left"), ("", "right"), ("one full array", "left"), ("", "right"))
    table("Derived numbers", sides, pairs)
    columns = [(model_name(model), "right") for model, _ in summary.model_error]
    errors = ["0" if error < 1e-15 else f"{error:.1e}" for _, error in summary.model_error]
    table(
        "Expected error of each circuit model",
        columns,
        [errors],
        "max |error| / max |G_ni|, random conductances of this device; interpolated: after a 2 % change.",
    )


def _values(chip: Chip) -> Iterator[tuple[str, str, str]]:
    """Yield path, value and source of everything that differs from an ideal chip, and of the basics."""
    default = dict(_leaves(Chip().to_dict()))
    sources = chip.source_of
    for path, value in _leaves(chip.to_dict()):
        if path.split(".")[0] in HEAD:
            continue
        source = next((sources[p] for p in _prefixes(path) if p in sources), "")
        if default.get(path) != value or path in BASICS or source:
            yield path, _text(path, value), source
    if chip.update.pair is None:
        yield "update.pair", chip.pair, ""


def _parts(chip: Chip) -> list[tuple[str, str]]:
    """Return one row for each part: its values, each with the first letter of its source."""
    rows: dict[str, list[str]] = {}
    for path, value, source in _values(chip):
        part, _, name = path.partition(".")
        letter = "u" if source.startswith("set by") else source[:1]
        rows.setdefault(part, []).append(f"{name} {value}" + (f" ({letter})" if letter else ""))
    return [(part, ", ".join(values)) for part, values in rows.items()]


def _leaves(data: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        where = f"{path}{key}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{where}.")
        else:
            yield where, value


def _prefixes(path: str) -> Iterator[str]:
    """Yield the path and what lies above it, the longest first."""
    parts = path.split(".")
    for k in range(len(parts), 0, -1):
        yield ".".join(parts[:k])


def _text(path: str, value: Any) -> str:
    unit = UNITS.get(path.split(".")[-1], "")
    if isinstance(value, list):
        return str(value) if len(value) <= 4 else f"{len(value)} values"
    if isinstance(value, float):
        return engineering(value, unit) if unit and value else f"{value:.6g} {unit}".strip()
    return str(value)


def _device_numbers(chip: Chip) -> list[tuple[str, str]]:
    device, mapping = chip.device, chip.mapping
    return [
        ("g_min", engineering(device.g_min, "S")),
        ("g_max", engineering(device.g_max, "S")),
        ("on/off ratio", f"{device.on_off:.4g}"),
        ("levels used", "continuum" if mapping.device_levels is None else str(mapping.device_levels)),
        ("devices per weight", str(mapping.slices * (1 if mapping.kind == "offset" else 2))),
    ]


def _array_numbers(summary: ChipSummary) -> list[tuple[str, str]]:
    return [
        ("full-scale column current, ideal wires", engineering(summary.full_scale, "A")),
        ("column current at full drive, all devices on", engineering(summary.full_drive, "A")),
        ("voltage lost at the worst device, same state", f"{summary.worst_drop:.2%}"),
        ("mean voltage lost, random devices", f"{summary.typical_drop:.2%}"),
        ("power of that read", engineering(summary.power, "W")),
    ]
