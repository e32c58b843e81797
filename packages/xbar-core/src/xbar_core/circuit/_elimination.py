"""Direct solution for any resistances: star-mesh elimination in nested-dissection order.

Eliminating a node of a resistor network joins its neighbours i, j by the conductance
``a_i a_j / (a_1 + a_2 + ...)``: products, sums and quotients of positive numbers only, so no digit
cancels and every entry of the result is accurate to rounding, however far apart the conductances
lie. When only the sources and the grounded outputs are left, the conductance that joins source i
and output j is ``G_ni[i, j]``.

The array is halved along its longer side until blocks have at most two rows and two columns.
Cell (i, j) brings the device u(i, j)-w(i, j) and the wires to u(i, j+1) and w(i+1, j); blocks
therefore share nodes, and merging two blocks adds their meshes and eliminates the shared line.
The outside nodes of a block are, in this order: left (u of its first column, or the sources), right
(u of the next column), top (w of its first row), bottom (w of the next row, or the outputs).

A perfect wire is given a conductance 1e18 times that of the largest device: with no cancellation
to fear the error is of order 1e-18. The work is about 16 n**3 multiplications for an n x n array
(A. George, "Nested dissection of a regular finite element mesh", SIAM J. Numer. Anal. 10, 1973).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core.circuit._kernels import kernel
from xbar_core.circuit._lanes import LANES, fma, load, scale, store

Array = NDArray[Any]

PERFECT = 1e18
LEAF = 2


@kernel
def plan(rows: int, cols: int) -> Array:
    """List the blocks in the order of their elimination.

    Returns
    -------
    blocks : (count, 6) integers: first and last + 1 row, first and last + 1 column, then the kind
        (0 leaf, 1 halves beside each other, 2 halves above each other) and where it is cut.
    """
    blocks = np.empty((2 * ((rows + 1) // 2 + 1) * ((cols + 1) // 2 + 1) * 2 + 4, 6), np.int64)
    stack = np.empty((256, 5), np.int64)
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3], stack[0, 4] = 0, rows, 0, cols, 0
    depth, count = 1, 0
    while depth > 0:
        depth -= 1
        i0, i1, j0, j1, seen = stack[depth]
        n, m = i1 - i0, j1 - j0
        kind, cut = 0, 0
        if n > LEAF or m > LEAF:
            if m >= n:
                kind, cut = 1, j0 + (m + 1) // 2
            else:
                kind, cut = 2, i0 + (n + 1) // 2
        if kind == 0 or seen == 1:
            blocks[count, 0], blocks[count, 1], blocks[count, 2] = i0, i1, j0
            blocks[count, 3], blocks[count, 4], blocks[count, 5] = j1, kind, cut
            count += 1
            continue
        stack[depth, 4] = 1
        depth += 1
        for half in (1, 0):
            stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = i0, i1, j0, j1
            if kind == 1:
                stack[depth, 3 - half] = cut
            else:
                stack[depth, 1 - half] = cut
            stack[depth, 4] = 0
            depth += 1
    return blocks[:count].astype(np.int32)


@kernel
def _sizes(block: Any, rows: int, cols: int) -> tuple[int, int, int, int, int]:
    """Return the lengths of left, right, top, bottom and the number of eliminated nodes."""
    i0, i1, j0, j1, kind = block[0], block[1], block[2], block[3], block[4]
    n, m = i1 - i0, j1 - j0
    right = n if j1 < cols else 0
    top = m if i0 > 0 else 0
    if kind == 1:
        inside = n
    elif kind == 2:
        inside = m
    else:
        inside = n * (m - 1) + (n - 1) * m + (n if j0 == 0 else 0) + (m if i0 == 0 else 0)
    return n, right, top, m, inside


@kernel
def workspace(blocks: Array, rows: int, cols: int) -> tuple[int, int, int]:
    """Return the largest front, the stack of waiting meshes and the factor, in numbers."""
    front, top_of_stack, stack, factor = 0, 0, 0, 0
    for b in range(blocks.shape[0]):
        left, right, top, bottom, inside = _sizes(blocks[b], rows, cols)
        outside = left + right + top + bottom
        size = inside + outside
        front = max(front, size * size)
        for p in range(inside):
            factor += size - p
        if blocks[b, 4] != 0:
            for half in range(2):
                child = _half(blocks[b], half)
                a, c, d, e, _ = _sizes(child, rows, cols)
                stack -= (a + c + d + e) ** 2
        stack += outside * outside
        top_of_stack = max(top_of_stack, stack)
    return front, top_of_stack, factor


@kernel
def _half(block: Array, half: int) -> tuple[int, int, int, int, int]:
    """Return the bounds of the first (0: left or upper) or second half of a block, as a leaf."""
    i0, i1, j0, j1, kind, cut = block
    if kind == 1:
        return (i0, i1, j0, cut, 0) if half == 0 else (i0, i1, cut, j1, 0)
    return (i0, cut, j0, j1, 0) if half == 0 else (cut, i1, j0, j1, 0)


@kernel
def _child_map(block: Array, half: int, rows: int, cols: int, index: Array) -> int:
    """Fill `index` with the parent's place of each outside node of a half; return their number."""
    left, right, top, _, inside = _sizes(block, rows, cols)
    at_left = inside
    at_right = at_left + left
    at_top = at_right + right
    at_bottom = at_top + top
    child = _half(block, half)
    c_left, c_right, c_top, c_bottom, _ = _sizes(child, rows, cols)
    if block[4] == 1:
        shift = child[2] - block[2]
        starts = (
            0 if half == 1 else at_left,
            0 if half == 0 else at_right,
            at_top + shift,
            at_bottom + shift,
        )
    else:
        shift = child[0] - block[0]
        starts = (
            at_left + shift,
            at_right + shift,
            0 if half == 1 else at_top,
            0 if half == 0 else at_bottom,
        )
    lengths = (c_left, c_right, c_top, c_bottom)
    count = 0
    for side in range(4):
        for k in range(lengths[side]):
            index[count] = starts[side] + k
            count += 1
    return count


