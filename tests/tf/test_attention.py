"""Einstein sums and attention: their Keras twins on the ideal chip, derivatives, files, and clear errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from xbar_core.config import Chip, preset
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf.attention import XbarMultiHeadAttention
from xbar_tf.convert import conversion_report, convert, to_native
from xbar_tf.einsum_dense import XbarEinsumDense
from xbar_tf.host import crossbars_of

STEPWISE = preset("ideal").with_("input.range", {"rule": "fixed", "value": 1e3})
CHIPS: dict[str, Chip] = {
    "product": preset("ideal"),
    "stepwise": STEPWISE,
    "exact": STEPWISE.with_("backward", {"mode": "exact"}),
}
ROADS: dict[str, Callable[[Any], Any]] = {"eager": lambda function: function, "graph": tf.function}
EQUATIONS: dict[str, tuple[str, Any, str | None, tuple[int, ...]]] = {
    "dense": ("ab,bc->ac", 4, "c", (2, 3)),
    "every place": ("...b,bc->...c", 4, "c", (2, 5, 3)),
    "heads": ("abc,cde->abde", (None, 2, 4), "de", (3, 5, 3)),
    "heads together": ("abcd,cde->abe", (None, 4), "e", (3, 5, 2, 3)),
    "output turned": ("abc,cd->adb", (4, None), None, (2, 5, 3)),
    "kernel turned": ("abc,dc->abd", (None, 4), "d", (2, 5, 3)),
    "one matrix a place": ("abc,bcd->abd", (5, 4), "bd", (2, 5, 3)),
    "one matrix a head": ("abhc,hcd->abhd", (None, 2, 4), "d", (3, 5, 2, 3)),
    "rest behind": ("ab...,bc->ac...", 4, "c", (2, 3, 5)),
}


def random(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).standard_normal(shape))


def gradients(layer: Any, road: str, *inputs: tf.Tensor, **options: Any) -> list[tf.Tensor]:
    """Outputs and gradients of inputs and weights, in weight units and Keras' order."""

    @ROADS[road]
    def step(*inputs: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(*inputs, **options)
            outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
            total = sum(tf.reduce_sum(tf.sin(3.0 * y)) for y in outputs)
        return outputs, tape.gradient(total, [*inputs, *(v.value for v in layer.trainable_weights)])

    outputs, found = step(*inputs)
    for index, variable in enumerate(layer.trainable_weights, len(inputs)):
        crossbar = getattr(variable, "crossbar", None)
        if crossbar is not None:
            found[index] = crossbar.owner.to_kernel(crossbar.weight_gradient(found[index]))
    return [*outputs, *found]


def assert_equal(layer: Any, native: Any, road: str, *inputs: tf.Tensor, **options: Any) -> None:
    """Outputs and gradients agree to 1e-12."""
    ours, theirs = (gradients(each, road, *inputs, **options) for each in (layer, native))
    for mine, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-12, atol=1e-12)


def einsum_pair(name: str, chip: Chip) -> tuple[Any, Any, tf.Tensor]:
    equation, output_shape, bias_axes, shape = EQUATIONS[name]
    options = {"activation": "tanh", "bias_axes": bias_axes, "bias_initializer": "glorot_normal"}
    pair = []
    for make, extra in ((XbarEinsumDense, {"config": chip}), (keras.layers.EinsumDense, {})):
        keras.utils.set_random_seed(0)
        pair.append(make(equation, output_shape, dtype="float64", **options, **extra))
        pair[-1].build(shape)
    return pair[0], pair[1], random(*shape)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", EQUATIONS)
def test_einstein_sums_are_those_of_keras(name: str, chip: str) -> None:
    """First weights, outputs and gradients are Keras', by products and by the engine, in both modes."""
    layer, native, x = einsum_pair(name, CHIPS[chip])
    np.testing.assert_allclose(layer.kernel, native.kernel, rtol=1e-13, atol=1e-14)
    assert layer.compute_output_shape(x.shape) == native.compute_output_shape(x.shape)
    assert_equal(layer, native, "eager", x)


def test_places_unknown_to_the_graph() -> None:
    """A graph that is made for any number of samples and places runs for each."""
    layer, native, _ = einsum_pair("one matrix a head", STEPWISE)
    function = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 2, 3), "float64")])
    for shape in ((1, 4, 2, 3), (3, 2, 2, 3)):
        np.testing.assert_allclose(function(random(*shape)), native(random(*shape)), rtol=1e-12, atol=1e-12)


def test_matrices_of_their_own_have_arrays_of_their_own() -> None:
    """Every index of a shared axis has its own array set, and its own devices."""
    chip = preset("ideal").with_("device.variation", {"sigma": 0.1})
    layer, _, _ = einsum_pair("one matrix a head", chip)
    crossbar = layer.crossbars[""]
    assert [layout.name for layout in crossbar.layouts] == [f"{layer.name}/0", f"{layer.name}/1"]
    assert (crossbar.layout.inputs, crossbar.layout.outputs) == (3, 4)
    actual = layer.conductances() / np.asarray(preset("ideal").device.g_max)
    assert np.any(actual[..., :4] != actual[..., 4:])


ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {},
    "values": {"value_dim": 3, "output_shape": 7, "use_bias": False},
    "dropout": {"dropout": 0.3, "seed": 5},
}


