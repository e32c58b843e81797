"""The `xbar` command: what it writes, what it says, and what it leaves alone when the input is bad."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xbar_core import AAM, FCM, Interpolated, Wires, effective_conductance

pytest.importorskip("typer", reason="the extra xbar-core[cli] is not installed")
pytest.importorskip("rich", reason="the extra xbar-core[cli] is not installed")
pytest.importorskip("matplotlib", reason="the extra xbar-core[plots] is not installed")

import typer

from xbar_core.cli import main
from xbar_core.cli._models import parse_model

WIRES = ("--r-row", "1", "--r-col", "4.6", "--r-source", "500", "--r-sense", "100")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one 6x5 array: g.npy and g.csv in siemens, r.csv in ohm."""
    resistance = np.random.default_rng(0).uniform(1e4, 1e5, (6, 5))
    np.save(tmp_path / "g.npy", 1 / resistance)
    np.savetxt(tmp_path / "g.csv", 1 / resistance, delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "r.csv", resistance, delimiter=",", fmt="%.17g")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def exact(folder: Path) -> np.ndarray:
    return effective_conductance(np.load(folder / "g.npy"), Wires(1, 4.6, 500, 100))


@pytest.mark.parametrize("source", [("g.npy",), ("g.csv",), ("r.csv", "--ohms")], ids=" ".join)
@pytest.mark.parametrize("out", ["out.npy", "out.csv"])
def test_solve_writes_the_exact_matrix(folder: Path, source: tuple[str, ...], out: str) -> None:
    """Any input and output format carries the matrix of `effective_conductance` to the last digits."""
    assert main(["solve", *source, *WIRES, "--out", out]) == 0
    got = np.load(out) if out.endswith("npy") else np.loadtxt(out, delimiter=",")
    np.testing.assert_allclose(got, exact(folder), rtol=1e-12, atol=0)


def test_solve_keeps_float32_and_direction(folder: Path) -> None:
    """float32 in gives float32 out, and the backward matrix is (cols, rows)."""
    np.save("single.npy", np.load("g.npy").astype(np.float32))
    assert main(["solve", "single.npy", *WIRES, "--direction", "backward", "--out", "out.npy"]) == 0
    matrix = np.load("out.npy")
    assert matrix.dtype == np.float32
    assert matrix.shape == (5, 6)


def test_solve_reads_open_cells_in_ohms(folder: Path) -> None:
    """An infinite resistance is an open cell."""
    Path("open.csv").write_text("1e5,inf\ninf,1e5\n")
    assert main(["solve", "open.csv", "--ohms", "--out", "out.npy"]) == 0
    np.testing.assert_allclose(np.load("out.npy"), [[1e-5, 0], [0, 1e-5]], rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("fcm", FCM()),
        ("fcm:1e-6", FCM(1e-6)),
        ("aam", AAM(1)),
        ("aam:3", AAM(3)),
        ("interpolated:10", Interpolated(10)),
        ("interpolated:10:distortion", Interpolated(10, "distortion")),
    ],
)
def test_models_by_name(text: str, model: object) -> None:
    """The command line names every circuit model with its values."""
    assert parse_model(text) == model