@kernel
def _add(front: Array, p: int, q: int, value: float) -> None:
    """Add a conductance between local nodes p and q (upper triangle)."""
    if p < q:
        front[p, q] += value
    else:
        front[q, p] += value


@kernel
def _leaf(front: Array, block: Array, g: Array, wires: Any) -> None:
    """Enter the devices and wires of a small block."""
    rows, cols = g.shape
    c_row, c_col, c_source, c_sense = wires
    left, right, top, _, inside = _sizes(block, rows, cols)
    at_left, at_right = inside, inside + left
    at_top = at_right + right
    at_bottom = at_top + top
    i0, j0 = block[0], block[2]
    n, m = block[1] - i0, block[3] - j0
    u = np.empty((LEAF, LEAF + 1), np.int64)
    w = np.empty((LEAF + 1, LEAF), np.int64)
    count = 0
    for i in range(n):
        u[i, m] = at_right + i if right > 0 else -1
        for j in range(m):
            if j == 0 and j0 > 0:
                u[i, j] = at_left + i
            else:
                u[i, j] = count
                count += 1
    for j in range(m):
        w[n, j] = at_bottom + j
        for i in range(n):
            if i == 0 and i0 > 0:
                w[i, j] = at_top + j
            else:
                w[i, j] = count
                count += 1
    for i in range(n):
        if j0 == 0:
            _add(front, u[i, 0], at_left + i, c_source)
        for j in range(m):
            _add(front, u[i, j], w[i, j], g[i0 + i, j0 + j])
            if u[i, j + 1] >= 0:
                _add(front, u[i, j], u[i, j + 1], c_row)
            _add(front, w[i, j], w[i + 1, j], c_sense if i0 + i == rows - 1 else c_col)


@kernel
def _row_sum(front: Array, p: int) -> float:
    """Sum row p right of the diagonal, in four chains."""
    size = front.shape[0]
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    q = p + 1
    while q + 3 < size:
        s0 += front[p, q]
        s1 += front[p, q + 1]
        s2 += front[p, q + 2]
        s3 += front[p, q + 3]
        q += 4
    while q < size:
        s0 += front[p, q]
        q += 1
    return (s0 + s1) + (s2 + s3)


@kernel
def _eliminate(front: Array, inside: int, last: int, first: int) -> None:
    """Star-mesh all inside nodes, four at a time; the diagonal receives 1 / sum of the star.

    Outside nodes i < `last` get their conductances to nodes j >= `first` only (the root needs
    sources to outputs, nothing else).
    """
    size = front.shape[0]
    for p0 in range(0, inside, 4):
        p1 = min(p0 + 4, inside)
        for p in range(p0, p1):
            star = front[p]
            total = _row_sum(front, p)
            star[p] = 1.0 / total if total > 0.0 else 0.0
            for q in range(p + 1, p1):
                share = star[q] * star[p]
                out = front[q]
                for j in range(q + 1, size):
                    out[j] += share * star[j]
        # Rows taken as arrays of their own let LLVM vectorise the loops.
        if p1 - p0 == 4:
            star0, star1, star2, star3 = front[p0], front[p0 + 1], front[p0 + 2], front[p0 + 3]
            for i in range(p1, last):
                out = front[i]
                f0, f1 = star0[i] * star0[p0], star1[i] * star1[p0 + 1]
                f2, f3 = star2[i] * star2[p0 + 2], star3[i] * star3[p0 + 3]
                for j in range(max(i + 1, first) if i >= inside else i + 1, size):
                    out[j] += (f0 * star0[j] + f1 * star1[j]) + (f2 * star2[j] + f3 * star3[j])
        else:
            for p in range(p0, p1):
                star = front[p]
                for i in range(p1, last):
                    share = star[i] * star[p]
                    out = front[i]
                    for j in range(max(i + 1, first) if i >= inside else i + 1, size):
                        out[j] += share * star[j]


