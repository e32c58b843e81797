"""convert and to_native: functional, sequential and subclassed models, parts of them, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
from keras import layers

from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_tf import conversion_report, convert, crossbars_of, to_native, zoo


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def small() -> keras.Model:
    keras.utils.set_random_seed(0)
    stack = [layers.Dense(6, "relu", name="one"), layers.Dropout(0.5), layers.Dense(4, name="two")]
    return keras.Sequential([keras.Input((8,)), *stack], name="small")


def branched() -> keras.Model:
    """Return a model of models, wrappers, a shared layer and plain operations."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, "relu", name="first"), layers.BatchNormalization()], name="inner"
    )
    x = keras.Input((5, 8))
    h = layers.TimeDistributed(inner, name="outer")(x)
    h = layers.TimeDistributed(layers.Dense(7), name="each")(h)
    h = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(h)
    shared = layers.Dense(8, name="shared")
    h = layers.Lambda(lambda t: t + 1)(shared(shared(h)) * 2.0)
    return keras.Model(x, layers.GRU(4, name="last")(h))


@keras.saving.register_keras_serializable(package="test_convert")
class Block(layers.Layer):
    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.fc, self.norm = layers.Dense(units), layers.LayerNormalization()

    def call(self, x: Any) -> Any:
        return self.norm(self.fc(x)) + x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class Own(keras.Model):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.blocks = [Block(8) for _ in range(depth)]
        self.tail = keras.Sequential([layers.Dense(8, name="x"), layers.Dense(3, name="y")])
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x: Any) -> Any:
        for block in self.blocks:
            x = block(x)
        return self.tail(x) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {"depth": self.depth}


def own() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = Own(2)
    model(values(2, 8))
    model.scale.assign(1.5)
    return model


