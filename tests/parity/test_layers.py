"""Keras layers against torch layers: the same weights, inputs and seed are the same chip, noise included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as tf
import torch

import xbar_tf
import xbar_torch
from xbar_core.config import Chip, preset
from xbar_core.engine.patches import Geometry

BASE = preset("txsim-8bit").with_values({"array.rows": 10, "array.cols": 6})
DEVICES = {
    "device.variation": {"sigma": 0.1, "sigma_v": 0.05},
    "device.faults": {"stuck_at_g_min": 0.02, "stuck_at_g_max": 0.02, "open": 0.01},
}
CHIPS: dict[str, Chip] = {
    "ideal": preset("ideal"),
    "8bit": BASE,
    "devices": BASE.with_values(DEVICES),
    "noise": BASE.with_values(
        {
            "device.read_noise": {"sigma": 0.01},
            "adc.gain_error": 0.01,
            "adc.noise": 1e-8,
            "adc.offset_error": 1e-8,
        }
    ),
    "drawn": BASE.with_("device.read_noise", {"sigma": 0.01, "kind": "per_batch"}),
    "tracked": BASE.with_values(
        {
            "input.range": {"rule": "tracked", "batches": 2},
            "adc.range": {"rule": "tracked", "batches": 2, "statistic": "percentile", "percentile": 99.0},
            "backward.error_range": {"rule": "tracked", "batches": 2},
            "backward.current_range": {"rule": "tracked", "batches": 2},
        }
    ),
    "phases": BASE.with_values({"input.signed": "two_phase", "adc.subtract": "digital"}),
    "offset": BASE.with_values({"mapping.kind": "offset", "update.pair": None}),
    "sliced": BASE.with_values({"mapping.weight_bits": 6, "mapping.cell_bits": 2}),
    "rounded": BASE.with_("precision", {"bits": 10, "rounding": "stochastic"}),
    "interpolated": BASE.with_("circuit", {"kind": "interpolated", "period": 2}),
    "exact": BASE.with_values({"backward": {"mode": "exact"}, **DEVICES}),
    "exact noise": BASE.with_values(
        {"backward": {"mode": "exact"}, "device.read_noise": {"sigma": 0.01}, "adc.noise": 1e-8}
    ),
    "linear": preset("txsim").with_values({"backward": {"mode": "exact"}, "array.rows": 10}),
}
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"stride": (2, 3), "padding": (1, 2)},
    "dilated": {"dilation": (2, 1), "padding": 1},
    "grouped": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4},
}


def to_last(x: Any) -> Any:
    """Channels behind."""
    return np.moveaxis(x, 1, -1)


def compare(ours: Any, theirs: Any, tolerance: float, what: str) -> None:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    scale = max(np.abs(theirs).max(initial=0.0), 1e-30)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale, err_msg=what)


def train(
    layer: Any,
    twin: Any,
    inputs: list[Any],
    turned: bool,
    tolerance: float,
    steps: int = 3,
    compiled: bool = False,
) -> None:
    """Train both in steps and compare everything after each of them."""
    crossbar, other = layer.crossbars[""], twin.crossbars[""]

    def once(z: Any, weights: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(z)
            y = layer(z, training=True)
            loss = tf.reduce_sum(y * weights)
        return y, tape.gradient(loss, [z, layer.state.value])

    call = tf.function(once) if compiled else once
    for step, values in enumerate(inputs[:steps]):
        x = torch.from_numpy(values).requires_grad_()
        y = twin(x)
        weights = np.random.default_rng(step).standard_normal(y.shape).astype(values.dtype)
        twin.zero_grad()
        (y * torch.from_numpy(weights)).sum().backward()
        z, dy = (to_last(v) if turned else v for v in (values, weights))
        found, (dx, dstate) = call(tf.constant(z), tf.constant(dy))
        expected, gradient = (to_last(v) if turned else v for v in (y.detach().numpy(), x.grad.numpy()))
        compare(found, expected, tolerance, f"y of step {step}")
        compare(dx, gradient, tolerance, f"dx of step {step}")
        compare(dstate, twin.state.grad.numpy(), tolerance, f"state gradient of step {step}")
        counts = crossbar.write(-crossbar.weight_gradient(dstate), 0.05)
        assert tuple(int(n) for n in counts) == other.write(-other.weight_gradient(), 0.05)
        compare(layer.state.numpy(), twin.state.detach().numpy(), tolerance, f"states after step {step}")
        compare(layer.ranges.numpy(), other.ranges.to_array(), tolerance, f"ranges after step {step}")
        assert layer.counters.numpy().tolist() == other.counters.to_array().tolist()
    twin.eval()
    with torch.no_grad():
        expected = twin(torch.from_numpy(inputs[-1])).numpy()
    found = layer(tf.constant(to_last(inputs[-1]) if turned else inputs[-1]))
    compare(found, to_last(expected) if turned else expected, tolerance, "evaluation")


def dense_pair(chip: Chip, dtype: str) -> tuple[Any, Any]:
    torch.manual_seed(1)
    native = torch.nn.Linear(13, 7, dtype=getattr(torch, dtype))
    return keras_dense(native, dtype, chip), xbar_torch.XbarLinear.from_native(native, chip, name="fc")


def keras_dense(native: torch.nn.Linear, dtype: str, chip: Chip) -> Any:
    weight, bias = native.weight.detach().numpy().T, native.bias.detach().numpy()
    layer = xbar_tf.XbarDense(
        native.out_features,
        config=chip,
        key="fc",
        dtype=dtype,
        kernel_initializer=lambda shape, dtype: tf.constant(weight, dtype),
        bias_initializer=lambda shape, dtype: tf.constant(bias, dtype),
    )
    layer.build((None, native.in_features))
    return layer


def conv_pair(option: str, chip: Chip, dtype: str, dims: int = 2) -> tuple[Any, Any]:
    """A torch convolution and the Keras one behind whose inputs the same zeros stand."""
    arguments = {"kernel_size": 3, **CONVOLUTIONS[option]}
    if dims != 2:
        arguments = {k: v if isinstance(v, int) else v[0] for k, v in arguments.items()}
    kinds = {1: "Conv1d", 2: "Conv2d", 3: "Conv3d"}
    torch.manual_seed(1)
    native = getattr(torch.nn, kinds[dims])(4, 8, **arguments, dtype=getattr(torch, dtype))
    twin = getattr(xbar_torch, f"Xbar{kinds[dims]}").from_native(native, chip, name="conv")
    weight, bias = native.weight.detach().numpy(), native.bias.detach().numpy()
    kernel = np.moveaxis(weight, (0, 1), (-1, -2))
    common = {
        "strides": native.stride,
        "dilation_rate": native.dilation,
        "config": chip,
        "key": "conv",
        "dtype": dtype,
        "bias_initializer": lambda shape, dtype: tf.constant(bias, dtype),
    }
    layer: Any
    if option == "depthwise" and dims == 2:
        kernel = np.moveaxis(weight.reshape(4, 2, 3, 3), (0, 1), (-2, -1))
        layer = xbar_tf.XbarDepthwiseConv2D(
            3,
            depth_multiplier=2,
            depthwise_initializer=lambda shape, dtype: tf.constant(kernel, dtype),
            **common,
        )
    else:
        layer = getattr(xbar_tf, f"XbarConv{dims}D")(
            8,
            3,
            groups=native.groups,
            kernel_initializer=lambda shape, dtype: tf.constant(kernel, dtype),
            **common,
        )
    layer.geometry = lambda size: Geometry(  # torch's explicit padding, which Keras has not
        layer.kernel_size,
        layer.strides,
        tuple((p, p) for p in native.padding),
        layer.dilation_rate,
        layer.groups,
    )
    layer.native = lambda x, kernel: type(layer).native(layer, tf.pad(x, padding(native)), kernel)
    layer.build((None, *(9,) * dims, 4))
    return layer, twin


def padding(native: Any) -> list[list[int]]:
    return [[0, 0], *([p, p] for p in native.padding), [0, 0]]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", CHIPS)
def test_dense_agrees_with_torch_in_float64(kind: str, compiled: bool) -> None:
    """Forward, backward, states, ranges and counters over three training steps, to 1e-9."""
    layer, twin = dense_pair(CHIPS[kind], "float64")
    inputs = [np.random.default_rng(k).standard_normal((6, 13)) for k in range(4)]
    train(layer, twin, inputs, False, 1e-9, compiled=compiled)


@pytest.mark.parametrize("option", CONVOLUTIONS)
@pytest.mark.parametrize("kind", CHIPS)
def test_convolutions_agree_with_torch_in_float64(kind: str, option: str) -> None:
    """Forward, backward, states, ranges and counters over three training steps, to 1e-9."""
    layer, twin = conv_pair(option, CHIPS[kind], "float64")
    inputs = [np.random.default_rng(k).standard_normal((3, 4, 9, 9)) for k in range(4)]
    train(layer, twin, inputs, True, 1e-9, compiled=option == "plain")


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("kind", ["8bit", "noise", "rounded", "exact", "tracked", "ideal"])
def test_other_dimensions_agree_with_torch(kind: str, dims: int) -> None:
    """One and three dimensions as two."""
    layer, twin = conv_pair("grouped", CHIPS[kind], "float64", dims)
    inputs = [np.random.default_rng(k).standard_normal((2, 4, *(9,) * dims)) for k in range(4)]
    train(layer, twin, inputs, True, 1e-9)


@pytest.mark.parametrize("kind", ["ideal", "linear"])
def test_float32_without_converters(kind: str) -> None:
    """Without converters float32 agrees to 1e-5."""
    layer, twin = conv_pair("strided", CHIPS[kind], "float32")
    inputs = [np.random.default_rng(k).standard_normal((3, 4, 9, 9)).astype("float32") for k in range(4)]
    train(layer, twin, inputs, True, 1e-5)


def test_float32_codes_agree() -> None:
    """With converters at least 99.99% of the codes of a read are the same, the rest one apart."""
    layer, twin = conv_pair("plain", CHIPS["8bit"].with_("array.rows", 64), "float32")
    x = np.random.default_rng(0).standard_normal((16, 4, 30, 30)).astype("float32")
    with torch.no_grad():
        expected = (twin(torch.from_numpy(x)) - twin.bias[:, None, None]).numpy()
    found = (layer(to_last(x), training=True) - layer.bias.numpy()).numpy()
    codes = np.sort(np.unique(np.abs(expected)))
    step = codes[codes > 1e-6 * codes[-1]][0]
    apart = np.abs(np.rint(found / step) - np.rint(to_last(expected) / step))
    assert apart.max() <= 1
    assert (apart == 0).mean() >= 0.9999
