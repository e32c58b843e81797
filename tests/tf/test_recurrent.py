"""Recurrent layers: their Keras twins on the ideal chip, and the time loop on the others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from xbar_core.config import Chip, preset
from xbar_core.engine import group
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf.functional import is_product
from xbar_tf.recurrent import XbarGRU, XbarLSTM, XbarSimpleRNN

KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "rnn": (XbarSimpleRNN, keras.layers.SimpleRNN, {}),
    "lstm": (XbarLSTM, keras.layers.LSTM, {}),
    "gru": (XbarGRU, keras.layers.GRU, {}),
    "gru-reset-before": (XbarGRU, keras.layers.GRU, {"reset_after": False}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "last": {},
    "all": {"return_sequences": True, "return_state": True},
    "backwards": {"return_sequences": True, "go_backwards": True, "use_bias": False},
    "last-backwards": {"go_backwards": True, "return_state": True},
    "unrolled": {"unroll": True, "return_sequences": True, "activation": "relu"},
}


def stepwise() -> Chip:
    """Return an ideal chip whose input range makes it take the engine's reads rather than products."""
    return preset("ideal").with_("input.range", {"rule": "fixed", "value": 1e3})


CHIPS = {"product": preset("ideal"), "stepwise": stepwise()}
ROADS: dict[str, Callable[[Any], Any]] = {"eager": lambda function: function, "graph": tf.function}


def random(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).standard_normal(shape))


def pair(kind: str, chip: Chip, **options: Any) -> tuple[Any, Any]:
    """A layer with the weights of a native one, which are all different."""
    twin, native_type, extra = KINDS[kind]
    native = native_type(4, dtype="float64", **{"bias_initializer": "glorot_uniform", **extra, **options})
    native.build((2, 5, 3))
    generator = np.random.default_rng(1)
    native.set_weights([generator.standard_normal(weight.shape) for weight in native.get_weights()])
    layer = twin(4, config=chip, dtype="float64", name="memory", **{**extra, **options})
    layer.build((2, 5, 3))
    layer.load_native(native)
    return layer, native


def trainable(layer: Any) -> list[Any]:
    if not hasattr(layer, "crossbars"):
        return [weight.value for weight in layer.trainable_weights]
    states = [layer.crossbar(name).state.value for name in ("kernel", "recurrent_kernel")]
    return [*states, *([] if layer.bias is None else [layer.bias.value])]


def run(layer: Any, x: tf.Tensor, road: str, **options: Any) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Outputs and gradients of x, initial states and weights, in weight units."""
    held = options.get("initial_state", [])

    @ROADS[road]
    def step(x: tf.Tensor, held: list[tf.Tensor]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, *held])
            given = {**options, "initial_state": held} if held else options
            outputs = layer(x, **given)
            outputs = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
            total = sum(tf.reduce_sum(tf.sin(3.0 * y)) for y in outputs)
        return outputs, tape.gradient(total, [x, *held, *trainable(layer)])

    outputs, gradients = step(x, held)
    if hasattr(layer, "crossbars"):
        at = 1 + len(held)
        for index, name in enumerate(("kernel", "recurrent_kernel")):
            bar = layer.crossbar(name).weight_gradient(gradients[at + index])
            gradients[at + index] = layer._ordered(bar)
    return outputs, gradients


def assert_equal(layer: Any, native: Any, x: tf.Tensor, road: str, **options: Any) -> None:
    """Outputs, final states and all gradients agree to 1e-12."""
    ours, theirs = (run(each, x, road, **options) for each in (layer, native))
    for mine, wanted in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "options", "road"),
    [
        *((kind, options, "eager") for kind in KINDS for options in OPTIONS),
        ("gru", "all", "graph"),
        ("lstm", "backwards", "graph"),
        ("rnn", "unrolled", "graph"),
    ],
)
def test_engine_on_an_ideal_chip_is_the_keras_twin(kind: str, options: str, road: str) -> None:
    """Step by step through the engine: outputs, states and gradients are Keras'."""
    layer, native = pair(kind, stepwise(), **OPTIONS[options])
    assert not any(is_product(crossbar) for crossbar in layer.crossbars.values())
    assert_equal(layer, native, random(2, 5, 3), road)


