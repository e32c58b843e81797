"""The Keras layers on crossbars: Keras' ways of making, training, saving and copying them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf

from xbar_core.config import Chip, preset
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf import (
    PulseSGD,
    XbarConv1D,
    XbarConv2D,
    XbarConv3D,
    XbarDense,
    XbarDepthwiseConv2D,
    XbarLSTM,
    XbarMultiHeadAttention,
    crossbars_of,
    finish_epoch,
    link,
    to_native,
)

QUIET = preset("txsim-8bit").with_values({"update.noise.gamma": 0.0, "array.rows": 16, "array.cols": 8})
EXACT = QUIET.with_("backward", {"mode": "exact"})
# Read through converters that change nothing: the long road, with native results.
CLEAN = QUIET.with_values(
    {
        "circuit": {"kind": "ideal"},
        "input.bits": None,
        "input.nonlinearity": None,
        "adc.bits": None,
        "adc.nonlinearity": None,
        "adc.range": {"rule": "fixed", "value": 1.0},
        "backward.current_range": {"rule": "fixed", "value": 1.0},
    }
)
# Smooth everywhere: curves, wires and devices, but no rounding and no clipping.
SMOOTH = QUIET.with_values(
    {
        "backward": {"mode": "exact"},
        "circuit": {"kind": "fcm", "rtol": 1e-12},
        "input.bits": None,
        "adc.bits": None,
        "input.range": {"rule": "fixed", "value": 10.0},
        "adc.range": {"rule": "fixed", "value": 1e-3},
        "device.variation": {"sigma": 0.05},
    }
)
ROADS = {
    "ideal": preset("ideal"),
    "clean": CLEAN,
    "small": CLEAN.with_values({"array.rows": 4, "array.cols": 3}),
    "unfolded": CLEAN.with_values({"adc.gain_error": 1e-15, "array.rows": 10}),
    "exact": CLEAN.with_values({"backward": {"mode": "exact"}, "array.rows": 10}),
    "linear": preset("ideal").with_("backward", {"mode": "exact"}),
}
CASES: dict[str, tuple[Any, Any, dict[str, Any], tuple[int, ...]]] = {
    "dense": (XbarDense, keras.layers.Dense, {"units": 5, "activation": "tanh"}, (3, 7)),
    "dense of sequences": (XbarDense, keras.layers.Dense, {"units": 5}, (2, 3, 7)),
    "valid": (XbarConv2D, keras.layers.Conv2D, {"filters": 4, "kernel_size": 3}, (2, 7, 6, 2)),
    "same": (
        XbarConv2D,
        keras.layers.Conv2D,
        {"filters": 4, "kernel_size": (2, 3), "padding": "same"},
        (2, 7, 6, 2),
    ),
    "same strided": (
        XbarConv2D,
        keras.layers.Conv2D,
        {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "use_bias": False},
        (2, 7, 6, 2),
    ),
    "dilated": (
        XbarConv2D,
        keras.layers.Conv2D,
        {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "padding": "same"},
        (2, 7, 6, 2),
    ),
    "grouped": (XbarConv2D, keras.layers.Conv2D, {"filters": 4, "kernel_size": 3, "groups": 2}, (2, 6, 6, 4)),
    "causal": (
        XbarConv1D,
        keras.layers.Conv1D,
        {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2, "activation": "relu"},
        (2, 9, 3),
    ),
    "strided 1D": (
        XbarConv1D,
        keras.layers.Conv1D,
        {"filters": 4, "kernel_size": 4, "strides": 3},
        (2, 11, 3),
    ),
    "3D": (
        XbarConv3D,
        keras.layers.Conv3D,
        {"filters": 3, "kernel_size": 2, "padding": "same"},
        (2, 4, 4, 3, 2),
    ),
    "depthwise": (
        XbarDepthwiseConv2D,
        keras.layers.DepthwiseConv2D,
        {"kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2},
        (2, 7, 6, 3),
    ),
}


def draw(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def pair(case: str, chip: Chip, dtype: str = "float64") -> tuple[Any, Any, Any]:
    """A crossbar layer, its native twin of the same seed, and inputs."""
    twin, native, arguments, shape = CASES[case]
    layers = []
    for kind, more in ((twin, {"config": chip, "key": case}), (native, {})):
        keras.utils.set_random_seed(1)
        layers.append(kind(**arguments, **more, dtype=dtype))
        layers[-1].build((None, *shape[1:]))
    return layers[0], layers[1], tf.constant(draw(shape), dtype)


def gradients(layer: Any, x: Any, variables: list[Any]) -> tuple[Any, list[Any]]:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.square(y))
    return y, tape.gradient(loss, [x, *variables])


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("case", CASES)
def test_every_road_is_native_without_distortion(case: str, road: str) -> None:
    """Drawn weights, outputs and all gradients are native's to rounding, whichever way a read is computed."""
    layer, native, x = pair(case, ROADS[road])
    np.testing.assert_allclose(layer.kernel, native.kernel, rtol=1e-12, atol=1e-14)
    y, (dx, dstate) = gradients(layer, x, [layer.state.value])
    expected, (dz, dkernel) = gradients(native, x, [native.kernel.value])
    assert y.shape == expected.shape == layer.compute_output_shape(tuple(x.shape))
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(dx, dz, rtol=1e-8, atol=1e-8)
    found = layer.to_kernel(layer.crossbars[""].weight_gradient(dstate))
    np.testing.assert_allclose(found, dkernel, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("road", ["clean", "exact"])
@pytest.mark.parametrize("case", ["same", "causal", "3D", "depthwise"])
def test_channels_first_is_channels_last(case: str, road: str) -> None:
    """The layout of tensors is no matter of the chip."""
    twin, _, arguments, shape = CASES[case]
    layer, _, x = pair(case, ROADS[road])
    keras.utils.set_random_seed(1)
    other = twin(**arguments, config=ROADS[road], key=case, dtype="float64", data_format="channels_first")
    z = tf.constant(np.moveaxis(x.numpy(), -1, 1))
    y, (dx, dstate) = gradients(layer, x, [layer.state.value])
    other.build(z.shape)
    found, (dz, dother) = gradients(other, z, [other.state.value])
    assert tuple(found.shape) == other.compute_output_shape(tuple(z.shape))
    np.testing.assert_allclose(np.moveaxis(found.numpy(), 1, -1), y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.moveaxis(dz.numpy(), 1, -1), dx, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(dother, dstate, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_exact_mode_is_the_derivative(case: str) -> None:
    """`tf.test.compute_gradient` agrees with the backward pass, against inputs and states."""
    layer, _, x = pair(case, SMOOTH)
    x = x[:1]
    rng = np.random.default_rng(1)
    layer.state.assign(rng.uniform(0.3, 0.7, layer.state.shape))

    def of_x(x: Any) -> Any:
        return layer(x)

    def of_state(state: Any) -> Any:
        @tf.custom_gradient
        def replaced(state: Any) -> Any:
            layer.state.assign(state)
            with tf.GradientTape() as tape:
                y = layer(x)

            def gradient(dy: Any, variables: Any = ()) -> Any:
                return tape.gradient(y, layer.state.value, dy), [None for _ in variables]

            return y, gradient

        return replaced(state)

    for function, at in ((of_x, x), (of_state, tf.constant(layer.state.numpy()[:, :4, :2]))):
        if function is of_state:
            whole = layer.state.numpy()

            def function(part: Any, whole: Any = whole) -> Any:
                rest = tf.concat([part, whole[:, :4, 2:]], -1)
                return of_state(tf.concat([rest, whole[:, 4:]], 1))

        theoretical, numerical = tf.test.compute_gradient(function, [at], delta=1e-4)
        scale = np.abs(numerical[0]).max()
        np.testing.assert_allclose(theoretical[0], numerical[0], rtol=1e-5, atol=1e-6 * scale)


def lenet(chip: Chip, signed: bool = True) -> Any:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            XbarConv2D(3, 3, activation="relu", config=chip, name="conv"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            XbarDense(4, config=chip, name="fc"),
        ]
    )
    link(model)
    return model


@pytest.mark.parametrize("chip", [QUIET, EXACT, preset("ideal")], ids=["crossbar", "exact", "ideal"])
def test_graph_and_eager_train_alike(chip: Chip) -> None:
    """`fit` in a graph, in eager mode and `train_on_batch` leave the same states, ranges and counters."""
    x, y = draw((12, 8, 8, 1)).astype("float32"), draw((12, 4), 1).astype("float32")
    results = []
    for way in ("graph", "eager", "batches", "several"):
        keras.utils.set_random_seed(3)
        model = lenet(chip)
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9),
            "mse",
            run_eagerly=way == "eager",
            steps_per_execution=3 if way == "several" else 1,
        )
        if way == "batches":
            for start in range(0, 12, 4):
                model.train_on_batch(x[start : start + 4], y[start : start + 4])
        else:
            model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)
        assert model.get_layer("conv").counters.numpy()[0] == 3
        results.append([*model.get_weights(), model.predict(x, verbose=0)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_fit_learns() -> None:
    """A network on the 8-bit chip learns by `fit` in `exact` mode, with callbacks and validation data."""
    x = draw((64, 10)).astype("float32")
    y = (x[:, :3] ** 2).astype("float32")
    model = keras.Sequential(
        [keras.Input((10,)), XbarDense(16, "relu", config=EXACT), XbarDense(3, config=EXACT)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    history = model.fit(
        x,
        y,
        epochs=30,
        batch_size=16,
        verbose=0,
        validation_data=(x, y),
        callbacks=[keras.callbacks.TerminateOnNaN()],
    ).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert len(history["val_loss"]) == 30
    for state in (layer.state.numpy() for layer in model.layers):
        assert state.min() >= 0.0
        assert state.max() <= 1.0


def test_files_and_copies_carry_the_chip(tmp_path: Path) -> None:
    """`.keras`, weights files and `clone_model` with `set_weights` go on as the original, draws included."""
    chip = QUIET.with_values(
        {
            "device.variation": {"sigma": 0.1},
            "adc.noise": 1e-8,
            "circuit": {"kind": "interpolated", "period": 3},
        }
    )
    x, y = draw((8, 8, 8, 1)).astype("float32"), draw((8, 4), 1).astype("float32")
    model = lenet(chip)
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    copies = [keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(model), lenet(chip)]
    copies[1].set_weights(model.get_weights())
    copies[2].load_weights(tmp_path / "model.weights.h5")
    expected = model.predict(x, verbose=0)
    for copied in copies:
        np.testing.assert_array_equal(copied.predict(x, verbose=0), expected)
        assert copied.get_layer("conv").chip == chip
        copied.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    for copied in copies:
        copied.fit(x, y, verbose=0)
        for a, b in zip(copied.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("way", ["assign", "set_weights", "buffer", "graph"])
def test_every_change_of_states_is_noticed(way: str) -> None:
    """Whatever changes a Keras weight, the next read is of the new one."""
    chip = QUIET.with_("device.variation", {"sigma": 0.1})
    layer = XbarDense(3, config=chip, key="a", dtype="float64")
    x = draw((4, 6))
    call = tf.function(lambda z: layer(z))
    before = layer(x).numpy(), call(x).numpy()
    new = np.clip(layer.state.numpy() + 0.2, 0, 1)
    if way == "buffer":
        layer.variation.assign(-layer.variation.numpy())
    elif way == "set_weights":
        layer.set_weights([new if w is layer.state else w.numpy() for w in layer.weights])
    elif way == "assign":
        layer.state.assign(new)
    else:
        tf.function(lambda: layer.state.value.assign(new))()
    other = XbarDense(3, config=chip, key="a", dtype="float64")
    other.build((None, 6))
    other.set_weights(layer.get_weights())
    np.testing.assert_array_equal(call(x), other(x))
    assert not np.array_equal(before[1], call(x))


def test_one_solve_serves_a_linked_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an update all layers' matrices come of one call, eagerly and in a graph."""
    from xbar_core.engine import group

    calls: list[int] = []
    solve = group.read_matrices
    monkeypatch.setattr(
        group, "read_matrices", lambda requests: calls.append(len(requests)) or solve(requests)
    )
    model = lenet(QUIET)
    model.compile("sgd", "mse")
    x, y = draw((4, 8, 8, 1)).astype("float32"), draw((4, 4)).astype("float32")
    model.train_on_batch(x, y)
    calls.clear()
    for _ in range(3):
        model.train_on_batch(x, y)
    assert calls == [2, 2, 2]
    model.predict(x, verbose=0)
    model.predict(x, verbose=0)
    assert calls == [2, 2, 2, 2]


def test_no_backward_read_for_a_first_layer() -> None:
    """Nothing is read back where no gradient of the input is wanted, eagerly and in a graph."""
    chip = QUIET.with_("backward.current_range", {"rule": "tracked", "batches": 5})
    for compiled in (False, True):
        model = lenet(chip)
        model.compile("sgd", "mse", run_eagerly=not compiled)
        model.fit(draw((4, 8, 8, 1)), draw((4, 4)), verbose=0)
        assert model.get_layer("conv").ranges.numpy()[3, 1] == 0
        assert model.get_layer("fc").ranges.numpy()[3, 1] == 1


def test_a_function_around_a_layer_is_differentiated_from_outside() -> None:
    """The tape may be outside of the `tf.function`."""
    layer = XbarDense(3, config=QUIET, dtype="float64")
    x = tf.constant(draw((4, 6)))
    layer.build(x.shape)
    expected = gradients(layer, x, [layer.state.value])[1]
    found = gradients(tf.function(lambda z, training: layer(z, training=training)), x, [layer.state.value])[1]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_mixed_precision_keeps_the_analog_path_wide(policy: str) -> None:
    """States and reads stay float32, outputs are of the policy's compute dtype."""
    keras.utils.set_random_seed(0)
    wide = XbarDense(3, config=QUIET, key="a")
    x = draw((4, 6)).astype("float32")
    expected = wide(x)
    layer = XbarDense(3, config=QUIET, key="a", dtype=policy)
    y = layer(x)
    layer.set_weights([w.numpy().astype(v.dtype) for v, w in zip(layer.weights, wide.weights, strict=True)])
    y = layer(x)
    assert layer.state.dtype == "float32"
    assert y.dtype == layer.compute_dtype
    np.testing.assert_array_equal(y, tf.cast(expected, y.dtype))


def test_regularizers_act_on_weights() -> None:
    """A kernel regularizer adds to the losses what native's adds, with native's gradient."""
    kinds = []
    for kind, more in ((XbarDense, {"config": "ideal"}), (keras.layers.Dense, {})):
        keras.utils.set_random_seed(1)
        layer = kind(3, kernel_regularizer=keras.regularizers.L2(0.1), dtype="float64", **more)
        layer.build((None, 5))
        weight = layer.state if kind is XbarDense else layer.kernel
        with tf.GradientTape() as tape:
            loss = tf.add_n(layer.losses)
        gradient = tape.gradient(loss, weight.value)
        kinds.append((loss, layer.crossbars[""].weight_gradient(gradient) if kind is XbarDense else gradient))
    np.testing.assert_allclose(kinds[0][0], kinds[1][0], rtol=1e-12)
    np.testing.assert_allclose(kinds[0][1], kinds[1][1], rtol=1e-12)


def test_mirrored_replicas_train_one_chip() -> None:
    """Two virtual CPU devices hold the same states and counters, those of one device with the whole batch."""
    code = """
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
keras.config.set_floatx("float64")
from xbar_core.config import preset
from xbar_tf import PulseSGD, XbarDense, crossbars_of
def fixed(value):
    return {"rule": "fixed", "value": value}
chip = preset("txsim-8bit").with_values({"adc.noise": 1e-8, "input.range": fixed(4.0),
    "adc.range": fixed(1e-4), "backward.error_range": fixed(1.0), "backward.current_range": fixed(1e-4),
    "circuit": {"kind": "fcm", "rtol": 1e-12}})
exact = chip.with_("backward", {"mode": "exact"})
x = np.random.default_rng(0).standard_normal((16, 6))
y = np.random.default_rng(1).standard_normal((16, 3))
def made(chip, optimizer):
    keras.utils.set_random_seed(1)
    layers = [XbarDense(n, config=chip, key=str(n), dtype="float64") for n in (5, 3)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(optimizer(0.1, momentum=0.9), "mse")
    return model
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
for ways in ((exact, keras.optimizers.SGD), (chip, PulseSGD)):
    with strategy.scope():
        model = made(*ways)
    alone = made(*ways)
    begin = [c.state.numpy() for _, c in crossbars_of(model)]
    for each in (model, alone):
        each.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    for (_, mine), (_, whole), first in zip(crossbars_of(model), crossbars_of(alone), begin, strict=True):
        parts = mine.state.value.values
        assert len(parts) == 2
        assert np.abs(mine.state.numpy() - first).max() > 1e-3
        np.testing.assert_array_equal(parts[0].numpy(), parts[1].numpy())
        np.testing.assert_array_equal(mine.variables["counters"].numpy(), whole.variables["counters"].numpy())
        np.testing.assert_allclose(mine.state.numpy(), whole.state.numpy(), rtol=1e-9, atol=1e-12)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.mark.parametrize("jit", [True, "auto"])
def test_compilers_are_refused_and_training_goes_on(jit: Any) -> None:
    """NumPy is not compiled: `jit_compile=True` goes on without, with Keras' warning; "auto" stays silent."""
    model = lenet(QUIET)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.compile("sgd", "mse", jit_compile=jit)
    heard = [str(each.message) for each in said if "jit_compile" in str(each.message)]
    assert len(heard) == (jit is True)
    assert all("Proceeding with `jit_compile=False`" in message for message in heard)
    assert model.jit_compile is False
    model.train_on_batch(draw((4, 8, 8, 1)), draw((4, 4)))
    assert model.get_layer("conv").counters.numpy()[0] == 1


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("reuse", ["anchored", "distortion"])
def test_interpolation_goes_on_from_a_file(reuse: str, eager: bool, tmp_path: Path) -> None:
    """Saved between two exact solutions a model goes on bit by bit; periods count updates only."""
    chip = QUIET.with_("circuit", {"kind": "interpolated", "period": 3, "reuse": reuse})
    x, y = draw((4, 8, 8, 1)).astype("float32"), draw((4, 4), 1).astype("float32")
    model = lenet(chip)
    model.compile(PulseSGD(0.05, momentum=0.9), "mse", run_eagerly=eager)
    solved = []
    for _ in range(5):
        model.train_on_batch(x, y)
        model.predict(x, verbose=0)
        solved.append([list(c.variables["reference_updates"].numpy()) for _, c in crossbars_of(model)])
    # The read after the third update is the first one that is due; a first layer reads nothing back.
    assert solved == [[[0, -1], [0, 0]]] * 2 + [[[3, -1], [3, 3]]] * 3
    model.save(tmp_path / "model.keras")
    copied = keras.models.load_model(tmp_path / "model.keras")
    copied.compile(copied.optimizer, "mse", run_eagerly=eager)
    for each in (model, copied):
        for _ in range(3):
            each.train_on_batch(x, y)
    for a, b in zip(copied.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(copied.get_layer("fc").reference_updates.numpy()) == [6, 6]


def test_epochs_are_counted() -> None:
    """`finish_epoch` counts for ranges that are tracked over epochs."""
    model = lenet(QUIET)
    finish_epoch(model)
    assert [int(c.counter("epochs")) for _, c in crossbars_of(model)] == [1, 1]


def test_programming_and_reading_back() -> None:
    """`load_native` programs another layer's weights; `reprogram` keeps them and takes a fresh range."""
    native = keras.layers.Conv2D(4, 3, groups=2)
    native.build((None, 8, 8, 4))
    layer = XbarConv2D(4, 3, groups=2, config=QUIET)
    layer.build((None, 8, 8, 4))
    layer.load_native(native)
    np.testing.assert_allclose(layer.kernel, native.kernel, rtol=1e-5, atol=1e-6)
    g = layer.conductances()
    assert g.shape == layer.state.shape
    assert g.min() >= 1e-6 * (1 - 1e-6)
    assert g.max() <= 1e-5 * (1 + 1e-6)
    layer.reprogram()
    np.testing.assert_allclose(layer.kernel, native.kernel, rtol=1e-5, atol=1e-6)
    assert layer.counters.numpy()[3] == 3


def test_wrong_arguments_say_what_to_change() -> None:
    """Constraints of kernels, wrong shapes and NaN are one clear line."""
    with pytest.raises(ConfigError, match="kernel_constraint"):
        XbarDense(3, kernel_constraint="max_norm")
    with pytest.raises(ShapeError, match="groups"):
        XbarConv2D(4, 3, groups=3)
    with pytest.raises(ConfigError, match="padding"):
        XbarConv2D(4, 3, padding="causal")
    layer = XbarDense(3, config=QUIET)
    layer.build((None, 4))
    with pytest.raises(FloatingPointError, match="input holds NaN"):
        layer(np.full((2, 4), np.nan, "float32"))
    with pytest.raises(ShapeError, match="step"):
        layer.crossbars[""].write(np.zeros((2, 2), "float32"))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: XbarDense(3, w_max={"kernal": 1.0}),
            ConfigError,
            "w_max: 'kernal' is no weight, did you mean 'kernel'",
        ),
        (lambda: XbarDense(3, w_max={"kernel": 0.0}), ConfigError, r"w_max\['kernel'\]: 0.0 .* above 0"),
        (
            lambda: XbarDepthwiseConv2D(3, w_max={"kernel": 1.0}),
            ConfigError,
            "did you mean 'depthwise_kernel'",
        ),
        (
            lambda: XbarLSTM(3, w_max={"kernle": 1.0}),
            ConfigError,
            "'kernle' is no weight, did you mean 'kernel'.*they are kernel, recurrent_kernel",
        ),
        (lambda: XbarLSTM(3, w_max=1.0), ConfigError, "w_max: 1.0 is a float; give a mapping of weight"),
        (lambda: XbarMultiHeadAttention(2, 2, w_max={"qery": 1.0}), ConfigError, "did you mean 'query'"),
        (
            lambda: XbarMultiHeadAttention(2, 2, w_max=1.0),
            ConfigError,
            "w_max: 1.0 is a float; give a mapping",
        ),
        (lambda: XbarDense(3).build((None, None)), ShapeError, "the channels of inputs .* are not known"),
        (lambda: XbarLSTM(3).build((2, 5, None)), ShapeError, "the channels of inputs .* are not known"),
        (
            lambda: XbarDepthwiseConv2D(3).build((None, 8, 8, None)),
            ShapeError,
            "the channels of inputs .* are not known",
        ),
        (lambda: XbarConv2D(3, 3).build((None, 8, 8, None)), ShapeError, "the channels of inputs .* are not"),
    ],
)
def test_ranges_of_weights_and_channels_are_checked(make: Any, kind: Any, message: str) -> None:
    """A range by a wrong name, and inputs without a known number of channels, are one clear line."""
    with pytest.raises(kind, match=message):
        make()


def test_ranges_of_weights_go_by_native_names() -> None:
    """The name may be left out where there is one weight; the configuration makes the same layer."""
    for given in (0.75, {"kernel": 0.75}):
        layer = XbarDense(3, w_max=given)
        again = XbarDense.from_config(layer.get_config())
        for each in (layer, again):
            each.build((None, 4))
            assert float(each.w_max.numpy()) == 0.75
    memory = XbarLSTM(3, w_max={"recurrent_kernel": 0.5})
    memory.build((None, 5, 2))
    assert float(memory.crossbar("recurrent_kernel").w_max.numpy()) == 0.5
    with pytest.raises(ConfigError, match="did you mean 'kernel'"):
        memory.load_native(keras.layers.LSTM(3), {"kernl": 1.0})


@pytest.mark.parametrize("biases", [(True, False), (False, True)])
def test_native_biases_that_do_not_fit_are_refused(biases: tuple[bool, bool]) -> None:
    """load_native neither drops a bias nor leaves one as it was; nothing is programmed."""
    native, layer = keras.layers.Dense(3, use_bias=biases[0]), XbarDense(3, use_bias=biases[1])
    for each in (native, layer):
        each.build((None, 4))
    before = layer.get_weights()
    with pytest.raises(ShapeError, match=r"bias of '.*' has shape .*, this layer's is .*give both use_bias"):
        layer.load_native(native)
    for mine, wanted in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("chip", ["differential", "faulty", "parts"])
def test_states_beyond_their_range_are_read_as_its_ends(chip: str) -> None:
    """Whatever moved them there: weights and the network that is read back are those of the ideal read."""
    values: dict[str, Any] = {"mapping.kind": "differential"}
    if chip == "faulty":
        values["device.faults"] = {"stuck_at_g_min": 0.2}
    layer = (
        XbarConv1D(4, 2, groups=2, config=preset("ideal").with_values(values), dtype="float64")
        if chip == "parts"
        else XbarDense(3, config=preset("ideal").with_values(values), dtype="float64")
    )
    x = draw((4, 5, 4))
    layer(x)
    layer.state.assign(layer.state.numpy() + np.random.default_rng(3).uniform(-0.5, 0.5, layer.state.shape))
    plain = to_native(keras.Sequential([keras.Input((5, 4), dtype="float64"), layer]))
    np.testing.assert_allclose(plain(x), layer(x), rtol=1e-9, atol=1e-12)
    if chip != "faulty":  # those are stuck wherever weights are put
        layer.reprogram()
        np.testing.assert_allclose(layer(x), plain(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("chip", [QUIET, EXACT, preset("ideal")], ids=["crossbar", "exact", "ideal"])
def test_no_samples_are_no_read(chip: Chip, compiled: bool) -> None:
    """An empty batch gives empty outputs and gradients of 0; ranges learn nothing."""
    kinds = [
        (XbarDense(3, config=chip), (0, 4), (0, 3)),
        (XbarConv2D(3, 2, config=chip), (0, 6, 5, 2), (0, 5, 4, 3)),
        (XbarLSTM(3, config=chip), (0, 4, 2), (0, 3)),
    ]
    for layer, shape, wanted in kinds:
        layer.build((None, *shape[1:]))
        held = [np.copy(c.variables["ranges"].numpy()) for c in layer.crossbars.values()]
        x = tf.zeros(shape)

        def step(x: Any, layer: Any = layer) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(y)
            return y, tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])

        specification = tf.TensorSpec((None, *shape[1:]), "float32")
        y, found = (tf.function(step, input_signature=[specification]) if compiled else step)(x)
        assert tuple(y.shape) == wanted
        assert tuple(found[0].shape) == shape
        assert not any(np.any(gradient) for gradient in found)
        for crossbar, before in zip(layer.crossbars.values(), held, strict=True):
            np.testing.assert_array_equal(crossbar.variables["ranges"].numpy(), before)


def test_importing_needs_no_torch_and_the_right_backend() -> None:
    """`import xbar_tf` leaves torch alone; another Keras backend is one error that names the fix."""
    code = """
import sys, keras, xbar_tf
assert "torch" not in sys.modules
for name in [name for name in sys.modules if name.startswith("xbar_tf")]:
    del sys.modules[name]
print("imported")
keras.backend.backend = lambda: "jax"
import xbar_tf
"""
    failed = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
    assert failed.returncode != 0
    assert failed.stdout.split() == ["imported"]
    assert "KERAS_BACKEND=tensorflow" in failed.stderr.splitlines()[-1]


def test_another_backend_is_refused() -> None:
    """Where Keras really runs on torch, `import xbar_tf` is one line with the fix."""
    pytest.importorskip("torch", reason="torch is not installed, so Keras cannot run on it")
    done = subprocess.run(
        [sys.executable, "-c", "import keras, xbar_tf"],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert (
        "ConfigError: keras.backend: 'torch'; xbar_tf runs on the TensorFlow" in done.stderr.splitlines()[-1]
    )
