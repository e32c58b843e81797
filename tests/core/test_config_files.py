"""Chip files, and the files that they name: read, foreign, truncated, missing, documented."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbar_core import ConfigError
from xbar_core.config import (
    Chip,
    Faults,
    JumpTableDevice,
    MeasuredCurve,
    TrackedRange,
    preset,
    preset_names,
)
from xbar_core.config._codec import hints, split_hint


def test_files_named_in_a_chip_file_are_read_beside_it(tmp_path: Path) -> None:
    """Relative paths start at the chip file's folder; the chip carries the content from then on."""
    (tmp_path / "curve.csv").write_text("x,y,remark\n-1,-1,a\n0,0.01,b\n1,1,c\n")
    (tmp_path / "up.csv").write_text(
        "G bins, CDF, dG\n1e-6,4e-6,9e-6\n0,1\n\n1e-8,2e-8,3e-8\n2e-8,3e-8,4e-8\n"
    )
    (tmp_path / "chip.toml").write_text(
        '[device]\nkind = "jump-table"\nup = { path = "up.csv" }\ndown = { path = "up.csv" }\n'
        '[adc]\nnonlinearity = { kind = "table", path = "curve.csv" }\n'
    )
    chip = Chip.from_toml(tmp_path / "chip.toml")
    assert chip.adc.nonlinearity == MeasuredCurve((-1.0, 0.0, 1.0), (-1.0, 0.01, 1.0), "curve.csv")
    assert isinstance(chip.device, JumpTableDevice)
    assert chip.device.up is not None
    assert chip.device.up.dg == ((1e-8, 2e-8), (2e-8, 3e-8), (3e-8, 4e-8))
    chip.to_toml(tmp_path / "copy.toml")
    (tmp_path / "curve.csv").unlink()
    (tmp_path / "up.csv").unlink()
    assert Chip.from_toml(tmp_path / "copy.toml") == chip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-6,2e-6\n0,1\n1e-8,2e-8\n", "holds 1 lines of [2] changes; expected 2 lines"),
        ("1e-6,2e-6\n0,1\n1e-8,2e-8\n1e-8\n", "the file may be truncated"),
        ("1e-6,2e-6\n0,1\n1e-8,abc\n1e-8,1e-8\n", "line 3, column 2: 'abc' is not a finite number"),
        ("", "is not a jump table"),
        (
            "2e-6,1e-6\n0,1\n1e-8,2e-8\n1e-8,2e-8\n",
            "device.up.conductance: must hold at least two values that rise",
        ),
        ("1e-6,2e-6\n0,1\n1e-8,2e-8\n1e-9,2e-8\n", "device.up.dg: a row falls along the cdf axis"),
    ],
)
def test_bad_jump_tables_are_named(text: str, expected: str, tmp_path: Path) -> None:
    """A foreign or truncated table raises with file, line and rule."""
    (tmp_path / "up.csv").write_text(text)
    with pytest.raises(ConfigError) as error:
        Chip().with_values(
            {"device": {"kind": "jump-table", "up": {"path": "up.csv"}, "down": {"path": "up.csv"}}},
            folder=tmp_path,
        )
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("chip.toml", b"name = 'x'\n[array\nrows = 3", "not a TOML file, or a truncated one"),
        ("chip.toml", b"\x89PNG\r\n\x1a\n\xff\xfe", "cannot be read as text"),
        ("chip.toml", b"", "the file is empty"),
        ("chip.json", b'{"name": "x", "array": {"rows": 3', "not a JSON file, or a truncated one"),
        ("chip.json", b"[1, 2]", "holds a list"),
        ("chip.toml", b"[tool.poetry]\nname = 'x'\n", "tool: unknown key"),
    ],
)
def test_foreign_and_truncated_files_are_named(name: str, content: bytes, text: str, tmp_path: Path) -> None:
    """A file that is no chip file raises ConfigError in one line, whatever it holds."""
    (tmp_path / name).write_bytes(content)
    read = Chip.from_json if name.endswith("json") else Chip.from_toml
    with pytest.raises(ConfigError) as error:
        read(tmp_path / name)
    assert text in str(error.value)


@settings(max_examples=60)
@given(cut=st.integers(0, 1500), data=st.data())
def test_a_truncated_chip_file_never_ends_in_another_error(
    cut: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any prefix of a chip file is a chip or a ConfigError."""
    text = preset(data.draw(st.sampled_from(preset_names()))).to_toml()
    path = tmp_path_factory.mktemp("cut") / "chip.toml"
    path.write_text(text[: min(cut, len(text))])
    try:
        Chip.from_toml(path)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_missing_files_and_presets_name_the_nearest(tmp_path: Path) -> None:
    """A mistyped name gets the nearest existing one."""
    (tmp_path / "chip.toml").write_text("name = 'x'")
    with pytest.raises(ConfigError, match="did you mean 'chip.toml'"):
        Chip.from_toml(tmp_path / "chip.tml")
    with pytest.raises(ConfigError, match="did you mean 'txsim-8bit'"):
        preset("txsim-8bits")


def test_the_documented_file_has_every_key_and_loads(tmp_path: Path) -> None:
    """The reference chip file of the documentation is a valid chip and names every field there is."""
    page = Path(__file__).parents[2] / "docs" / "guide" / "chip.md"
    text = next(block for block in page.read_text().split("```") if block.startswith("toml"))[4:]
    (tmp_path / "chip.toml").write_text(text)
    chip = Chip.from_toml(tmp_path / "chip.toml")
    assert chip.device.faults == Faults(0.001, 0.001, 0.0)
    assert chip.input.range == TrackedRange("percentile", 99.9, epochs=1)

    def fields(model: type) -> set[str]:
        found = set(hints(model))
        for hint in hints(model).values():
            inner, tagged = split_hint(hint)
            for part in [*tagged.models.values()] if tagged is not None else [inner]:
                if dataclasses.is_dataclass(part) and isinstance(part, type):
                    found |= fields(part)
        return found

    # Points of inline tables have their own section on the page of devices.
    inline = {"coefficients", "source", "conductance", "cdf", "dg"}
    for name in fields(Chip) - inline:
        assert re.search(rf"\b{name}\b", text), f"{name} is not in the documented chip file"