@pytest.mark.parametrize(("kind", "road"), [*((kind, "eager") for kind in KINDS), ("lstm", "graph")])
def test_products_on_an_ideal_chip_are_the_keras_twin(kind: str, road: str) -> None:
    """Where a read is one product, the same."""
    layer, native = pair(kind, preset("ideal"), return_sequences=True, return_state=True)
    assert all(is_product(crossbar) for crossbar in layer.crossbars.values())
    assert_equal(layer, native, random(2, 5, 3), road)


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_initial_states(kind: str, road: str) -> None:
    """Given states are where the loop begins, and have gradients."""
    layer, native = pair(kind, stepwise(), return_sequences=True, return_state=True)
    held = [random(2, 4, seed=2 + index) for index in range(len(layer.state_size))]
    assert_equal(layer, native, random(2, 5, 3), road, initial_state=held)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    ("options", "road"),
    [("all", "eager"), ("last", "eager"), ("backwards", "eager"), ("unrolled", "eager"), ("all", "graph")],
)
def test_masked_steps_are_skipped(options: str, zeros: bool, road: str) -> None:
    """A mask of any pattern: states stay, outputs repeat or are 0, as in Keras."""
    layer, native = pair("lstm", stepwise(), zero_output_for_mask=zeros, use_cudnn=False, **OPTIONS[options])
    mask = tf.constant([[True, False, True, True, False], [False, True, True, False, False]])
    assert_equal(layer, native, random(2, 5, 3), road, mask=mask)


@pytest.mark.parametrize(
    ("rates", "road"),
    [
        ({"dropout": 0.4}, "eager"),
        ({"dropout": 0.3, "recurrent_dropout": 0.5}, "eager"),
        ({"dropout": 0.4, "implementation": 1, "use_cudnn": False}, "eager"),
        ({"dropout": 0.3, "recurrent_dropout": 0.5}, "graph"),
    ],
)
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_dropout_masks_are_those_of_keras(kind: str, rates: dict[str, Any], road: str) -> None:
    """With one seed the masks of inputs and hidden states are Keras', one for all gates or one for each."""
    if kind == "rnn" and "implementation" in rates:
        pytest.skip("SimpleRNN has no such argument")
    layer, native = pair(kind, stepwise(), return_sequences=True, seed=3, **rates)
    assert_equal(layer, native, random(2, 5, 3), road, training=True)
    plain, _ = pair(kind, stepwise(), return_sequences=True)
    x = random(2, 5, 3)
    np.testing.assert_allclose(layer(x), plain(x), rtol=1e-12, atol=1e-12, err_msg="evaluation drops")


