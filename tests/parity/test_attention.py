"""Keras attention against torch's: same weights, inputs and seed are one chip, noise included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf
import torch

from xbar_core.config import Chip, preset
from xbar_tf.attention import PROJECTIONS, XbarMultiHeadAttention
from xbar_torch.attention import XbarMultiheadAttention

BASE = preset("txsim-8bit").with_values({"array.rows": 10, "array.cols": 6})
CHIPS: dict[str, Chip] = {
    "ideal": preset("ideal"),
    "8bit": BASE,
    "noise": BASE.with_values({"device.read_noise": {"sigma": 0.01}, "adc.noise": 1e-8}),
    "drawn": BASE.with_("device.read_noise", {"sigma": 0.01, "kind": "per_batch"}),
    "exact": BASE.with_values({"backward": {"mode": "exact"}, "device.variation": {"sigma": 0.1}}),
}
EMBED, HEADS = 8, 2


def pair(chip: Chip) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """A layer in both frameworks, and the pairs of their crossbar weights."""
    torch.manual_seed(1)
    native = torch.nn.MultiheadAttention(EMBED, HEADS, batch_first=True, dtype=torch.float64)
    torch.nn.init.normal_(native.in_proj_bias)
    torch.nn.init.normal_(native.out_proj.bias)
    twin = XbarMultiheadAttention.from_native(native, chip, name="mixer")
    plain = keras.layers.MultiHeadAttention(HEADS, EMBED // HEADS, dtype="float64")
    plain.build((None, None, EMBED), (None, None, EMBED))
    layer = XbarMultiHeadAttention(HEADS, EMBED // HEADS, config=chip, key="mixer", dtype="float64")
    layer.build((None, None, EMBED), (None, None, EMBED))
    pairs = []
    weights, biases = native.in_proj_weight.chunk(3), native.in_proj_bias.chunk(3)
    values = [*zip(weights, biases, strict=True), (native.out_proj.weight, native.out_proj.bias)]
    for (name, part), (weight, bias) in zip(layer.projections.items(), values, strict=True):
        attribute, own = PROJECTIONS[name]
        source = getattr(plain, attribute)
        shapes = [value.shape for value in source.get_weights()]
        given = [weight.detach().numpy().T, bias.detach().numpy()]
        source.set_weights([value.reshape(shape) for value, shape in zip(given, shapes, strict=True)])
        other = getattr(twin, own).crossbars[""]
        other.program(weight.detach().T.contiguous())  # as below: programmed twice
        pairs.append((part.crossbars[""], other))
    layer.load_native(plain)
    return layer, twin, pairs


def compare(mine: Any, wanted: Any, what: str) -> None:
    """To 1e-9 of the largest."""
    mine, wanted = np.asarray(mine, np.float64), np.asarray(wanted, np.float64)
    scale = max(np.abs(wanted).max(initial=0.0), 1e-30)
    np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-9 * scale, err_msg=what)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("chip", CHIPS)
def test_agrees_with_torch_in_float64(chip: str, compiled: bool) -> None:
    """Outputs, scores, gradients, states, ranges and counters over three training steps, to 1e-9."""
    layer, twin, pairs = pair(CHIPS[chip])

    def once(query: tf.Tensor, value: tf.Tensor, weights: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([query, value])
            y, scores = layer(query, value, training=True, return_attention_scores=True)
            loss = tf.reduce_sum(y * weights)
        return y, scores, tape.gradient(loss, [query, value, *(mine.state.value for mine, _ in pairs)])

    call = tf.function(once) if compiled else once
    for step in range(3):
        generator = np.random.default_rng(step)
        arrays = [generator.standard_normal((3, length, EMBED)) for length in (5, 4, 5)]
        query, value, weights = (torch.from_numpy(array) for array in arrays)
        query.requires_grad_(), value.requires_grad_()
        twin.zero_grad()
        expected, scores = twin(query, value, value, average_attn_weights=False)
        (expected * weights).sum().backward()
        found, found_scores, (dq, dv, *bars) = call(*(tf.constant(array) for array in arrays))
        compare(found, expected.detach(), f"outputs of step {step}")
        compare(found_scores, scores.detach(), f"scores of step {step}")
        compare(dq, query.grad, f"gradient of the queries in step {step}")
        compare(dv, value.grad, f"gradient of the values in step {step}")
        for (mine, other), bar in zip(pairs, bars, strict=True):
            compare(bar, other.state.grad, f"gradient of {mine.name} in step {step}")
            mine.write(-mine.weight_gradient(bar), 0.05)
            other.write(-other.weight_gradient(), 0.05)
            compare(mine.state.value, other.state.detach(), f"states of {mine.name} after step {step}")
            compare(mine.variables["ranges"].value, other.ranges.to_array(), f"ranges of {mine.name}")
            assert mine.variables["counters"].numpy().tolist() == other.counters.to_array().tolist()
