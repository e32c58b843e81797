"""The chip commands: what people see, and one line with exit code 2 for bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from xbar_core.cli import main
from xbar_core.config import Chip, JumpTableDevice, load_chip, preset, preset_names, summarize

pytest.importorskip("typer", reason="the command line needs the extra 'cli'")


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def curves(path: Path) -> Path:
    """Write five noiseless cycles of an exponential device."""
    rows = ["cycle,direction,pulse,conductance"]
    for cycle in range(5):
        for p in range(21):
            rows.append(f"{cycle},up,{p},{1e-6 + 9e-6 * (1 - 0.9**p) / (1 - 0.9**20):.9e}")
            rows.append(f"{cycle},down,{p},{1e-5 - 9e-6 * (1 - 0.9**p) / (1 - 0.9**20):.9e}")
    path.write_text("\n".join(rows))
    return path


def test_presets_lists_every_preset(capsys: pytest.CaptureFixture[str]) -> None:
    """One row for each name that preset() knows."""
    assert main(["presets"]) == 0
    printed = capsys.readouterr().out
    for name in preset_names():
        assert name in printed


@pytest.mark.parametrize("name", preset_names())
def test_show_fits_one_screen_and_states_derived_numbers(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """At most 45 lines with on/off ratio, currents, wire drop and the error of every model."""
    assert main(["show", name]) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) <= 45
    for word in ("on/off ratio", "full-scale column current", "voltage lost", "AAM order 1", "anchored"):
        assert word in printed


def test_show_numbers_are_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """640 uA = 64 rows x 10 uS x 1 V, and the model errors are those of summarize()."""
    assert main(["show", "txsim-8bit"]) == 0
    printed = capsys.readouterr().out
    assert "640 uA" in printed
    for _, error in summarize(preset("txsim-8bit")).model_error:
        assert f"{error:.1e}" in printed


def test_show_sources_marks_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """--sources prints the source of each value; a value set here is the user's."""
    assert main(["show", "txsim-8bit", "--sources", "--set", "device.r_min=2e5"]) == 0
    printed = capsys.readouterr().out
    assert "set by the user" in printed
    assert "assumed: the paper gives none" in printed
    assert "published: Roy" in printed


def test_show_writes_a_chip_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A preset with one value changed becomes a chip file that loads as that chip."""
    out = tmp_path / "mine.toml"
    assert main(["show", "ag-si", "--set", "update.v_up=0.5", "--out", str(out)]) == 0
    assert Chip.from_toml(out) == load_chip("ag-si", ["update.v_up=0.5"])
    capsys.readouterr()
    assert main(["show", str(out)]) == 0
    assert "v_up 0.5 (u)" in capsys.readouterr().out


def test_device_prints_the_curve_and_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both directions from end to end, the label, and a figure."""
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    figure = tmp_path / "curve.png"
    assert main(["device", "ag-si", "--figure", str(figure)]) == 0
    printed = capsys.readouterr().out
    assert "38.5 nS" in printed
    assert "2.4 / -4.88" in printed
    assert figure.stat().st_size > 10_000


@pytest.mark.parametrize("jump_table", [False, True])
def test_device_fit_writes_a_chip_file(
    jump_table: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Curves in, chip file and figure out; the chip keeps the rest of the named one."""
    pytest.importorskip("matplotlib", reason="figures need the extra 'plots'")
    out, figure = tmp_path / "chip.toml", tmp_path / "fit.svg"
    arguments = ["device", "txsim-8bit", "--fit", str(curves(tmp_path / "a.csv"))]
    arguments += ["--jump-table"] if jump_table else []
    assert main([*arguments, "--out", str(out), "--figure", str(figure)]) == 0
    assert "R^2" in capsys.readouterr().out
    chip = Chip.from_toml(out)
    assert chip.wires == preset("txsim-8bit").wires
    assert isinstance(chip.device, JumpTableDevice) is jump_table
    assert jump_table or chip.update.v_up == pytest.approx(2.107, abs=2e-3)
    assert figure.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "txsin"], "did you mean 'txsim'"),
        (["show", "missing.toml"], "no such file"),
        (["show", "a.csv"], "a chip file ends in .toml or .json"),
        (["show", "foreign.toml"], "not a TOML file"),
        (["show", "txsim", "--set", "array.row=3"], "did you mean 'rows'"),
        (["show", "txsim", "--set", "array"], "not of the form path=value"),
        (["show", "txsim", "--out", "chip.yaml"], "ends in .yaml"),
        (["device"], "chip: missing"),
        (["device", "txsim", "--out", "chip.toml"], "add it"),
        (["device", "txsim", "--pulses", "0"], "pulses: 0 is out of range"),
        (["device", "--fit", "foreign.toml"], "has no column 'cycle'"),
        (["device", "--fit", "none.csv"], "no file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line on stderr, nothing written, code 2."""
    monkeypatch.chdir(tmp_path)
    curves(tmp_path / "a.csv")
    (tmp_path / "foreign.toml").write_text("%PDF-1.4 [[[")
    before = sorted(tmp_path.iterdir())
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_an_existing_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --force no file is overwritten, and nothing is computed first."""
    out = tmp_path / "chip.toml"
    out.write_text("mine")
    assert main(["show", "ideal", "--out", str(out)]) == 2
    assert "add --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["show", "ideal", "--out", str(out), "--force"]) == 0
    assert Chip.from_toml(out) == preset("ideal")