@pytest.mark.parametrize("road", ROADS)
def test_length_unknown_to_the_graph(road: str) -> None:
    """A graph that is made for any length runs for each."""
    layer, native = pair("gru", stepwise(), return_sequences=True)
    function = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 3), "float64")])
    for length in (1, 4, 6):
        x = random(2, length, 3)
        np.testing.assert_allclose(
            (function if road == "graph" else layer)(x), native(x), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("merge_mode", ["concat", "sum", None])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_bidirectional_takes_the_layer(kind: str, merge_mode: str | None) -> None:
    """`keras.layers.Bidirectional` makes a layer of each direction, on arrays of their own."""
    twin, native_type, _ = KINDS[kind]
    native = keras.layers.Bidirectional(
        native_type(4, return_sequences=True, dtype="float64"), merge_mode, dtype="float64"
    )
    ours = keras.layers.Bidirectional(
        twin(4, return_sequences=True, config=stepwise(), key="memory", dtype="float64"),
        merge_mode,
        dtype="float64",
    )
    x, mask = random(2, 5, 3), tf.constant([[True] * 5, [True] * 3 + [False] * 2])
    native(x), ours(x)
    for part in ("forward_layer", "backward_layer"):
        getattr(ours, part).load_native(getattr(native, part))
    names = {c.name for part in (ours.forward_layer, ours.backward_layer) for c in part.crossbars.values()}
    assert names == {"memory_ih_l0", "memory_hh_l0", "memory_ih_l0_reverse", "memory_hh_l0_reverse"}
    for options in ({}, {"mask": mask}):
        for mine, wanted in zip(
            keras.tree.flatten(ours(x, **options)), keras.tree.flatten(native(x, **options)), strict=True
        ):
            np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("road", ROADS)
def test_stateful_layers_go_on_from_the_last_batch(road: str) -> None:
    """Two halves of a sequence give what the whole gives; `reset_state` begins anew."""
    whole, _ = pair("lstm", stepwise(), return_sequences=True)
    layer, _ = pair("lstm", stepwise(), return_sequences=True, stateful=True)
    x, call = random(2, 6, 3), ROADS[road](lambda x: layer(x))
    for _ in range(2):
        halves = [call(x[:, :3]), call(x[:, 3:])]
        np.testing.assert_allclose(tf.concat(halves, 1), whole(x), rtol=1e-12, atol=1e-12)
        layer.reset_state()
    with pytest.raises(ShapeError, match="3 samples; this stateful layer keeps 2 states"):
        layer(random(3, 5, 3))
    with pytest.raises(ShapeError, match="stateful=True needs a batch of known size"):
        XbarLSTM(4, stateful=True).build((None, 5, 3))


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


def train(layer: Any, x: tf.Tensor, road: str) -> Callable[[], Any]:
    """A call that goes forward and backward."""

    @ROADS[road]
    def step(x: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            y = layer(x, training=True)
            total = tf.reduce_sum(y)
        return tape.gradient(total, trainable(layer))

    return lambda: step(x)


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


@pytest.mark.parametrize("kind", KINDS)
def test_saved_cloned_and_configured(kind: str, tmp_path: Path) -> None:
    """A `.keras` file carries chip, states, ranges and counters; a clone draws its own first weights."""
    twin, native_type, extra = KINDS[kind]
    options = {"return_sequences": True, "dropout": 0.1, "seed": 5, "recurrent_initializer": "glorot_normal"}
    layer = twin(4, config="txsim-8bit", key="k", w_max={"kernel": 2.5}, **extra, **options)
    model = keras.Sequential([keras.Input((5, 3)), layer])
    x = np.asarray(random(2, 5, 3), np.float32)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[0].get_config() == layer.get_config()
    assert float(layer.crossbar("kernel").w_max.value) == 2.5
    clone = keras.models.clone_model(model)
    assert np.any(clone.layers[0].kernel != layer.kernel)
    native = layer.to_native()
    assert type(native) is native_type
    for mine, wanted in zip((layer.kernel, layer.recurrent_kernel, layer.bias), native.weights, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-6, atol=1e-7)
    for name, value in native.get_config().items():
        if name not in ("name", "dtype", "kernel_constraint", "recurrent_constraint"):
            assert layer.get_config()[name] == value, name


@pytest.mark.parametrize("kind", KINDS)
def test_first_weights_are_those_of_keras(kind: str) -> None:
    """Drawn from the same generator in the same order."""
    twin, native_type, extra = KINDS[kind]
    weights = []
    for make in (native_type, twin):
        keras.utils.set_random_seed(4)
        layer = make(4, dtype="float64", **extra)
        layer.build((None, None, 3))
        weights.append(
            layer.weights if make is native_type else [layer.kernel, layer.recurrent_kernel, layer.bias]
        )
    for wanted, mine in zip(*weights, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-14)


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


def test_mirrored_replicas_train_one_chip() -> None:
    """Two virtual CPU devices hold the same states and counters, those of one device with the whole batch."""
    code = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from xbar_core.config import preset
from xbar_tf.recurrent import XbarLSTM
chip = preset("txsim-8bit").with_values({"adc.noise": 1e-8, "input.range": {"rule": "fixed", "value": 4.0},
    "adc.range": {"rule": "fixed", "value": 1e-4}, "backward": {"mode": "exact"}})
x = np.random.default_rng(0).standard_normal((16, 5, 3))
y = np.random.default_rng(1).standard_normal((16, 4))
def made():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5, 3)), XbarLSTM(4, config=chip, key="a", dtype="float64")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = made()
alone = made()
for each in (model, alone):
    each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