@kernel
def eliminate(g: Array, wires: Any, blocks: Array, buffer: Array, stack: Array, factor: Array) -> Array:
    """Return ``G_ni`` (rows, cols) of one array.

    Parameters
    ----------
    g : (rows, cols) conductances, divided by their maximum.
    wires : conductances of row wire, column wire, source and sense, in the same unit.
    buffer, stack : scratch of the lengths that `workspace` says.
    factor : empty, or of the length that `workspace` says: receives the stars for `potentials`.
    """
    rows, cols = g.shape
    keep = factor.shape[0] > 0
    index = np.empty(2 * (rows + cols), np.int64)
    top_of_stack, kept = 0, 0
    result = np.empty((rows, cols), np.float64)
    for b in range(blocks.shape[0]):
        block = blocks[b]
        left, right, top, bottom, inside = _sizes(block, rows, cols)
        outside = left + right + top + bottom
        size = inside + outside
        front = buffer[: size * size].reshape(size, size)
        front[:] = 0.0
        if block[4] == 0:
            _leaf(front, block, g, wires)
        else:
            for half in (1, 0):
                count = _child_map(block, half, rows, cols, index)
                top_of_stack -= count * count
                mesh = stack[top_of_stack : top_of_stack + count * count].reshape(count, count)
                for p in range(count):
                    for q in range(p + 1, count):
                        _add(front, index[p], index[q], mesh[p, q])
        root = b == blocks.shape[0] - 1
        _eliminate(front, inside, inside + left if root else size, inside + left if root else 0)
        if keep:
            for p in range(inside):
                for q in range(p, size):
                    factor[kept] = front[p, q]
                    kept += 1
        if root:
            for i in range(rows):
                for j in range(cols):
                    result[i, j] = front[inside + i, inside + left + j]
        else:
            mesh = stack[top_of_stack : top_of_stack + outside * outside].reshape(outside, outside)
            for p in range(outside):
                for q in range(p + 1, outside):
                    mesh[p, q] = front[inside + p, inside + q]
            top_of_stack += outside * outside
    return result


@kernel
def _node_ids(block: Array, rows: int, cols: int, ids: Array) -> None:
    """Number a block's nodes, inside first: u row by row, w row by row, sources, outputs."""
    i0, i1, j0, j1, kind, cut = block
    w0 = rows * cols
    source, output = 2 * w0, 2 * w0 + rows
    count = 0
    if kind == 1:
        for i in range(i0, i1):
            ids[count] = i * cols + cut
            count += 1
    elif kind == 2:
        for j in range(j0, j1):
            ids[count] = w0 + cut * cols + j
            count += 1
    else:
        for i in range(i0, i1):
            for j in range(j0 if j0 == 0 else j0 + 1, j1):
                ids[count] = i * cols + j
                count += 1
        for j in range(j0, j1):
            for i in range(i0 if i0 == 0 else i0 + 1, i1):
                ids[count] = w0 + i * cols + j
                count += 1
    for i in range(i0, i1):
        ids[count] = source + i if j0 == 0 else i * cols + j0
        count += 1
    if j1 < cols:
        for i in range(i0, i1):
            ids[count] = i * cols + j1
            count += 1
    if i0 > 0:
        for j in range(j0, j1):
            ids[count] = w0 + i0 * cols + j
            count += 1
    for j in range(j0, j1):
        ids[count] = output + j if i1 == rows else w0 + i1 * cols + j
        count += 1


@kernel
def potentials(rows: int, cols: int, blocks: Array, factor: Array, nodes: Array) -> None:
    """Fill in the voltages of all eliminated nodes, for `LANES` inputs.

    A node's voltage is the mean of its star's, weighted by conductance: again nothing cancels.

    Parameters
    ----------
    factor : what `eliminate` kept.
    nodes : (2 rows cols + rows + cols, LANES), ordered as in `_node_ids`; sources and outputs given.
    """
    ids = np.empty(6 * (rows + cols) + 4 * LEAF * LEAF, np.int64)
    end = factor.shape[0]
    for b in range(blocks.shape[0] - 1, -1, -1):
        left, right, top, bottom, inside = _sizes(blocks[b], rows, cols)
        size = inside + left + right + top + bottom
        _node_ids(blocks[b], rows, cols, ids)
        for p in range(inside - 1, -1, -1):
            end -= size - p
            total = scale(0.0, load(nodes, ids[p + 1] * LANES))
            for q in range(p + 1, size):
                total = fma(factor[end + q - p], load(nodes, ids[q] * LANES), total)
            store(nodes, ids[p] * LANES, scale(factor[end], total))
