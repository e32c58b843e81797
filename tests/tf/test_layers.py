"""The Keras layers on crossbars compute what their native twins do; what they read, and when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf
from tf.layer_cases import CASES, EXACT, QUIET, ROADS, draw, gradients, lenet, pair

from xbar_core.config import Chip, preset
from xbar_tf import (
    XbarConv1D,
    XbarConv2D,
    XbarDense,
    XbarLSTM,
    to_native,
)


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