@pytest.mark.parametrize("model", ["fcm", "aam:0", "ideal"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_solve_draws_a_map(folder: Path, model: str, direction: str) -> None:
    """--map writes an image for exact and approximate models and either direction."""
    argv = ["solve", "g.npy", *WIRES, "--model", model, "--direction", direction, "--map", "map.png"]
    assert main(argv) == 0
    assert Path("map.png").read_bytes().startswith(PNG)


def test_report_names_the_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The printed error of a model is the largest deviation over the largest entry of the exact matrix."""
    assert main(["solve", "g.npy", *WIRES, "--model", "aam:1", "--report"]) == 0
    approximate = effective_conductance(np.load("g.npy"), Wires(1, 4.6, 500, 100), AAM(1))
    error = np.abs(approximate - exact(folder)).max() / exact(folder).max()
    printed = capsys.readouterr().out
    assert re.search(rf"error of the model\W+{error:.2e}", printed), printed
    assert "iterations" in printed
    assert "source" in printed


@pytest.mark.parametrize(("direction", "driven"), [("forward", "rows"), ("backward", "columns")])
def test_report_of_a_read(
    folder: Path, capsys: pytest.CaptureFixture[str], direction: str, driven: str
) -> None:
    """The report gives what is sensed with all driven wires at 1 V, the sum of the matrix."""
    from xbar_core.cli._terminal import engineering

    assert main(["solve", "g.npy", *WIRES, "--direction", direction]) == 0
    matrix = effective_conductance(np.load("g.npy"), Wires(1, 4.6, 500, 100), direction=direction)
    printed = capsys.readouterr().out
    assert re.search(rf"all {driven} at 1 V\W+{engineering(matrix.sum(), 'A')} sensed", printed), printed
    assert re.search(r"\d+ iterations, residual \d", printed), printed


def test_compare_lists_every_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All circuit models appear, the exact one first and without error; the figure is written."""
    assert main(["compare", "g.npy", *WIRES, "--figure", "errors.png"]) == 0
    printed = capsys.readouterr().out
    names = [
        "FCM (exact)",
        "ideal",
        *(f"AAM order {k}" for k in range(4)),
        "interpolated distortion",
        "interpolated anchored",
    ]
    positions = [printed.index(name) for name in names]
    assert positions == sorted(positions)
    assert re.search(r"FCM \(exact\)\W+0 ", printed)
    assert Path("errors.png").read_bytes().startswith(PNG)


def test_comparison_orders_the_models(folder: Path) -> None:
    """More paths mean less error, on the way to the exact matrix; anchored reuse errs below 1e-2."""
    from xbar_core.cli._comparison import compare

    rows = {
        r.name: r for r in compare(np.load("g.npy"), Wires(1, 4.6, 500, 100), "forward", change=0.02, seed=0)
    }
    orders = [rows[f"AAM order {k}"].report.error for k in (1, 2, 3)]
    assert rows["ideal"].report.error > orders[0] > orders[1] > orders[2] > 0
    assert 0 < rows["interpolated anchored"].report.error < 1e-2


@pytest.mark.parametrize("voltages", ["0.5", "0.5,0.5,0.5,0.5,0.5,0.5", "v.npy", "v.csv"])
def test_netlist_takes_voltages_in_every_form(folder: Path, voltages: str) -> None:
    """One number, a list and files give the same netlist."""
    np.save("v.npy", np.full(6, 0.5))
    np.savetxt("v.csv", np.full(6, 0.5))
    assert main(["netlist", "g.npy", *WIRES, "--voltages", voltages, "--out", "a.cir"]) == 0
    text = Path("a.cir").read_text()
    assert len(re.findall(r"^Vin_\d+ .* 0\.5$", text, re.MULTILINE)) == 6
    assert len(re.findall(r"^Rcell_", text, re.MULTILINE)) == 30


def test_demo_writes_its_files_and_repeats_only_with_force(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`xbar demo` fills a new folder; a second run needs --force; the exact matrix is the array's."""
    assert main(["demo", "--out", "new/demo"]) == 0
    made = sorted(p.name for p in Path("new/demo").iterdir())
    assert made == [
        "array.cir",
        "conductance.npy",
        "distortion.png",
        "exact.npy",
        "model_errors.png",
        "power.png",
        "voltages.png",
    ]
    conductance = np.load("new/demo/conductance.npy")
    matrix = effective_conductance(conductance, Wires(1, 4.6, 500, 100))
    np.testing.assert_allclose(np.load("new/demo/exact.npy"), matrix, rtol=1e-8)
    capsys.readouterr()
    assert main(["demo", "--out", "new/demo"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["demo", "--out", "new/demo", "--force"]) == 0


def bad_files(folder: Path) -> None:
    """Write files that cannot be one array of conductances."""
    good = np.load("g.npy")
    for name, value in {"nan": np.nan, "negative": -1e-6, "inf": np.inf, "huge": 2e5}.items():
        bad = good.copy()
        bad[2, 3] = value
        np.save(f"{name}.npy", bad)
    np.save("half.npy", good.astype(np.float16))
    np.save("complex.npy", good.astype(complex))
    np.save("vector.npy", good[0])
    np.save("batch.npy", np.stack([good, good]))
    np.save("empty.npy", np.zeros((0, 5)))
    np.save("objects.npy", np.array([{}, {}]), allow_pickle=True)
    Path("truncated.npy").write_bytes(Path("g.npy").read_bytes()[:150])
    Path("cut-header.npy").write_bytes(Path("g.npy").read_bytes()[:20])
    Path("nothing.npy").touch()
    Path("noise.npy").write_bytes(bytes(range(256)) * 3)
    Path("nothing.csv").touch()
    Path("words.csv").write_text("1e-5,2e-5\n1e-5,hello\n")
    Path("ragged.csv").write_text("1e-5,2e-5\n1e-5\n")
    Path("binary.csv").write_bytes(bytes(range(256)))
    Path("nan.csv").write_text("1e-5,nan\n1e-5,1e-5\n")
    Path("zero.csv").write_text("1e5,0\n1e5,1e5\n")
    Path("g.txt").write_text("1e-5\n")
    Path("there.npy").touch()
    Path("there.png").touch()
    Path("folder.npy").mkdir()
    np.savez("archive.npz", good)
    Path("archive.npz").rename("archive.npy")


FILES = {
    "absent.npy": ("absent.npy", "does not exist"),
    "no/such.npy": ("no/such.npy", "does not exist"),
    "folder.npy": ("folder.npy", "cannot be read"),
    "g.txt": ("g.txt", ".npy or .csv"),
    "nan.npy": ("nan.npy[2, 3]", "nan S", "1e-15"),
    "negative.npy": ("negative.npy[2, 3]", "-1e-06 S", "1e-15"),
    "inf.npy": ("inf.npy[2, 3]", "inf S"),
    "huge.npy": ("huge.npy[2, 3]", "--ohms"),
    "r.csv": ("r.csv[0, 0]", "--ohms"),
    "half.npy": ("half.npy", "float16"),
    "complex.npy": ("complex.npy", "complex128"),
    "vector.npy": ("vector.npy", "(5,)"),
    "batch.npy": ("batch.npy", "(2, 6, 5)"),
    "empty.npy": ("empty.npy", "(0, 5)"),
    "objects.npy": ("objects.npy", "pickle"),
    "truncated.npy": ("truncated.npy", "not a complete npy file"),
    "cut-header.npy": ("cut-header.npy", "not a complete npy file"),
    "nothing.npy": ("nothing.npy", "not a complete npy file"),
    "noise.npy": ("noise.npy", "not a complete npy file"),
    "archive.npy": ("archive.npy", "archive"),
    "nothing.csv": ("nothing.csv", "no numbers"),
    "words.csv": ("words.csv", "hello"),
    "ragged.csv": ("ragged.csv", "columns"),
    "binary.csv": ("binary.csv", "not a complete csv file"),
    "nan.csv": ("nan.csv[0, 1]", "nan S"),
}
OPTIONS = {
    "--model fmc": ("model", "'fmc'", "did you mean 'fcm'"),
    "--model aam:x": ("order", "'x'", "whole number"),
    "--model aam:-1": ("circuit.order", "-1", "at least 0"),
    "--model aam:1:2": ("aam:1:2", "more values"),
    "--model fcm:2": ("circuit.rtol", "2.0", "0.1"),
    "--model interpolated": ("interpolated", "period"),
    "--model interpolated:4:anchor": ("circuit.reuse", "did you mean 'anchored'"),
    "--direction backwards": ("direction", "did you mean 'backward'"),
    "--r-row -1": ("wires.r_row", "-1.0", "at least 0"),
    "--r-col nan": ("wires.r_col", "nan"),
    "--r-source 1e-9": ("wires.r_source", "1e-06"),
    "--r-sense ten": ("--r-sense", "ten"),
    "--out there.npy": ("out", "there.npy", "--force"),
    "--out g.npy --force": ("out", "g.npy", "named twice"),
    "--out new.txt": ("out", "new.txt", ".csv"),
    "--out no/such/new.npy": ("out", "no/such", "does not exist"),
    "--out folder.npy": ("out", "folder.npy", "is a folder"),
    "--out new.npy --map there.png": ("map", "there.png", "--force"),
    "--out new.npy --map new.gif": ("map", "new.gif", ".png"),
    "--rrow 1": ("--rrow", "--help"),
}
COMMANDS = {
    "solve": ("FILE", "--help"),
    "slove g.npy": ("slove", "solve"),
    "solve zero.csv --ohms": ("zero.csv[0, 1]", "0.0 ohm", "inf"),
    "netlist g.npy --out a.cir": ("--voltages",),
    "netlist g.npy --voltages one --out a.cir": ("voltages", "'one'", "number"),
    "netlist g.npy --voltages 1,2 --out a.cir": ("voltages", "(2,)", "6"),
    "netlist g.npy --voltages nan --out a.cir": ("voltages", "nan"),
    "netlist g.npy --voltages g.npy --out a.cir": ("voltages", "(6, 5)"),
    "netlist g.npy --voltages absent.npy --out a.cir": ("absent.npy", "does not exist"),
    "netlist g.npy --voltages 1 --out a.txt": ("out", "a.txt", ".cir"),
    "compare g.npy --change 2": ("change", "2", "0.5"),
    "compare g.npy --seed -1": ("seed", "-1", "at least 0"),
    "compare g.npy --figure x.bmp": ("figure", "x.bmp", ".png"),
    "demo --out g.npy": ("out", "g.npy", "not a folder"),
    "demo --out g.npy/deeper": ("out", "g.npy", "not a folder"),
}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        *((f"solve {name} --out new.npy", words) for name, words in FILES.items()),
        *((f"solve g.npy {option}", words) for option, words in OPTIONS.items()),
        *COMMANDS.items(),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, words: tuple[str, ...]
) -> None:
    """Bad input: exit code 2, one line on stderr that names field, value and fix, no file touched."""
    bad_files(folder)
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert main(line.split()) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    assert streams.err.startswith("xbar: ")
    for word in words:
        assert word in streams.err, streams.err
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_folder_without_permission(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be written is found before any work, also by a user who may do all."""

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr("xbar_core.cli.circuit.effective_conductance", None)  # work would raise
    assert main(["solve", "g.npy", "--out", "new.npy"]) == 2
    error = capsys.readouterr().err
    assert "out: 'new.npy'" in error
    assert "Permission denied" in error


def test_failure_while_writing_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk: exit code 1, one line, the old file unharmed and no temporary file beside it."""
    Path("out.npy").write_bytes(b"old")

    def full(path: Path, array: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("xbar_core.cli.circuit.write_array", full)
    before = sorted(os.listdir())
    assert main(["solve", "g.npy", "--out", "out.npy", "--force"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert sorted(os.listdir()) == before
    assert Path("out.npy").read_bytes() == b"old"


def test_missed_tolerance_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ConvergenceError` ends with exit code 1, its message and no file."""
    from xbar_core import ConvergenceError

    def stuck(*_: object) -> None:
        raise ConvergenceError("circuit.rtol: missed", iterations=9, residual=1.0)

    monkeypatch.setattr("xbar_core.cli.circuit.effective_conductance", stuck)
    assert main(["solve", "g.npy", "--out", "new.npy"]) == 1
    assert capsys.readouterr().err == "xbar: circuit.rtol: missed\n"
    assert not list(folder.glob("*new*"))


@pytest.mark.parametrize("module", ["typer", "rich", "matplotlib"])
def test_missing_extra_is_one_line(folder: Path, module: str) -> None:
    """Without an optional package the message names the extra to install, and nothing is written."""
    code = f"import sys; sys.modules[{module!r}] = None; from xbar_core.cli import main; sys.exit(main())"
    argv = ["solve", "g.npy", "--out", "new.npy", "--map", "new.png"]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert module in done.stderr
    assert "pip install 'xbar-core[" in done.stderr
    assert not list(folder.glob("*new*"))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_interrupt_exits_130(folder: Path) -> None:
    """Ctrl-C in the middle of a solve: exit code 130, one line, no file."""
    code = (
        "import signal, sys, time, xbar_core.cli.circuit as c\n"
        "from xbar_core.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "def slow(*a):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        "c.effective_conductance = slow\n"
        "sys.exit(main())\n"
    )
    argv = [sys.executable, "-c", code, "solve", "g.npy", "--out", "new.npy"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        time.sleep(0.1)
        assert list(folder.glob(".new*"))  # the temporary file is there: its removal is tested
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "xbar: interrupted\n"
    assert not list(folder.glob("*new*"))


def test_nothing_moves_without_a_terminal(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Progress is for terminals: redirected, stderr stays empty and stdout has no control codes."""
    assert main(["compare", "g.npy"]) == 0
    streams = capfd.readouterr()
    assert streams.err == ""
    assert "\x1b" not in streams.out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--version and --help of every command end with 0."""
    import xbar_core

    assert main(["--version"]) == 0
    assert xbar_core.__version__ in capsys.readouterr().out
    for command in ("solve", "compare", "netlist", "demo"):
        assert main([command, "--help"]) == 0
        assert "Options" in capsys.readouterr().out


def test_what_is_not_finite_is_said_with_a_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that no command has put into words of its own is one line all the same."""

    def build() -> typer.Typer:
        app = typer.Typer()

        @app.command()
        def broken() -> None:
            raise FloatingPointError("layer 'fc': the input holds NaN")

        return app

    monkeypatch.setattr("xbar_core.cli._app.build", build)
    assert main([]) == 1
    assert capsys.readouterr().err == (
        "xbar: something is not finite: layer 'fc': the input holds NaN; train again at a lower learning "
        "rate, or use another checkpoint\n"
    )
