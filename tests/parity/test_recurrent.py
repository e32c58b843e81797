"""Recurrent Keras layers against torch's: same weights, inputs and seed are one chip, noise included."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as tf
import torch

import xbar_tf
import xbar_torch
from xbar_core.config import Chip, preset
from xbar_tf import recurrent as ours
from xbar_tf.exchange import from_torch
from xbar_tf.zoo import build
from xbar_torch import recurrent as theirs
from xbar_torch.zoo import build as build_torch

BASE = preset("txsim-8bit").with_values({"array.rows": 10, "array.cols": 6})
TRACKED = {"rule": "tracked", "batches": 2}
CHIPS: dict[str, Chip] = {
    "ideal": preset("ideal"),
    "8bit": BASE,
    "noise": BASE.with_values(
        {"device.read_noise": {"sigma": 0.01}, "adc.noise": 1e-8, "adc.gain_error": 0.01}
    ),
    "drawn": BASE.with_("device.read_noise", {"sigma": 0.01, "kind": "per_batch"}),
    "devices": BASE.with_values({"device.variation": {"sigma": 0.1}, "device.faults": {"open": 0.02}}),
    "tracked": BASE.with_values(
        {
            "input.range": TRACKED,
            "adc.range": TRACKED,
            "backward.error_range": TRACKED,
            "backward.current_range": TRACKED,
        }
    ),
    "rounded": BASE.with_("precision", {"bits": 10, "rounding": "stochastic"}),
    "exact": BASE.with_values({"backward": {"mode": "exact"}, "device.read_noise": {"sigma": 0.01}}),
    "interpolated": BASE.with_("circuit", {"kind": "interpolated", "period": 2}),
}
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "rnn": (ours.XbarSimpleRNN, theirs.XbarRNN, torch.nn.RNN),
    "lstm": (ours.XbarLSTM, theirs.XbarLSTM, torch.nn.LSTM),
    "gru": (ours.XbarGRU, theirs.XbarGRU, torch.nn.GRU),
}


def pair(kind: str, chip: Chip, both_ways: bool) -> tuple[Any, Any, list[tuple[Any, Any]]]:
    """A layer in both frameworks, and the pairs of their crossbar weights."""
    make, twin_type, native_type = KINDS[kind]
    torch.manual_seed(1)
    native = native_type(5, 4, batch_first=True, bidirectional=both_ways, dtype=torch.float64)
    twin = twin_type.from_native(native, chip, name="memory")
    twin.load_native(native)  # as below: programmed twice
    plain = keras.Sequential(
        [keras.layers.Input((None, 5), dtype="float64"), wrapped(twin_native(make), both_ways)]
    )
    from_torch({name: value.detach().numpy() for name, value in native.state_dict().items()}, plain)
    layer = wrapped(make(4, return_sequences=True, config=chip, key="memory", dtype="float64"), both_ways)
    layer.build((None, None, 5))
    parts = [layer, layer] if not both_ways else [layer.forward_layer, layer.backward_layer]
    sources = [plain.layers[-1]]
    if both_ways:
        sources = [sources[0].forward_layer, sources[0].backward_layer]
    pairs = []
    for part, source in zip(parts, sources, strict=False):
        part.load_native(source)
        pairs += [(crossbar, twin.crossbars[suffix]) for suffix, crossbar in part.crossbars.items()]
    return layer, twin, pairs


def twin_native(make: Any) -> Any:
    return make.native_class(4, return_sequences=True, dtype="float64")


def wrapped(layer: Any, both_ways: bool) -> Any:
    return keras.layers.Bidirectional(layer, dtype="float64") if both_ways else layer


def compare(mine: Any, wanted: Any, what: str) -> None:
    """To 1e-9 of the largest."""
    mine, wanted = np.asarray(mine, np.float64), np.asarray(wanted, np.float64)
    scale = max(np.abs(wanted).max(initial=0.0), 1e-30)
    np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-9 * scale, err_msg=what)


@pytest.mark.parametrize(
    ("kind", "chip", "both_ways", "compiled"),
    [
        *(("lstm", chip, False, False) for chip in CHIPS),
        *(("lstm", chip, False, True) for chip in ("ideal", "noise", "drawn", "tracked", "exact")),
        *((kind, chip, False, False) for kind in ("rnn", "gru") for chip in ("ideal", "noise", "tracked")),
        ("gru", "noise", True, False),
        ("lstm", "noise", True, True),
    ],
)
def test_agrees_with_torch_in_float64(kind: str, chip: str, both_ways: bool, compiled: bool) -> None:
    """Outputs, gradients, states, ranges and counters over three steps and an evaluation, to 1e-9."""
    layer, twin, pairs = pair(kind, CHIPS[chip], both_ways)

    def once(x: tf.Tensor, weights: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y * weights)
        return y, tape.gradient(loss, [x, *(mine.state.value for mine, _ in pairs)])

    call = tf.function(once) if compiled else once
    for step in range(3):
        generator = np.random.default_rng(step)
        values, weights = (
            generator.standard_normal((3, 6, 5)),
            generator.standard_normal((3, 6, 8 if both_ways else 4)),
        )
        x = torch.from_numpy(values).requires_grad_()
        twin.zero_grad()
        expected = twin(x)[0]
        (expected * torch.from_numpy(weights)).sum().backward()
        found, (dx, *bars) = call(tf.constant(values), tf.constant(weights))
        compare(found, expected.detach(), f"outputs of step {step}")
        compare(dx, x.grad, f"dL/dx of step {step}")
        for (mine, other), bar in zip(pairs, bars, strict=True):
            compare(bar, other.state.grad, f"gradient of {mine.name} in step {step}")
            mine.write(-mine.weight_gradient(bar), 0.05)
            other.write(-other.weight_gradient(), 0.05)
            compare(mine.state.value, other.state.detach(), f"states of {mine.name} after step {step}")
            compare(mine.variables["ranges"].value, other.ranges.to_array(), f"ranges of {mine.name}")
            assert mine.variables["counters"].numpy().tolist() == other.counters.to_array().tolist()
    twin.eval()
    x = np.random.default_rng(9).standard_normal((2, 4, 5))
    with torch.no_grad():
        compare(layer(tf.constant(x)), twin(torch.from_numpy(x))[0], "evaluation")


def test_masked_sequences_are_packed_ones() -> None:
    """A mask at the end of each sequence does what packing does in torch, through converters."""
    chip = preset("txsim-8bit")
    layer, twin, _ = pair("lstm", chip, False)
    layer.zero_output_for_mask = True
    x, lengths = np.random.default_rng(0).standard_normal((3, 6, 5)), [6, 4, 1]
    mask = tf.sequence_mask(lengths, 6)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x), torch.tensor(lengths), batch_first=True
    )
    with torch.no_grad():
        outputs, _ = twin.eval()(packed)
        expected, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
    compare(layer(tf.constant(x), mask=mask), expected, "outputs")


def test_a_network_trained_in_torch_is_programmed_in_keras() -> None:
    """A trained LSTM classifier crosses over natively, is converted in both, and is one chip."""
    torch.manual_seed(0)
    network = build_torch("lstm", 4, (1, 6, 5)).double()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    x, y = np.random.default_rng(0).standard_normal((8, 1, 6, 5)), torch.arange(8) % 4
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(torch.from_numpy(x)), y).backward()
        optimizer.step()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        plain = build("lstm", 4, (1, 6, 5))
        from_torch({name: value.numpy() for name, value in network.state_dict().items()}, plain)
        found = xbar_tf.convert(plain, "txsim-8bit")(np.moveaxis(x, 1, -1))
    finally:
        keras.config.set_dtype_policy(policy)
    with torch.no_grad():
        expected = xbar_torch.convert(network, "txsim-8bit").eval()(torch.from_numpy(x))
    compare(found, expected, "logits")
