"""The time loop of recurrent layers on chips with wires, converters and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf
from tf.recurrent_cases import ROADS, pair, random, train, trainable

from xbar_core.config import preset
from xbar_core.engine import group
from xbar_tf.recurrent import XbarLSTM


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of weights whose matrices were computed, call by call."""
    calls: list[int] = []
    solve = group.read_matrices

    def counted(requests: Any) -> Any:
        calls.append(len(requests))
        return solve(requests)

    monkeypatch.setattr(group, "read_matrices", counted)
    return calls


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "gru-reset-before"])
@pytest.mark.parametrize("converters", [False, True])
def test_exact_gradient_is_the_derivative(kind: str, converters: bool) -> None:
    """Finite differences through wires, curved converters and three steps: states, input and biases."""
    chip = preset("txsim-8bit").with_("backward", {"mode": "exact"}).with_("array", {"rows": 4, "cols": 4})
    for field in ("input", "adc"):
        chip = chip.with_(f"{field}.bits", None)
        if not converters:
            chip = chip.with_(f"{field}.nonlinearity", None)
    chip = chip.with_("input.range", {"rule": "fixed", "value": 4.0}) if converters else chip
    chip = chip.with_("adc.range", {"rule": "fixed", "value": 4e-5}) if converters else chip
    layer, _ = pair(kind, chip, return_sequences=True)
    x, weights = random(2, 3, 3), np.random.default_rng(5).standard_normal((2, 3, 4))

    def total(x: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(weights * layer(x))

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = total(x)
    held = trainable(layer)
    for variable, gradient in zip([x, *held], tape.gradient(y, [x, *held]), strict=True):
        value = tf.convert_to_tensor(variable)
        for direction in np.random.default_rng(6).standard_normal((3, *value.shape)):
            ends = []
            for end in (value + 1e-6 * direction, value - 1e-6 * direction):
                if variable is not x:
                    variable.assign(end)
                ends.append(total(end if variable is x else x))
            if variable is not x:
                variable.assign(value)
            slope = float(ends[0] - ends[1]) / 2e-6
            assert float(tf.reduce_sum(gradient * direction)) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("road", ROADS)
def test_matrices_are_computed_once_for_a_sequence(solves: list[int], road: str) -> None:
    """Steps do not solve: the first sequence learns which weights are read backwards, an update takes one."""
    layer, _ = pair("lstm", preset("txsim-8bit"), return_sequences=True)
    step = train(layer, random(2, 6, 3), road)
    step()
    assert len(solves) <= 3, "more solves than weights and directions: the steps solve"
    before = len(solves)
    step()
    assert len(solves) == before
    layer.state_hh_l0.assign(0.99 * layer.state_hh_l0)
    step()
    assert len(solves) == before + 1


@pytest.mark.parametrize("road", ROADS)
def test_conductances_drawn_per_batch_hold_for_a_sequence(solves: list[int], road: str) -> None:
    """Read noise of kind per_batch draws once in a sequence, and anew in the next."""
    chip = preset("txsim-8bit").with_("device.read_noise", {"sigma": 0.05, "kind": "per_batch"})
    layer, _ = pair("rnn", chip, return_sequences=True)
    x, call = random(2, 6, 3), ROADS[road](lambda x: layer(x))
    first = call(x)
    assert sum(solves) <= 3
    assert np.any(first != call(x))


@pytest.mark.parametrize("road", ROADS)
def test_backward_pass_meets_the_draws_of_its_forward_pass(road: str) -> None:
    """With conductances drawn per batch, two calls before one backward pass: each has its own draws.

    Without biases a network of linear units is linear: its outputs are its gradient times its inputs.
    """
    chip = preset("ideal").with_("device.read_noise", {"sigma": 0.02, "kind": "per_batch"})
    chip = chip.with_("backward", {"mode": "exact"}).with_("input.range", {"rule": "fixed", "value": 1e3})
    layer, _ = pair("rnn", chip, activation="linear", use_bias=False)
    x = random(2, 4, 3)

    @ROADS[road]
    def gradients(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            first, second = layer(x), layer(x)
            total = tf.reduce_sum(first) + 3.0 * tf.reduce_sum(second)
        return tape.gradient(total, x), first, second

    gradient, first, second = gradients(x)
    assert np.any(first != second)
    expected = tf.reduce_sum(first) + 3.0 * tf.reduce_sum(second)
    assert float(tf.reduce_sum(gradient * x)) == pytest.approx(float(expected), rel=1e-9)


def test_noise_is_fresh_in_every_step() -> None:
    """The same input and hidden state at two steps meet two draws of the read noise; a seed fixes them."""
    chip = preset("ideal").with_("device.read_noise", {"sigma": 0.1})
    layer, _ = pair("rnn", chip, return_sequences=True, activation="relu")
    layer.state_ih_l0.assign(tf.fill(layer.state_ih_l0.shape, tf.constant(0.5, "float64")))
    layer.bias.assign(tf.ones_like(layer.bias.value))
    x, ones = tf.zeros((1, 1, 3), "float64"), tf.ones((1, 4), "float64")
    assert np.any(layer(x, initial_state=ones) != layer(x, initial_state=ones))
    again, _ = pair("rnn", chip, return_sequences=True, activation="relu")
    again.set_weights(layer.get_weights())
    long = tf.zeros((1, 6, 3), "float64")
    np.testing.assert_array_equal(again(long), layer(long))


@pytest.mark.parametrize("road", ROADS)
def test_ranges_learn_once_from_a_sequence(road: str) -> None:
    """A tracked range counts a sequence as one batch and keeps the largest of its steps."""
    chip = preset("txsim-8bit").with_("input.range", {"rule": "tracked", "batches": 3})
    layer, native = pair("rnn", chip, return_sequences=True)
    x, held = random(2, 7, 3), tf.fill((2, 4), tf.constant(0.01, "float64"))
    step = ROADS[road](lambda x, held: layer(x, initial_state=held, training=True))
    step(x, held)
    learned = layer.crossbars["_hh_l0"].ranges.input_range
    assert learned.batches == 1
    hidden = native(x, initial_state=held)[:, :-1]
    assert learned.value == pytest.approx(float(tf.reduce_max(tf.abs(hidden))), rel=0.1)
    step(x, held)
    assert layer.crossbars["_hh_l0"].ranges.input_range.batches == 2


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_eager_and_graph_are_one_chip(kind: str) -> None:
    """With converters and noise both roads give the same numbers, gradients, ranges and counters."""
    chip = preset("txsim-8bit").with_("device.read_noise", {"sigma": 0.01}).with_("adc.noise", 1e-9)
    results = []
    for road in ROADS:
        layer, _ = pair(kind, chip, return_sequences=True)
        steps = [train(layer, random(2, 5, 3, seed=seed), road)() for seed in range(3)]
        results.append([*steps[-1], *layer.get_weights()])
    for eager, graph in zip(*results, strict=True):
        np.testing.assert_allclose(graph, eager, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chip", ["ideal", "txsim-8bit"])
def test_steps_are_cut_once(chip: str) -> None:
    """No step's gradient is as large as the sequence, as that of a slice is."""
    layer = XbarLSTM(4, config=chip, return_sequences=True)
    x = tf.zeros((2, 5, 3))
    layer(x)

    @tf.function
    def step(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, mask=tf.ones((2, 5), "bool"), training=True))
        return tape.gradient(loss, trainable(layer))

    library = step.get_concrete_function(x).graph.as_graph_def().library
    loops = {node.op for function in library.function for node in function.node_def}
    assert "TensorListGetItem" in loops
    assert "StridedSliceGrad" not in loops


def test_fit_trains_through_the_loop() -> None:
    """`fit` lowers the loss of a small memory task on a chip with converters."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((64, 6, 2)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.float32)
    chip = preset("txsim-8bit").with_("backward", {"mode": "exact"})
    model = keras.Sequential([keras.Input((6, 2)), XbarLSTM(8, config=chip), keras.layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss)
    history = model.fit(x, y, batch_size=32, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
