"""The engine against a simulation of one device, one wire end and one sample at a time.

The slow path uses Python loops, the formulas of the physics pages and a nodal solve of each array; it
shares no code with the engine but the draws.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from core import oracle
from numpy.typing import NDArray

from xbar_core.config import Chip
from xbar_core.engine import Call, Layout, Ranges, Request, forward, program, read_matrices, update, vjp
from xbar_core.random import Purpose

Floats = NDArray[np.float64]
INPUTS, OUTPUTS, BATCH, W_MAX = 5, 4, 3, 0.9
WIRES = {"r_row": 40.0, "r_col": 70.0, "r_source": 500.0, "r_sense": 100.0}


def make_chip(**values: object) -> Chip:
    """Return a chip of 3x3 arrays with every stage at work."""
    table = {
        "array": {"rows": 3, "cols": 3},
        "wires": WIRES,
        "circuit": {"kind": "fcm", "rtol": 1e-12},
        "device": {"r_min": 1e4, "r_max": 1e5},
        "mapping": {"kind": "balanced", "w_max": {"rule": "fixed", "value": W_MAX}},
        "input": {
            "bits": 6,
            "v_read": 0.7,
            "range": {"rule": "fixed", "value": 1.3},
            "nonlinearity": [0.02],
        },
        "adc": {"bits": 9, "range": {"rule": "fixed", "value": 8e-5}, "nonlinearity": [0.03]},
        "backward": {
            "error_range": {"rule": "fixed", "value": 2.1},
            "current_range": {"rule": "fixed", "value": 6e-5},
        },
        "update": {"v_up": 0.8, "v_down": 1.7, "noise": {"law": "txsim", "gamma": 0.3}},
    }
    return Chip.from_dict(table).with_values(values)


def convert(value: float, full_scale: float, steps: int, lowest: float, curve: float) -> float:
    """Return what one converter makes of one number, in units of full scale."""
    ratio = min(max(value / full_scale, lowest), 1.0)
    return round((ratio + curve * (ratio**3 - ratio)) * steps) / steps


def send(value: float, full_scale: float, bits: int, curve: float) -> tuple[float, float]:
    """Return the word (as a ratio) and the voltage (per v_read) of one number."""
    steps = 2 ** (bits - 1) - 1
    word = round(min(max(value / full_scale, -1.0), 1.0) * steps) / steps
    return word, word + curve * (word**3 - word)


def slow_read(chip: Chip, state: Floats, numbers: Floats, direction: str) -> tuple[Floats, Floats]:
    """Return (result, decoded numbers) of a read, one array, one device, one sample at a time."""
    ahead, kind = direction == "forward", chip.mapping.kind
    g = chip.device.g_min + (chip.device.g_max - chip.device.g_min) * state
    width, g_mid = chip.device.g_max - chip.device.g_min, 0.5 * (chip.device.g_min + chip.device.g_max)
    ranges = (
        (chip.input.range, chip.adc.range)
        if ahead
        else (chip.backward.error_range, chip.backward.current_range)
    )
    data_cols = chip.array.cols - (kind == "offset")
    digital, passes = chip.adc.subtract == "digital", [1.0]
    if chip.input.signed == "two_phase":
        passes = [1.0, -1.0]
    single = digital or (kind == "offset" and not ahead)
    positive = single and len(passes) == 2
    steps = 2**chip.adc.bits - 1 if positive else 2 ** (chip.adc.bits - 1) - 1
    result, decoded = np.zeros((BATCH, OUTPUTS if ahead else INPUTS)), np.zeros_like(numbers)
    for r0 in range(0, INPUTS, chip.array.rows):
        for c0 in range(0, OUTPUTS, data_cols):
            r1, c1 = min(r0 + chip.array.rows, INPUTS), min(c0 + data_cols, OUTPUTS)
            arrays = []
            for device in range(state.shape[0]):
                block = g[device, r0:r1, c0:c1]
                if kind == "offset":
                    block = np.concatenate([block, np.full((r1 - r0, 1), g_mid)], axis=1)
                if chip.array.unused == "g_min":
                    whole = np.full((chip.array.rows, chip.array.cols), chip.device.g_min)
                    whole[chip.array.rows - block.shape[0] :, : block.shape[1]] = block
                    matrix = oracle.matrix(whole, **WIRES, direction=direction)
                    first = chip.array.rows - block.shape[0]
                    matrix = matrix[first:, : block.shape[1]] if ahead else matrix[: block.shape[1], first:]
                else:
                    matrix = oracle.matrix(block, **WIRES, direction=direction)
                arrays.append(matrix)
            driven, sensed = ((r0, r1), (c0, c1)) if ahead else ((c0, c1), (r0, r1))
            for sample in range(BATCH):
                for sign in passes:
                    currents = np.zeros(
                        (state.shape[0], sensed[1] - sensed[0] + (kind == "offset" and ahead))
                    )
                    for line in range(*driven):
                        word, volt = send(
                            numbers[sample, line],
                            ranges[0].value,
                            chip.input.bits,
                            chip.input.nonlinearity.coefficients[0],
                        )
                        decoded[sample, line] = word * ranges[0].value
                        if len(passes) == 2:
                            volt = max(sign * volt, 0.0)
                        for device in range(state.shape[0]):
                            for column in range(currents.shape[1]):
                                currents[device, column] += (
                                    volt * chip.input.v_read * arrays[device][line - driven[0], column]
                                )

                    def adc(current: float) -> float:
                        low = 0.0 if positive else -1.0
                        return (
                            convert(
                                current, ranges[1].value, steps, low, chip.adc.nonlinearity.coefficients[0]
                            )
                            * ranges[1].value
                            / (width * chip.input.v_read)
                        )

                    for column in range(sensed[1] - sensed[0]):
                        if kind != "offset":
                            pos, neg = currents[0, column], currents[1, column]
                            value = adc(pos) - adc(neg) if digital else adc(pos - neg)
                        elif not ahead:
                            value = 2.0 * adc(currents[0, column])
                        elif digital:
                            value = 2.0 * (adc(currents[0, column]) - adc(currents[0, -1]))
                        else:
                            value = 2.0 * adc(currents[0, column] - currents[0, -1])
                        result[sample, sensed[0] + column] += sign * value * ranges[0].value * W_MAX
    if kind == "offset" and not ahead:
        result -= 2.0 * W_MAX * g_mid / width * decoded.sum(axis=1, keepdims=True)
    return result, decoded


def slow_update(chip: Chip, state: Floats, step: Floats, rate: float, normal: Floats) -> Floats:
    """Return the states after one step, one device at a time (conductances, as the paper writes it)."""
    g_min, g_max = chip.device.g_min, chip.device.g_max
    width, config = g_max - g_min, chip.update
    new = state.copy()
    for i in range(INPUTS):
        for j in range(OUTPUTS):
            overflow = []
            for side in range(state.shape[0]):
                wanted = width / (2.0 * W_MAX) * step[i, j] * (1.0 if side == 0 else -1.0)
                if config.noise.stage == "after_lr":
                    wanted *= rate
                g = g_min + width * state[side, i, j]
                if wanted > 0.0:
                    v = config.v_up
                    moved = (width / (1 - math.exp(-v)) + g_min - g) * (
                        1 - math.exp(-v * abs(wanted) / width)
                    )
                else:
                    v = config.v_down
                    moved = -(width / (1 - math.exp(-v)) - g_max + g) * (
                        1 - math.exp(-v * abs(wanted) / width)
                    )
                size = abs(wanted) if config.noise.law == "txsim" else math.sqrt(width * abs(wanted))
                moved += config.noise.gamma * size * normal[side, i, j]
                if config.noise.stage == "before_lr":
                    moved *= rate
                overflow.append(max(g + moved - g_max, 0.0) + min(g + moved - g_min, 0.0))
                new[side, i, j] = (min(max(g + moved, g_min), g_max) - g_min) / width
    return new


CASES = [
    {"mapping.kind": kind, "adc.subtract": subtract, "input.signed": signed}
    for kind in ("balanced", "differential", "offset")
    for subtract in ("analog", "digital")
    for signed in ("bipolar", "two_phase")
] + [
    {"array.unused": "g_min"},
    {"array.unused": "g_min", "mapping.kind": "offset"},
    {"wires": {**WIRES, "r_sense": 500.0}},
]


def layer(case: dict[str, object]) -> tuple[Chip, Layout, Floats, dict[str, Floats], Floats, Floats]:
    chip = make_chip(**case)
    rng = np.random.default_rng(7)
    layout = Layout(chip, INPUTS, OUTPUTS)
    state, buffers = program(layout, rng.uniform(-0.8, 0.8, (INPUTS, OUTPUTS)))
    return (
        chip,
        layout,
        state,
        buffers,
        rng.uniform(-1.5, 1.5, (BATCH, INPUTS)),
        rng.uniform(-2.5, 2.5, (BATCH, OUTPUTS)),
    )


@pytest.mark.parametrize("case", CASES[:-1], ids=str)
def test_forward_and_backward_reads(case: dict[str, object]) -> None:
    """y, dx and dL/dw of the engine are those of the loops: every mapping, subtraction and sign."""
    chip, layout, state, buffers, x, dy = layer(case)
    request = Request(layout, buffers, state)
    (matrices,) = read_matrices([request])
    result = forward(layout, matrices, buffers, Ranges(), x)
    y, sent = slow_read(chip, state, x, "forward")
    np.testing.assert_allclose(result.y, y, rtol=0, atol=1e-9)
    gradients = vjp(layout, matrices, buffers, result.ranges, result.residual, dy, request=request)
    dx, errors = slow_read(chip, state, dy, "backward")
    np.testing.assert_allclose(gradients.x, dx, rtol=0, atol=1e-9)
    expected = np.zeros((INPUTS, OUTPUTS))
    for sample in range(BATCH):
        for i in range(INPUTS):
            for j in range(OUTPUTS):
                expected[i, j] += sent[sample, i] * errors[sample, j]
    np.testing.assert_allclose(gradients.weight, expected, rtol=1e-12)


def test_reciprocal_wires_need_one_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    """With r_source = r_sense the transposed forward solution is the backward read of the loops."""
    from xbar_core.engine import matrices as module

    case = {"wires.r_sense": 500.0}
    monkeypatch.setitem(WIRES, "r_sense", 500.0)
    chip, layout, state, buffers, _, dy = layer(case)
    calls = []
    solve = module.solve_arrays

    def counting(jobs: list[object]) -> list[object]:
        calls.append([job.direction for job in jobs])  # type: ignore[attr-defined]
        return solve(jobs)

    monkeypatch.setattr(module, "solve_arrays", counting)
    (matrices,) = read_matrices([Request(layout, buffers, state)])
    assert calls == [["forward"]]
    from xbar_core.engine import read

    dx = read(layout, layout.backward, matrices, buffers, Ranges(), dy).result
    np.testing.assert_allclose(dx, slow_read(chip, state, dy, "backward")[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["balanced", "offset"])
@pytest.mark.parametrize("stage", ["before_lr", "after_lr"])
@pytest.mark.parametrize("law", ["txsim", "sqrt"])
def test_update(kind: str, stage: str, law: str) -> None:
    """A step written by the engine moves every device as the paper's equations move it."""
    values = {"mapping.kind": kind, "update.noise": {"law": law, "gamma": 0.3, "stage": stage}}
    chip, layout, state, buffers, _, _ = layer(values)
    step = np.random.default_rng(3).normal(0.0, 0.5, (INPUTS, OUTPUTS))
    written = update(layout, state, buffers, step, rate=0.3, count=4)
    normal = layout.stream.normal(Purpose.WRITE_NOISE, state.shape, step=4)
    np.testing.assert_allclose(written.state, slow_update(chip, state, step, 0.3, normal), rtol=0, atol=1e-14)


def test_data_parallel_halves_make_the_whole() -> None:
    """Two processes that know their first sample read what one process reads: noise included."""
    values = {"adc.noise": 1e-6, "device.read_noise": {"sigma": 0.05}}
    _, layout, state, buffers, x, _ = layer(values)
    (matrices,) = read_matrices([Request(layout, buffers, state)])
    whole = forward(layout, matrices, buffers, Ranges(), x, Call(step=2)).y
    parts = [
        forward(layout, matrices, buffers, Ranges(), part, Call(step=2, first=first)).y
        for first, part in ((0, x[:1]), (1, x[1:]))
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-12)
    other = forward(layout, matrices, buffers, Ranges(), x, Call(step=3)).y
    assert (other != whole).any()