def attention_pair(name: str, chip: Chip, **options: Any) -> tuple[Any, Any]:
    options = {"bias_initializer": "glorot_normal", **ATTENTION[name], **options}
    pair = []
    for make, extra in ((XbarMultiHeadAttention, {"config": chip}), (keras.layers.MultiHeadAttention, {})):
        keras.utils.set_random_seed(0)
        pair.append(make(2, 4, dtype="float64", **options, **extra))
        pair[-1].build((3, 5, 6), (3, 4, 3))
    return pair[0], pair[1]


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_that_of_keras(name: str, chip: str, road: str) -> None:
    """First weights, outputs, scores and gradients, with a mask, are Keras'."""
    layer, native = attention_pair(name, CHIPS[chip])
    query, value = random(3, 5, 6), random(3, 4, 3, seed=1)
    mask = tf.constant(np.random.default_rng(2).random((3, 5, 4)) < 0.7)
    options = {"return_attention_scores": True, "training": True, "attention_mask": mask}
    if name == "dropout":  # every call draws anew: one road, one call each
        options["training"] = False
    assert_equal(layer, native, road, query, value, **options)


def test_dropout_draws_what_keras_draws() -> None:
    """With a seed the scores that are dropped are Keras'."""
    layer, native = attention_pair("dropout", STEPWISE)
    query, value = random(3, 5, 6), random(3, 4, 3, seed=1)
    trained = layer(query, value, training=True)
    np.testing.assert_allclose(trained, native(query, value, training=True), rtol=1e-12, atol=1e-12)
    assert np.any(trained != layer(query, value))


def test_causal_mask_and_masks_of_embeddings() -> None:
    """`use_causal_mask` and the masks that Keras carries along act as in the twin."""
    ids = tf.constant([[3, 1, 2, 0, 0], [4, 4, 1, 2, 0]])
    results = []
    for make, extra in (
        (XbarMultiHeadAttention, {"config": STEPWISE}),
        (keras.layers.MultiHeadAttention, {}),
    ):
        keras.utils.set_random_seed(0)
        embedding = keras.layers.Embedding(5, 6, mask_zero=True, dtype="float64")
        layer = make(2, 4, dtype="float64", **extra)
        x = embedding(ids)
        y = layer(x, x, use_causal_mask=True)
        results.append((y, y._keras_mask))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("converters", [False, True])
