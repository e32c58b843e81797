"""A layer's life: programming, ageing, faults, ranges, interpolation, energy, reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xbar_core import ConfigError, ShapeError, Wires, effective_conductance, solve
from xbar_core.config import Chip, preset
from xbar_core.engine import (
    Call,
    Layout,
    Ranges,
    Request,
    clipped,
    conductances,
    device_counts,
    encode,
    forward,
    program,
    read,
    read_energy,
    read_matrices,
    reprogram,
    saturated_weights,
    stage_report,
    update,
    weights,
)
from xbar_core.engine.matrices import physical_arrays


def layer(
    chip: Chip, shape: tuple[int, int] = (9, 7), **arguments: Any
) -> tuple[Layout, Any, dict[str, Any], Any]:
    """Return layout, state, buffers and the weights asked for."""
    weight = np.random.default_rng(0).standard_normal(shape)
    layout = Layout(chip.with_values({"array.rows": 5, "array.cols": 4}), *shape)
    state, buffers = program(layout, weight, **arguments)
    return layout, state, buffers, weight


def test_stuck_devices_ignore_writes_and_are_counted() -> None:
    """Stuck devices stay where they are through programming and updates; open ones conduct nothing."""
    chip = preset("ideal").with_("device.faults", {"stuck_at_g_min": 0.2, "stuck_at_g_max": 0.1, "open": 0.1})
    layout, state, buffers, _ = layer(chip, (20, 20))
    state = update(layout, state, buffers, np.full((20, 20), 0.3), rate=1.0).state
    faults, counts = buffers["faults"], device_counts(layout, state, buffers)
    assert (state[faults == 1] == 0.0).all()
    assert (state[faults == 2] == 1.0).all()
    g = conductances(layout, state, buffers)
    assert (g[faults == 3] == 0.0).all()
    assert counts.open == int((faults == 3).sum()) > 0
    assert counts.stuck_at_g_max == int((faults == 2).sum()) > 0
    assert counts.at_g_max >= counts.stuck_at_g_max
    assert counts.devices == 800


def test_saturated_devices_are_counted() -> None:
    """A step beyond the range saturates both halves of every balanced pair, and says so."""
    layout, state, buffers, _ = layer(Chip())
    written = update(layout, state, buffers, np.full((9, 7), 1e3), rate=1.0)
    assert int(written.saturated) == state.size
    np.testing.assert_allclose(weights(layout, written.state, buffers), buffers["w_max"])


@pytest.mark.parametrize("kind", ["balanced", "differential", "offset"])
def test_drift_is_a_power_law(kind: str) -> None:
    """g(t) = g(t0) (t / t0)^-nu in every device; with pairs and reference columns weights shrink alike."""
    chip = preset("ideal").with_values({"device.drift": {"nu": 0.1, "t0": 2.0}, "mapping.kind": kind})
    layout, state, buffers, weight = layer(chip)
    fresh = conductances(layout, state, buffers)
    aged = conductances(layout, state, buffers, time=2000.0)
    np.testing.assert_allclose(aged, fresh * 1000.0**-0.1, rtol=1e-12)
    (matrices,) = read_matrices([Request(layout, buffers, state, time=2000.0)])
    x = np.eye(9)
    y = forward(layout, matrices, buffers, Ranges(), x).y
    np.testing.assert_allclose(y, weight * 1000.0**-0.1, rtol=0, atol=1e-12)


def test_programming_error_and_variation_have_their_sigma() -> None:
    """Programming scatters states, variation scatters reads only; both with the sigma asked for."""
    values = {
        "device.variation": {"sigma": 0.1},
        "device.programming_error": {"sigma": 0.05},
        "mapping.w_max": {"rule": "fixed", "value": 10.0},
    }
    layout, state, buffers, weight = layer(Chip().with_values(values), (100, 100))
    device = layout.chip.device
    stored = device.g_min + (device.g_max - device.g_min) * state
    aimed = device.g_min + (device.g_max - device.g_min) * (0.5 + 0.05 * np.stack([weight, -weight]))
    assert np.std(stored / aimed) == pytest.approx(0.05, rel=0.05)
    read = conductances(layout, state, buffers)
    assert np.std(read / stored) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("subtract", ["analog", "digital"])
@pytest.mark.parametrize("cell", [None, 2])
@pytest.mark.parametrize("kind", ["balanced", "differential", "offset"])
def test_read_noise_has_its_deviation(kind: str, cell: int | None, subtract: str) -> None:
    """Variances V^2 sigma^2 G_ni^2 of all devices behind an output add up, in both directions of read."""
    values = {
        "mapping": {"kind": kind, "weight_bits": 4, "cell_bits": cell},
        "adc.subtract": subtract,
        "device.read_noise": {"sigma": 0.05},
        "wires": {"r_row": 20.0, "r_col": 20.0, "r_source": 100.0, "r_sense": 50.0},
        "circuit": {"kind": "fcm"},
    }
    layout, state, buffers, _ = layer(preset("ideal").with_values(values), (5, 3))
    (matrices,) = read_matrices([Request(layout, buffers, state)])
    (arrays,) = physical_arrays(Request(layout, buffers, state)).values()
    wires, count = layout.chip.wires, 20_000
    for plan, lines in ((layout.forward, 5), (layout.backward, 3)):
        drive = np.random.default_rng(lines).standard_normal(lines)
        squares = effective_conductance(arrays[0], wires, direction=plan.direction) ** 2
        if kind == "offset" and plan.direction == "forward":
            squares = squares[..., :3] + squares[..., 3:]
        elif kind == "offset":
            squares = squares[:, :3, :]
        gains = np.asarray(layout.code.gains)[:, None]
        expected = 0.05 * np.sqrt((gains**2 * (drive**2 @ squares)).sum(axis=0)) / layout.g_range
        y = read(layout, plan, matrices, buffers, Ranges(), np.tile(drive, (count, 1))).result
        np.testing.assert_allclose(y.std(axis=0) / float(buffers["w_max"]), expected, rtol=0.03)


def test_reprogramming_makes_room() -> None:
    """A saturated layer gets a wider range, keeps its weights and its devices' differences."""
    chip = preset("ideal").with_values(
        {"device.variation": {"sigma": 0.1}, "mapping.w_max": {"rule": "max_abs", "headroom": 1.0}}
    )
    layout, state, buffers, weight = layer(chip)
    again = reprogram(layout, state, buffers, w_max=3.0 * float(buffers["w_max"]))
    np.testing.assert_allclose(weights(layout, again.state, again.buffers), weight, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(again.buffers["variation"], buffers["variation"])
    assert again.buffers["w_max"] == pytest.approx(3.0 * buffers["w_max"])
    counted = device_counts(layout, state, buffers), device_counts(layout, again.state, again.buffers)
    assert counted[0].at_g_max == 1
    assert counted[1].at_g_max == 0


def test_interpolation_counts_updates_not_reads() -> None:
    """The exact solution comes every third update; reads in between, any number, change nothing."""
    chip = preset("txsim").with_values({"circuit": {"kind": "interpolated", "period": 3}})
    layout, state, buffers, _ = layer(chip)
    references, stamps = (None, None), []
    rng = np.random.default_rng(2)
    for count in range(7):
        for backward in (False, True, True):
            request = Request(layout, buffers, state, backward, update=count, references=references)
            (matrices,) = read_matrices([request])
            references = matrices.references
        stamps.append((references[0].update, references[1].update))
        exact = Layout(layout.chip.with_("circuit", {"kind": "fcm"}), 9, 7)
        (truth,) = read_matrices([Request(exact, buffers, state)])
        error = np.abs(matrices.forward - truth.forward).max() / np.abs(truth.forward).max()
        assert (error < 1e-12) == (count % 3 == 0)
        assert error < 2e-2
        state = np.clip(state + rng.normal(0.0, 0.01, state.shape), 0.0, 1.0)
    assert stamps == [(0, 0)] * 3 + [(3, 3)] * 3 + [(6, 6)]


def test_ranges_are_tracked_in_training_and_frozen_in_evaluation() -> None:
    """Tracked ranges average training batches; once frozen a result does not depend on its batch mates."""
    chip = preset("txsim-8bit").with_values({"input.range.batches": 2, "adc.range.batches": 2})
    layout, state, buffers, _ = layer(chip)
    (matrices,) = read_matrices([Request(layout, buffers, state)])
    rng, ranges = np.random.default_rng(3), Ranges()
    batches = [rng.standard_normal((6, 9)) for _ in range(4)]
    for x in batches:
        ranges = forward(layout, matrices, buffers, ranges, x, Call(training=True)).ranges
    expected = np.mean([np.abs(x).max() for x in batches[:2]])
    assert ranges.input_range == (pytest.approx(expected), 2)
    whole = forward(layout, matrices, buffers, ranges, batches[0])
    assert whole.ranges == ranges
    part = forward(layout, matrices, buffers, ranges, batches[0][:1])
    np.testing.assert_array_equal(part.y, whole.y[:1])
    assert Ranges.from_array(ranges.to_array()) == ranges
    shared = forward(layout, matrices, buffers, Ranges(), x, Call(training=True, reduce=lambda v: 2.0 * v))
    assert shared.ranges.input_range.value == pytest.approx(2.0 * np.abs(x).max())


def test_clipped_conversions_are_counted() -> None:
    """Exactly the words beyond the full scale count, and the currents beyond theirs."""
    chip = preset("ideal").with_values(
        {
            "input.bits": 8,
            "input.range": {"rule": "fixed", "value": 1.0},
            "adc.bits": 8,
            "adc.range": {"rule": "fixed", "value": 1e-6},
        }
    )
    layout, state, buffers, weight = layer(chip)
    (matrices,) = read_matrices([Request(layout, buffers, state)])
    x = np.random.default_rng(3).uniform(-2.0, 2.0, (5, 9))
    found = clipped(layout, layout.forward, matrices, buffers, Ranges(), x)
    assert found.inputs == int((np.abs(x) > 1.0 + 0.5 / 127).sum()) > 0
    sums = [np.clip(x, -1, 1)[:, a:b] @ (weight / buffers["w_max"])[a:b] for a, b in layout.forward.bounds]
    limit = 1e-6 / layout.current_unit
    assert found.currents == pytest.approx(sum((np.abs(s) > limit).sum() for s in sums), abs=3)
    assert found.of_inputs == x.size
    assert found.of_currents == 2 * 5 * 7


def test_energy_is_the_solved_power() -> None:
    """The energy of a read is the power of every array times the pulse, in both directions."""
    layout, state, buffers, _ = layer(preset("txsim"), (4, 3))
    request = Request(layout, buffers, state)
    x = np.random.default_rng(3).uniform(-1.0, 1.0, (2, 4))
    sent = encode(layout, layout.forward, x, 1.0)
    energy = read_energy(request, sent, duration=1e-8)
    g, wires = conductances(layout, state, buffers), layout.chip.wires
    volts = sent.voltages[0] * layout.chip.input.v_read
    for device in range(2):
        power = solve(g[device], wires, volts).power
        expected = [power.devices.sum(), power.wires.sum(), power.source.sum(), power.sense.sum()]
        np.testing.assert_allclose(energy.arrays[0, 0, device], np.asarray(expected) * 1e-8, rtol=1e-9)
    assert energy.samples == 2
    assert energy.total == pytest.approx(energy.layer.sum())
    # Backward: what the sources deliver is V I, and I follows from the backward matrix of a symmetric drive.
    dy = np.random.default_rng(4).uniform(-1.0, 1.0, (1, 3))
    back = read_energy(request, encode(layout, layout.backward, dy, 1.0), duration=1.0, direction="backward")
    matrix = effective_conductance(g, wires, direction="backward")
    volts = encode(layout, layout.backward, dy, 1.0).voltages[0][0] * layout.chip.input.v_read
    sensed = (volts @ matrix) ** 2 * wires.r_sense
    np.testing.assert_allclose(back.arrays[0, 0, :, 3], sensed.sum(axis=-1), rtol=1e-6)
    ideal = layer(preset("ideal"), (4, 3))
    quiet = read_energy(Request(ideal[0], ideal[2], ideal[1]), sent, duration=1e-8)
    assert quiet.layer[1:].tolist() == [0.0, 0.0, 0.0]


def test_stage_report_names_the_culprit() -> None:
    """Each effect alone shows in its own stage; an ideal chip loses nothing."""
    x = np.random.default_rng(3).standard_normal((8, 9))
    cases = {
        "weights": {"mapping.weight_bits": 4},
        "devices": {"device.variation": {"sigma": 0.1}},
        "wires": {"circuit": {"kind": "fcm"}, "wires": {"r_row": 20.0, "r_col": 20.0}},
        "dac": {"input.bits": 4},
        "adc": {"adc.bits": 4},
        "noise": {"adc.noise": 1e-7},
    }
    for culprit, values in cases.items():
        layout, state, buffers, weight = layer(Chip().with_values(values))
        report = stage_report(layout, weight, state, buffers, x)
        errors = {stage.name: stage.error for stage in report}
        assert list(errors) == list(cases)
        assert errors.pop(culprit) > 1e-3, culprit
        assert max(errors.values()) < 1e-9
        assert 0.0 < report[-1].snr_db < 60.0


def test_measured_devices_are_written_by_whole_pulses() -> None:
    """A jump table of one sure change: the engine writes whole pulses of it, the right number on average."""
    jump = 9e-8  # a hundredth of the range
    up, down = (
        {"conductance": [1e-6, 1e-5], "cdf": [0.0, 1.0], "dg": [[change] * 2] * 2} for change in (jump, -jump)
    )
    device = {"kind": "jump-table", "r_min": 1e5, "r_max": 1e6, "up": up, "down": down}
    chip = Chip().with_values({"device": device, "mapping.w_max": {"rule": "fixed", "value": 1.0}})
    layout = Layout(chip, 60, 60)
    state, buffers = program(layout, np.zeros((60, 60)))
    written = update(layout, state, buffers, np.full((60, 60), 0.05), rate=1.0)
    pulses = (written.state - state) * 100.0
    np.testing.assert_allclose(pulses, np.rint(pulses), atol=1e-9)
    assert set(np.rint(pulses[0]).ravel()) == {2.0, 3.0}
    assert set(np.rint(pulses[1]).ravel()) == {-2.0, -3.0}
    assert weights(layout, written.state, buffers).mean() == pytest.approx(0.05, abs=1e-3)


def test_fixed_point_words_and_mean() -> None:
    """16-bit training: weights are words of w_max / 32767; stochastic rounding keeps small steps alive."""
    chip = preset("ideal").with_values(
        {"precision": {"bits": 16}, "mapping.w_max": {"rule": "fixed", "value": 1.0}}
    )
    layout = Layout(chip, 60, 60)
    state, buffers = program(layout, np.zeros((60, 60)))
    step = np.full((60, 60), 0.1 / 32767)
    for count in range(20):
        state = update(layout, state, buffers, step, rate=1.0, count=count).state
    stored = weights(layout, state, buffers) * 32767
    np.testing.assert_allclose(stored, np.rint(stored), atol=1e-9)
    assert stored.mean() == pytest.approx(2.0, abs=0.15)
    nearest = Layout(chip.with_("precision.rounding", "nearest"), 60, 60)
    state, buffers = program(nearest, np.zeros((60, 60)))
    assert (weights(nearest, update(nearest, state, buffers, step, rate=1.0).state, buffers) == 0.0).all()


def read_wrong(shape: tuple[int, ...]) -> None:
    layout, state, buffers, _ = layer(preset("ideal"))
    (matrices,) = read_matrices([Request(layout, buffers, state)])
    forward(layout, matrices, buffers, Ranges(), np.zeros(shape))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: program(Layout(preset("ideal"), 3, 2), np.zeros((2, 3))),
            ShapeError,
            r"weight: shape \(2, 3\)",
        ),
        (
            lambda: program(Layout(preset("ideal"), 1, 1), np.array([[np.nan]])),
            ConfigError,
            "weight: holds NaN",
        ),
        (
            lambda: program(
                Layout(preset("ideal").with_("mapping.w_max", {"rule": "native"}), 1, 1, "fc"),
                np.ones((1, 1)),
            ),
            ConfigError,
            "native.*'fc'",
        ),
        (
            lambda: Layout(preset("ideal").with_values({"mapping.kind": "offset", "array.cols": 1}), 2, 2),
            ConfigError,
            "array.cols",
        ),
        (lambda: Layout(preset("ideal"), 0, 2), ConfigError, "layout.inputs: 0"),
        (
            lambda: Layout(preset("ideal").with_values({"adc.bits": 1, "adc.subtract": "digital"}), 2, 2),
            ConfigError,
            "adc.bits: 1 with signed currents in the forward read",
        ),
        (lambda: read_wrong((4, 8)), ShapeError, r"x: shape \(4, 8\) is not \(batch, \.\.\., 9\)"),
        (lambda: read_wrong((9,)), ShapeError, r"x: shape \(9,\)"),
        (lambda: update(*layer(preset("ideal"))[:3], np.zeros((7, 9))), ShapeError, r"step: shape \(7, 9\)"),
    ],
)
def test_bad_input_is_named(call: Any, error: type[Exception], text: str) -> None:
    """Each names the field and the fix."""
    with pytest.raises(error, match=text):
        call()


def test_backward_wires_are_the_reversed_ones() -> None:
    """The transposed read drives the sensed ends through r_source: the matrix of the reversed wires."""
    layout, state, buffers, _ = layer(preset("txsim"), (4, 3))
    (matrices,) = read_matrices([Request(layout, buffers, state)])
    wires = layout.chip.wires
    turned = Wires(wires.r_row, wires.r_col, wires.r_sense, wires.r_source)
    g = conductances(layout, state, buffers)
    expected = effective_conductance(g, turned)
    np.testing.assert_allclose(
        matrices.backward[0], (expected[0] - expected[1]).T / layout.g_range, rtol=0, atol=1e-9
    )


def test_weights_beyond_a_fixed_range_are_counted() -> None:
    """Programming clips what does not fit, and says how many weights that are."""
    chip = preset("ideal").with_("mapping.w_max", {"rule": "fixed", "value": 1.0})
    weight = np.array([[0.5, -1.5], [1.0, 2.0], [-1.0, 0.0]])
    layout = Layout(chip, 3, 2)
    state, buffers = program(layout, weight)
    assert saturated_weights(weight, buffers) == 2
    np.testing.assert_allclose(weights(layout, state, buffers), np.clip(weight, -1.0, 1.0), rtol=1e-12)