layer, other = model.layers[0], alone.layers[0]
parts = layer.state_hh_l0.value.values
assert len(parts) == 2
np.testing.assert_array_equal(parts[0].numpy(), parts[1].numpy())
for name in ("_ih_l0", "_hh_l0"):
    mine, whole = layer.crossbars[name].variables, other.crossbars[name].variables
    np.testing.assert_array_equal(mine["counters"].numpy(), whole["counters"].numpy())
    np.testing.assert_allclose(mine["state"].numpy(), whole["state"].numpy(), rtol=1e-6, atol=1e-9)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_half_precision() -> None:
    """Under a mixed policy states and the loop are float32, outputs float16."""
    layer = XbarGRU(4, config="txsim-8bit", dtype="mixed_float16", return_state=True)
    output, state = layer(np.asarray(random(2, 5, 3), np.float16))
    assert layer.state_hh_l0.dtype == "float32"
    assert output.dtype == state.dtype == tf.float16


@pytest.mark.parametrize("chip", ["txsim-8bit", "ideal"])
def test_not_a_number_names_the_layer(chip: str) -> None:
    """NaN in an input says which layer met it, also where TensorFlow multiplies by itself, and in a graph."""
    layer = XbarLSTM(4, config=chip, key="memory", dtype="float64")
    x = tf.fill((2, 1, 3), tf.constant(np.nan, "float64"))
    with pytest.raises(FloatingPointError, match=r"layer 'memory_ih_l0'.*input holds NaN"):
        layer(x)
    with pytest.raises(tf.errors.OpError, match=r"layer 'memory_ih_l0'.*input.* NaN"):
        tf.function(layer)(x)


@pytest.mark.parametrize("chip", ["txsim-8bit", "ideal"])
def test_not_a_number_in_an_initial_state_names_the_weight(chip: str) -> None:
    """An initial hidden state is checked as inputs are, on every road."""
    layer = XbarGRU(4, config=chip, key="memory", dtype="float64")
    x, held = random(2, 3, 3), tf.fill((2, 4), tf.constant(np.nan, "float64"))
    with pytest.raises(FloatingPointError, match=r"layer 'memory_hh_l0'.*input holds NaN"):
        layer(x, initial_state=held)
    with pytest.raises(tf.errors.OpError, match=r"layer 'memory_hh_l0'.*input.* NaN"):
        tf.function(layer)(x, initial_state=held)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: XbarLSTM(0), ShapeError, "units: 0; give an integer above 0"),
        (lambda: XbarLSTM(4, kernel_constraint="non_neg"), ConfigError, "kernel_constraint: 'non_neg'"),
        (lambda: XbarLSTM(4, recurrent_constraint="non_neg"), ConfigError, "recurrent_constraint: 'non_neg'"),
        (lambda: XbarGRU(4, use_cudnn=True), ConfigError, "use_cudnn: True; a chip has no such kernel"),
        (lambda: XbarLSTM(4).kernel, AttributeError, "no kernel before the layer is built"),
        (
            lambda: XbarLSTM(4)(tf.zeros((2, 3, 5)), initial_state=[tf.zeros((2, 3))]),
            ShapeError,
            r"initial states of widths \[3\]; they are \[4, 4\]",
        ),
        (
            lambda: tf.function(XbarGRU(4, unroll=True)).get_concrete_function(
                tf.TensorSpec((2, None, 3), "float32")
            ),
            Exception,  # TensorFlow has its own for what happens while it makes a graph
            "ShapeError(.|\n)*unroll=True needs a known length",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    """What does not fit is one clear line with the fix."""
    with pytest.raises(kind, match=message):
        make()


def test_native_weights_of_another_size_are_refused() -> None:
    """load_native names both shapes and changes nothing."""
    layer, _ = pair("gru", preset("ideal"))
    other = keras.layers.GRU(5, dtype="float64")
    other.build((None, None, 3))
    before = layer.get_weights()
    with pytest.raises(ShapeError, match=r"\[\(3, 15\), .*this layer's are \[\(3, 12\)"):
        layer.load_native(other)
    for mine, wanted in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, wanted)


def test_stateful_layers_go_back_to_native() -> None:
    """The native layer is built for the same batch, and keeps states of it."""
    layer, native = pair("lstm", preset("ideal"), stateful=True, return_sequences=True)
    x = random(2, 5, 3)
    plain = layer.to_native()
    for _ in range(2):
        np.testing.assert_allclose(plain(x), native(x), rtol=1e-12, atol=1e-12)
