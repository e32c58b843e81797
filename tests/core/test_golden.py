"""Currents that ngspice printed once (golden/make_golden.py), for machines that do not have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core import oracle

from xbar_core import Wires, effective_conductance

FILES = sorted((Path(__file__).parent.parent / "golden").glob("*.npz"))


def test_golden_files_are_there() -> None:
    """An empty folder must not pass as agreement."""
    assert len(FILES) >= 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_oracle_reproduces_ngspice(path: Path) -> None:
    """The oracle of the other tests is itself held to ngspice, ten times tighter than the package."""
    case = np.load(path)
    exact = oracle.circuit(case["conductance"], *case["wires"], direction=str(case["direction"])).matrix
    oracle.assert_matches(case["voltages"] @ exact, case["currents"], 1e-10)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-9), (np.float32, 1e-5)])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_exact_matrix_reproduces_ngspice(path: Path, dtype: type, rtol: float) -> None:
    """I = V G_ni is what ngspice prints: to 1e-9 in float64, to 1e-5 in float32."""
    case = np.load(path)
    g = case["conductance"].astype(dtype)
    matrix = effective_conductance(g, Wires(*map(float, case["wires"])), direction=str(case["direction"]))
    assert matrix.dtype == dtype
    currents = (case["voltages"] @ matrix.astype(np.float64)).astype(dtype)
    oracle.assert_matches(currents, case["currents"], rtol)