def test_exact_gradient_is_the_derivative(converters: bool) -> None:
    """Finite differences through wires, curved converters and all four projections."""
    chip = preset("txsim-8bit").with_("backward", {"mode": "exact"}).with_("array", {"rows": 4, "cols": 4})
    for field in ("input", "adc"):
        chip = chip.with_(f"{field}.bits", None)
        if not converters:
            chip = chip.with_(f"{field}.nonlinearity", None)
    chip = chip.with_("input.range", {"rule": "fixed", "value": 5.0}) if converters else chip
    chip = chip.with_("adc.range", {"rule": "fixed", "value": 4e-5}) if converters else chip
    layer, _ = attention_pair("plain", chip)
    query, value = random(3, 5, 6), random(3, 4, 3, seed=1)
    weights = np.random.default_rng(5).standard_normal((3, 5, 6))

    def total(query: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(weights * layer(query, value))

    held = [variable.value for variable in layer.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch([query, value])
        y = total(query, value)
    found = tape.gradient(y, [query, value, *held])
    for index, (variable, gradient) in enumerate(zip([query, value, *held], found, strict=True)):
        now = tf.convert_to_tensor(variable)
        for direction in np.random.default_rng(6).standard_normal((2, *now.shape)):
            ends = []
            for end in (now + 1e-6 * direction, now - 1e-6 * direction):
                if index > 1:
                    variable.assign(end)
                ends.append(total(end if index == 0 else query, end if index == 1 else value))
            if index > 1:
                variable.assign(now)
            slope = float(ends[0] - ends[1]) / 2e-6
            assert float(tf.reduce_sum(gradient * direction)) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_saved_cloned_and_brought_back(tmp_path: Path) -> None:
    """A `.keras` file carries chip and states; `to_native` is the twin with the weights of the devices."""
    image = keras.Input((5, 6))
    attention = XbarMultiHeadAttention(
        2, 4, config="txsim-8bit", key="mixer", w_max={"query": 2.0}, name="attention"
    )
    dense = XbarEinsumDense("abc,cd->abd", (None, 3), bias_axes="d", config="txsim-8bit", name="out")
    model = keras.Model(image, dense(attention(image, image)))
    x = np.asarray(random(2, 5, 6), np.float32)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.get_layer("attention").get_config() == attention.get_config()
    assert loaded.get_layer("out").get_config() == dense.get_config()
    names = ["mixer.q_proj", "mixer.k_proj", "mixer.v_proj", "mixer.out_proj", "out"]
    assert sorted(crossbar.name for _, crossbar in crossbars_of(model)) == sorted(names)
    assert float(attention.projections["query"].crossbars[""].w_max.value) == 2.0
    clone = keras.models.clone_model(model)
    assert np.any(clone.get_layer("out").kernel != dense.kernel)
    native = attention.to_native()
    ideal = XbarMultiHeadAttention(2, 4, name="attention")
    ideal.build((None, 5, 6), (None, 5, 6))
    ideal.load_native(native)
    np.testing.assert_allclose(ideal(x, x), native(x, x), rtol=1e-5, atol=1e-6)


def test_networks_with_attention_convert() -> None:
    """`convert` takes attention and Einstein sums as whole layers, `to_native` brings them back."""
    keras.utils.set_random_seed(0)
    image = keras.Input((5, 6), dtype="float64")
    options: dict[str, Any] = {"dtype": "float64"}
    mixed = keras.layers.MultiHeadAttention(2, 4, name="mixer", **options)(image, image)
    y = keras.layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", name="out", **options)(mixed)
    model = keras.Model(image, y)
    chip = convert(model, STEPWISE, w_max={"mixer/query": 2.0})
    names = [crossbar.name for _, crossbar in crossbars_of(chip)]
    assert sorted(names) == ["mixer.k_proj", "mixer.out_proj", "mixer.q_proj", "mixer.v_proj", "out"]
    assert all(crossbar.counter("programmings") == 1 for _, crossbar in crossbars_of(chip))
    assert float(chip.get_layer("mixer").crossbars["query"].w_max.value) == 2.0
    report = conversion_report(chip)["mixer"]
    assert (report.became, report.weights) == ("XbarMultiHeadAttention", 4 * 6 * 8)
    x = random(2, 5, 6)
    np.testing.assert_allclose(chip(x), model(x), rtol=1e-12, atol=1e-12)
    back = to_native(chip)
    assert [type(layer) for layer in back.layers] == [type(layer) for layer in model.layers]
    np.testing.assert_allclose(back(x), model(x), rtol=1e-12, atol=1e-12)
    with pytest.raises(ConfigError, match="'mixer' .XbarMultiHeadAttention. is on crossbars already"):
        convert(chip)
    digital = convert(model, STEPWISE, overrides={"mixer": None})
    assert type(digital.get_layer("mixer")) is keras.layers.MultiHeadAttention


def test_fit_trains_attention() -> None:
    """`fit` lowers the loss of a small task on a chip with converters."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).standard_normal((64, 5, 6)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.float32)
    image = keras.Input((5, 6))
    chip = preset("txsim-8bit").with_("backward", {"mode": "exact"})
    mixed = XbarMultiHeadAttention(2, 4, config=chip)(image, image)
    model = keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(mixed)))
    model.compile(keras.optimizers.Adam(0.02), keras.losses.BinaryCrossentropy(from_logits=True))
    history = model.fit(x, y, batch_size=32, epochs=6, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


def test_half_precision() -> None:
    """Under a mixed policy states are float32, outputs float16."""
    layer = XbarMultiHeadAttention(2, 4, config="txsim-8bit", dtype="mixed_float16")
    x = np.asarray(random(2, 5, 6), np.float16)
    assert layer(x, x).dtype == tf.float16
    assert layer.query_dense.state.dtype == "float32"


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: XbarEinsumDense("abc,cd->ad", 4).build((2, 3, 4)),
            ConfigError,
            "sums axis 'b' of the inputs alone",
        ),
        (
            lambda: XbarEinsumDense("ab,abc->ac", 4).build((2, 3)),
            ConfigError,
            "has weights for every sample",
        ),
        (lambda: XbarEinsumDense("ab,bc->ac", 4, lora_rank=2), ConfigError, "lora_rank: 2; devices hold"),
        (
            lambda: XbarEinsumDense("ab,bc->ac", 4, kernel_constraint="non_neg"),
            ConfigError,
            "kernel_constraint: 'non_neg'",
        ),
        (
            lambda: XbarMultiHeadAttention(2, 4, kernel_constraint="non_neg"),
            ConfigError,
            "kernel_constraint: 'non_neg'",
        ),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    """What no array can do is one clear line."""
    with pytest.raises(kind, match=message):
        make()


def test_native_weights_of_another_equation_are_refused() -> None:
    """load_native names both equations."""
    layer, _, _ = einsum_pair("dense", preset("ideal"))
    other = keras.layers.EinsumDense("...b,bc->...c", 4)
    other.build((2, 3))
    with pytest.raises(ShapeError, match=r"'\.\.\.b,bc->\.\.\.c', this layer's is 'ab,bc->ac'"):
        layer.load_native(other)
