"""Netlists, run by ngspice as they are written, and the solver against what it prints."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from core import ngspice, oracle
from numpy.typing import NDArray

from xbar_core import ConfigError, ShapeError, Wires, effective_conductance
from xbar_core.circuit.spice import export_netlist

PAPER = (1.0, 4.6, 500.0, 100.0)


@pytest.fixture
def live() -> None:
    """Ask for ngspice."""
    ngspice.require_ngspice()


def devices(rows: int, cols: int, r_min: float, r_max: float) -> NDArray[np.float64]:
    """Return conductances of devices whose resistances are uniform in their range."""
    return 1.0 / np.random.default_rng(rows * 100 + cols).uniform(r_min, r_max, (rows, cols))


def compare(g: NDArray[np.float64], wires: tuple[float, ...], direction: str) -> None:
    """Hold solver and oracle to ngspice's full matrix."""
    truth = ngspice.matrix(g, Wires(*wires), direction)
    oracle.assert_matches(oracle.matrix(g, *wires, direction=direction), truth, 1e-10)
    oracle.assert_matches(effective_conductance(g, Wires(*wires), direction=direction), truth, 1e-9)
    single = effective_conductance(g.astype(np.float32), Wires(*wires), direction=direction)
    oracle.assert_matches(single, truth, 1e-5)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("r_min", "r_max"), [(1e5, 1e6), (2e4, 2e5), (3e3, 1e4)])
def test_full_matrix_16x16(r_min: float, r_max: float, direction: str) -> None:
    """Every entry of a 16x16 matrix is ngspice's, in the three ranges of device resistance."""
    compare(devices(16, 16, r_min, r_max), PAPER, direction)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 7), (7, 1), (3, 9), (9, 4)])
def test_shapes(rows: int, cols: int, direction: str) -> None:
    """Single devices, single wires and non-square arrays agree with ngspice."""
    compare(devices(rows, cols, 3e3, 1e4), PAPER, direction)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("zeros", list(itertools.product([True, False], repeat=4)))
def test_zero_resistances(zeros: tuple[bool, ...]) -> None:
    """Each resistance 0 alone, in pairs, in threes and all at once agrees with ngspice."""
    wires = tuple(0.0 if zero else r for zero, r in zip(zeros, (20.0, 30.0, 500.0, 100.0), strict=True))
    compare(devices(4, 5, 3e3, 1e4), wires, "forward")
    compare(devices(4, 5, 3e3, 1e4), wires, "backward")


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_wires_as_resistive_as_devices(direction: str) -> None:
    """The array that sweeps alone would need thousands of steps for agrees with ngspice."""
    compare(devices(8, 8, 3e3, 1e4), (5e3, 8e3, 5e3, 3e3), direction)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_open_cells(direction: str) -> None:
    """Open cells, a whole open row and a whole open column leave a netlist that ngspice solves."""
    g = np.where(np.random.default_rng(0).random((8, 8)) < 0.6, devices(8, 8, 3e3, 1e4), 0.0)
    g[2], g[:, 5] = 0.0, 0.0
    compare(g, PAPER, direction)
    compare(g, (0.0, 0.0, 0.0, 0.0), direction)


@pytest.mark.usefixtures("live")
def test_all_open() -> None:
    """An array with no device at all passes no current."""
    currents = ngspice.currents(np.zeros((3, 2)), Wires(*PAPER), np.ones(3))
    np.testing.assert_array_equal(currents, np.zeros(2))


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("bound", [1e-15, 1e3])
def test_bounds_of_conductance(bound: float) -> None:
    """Devices at either accepted bound, beside ordinary ones, agree with ngspice."""
    g = devices(4, 4, 1e5, 1e6)
    g[1, 2] = bound
    compare(g, PAPER, "forward")


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_on_off_ratio(direction: str) -> None:
    """Devices that are either on or 1e4 times less conductive agree with ngspice."""
    g = np.where(np.random.default_rng(0).random((7, 6)) < 0.5, 1e-4, 1e-8)
    compare(g, PAPER, direction)
    compare(g, (5e3, 8e3, 5e3, 3e3), direction)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(
    ("g", "wires", "limit"),
    [
        (devices(8, 8, 1e5, 1e6), PAPER, 1e-12),
        (devices(8, 8, 3e3, 1e4), (1e-3, 1e-3, 500.0, 100.0), 1e-9),
        (np.full((4, 4), 1e3), (1e9, 1e9, 1e9, 1e9), 1e-4),
    ],
    ids=["ordinary", "milliohm", "gigaohm"],
)
def test_what_nodal_analysis_leaves(g: NDArray[np.float64], wires: tuple[float, ...], limit: float) -> None:
    """The digits that ngspice itself keeps are those that the exporter's text states."""
    truth = oracle.matrix(g, *wires)
    wrong = np.abs(ngspice.matrix(g, Wires(*wires)) - truth).max() / truth.max()
    assert wrong <= limit


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_dense_vector_64x64(direction: str) -> None:
    """All 64 currents of a 64x64 array with every driven wire at a voltage agree with ngspice."""
    g = devices(64, 64, 1e5, 1e6)
    voltages = np.random.default_rng(1).uniform(0.0, 1.0, 64)
    truth = ngspice.currents(g, Wires(*PAPER), voltages, direction)
    nodal = oracle.circuit(g, *PAPER, direction=direction).matrix
    oracle.assert_matches(voltages @ nodal, truth, 1e-10)
    matrix = effective_conductance(g, Wires(*PAPER), direction=direction)
    oracle.assert_matches(voltages @ matrix, truth, 1e-9)


