"""The screen of a training: plain lines, or one live line in a terminal; nothing for other processes."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("rich", reason="the command line needs rich (the extra 'cli')")

from xbar_core.cli import _train_screen
from xbar_core.cli._train_screen import TrainScreen, show_result
from xbar_core.lab.comparison import Comparison, Epoch
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.run import RunResult
from xbar_core.lab.trainer import LayerHealth
from xbar_core.lab.training import Note, Progress
from xbar_core.lab.watch import suspect

AT = Progress("chip", 2, 5, 3, 10, 0.5, 0.25, 1234.0, 75.0)
EPOCH = Epoch("chip", 2, 0.5, 0.25, 0.75, 0.6, 4.0, 0.1, 7, 0.011, 0.14, 0.2)
LAYER = LayerHealth("fc1", 0.01, 0.01, 0.1)


def test_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs and notes at once; steps only every half minute; no control characters."""
    with TrainScreen() as screen:
        screen(AT)
        screen(EPOCH)
        screen(Note("", "something"))
        monkeypatch.setattr(_train_screen, "_QUIET", 0.0)
        screen(AT)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "          chip  epoch   2  loss   0.5000  accuracy  75.00%    4.00 s   1,234 images/s  "
        "7 writes saturated, 1.1% at an end, 14% clipped, 20% by wires",
        "note: something",
        "          chip  epoch   2 of 5  step     3 of 10  loss 0.5000  accuracy 25.00%  1,234 images/s  "
        "1 min 15 s left",
    ]


def test_exploded_numbers_stay_short(capsys: pytest.CaptureFixture[str]) -> None:
    """A loss of 31 digits and a share of all devices fit their columns."""
    TrainScreen()(replace(EPOCH, loss=3.56e30, at_end=1.0))
    shown = capsys.readouterr().out
    assert "loss 3.56e+30  accuracy" in shown
    assert "100% at an end" in shown


def test_native_epochs_say_nothing_of_a_chip(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a chip the line ends with the speed."""
    TrainScreen()(replace(EPOCH, saturated=0, at_end=0.0, clipped=0.0, distortion=0.0))
    assert capsys.readouterr().out.endswith("images/s\n")


def test_live_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the step's line is drawn again and again, epochs stay above it."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(_train_screen, "_REFRESH", 0.0)
    with TrainScreen() as screen:
        for step in range(1, 4):
            screen(replace(AT, step=step))
        screen(EPOCH)
    shown = capsys.readouterr().out
    assert "\x1b[" in shown
    assert shown.count("1 min 15 s left") >= 3
    assert "accuracy  75.00%" in shown


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the first of several processes shows anything."""
    with TrainScreen(quiet=True) as screen:
        for event in (AT, EPOCH, Note("chip", "x")):
            screen(event)
    assert capsys.readouterr().out == ""


def test_table_of_a_diverged_variant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variant that ended early is marked and compared with nothing."""
    monkeypatch.setenv("COLUMNS", "120")
    rows = [replace(EPOCH, variant="native", epoch=1), replace(EPOCH, variant="native"), EPOCH]
    show_result(RunResult(Comparison("digits", Recipe(epochs=2), rows), {"chip": "x"}), "native")
    shown = capsys.readouterr().out
    (line,) = (line for line in shown.splitlines() if "chip (diverged)" in line)
    cells = [cell.strip() for cell in line.split("│")]
    assert cells[1:7] == ["chip (diverged)", "75.00%", "-", "0.5000", "4.0 s", "-"]
    assert "after 2 epochs" in shown


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"saturated": 0.3}, "layer 'fc1', states: 30% of its devices are at an end"),
        ({"clipped": 0.2}, "layer 'fc1', read: 20% of its conversions exceed"),
        ({"distortion": 0.5}, "layer 'fc1', read: wires change its matrix by 50%"),
        ({}, "no layer's devices, converters or wires stand out"),
    ],
)
def test_suspect(change: dict[str, float], wanted: str) -> None:
    """The first layer with a conspicuous number is named, with the stage."""
    assert wanted in suspect([LayerHealth("conv", 0.0, 0.0, 0.0), LAYER._replace(**change)])
    assert suspect([]) == "try another learning rate"
