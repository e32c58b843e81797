"""Two exact solutions of a crossbar, written from the circuit's drawing alone.

Nothing of the package is used, and the backward circuit is drawn, not derived from the forward one.
Zero resistances merge their two nodes.

- `matrix` removes the inner nodes one by one, a star at a time replaced by its mesh
  (g_ab += g_ak g_kb / sum_k g). Only positive numbers are added, so every entry is right to rounding
  whatever the range of the conductances. For small arrays (some seconds at 32x32).
- `circuit` is nodal analysis: one sparse LU factorisation, refined with residuals that are summed
  branch by branch in extended precision. It also gives node voltages and is fast at 64x64, but loses
  digits when conductances differ by more than some 1e9 (8 digits are left at 1e12).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

Floats = NDArray[np.float64]
Nodes = NDArray[np.intp]


@dataclass(frozen=True)
class Circuit:
    """One array in one read direction, solved for unit voltage on each driven wire.

    Attributes
    ----------
    matrix : shape (driven, sensed)
        Current into each virtual ground, ampere per volt.
    voltages_row, voltages_col : shape (driven, rows, cols)
        Node voltages of the row and of the column wires at every cell, volt per volt.
    """

    matrix: Floats
    voltages_row: Floats
    voltages_col: Floats


@dataclass(frozen=True)
class _Branches:
    """Resistors between merged nodes, and where the cells and terminals went."""

    a: Nodes
    b: Nodes
    value: NDArray[np.longdouble]
    row_node: Nodes
    col_node: Nodes
    sources: Nodes
    grounds: Nodes


def matrix(
    g: Floats, r_row: float, r_col: float, r_source: float, r_sense: float, direction: str = "forward"
) -> Floats:
    """Return the exact non-ideal matrix, (rows, cols) forward and (cols, rows) backward."""
    net = _draw(g, r_row, r_col, r_source, r_sense, direction)
    nodes = int(net.grounds[-1]) + 1
    mesh = np.zeros((nodes, nodes))
    value = net.value.astype(np.float64)
    np.add.at(mesh, (net.a, net.b), value)
    np.add.at(mesh, (net.b, net.a), value)
    inner = np.unique(np.r_[net.a, net.b])
    for k in inner[inner < net.sources[0]]:
        near = np.flatnonzero(mesh[k])
        spoke = mesh[k, near]
        mesh[np.ix_(near, near)] += np.outer(spoke, spoke / spoke.sum())
        mesh[near, near] = 0
        mesh[k, near] = mesh[near, k] = 0
    return mesh[np.ix_(net.sources, net.grounds)]


def circuit(
    g: Floats, r_row: float, r_col: float, r_source: float, r_sense: float, direction: str = "forward"
) -> Circuit:
    """Return the matrix and all node voltages of an array (rows, cols) of siemens."""
    net = _draw(g, r_row, r_col, r_source, r_sense, direction)
    voltage = _solve(net)
    at_rows = np.moveaxis(voltage[net.row_node], -1, 0)
    at_cols = np.moveaxis(voltage[net.col_node], -1, 0)
    device = np.asarray(g, dtype=np.longdouble) * (at_rows - at_cols)
    out = device.sum(axis=1) if direction == "forward" else -device.sum(axis=2)
    return Circuit(*(x.astype(np.float64) for x in (out, at_rows, at_cols)))


def _draw(
    g: Floats, r_row: float, r_col: float, r_source: float, r_sense: float, direction: str
) -> _Branches:
    g = np.asarray(g, dtype=np.float64)
    rows, cols = g.shape
    row_node = np.arange(rows * cols).reshape(rows, cols)
    col_node = row_node + rows * cols
    row_end, col_end = row_node[:, 0], col_node[-1, :]
    first, last = {"forward": (row_end, col_end), "backward": (col_end, row_end)}[direction]
    sources = 2 * rows * cols + np.arange(first.size)
    grounds = 2 * rows * cols + first.size + np.arange(last.size)
    wires = [
        (row_node[:, :-1], row_node[:, 1:], r_row),
        (col_node[:-1, :], col_node[1:, :], r_col),
        (sources, first, r_source),
        (last, grounds, r_sense),
    ]
    name = np.arange(grounds[-1] + 1)
    a, b, value = [row_node[g > 0]], [col_node[g > 0]], [g[g > 0].astype(np.longdouble)]
    for start, end, resistance in wires:
        if resistance == 0:
            _merge(name, start.ravel(), end.ravel())
        else:
            a.append(start.ravel())
            b.append(end.ravel())
            value.append(np.full(start.size, 1 / np.longdouble(resistance)))
    while not np.array_equal(name, name[name]):
        name = name[name]
    return _Branches(
        name[np.concatenate(a)],
        name[np.concatenate(b)],
        np.concatenate(value),
        name[row_node],
        name[col_node],
        sources,
        grounds,
    )


def _merge(name: Nodes, start: Nodes, end: Nodes) -> None:
    for x, y in zip(start, end, strict=True):
        while name[x] != x:
            x = name[x]
        while name[y] != y:
            y = name[y]
        # Sources and grounds have the largest indices: they stay the name of a merged node.
        name[min(x, y)] = max(x, y)


def _solve(net: _Branches) -> NDArray[np.longdouble]:
    """Return the voltage (nodes, driven) of every node for unit voltage on each source in turn."""
    a, b, nodes = net.a, net.b, int(net.grounds[-1]) + 1
    voltage = np.zeros((nodes, net.sources.size), dtype=np.longdouble)
    voltage[net.sources, np.arange(net.sources.size)] = 1
    unknown = np.unique(np.r_[a, b])
    unknown = unknown[unknown < net.sources[0]]
    if unknown.size == 0:
        return voltage
    value = net.value.astype(np.float64)
    entries = np.concatenate([value, value, -value, -value])
    laplacian = csc_matrix((entries, (np.r_[a, b, a, b], np.r_[a, b, b, a])), shape=(nodes, nodes))
    factor = splu(laplacian[unknown][:, unknown], permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0)
    branch = np.arange(a.size)
    sign = np.repeat(np.array([1, -1], dtype=np.longdouble), a.size)
    leaving = csc_matrix((sign, (np.r_[a, b], np.r_[branch, branch])), shape=(nodes, a.size))
    leaving = leaving.tocsr()[unknown]
    for _ in range(30):
        flow = net.value[:, None] * (voltage[a] - voltage[b])
        change = factor.solve((leaving @ flow).astype(np.float64))
        voltage[unknown] -= change
        if np.abs(change).max() <= 1e-18:
            break
    return voltage


def assert_matches(result: NDArray[np.floating], exact: Floats, rtol: float) -> None:
    """Assert the error rule: `rtol` of the largest entry, and 10 `rtol` of each entry that counts."""
    assert result.shape == exact.shape
    assert np.isfinite(result).all()
    largest = np.abs(exact).max(initial=0.0)
    wrong = np.abs(result.astype(np.float64) - exact)
    assert wrong.max(initial=0.0) <= rtol * largest
    counts = np.abs(exact) > (1e-6 if result.dtype == np.float64 else 1e-3) * largest
    assert (wrong[counts] <= 10 * rtol * np.abs(exact[counts])).all()
