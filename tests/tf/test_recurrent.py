"""Recurrent layers on ideal chips are their Keras twins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf
from tf.recurrent_cases import KINDS, ROADS, assert_equal, pair, random, stepwise

from xbar_core.config import preset
from xbar_core.errors import ShapeError
from xbar_tf.functional import is_product
from xbar_tf.recurrent import XbarLSTM

OPTIONS: dict[str, dict[str, Any]] = {
    "last": {},
    "all": {"return_sequences": True, "return_state": True},
    "backwards": {"return_sequences": True, "go_backwards": True, "use_bias": False},
    "last-backwards": {"go_backwards": True, "return_state": True},
    "unrolled": {"unroll": True, "return_sequences": True, "activation": "relu"},
}


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


def test_stateful_layers_go_back_to_native() -> None:
    """The native layer is built for the same batch, and keeps states of it."""
    layer, native = pair("lstm", preset("ideal"), stateful=True, return_sequences=True)
    x = random(2, 5, 3)
    plain = layer.to_native()
    for _ in range(2):
        np.testing.assert_allclose(plain(x), native(x), rtol=1e-12, atol=1e-12)


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