MODELS = {
    "small": (small, (3, 8)),
    "branched": (branched, (3, 5, 8)),
    "own": (own, (3, 8)),
    "lenet5": (lambda: zoo.build("lenet5", 10, (1, 28, 28), seed=0), (3, 28, 28, 1)),
    "lstm": (lambda: zoo.build("lstm", 10, (1, 8, 8), seed=0), (3, 8, 8, 1)),
    "resnet20": (lambda: zoo.build("resnet20", 10, (3, 16, 16), seed=0), (3, 16, 16, 3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_ideal_chip_computes_the_same(name: str) -> None:
    """On an ideal chip a converted network returns what the native one does, and so does the way back."""
    make, shape = MODELS[name]
    model, x = make(), values(*shape)
    wanted, weights = np.array(model(x)), [np.array(w) for w in model.weights]
    chip = convert(model, "ideal")
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(chip(x), wanted, rtol=0, atol=2e-5 * scale)
    native = to_native(chip)
    assert not any(True for _ in crossbars_of(native))
    np.testing.assert_allclose(native(x), wanted, rtol=0, atol=2e-5 * scale)
    for before, after in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(before, np.array(after))


@pytest.mark.parametrize("name", ["small", "branched", "own"])
def test_converted_models_train(name: str) -> None:
    """`fit` on a converted model moves its states."""
    from xbar_tf import PulseSGD

    make, shape = MODELS[name]
    chip = convert(make(), "txsim-8bit")
    before = {path: np.array(crossbar.state) for path, crossbar in crossbars_of(chip)}
    chip.compile(PulseSGD(0.05, 0.9), "mse")
    x = values(*shape)
    chip.fit(x, np.zeros_like(chip(x)), verbose=0)
    assert before
    for path, crossbar in crossbars_of(chip):
        assert not np.array_equal(np.array(crossbar.state), before[path]), path


def test_same_network_and_seed_same_chip() -> None:
    """Names key the draws: two conversions are one chip, another seed is another."""
    noisy = preset("txsim-8bit").with_("device.variation", {"sigma": 0.1})
    x = values(3, 8)
    first, second, other = (np.array(convert(small(), noisy, seed=s)(x)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - other).max() > 1e-4


def test_layers_without_a_name_are_counted_in_the_model() -> None:
    """However many layers Keras has numbered before, the same network is the same chip."""
    noisy, x = preset("txsim-8bit").with_("device.variation", {"sigma": 0.1}), values(3, 8)
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(4)])
        chip = convert(model, noisy)
        assert [crossbar.name for _, crossbar in crossbars_of(chip)] == ["dense", "dense_1"]
        found.append(np.array(chip(x)))
    np.testing.assert_array_equal(*found)


def test_report_tells_of_every_layer() -> None:
    """What went on crossbars and why the rest did not, with arrays and weights."""
    report = conversion_report(convert(own(), "txsim-8bit"))
    assert [entry.name for entry in report.converted] == ["blocks.0.fc", "blocks.1.fc", "tail.x", "tail.y"]
    assert report["blocks.0.norm"].note == "normalisation is digital"
    assert report[""].weights == 1
    assert report["tail.y"].weights == 24
    assert report.arrays == 8
    assert "XbarDense" in str(report)
    with pytest.raises(ConfigError, match="not made by convert"):
        conversion_report(small())


def test_overrides() -> None:
    """Patterns give layers other chips or keep them digital; the last one that matches counts."""
    report = conversion_report(
        convert(branched(), "ideal", {"*": "txsim", "outer.*": None, "shared": "txsim-8bit", "<last>": None})
    )
    chips = {entry.name: entry.chip for entry in report.modules if entry.native in ("Dense", "LSTM", "GRU")}
    assert chips == {
        "outer.first": None,
        "each": "txsim",
        "both": "txsim",
        "shared": "txsim-8bit",
        "last": None,
    }
    assert report["last"].note == "kept digital by '<last>'"


def test_unsigned_and_w_max() -> None:
    """Inputs without a sign bit and ranges of weights reach the layers."""
    chip = convert(small(), "txsim-8bit", unsigned=["two"], w_max={"two/kernel": 0.75})
    one, two = (chip.get_layer(name) for name in ("one", "two"))
    assert one.signed_input
    assert not two.signed_input
    assert float(two.w_max.numpy()) == 0.75


def test_saved_and_loaded(tmp_path: Any) -> None:
    """A converted model in a .keras file is the same chip."""
    chip = convert(small(), preset("txsim-8bit").with_("device.variation", {"sigma": 0.1}))
    x = values(3, 8)
    chip.save(tmp_path / "chip.keras")
    again = keras.models.load_model(tmp_path / "chip.keras")
    np.testing.assert_array_equal(np.array(again(x)), np.array(chip(x)))


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_recurrent_layers_that_are_given_states(kind: str) -> None:
    """An encoder's states begin the decoder: Keras built it for two inputs, and so are its twins."""
    make = getattr(layers, kind)
    x = keras.Input((5, 2))
    h, *states = make(3, return_state=True, return_sequences=True)(x)
    model = keras.Model(x, make(3)(h, initial_state=states))
    chip = convert(model, "ideal")
    native, given = to_native(chip), values(4, 5, 2)
    for each in (chip, native):
        np.testing.assert_allclose(each(given), model(given), rtol=1e-5, atol=1e-5)


class Shouting(layers.Dense):
    def call(self, inputs: Any, training: Any = None) -> Any:
        return 2.0 * super().call(inputs)


def test_what_stays_digital_says_why() -> None:
    """Layers without a twin are listed with the reason, and compute as before."""
    x = keras.Input((9, 9, 2))
    h = layers.SeparableConv2D(3, 3, name="separable")(x)
    h = layers.Conv2D(4, 3, kernel_constraint="non_neg", name="bounded")(h)
    h = Shouting(5, name="shouting")(layers.Flatten()(h))
    model = keras.Model(x, layers.Dense(2, name="plain")(h))
    chip = convert(model, "ideal")
    report = conversion_report(chip)
    assert report["separable"].note == "no crossbar twin for this type"
    assert "constraint" in report["bounded"].note
    assert report["shouting"].note == "a Dense with a call of its own"
    images = values(2, 9, 9, 2)
    np.testing.assert_allclose(chip(images), model(images), rtol=0, atol=1e-5)


class Hidden(keras.Model):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def call(self, x: Any) -> Any:
        return self.layer(x)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("no configuration")


def test_what_cannot_be_converted_is_refused() -> None:
    """One line names the layer, pattern or class, and the fix; the model stays as it was."""
    model = small()
    cases: list[tuple[Any, str]] = [
        (lambda: convert(convert(model), "ideal"), "'one' .XbarDense. is on crossbars already"),
        (lambda: convert(model, "ideal", {"tow": None}), "matches no layer of the model, did you mean 'two'"),
        (lambda: convert(model, "ideal", {"dropout*": None, "thre*": "ideal"}), "thre"),
        (lambda: convert(model, "ideal", w_max={"two/kernle": 1.0}), "did you mean 'two/kernel'"),
        (lambda: convert(keras.Sequential([layers.Dense(2)])), "has no weights yet"),
        (lambda: convert(layers.Dense(2)), "hand in a keras.Model"),
        (lambda: to_native(model), "native already"),
    ]
    for call, text in cases:
        with pytest.raises(ConfigError, match=text) as caught:
            call()
        assert "\n" not in str(caught.value)
    hidden = Hidden(layers.Dense(3))
    hidden(values(2, 8))
    with pytest.raises(ConfigError, match="Hidden cannot be made anew .*get_config"):
        convert(hidden)
    broken = small()
    kernel = np.array(broken.layers[0].kernel)
    kernel[0, 0] = np.nan
    broken.layers[0].kernel.assign(kernel)
    with pytest.raises(ConfigError, match="layer 'one': the weight holds NaN"):
        convert(broken)


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"w_max": {"one/kernel": "a"}}, r"w_max\['one/kernel'\]: 'a' is not a real number"),
    ({"w_max": {"one/kernel": -1}}, r"w_max\['one/kernel'\]: -1 is out of range; .* above 0"),
    ({"w_max": {"one/kernel": 0.0}}, r"w_max\['one/kernel'\]: 0.0 is out of range"),
    ({"w_max": {"one/kernel": float("nan")}}, r"w_max\['one/kernel'\]: nan is out of range"),
    ({"w_max": 2.0}, "w_max: 2.0 is a float; give a mapping of native weight to range"),
    ({"overrides": ["one"]}, r"overrides: \['one'\] is a list; give a mapping of pattern to chip or None"),
    ({"overrides": {1: None}}, "overrides: 1 is no string but of type int; give a pattern"),
    ({"unsigned": 3}, "unsigned: 3 is no string but of type int; give a pattern, or several"),
    ({"unsigned": [None]}, "unsigned: None is no string but of type NoneType; give a pattern"),
    ({"unsigned": "on"}, "unsigned: pattern 'on' matches no layer"),
]


@pytest.mark.parametrize(("options", "text"), BAD_ARGUMENTS)
def test_wrong_arguments_are_named(options: dict[str, Any], text: str) -> None:
    """An argument of another type, or out of range, is one clear line."""
    with pytest.raises(ConfigError, match=text) as caught:
        convert(small(), "txsim-8bit", **options)
    assert "\n" not in str(caught.value)


def test_one_pattern_may_stand_alone() -> None:
    """`unsigned` takes a string, as in torch."""
    chip = convert(small(), "txsim-8bit", unsigned="two")
    assert [chip.get_layer(name).signed_input for name in ("one", "two")] == [True, False]


def test_nothing_to_convert_is_refused() -> None:
    """A network without a layer for crossbars says why, and what to do."""
    model = keras.Sequential(
        [keras.Input((8,)), layers.ReLU(name="act"), layers.BatchNormalization(name="n")]
    )
    reasons = r"'act' \(ReLU\): no weights; 'n' \(BatchNormalization\): normalisation is digital"
    with pytest.raises(ConfigError, match=rf"nothing in it can go on crossbars: {reasons}; give a network"):
        convert(model, "ideal")