def test_netlist_has_no_zero_resistor_and_no_open_cell(tmp_path: Path) -> None:
    """Zero resistances are 0 V sources and open cells are left out, so ngspice replaces nothing."""
    path = tmp_path / "array.cir"
    export_netlist([[1e-4, 0.0], [0.0, 1e-5]], Wires(), [1.0, -0.5], path)
    text = path.read_text()
    resistors = re.findall(r"^R(\S+) \S+ \S+ (\S+)$", text, re.MULTILINE)
    assert resistors == [("cell_0_0", repr(1 / 1e-4)), ("cell_1_1", repr(1 / 1e-5))]
    assert "set numdgt=15" in text
    assert text.count("dc 0\n") == 2 + 2 + 2 + 2 + 2  # source, row, column and sense wires, and meters


def test_numbers_survive_the_netlist(tmp_path: Path) -> None:
    """Resistances and voltages are written with all their digits."""
    path = tmp_path / "array.cir"
    export_netlist([[1.0]], Wires(1 / 3, 1.0, 2 / 3, 0.1), [0.1 + 0.2], str(path))
    assert "Vin_0 in0 0 dc 0.30000000000000004\n" in path.read_text()
    assert "Rsource_0 in0 row0_0 0.6666666666666666\n" in path.read_text()


def test_replaces_an_old_file_whole(tmp_path: Path) -> None:
    """A second export leaves the new netlist alone, and no other file."""
    path = tmp_path / "array.cir"
    export_netlist(np.ones((9, 9)), Wires(), np.ones(9), path)
    export_netlist(np.ones((1, 1)), Wires(), np.ones(1), path)
    assert path.read_text().startswith("* crossbar array: 1 rows, 1 columns\n")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"conductance": np.ones((2, 3, 4))}, ShapeError, r"conductance: shape \(2, 3, 4\)"),
        ({"conductance": np.full((3, 4), -1.0)}, ConfigError, r"conductance\[0, 0\]: -1.0"),
        ({"voltages": np.ones(4)}, ShapeError, r"voltages: shape \(4,\)"),
        ({"voltages": np.ones((2, 3))}, ShapeError, r"voltages: shape \(2, 3\)"),
        ({"voltages": [1.0, np.nan, 1.0]}, ConfigError, r"voltages\[1\]: nan"),
        ({"wires": (1.0, 4.6, 500.0, 100.0)}, ConfigError, "wires: .*give Wires"),
        ({"path": 3}, ConfigError, "path: 3"),
    ],
)
def test_bad_input_writes_nothing(
    tmp_path: Path, change: dict[str, object], error: type[Exception], text: str
) -> None:
    """Bad input is named, and the file that was there stays."""
    path = tmp_path / "array.cir"
    path.write_text("old")
    good = {"conductance": np.ones((3, 4)), "wires": Wires(), "voltages": np.ones(3), "path": path}
    with pytest.raises(error, match=text):
        export_netlist(**{**good, **change})  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_unusable_path(tmp_path: Path) -> None:
    """A directory, or a file in a directory that is missing, is refused by name."""
    with pytest.raises(ConfigError, match="path: .*is a directory"):
        export_netlist([[1.0]], Wires(), [1.0], tmp_path)
    with pytest.raises(ConfigError, match="path: .*does not exist"):
        export_netlist([[1.0]], Wires(), [1.0], tmp_path / "none" / "array.cir")
    with pytest.raises(ConfigError, match="path: cannot write"):
        export_netlist([[1.0]], Wires(), [1.0], tmp_path / ("x" * 300))
    with pytest.raises(ConfigError, match="path: cannot write"):
        export_netlist([[1.0]], Wires(), [1.0], f"{tmp_path}/array\0.cir")
    assert list(tmp_path.iterdir()) == []
