"""Layers and models of the user's own classes: crossbars made or converted in them, saved, loaded, copied."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
from keras import layers

from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_tf import (
    PulseSGD,
    XbarConv1D,
    XbarDense,
    XbarLSTM,
    XbarMultiHeadAttention,
    conversion_report,
    convert,
    crossbars_of,
    to_native,
)
from xbar_tf.own_classes import Converted

CHIP = preset("txsim-8bit").with_("device.variation", {"sigma": 0.1})
PARTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "dense": (lambda **o: layers.Dense(8, **o), lambda: XbarDense(8, config=CHIP)),
    "conv": (
        lambda **o: layers.Conv1D(8, 3, padding="same", **o),
        lambda: XbarConv1D(8, 3, padding="same", config=CHIP),
    ),
    "lstm": (
        lambda **o: layers.LSTM(8, return_sequences=True, **o),
        lambda: XbarLSTM(8, return_sequences=True, config=CHIP),
    ),
    "attention": (
        lambda **o: layers.MultiHeadAttention(2, 4, **o),
        lambda: XbarMultiHeadAttention(2, 4, config=CHIP),
    ),
}


@keras.saving.register_keras_serializable(package="test_own_classes")
class Residual(layers.Layer):
    """A layer beside a shortcut; Keras writes its configuration."""

    def __init__(self, part: str, on_chip: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.part = PARTS[part][on_chip]()
        self.attends = part == "attention"

    def call(self, x: Any) -> Any:
        return x + (self.part(x, x) if self.attends else self.part(x))


@keras.saving.register_keras_serializable(package="test_own_classes")
class Tower(keras.Model):
    """Layers in lists, in models, in wrappers, shared, hidden, and made late."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.depth = depth
        self.blocks = [Residual("dense") for _ in range(depth)]
        self.tail = keras.Sequential([layers.Dense(8, "relu"), Residual("lstm")])
        self.each = layers.TimeDistributed(layers.Dense(8))
        self.shared = self.again = layers.Dense(8)
        self._hidden = layers.Dense(3)

    def build(self, shape: Any) -> None:
        self.late = layers.Dense(8)
        self.late.build(shape)
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.built = True

    def call(self, x: Any) -> Any:
        x = self.late(x) * self.scale
        for block in self.blocks:
            x = block(x)
        return self._hidden(self.again(self.shared(self.each(self.tail(x)))))

    def get_config(self) -> dict[str, Any]:
        return {"depth": self.depth}


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


X, Y = values(4, 5, 8), np.ones((4, 5, 3), np.float32)


def functional() -> keras.Model:
    """A functional model with layers of the user's own class."""
    x = keras.Input((5, 8))
    h = x
    for part in PARTS:
        h = Residual(part)(h)
    return keras.Model(x, layers.Dense(3)(h))


def tower() -> keras.Model:
    model = Tower()
    model(X)
    return model


def assert_same(first: Any, second: Any) -> None:
    np.testing.assert_array_equal(first.predict(X, verbose=0), second.predict(X, verbose=0))


@pytest.mark.parametrize("part", PARTS)
def test_crossbars_in_a_layer_of_ones_own(part: str, tmp_path: Path) -> None:
    """Keras finds the shapes of a layer that it has never called, builds it, saves it and loads it."""
    x = keras.Input((5, 8))
    model = keras.Model(x, layers.Dense(3)(Residual(part, on_chip=True)(x)))
    model.compile(PulseSGD(0.05), "mse")
    model.fit(X, Y, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    assert_same(keras.models.load_model(tmp_path / "model.keras"), model)


@keras.saving.register_keras_serializable(package="test_own_classes")
class OnChip(keras.Model):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.memory = XbarLSTM(4, stateful=True, config=CHIP, seed=1)
        self.out = XbarDense(3, config=CHIP)

    def call(self, x: Any) -> Any:
        return self.out(self.memory(x))


def test_a_model_of_ones_own_is_built_by_fit(tmp_path: Path) -> None:
    """A subclass that `fit` meets first goes on from its file bit by bit."""
    model = OnChip()
    model.compile(PulseSGD(0.05, momentum=0.9), "mse")
    model.fit(X, Y[:, 0], batch_size=4, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, again):
        each.memory.reset_state()
        each.fit(X, Y[:, 0], batch_size=4, shuffle=False, verbose=0)
    for found, wanted in zip(again.variables, model.variables, strict=True):
        np.testing.assert_array_equal(found.numpy(), wanted.numpy(), err_msg=str(wanted.path))


@pytest.mark.parametrize("make", [tower, functional])
def test_converted_models_of_own_classes_are_loaded(make: Any, tmp_path: Path) -> None:
    """A trained one comes back from its `.keras` file, trains on alike, and goes back to native."""
    native = make()
    chip = convert(native, CHIP)
    chip.compile(PulseSGD(0.05, momentum=0.9), "mse")
    chip.fit(X, Y, shuffle=False, verbose=0)
    chip.save(tmp_path / "chip.keras")
    for _ in range(3):  # so that Keras numbers layers without a name otherwise than in the file
        layers.Dense(1)
    again = keras.models.load_model(tmp_path / "chip.keras")
    assert isinstance(again, type(native))
    for each in (chip, again):
        each.fit(X, Y, shuffle=False, verbose=0)
    states = [dict(crossbars_of(each)) for each in (chip, again)]
    assert len(states[0]) == len(states[1]) >= 6
    for first, second in zip(*(each.values() for each in states), strict=True):
        np.testing.assert_array_equal(first.state.numpy(), second.state.numpy())
        assert first.name == second.name
    plain = to_native(again)
    assert type(plain) is type(native)
    assert not any(isinstance(layer, Converted) for layer in plain._flatten_layers())
    np.testing.assert_allclose(plain(X), to_native(chip)(X), rtol=1e-6, atol=1e-6)


def test_converted_parts_are_cloned() -> None:
    """`clone_model` makes the layers on crossbars in a user's class anew, too."""
    chip = convert(functional(), CHIP)
    copied = keras.models.clone_model(chip)
    copied.set_weights(chip.get_weights())
    assert_same(copied, chip)


class Pair(NamedTuple):
    first: Any
    second: Any


class Held(keras.Model):
    """Layers in tuples of every kind; `aside` keeps one where Keras does not look."""

    def __init__(self, aside: bool = False) -> None:
        super().__init__()
        self.aside = aside
        self.both = (layers.Dense(6), layers.Dense(6))
        self.steps = [(layers.Dense(6), layers.ReLU())]
        self.named = {"a": Pair(layers.Dense(6), (layers.Dense(6),)), "b": (layers.Dense(6),)}
        self.unordered = {layers.Dense(6)}
        self.extra = layers.Dense(6)
        self.calls = deque([self.extra] if aside else [])

    def call(self, x: Any) -> Any:
        pair, (last,) = self.named["a"], self.named["b"]
        inner = [each for step in self.steps for each in step]
        for each in (*self.both, *inner, pair.first, *pair.second, last, *self.unordered, *self.calls):
            x = each(x)
        return self.extra(x)

    def get_config(self) -> dict[str, Any]:
        return {"aside": self.aside}


def test_layers_in_tuples_are_used() -> None:
    """Wherever a model holds its layers, those that the report lists are those that compute."""
    model = Held()
    model(X)
    chip = convert(model, CHIP)
    chip(X, training=True)
    crossbars = [crossbar for _, crossbar in crossbars_of(chip)]
    assert len(crossbars) == len(conversion_report(chip).converted) == 8
    assert all(crossbar.counter("calls") == 1 for crossbar in crossbars)
    assert type(chip.named["a"]) is Pair
    plain = to_native(chip)
    np.testing.assert_allclose(plain(X), model(X), rtol=1e-4, atol=1e-5)
    assert not any(True for _ in crossbars_of(plain))
    assert all(type(layer) is layers.Dense for layer in plain.both)


def test_layers_that_keras_does_not_see_are_refused() -> None:
    """A layer that the model would go on using beside its twin is one line that names where it is."""
    model = Held(aside=True)
    model(X)
    with pytest.raises(ConfigError, match=r"model: calls \(a deque\) still holds layer 'dense.*tuples"):
        convert(model, CHIP)


class TwoInputs(keras.Model):
    """Of two arguments Keras tells the shape of the first."""

    def __init__(self, needs: bool) -> None:
        super().__init__()
        self.needs, self.one, self.two = needs, layers.Dense(3), layers.Dense(3)

    def call(self, x: Any, y: Any = None) -> Any:
        if y is None and self.needs:
            raise ValueError("y is wanted")
        return self.one(x) if y is None else self.one(x) + self.two(y)

    def get_config(self) -> dict[str, Any]:
        return {"needs": self.needs}


def test_models_of_two_arguments() -> None:
    """The second may be left out, else one line holds the user's own words and says what to do."""
    native = TwoInputs(needs=False)
    native(X, X)
    chip = convert(native, "ideal", {"two": None})
    np.testing.assert_allclose(chip(X, X), native(X, X), rtol=1e-5, atol=1e-6)
    native = TwoInputs(needs=True)
    native(X, X)
    with pytest.raises(ConfigError, match=r"ValueError: y is wanted\); have it take all") as caught:
        convert(native, CHIP)
    assert "\n" not in str(caught.value)


class Tied(keras.Model):
    """One layer by itself and in a wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.one = layers.Dense(8)
        self.each = layers.TimeDistributed(self.one)

    def call(self, x: Any) -> Any:
        return self.each(self.one(x))

    def get_config(self) -> dict[str, Any]:
        return {}


def tied_functional() -> keras.Model:
    """One layer, and one model, by themselves and in wrappers."""
    x, one = keras.Input((5, 8)), layers.Dense(8)
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dense(8)])
    h = layers.TimeDistributed(one)(one(x))
    h = layers.TimeDistributed(inner)(h)
    return keras.Model(x, inner(h[:, 0]))


def tied_subclass() -> keras.Model:
    model = Tied()
    model(X)
    return model


@pytest.mark.parametrize("make", [tied_functional, tied_subclass])
def test_layers_tied_through_wrappers_stay_one(make: Any) -> None:
    """A layer used by itself and in a wrapper is one on crossbars, and one when it is native again."""
    native = make()
    chip = convert(native, "ideal")
    plain = to_native(chip)
    count = len(native.trainable_variables)
    assert [len(each.trainable_variables) for each in (chip, plain)] == [count, count]
    for each in (chip, plain):
        np.testing.assert_allclose(each(X), native(X), rtol=1e-4, atol=1e-5)


MINE = """
import keras


class Mine(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.units, self.fc = units, keras.layers.Dense(units)

    def call(self, x):
        return self.fc(x)

    def get_config(self):
        return {"units": self.units}
"""


def test_files_are_loaded_where_nothing_was_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process needs the user's class and xbar_tf, no conversion; without the class it is one line."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    model = importlib.import_module("mine").Mine(4)
    model(X)
    chip = convert(model, CHIP)
    chip.save(tmp_path / "mine.keras")
    np.savez(tmp_path / "data.npz", x=X, y=chip(X))
    code = """
import keras, numpy as np, xbar_tf
from xbar_core.errors import ConfigError
from mine import Mine
data = np.load("data.npz")
chip = keras.models.load_model("mine.keras", custom_objects={"Mine": Mine})
np.testing.assert_array_equal(chip(data["x"]), data["y"])
assert type(chip.fc) is xbar_tf.XbarDense
try:
    keras.models.load_model("mine.keras")
except ConfigError as error:
    assert "class 'Mine': Keras does not know it" in str(error), error
else:
    raise AssertionError
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]


def test_a_class_that_has_changed_is_refused(tmp_path: Path) -> None:
    """A file whose class no longer makes a layer that was converted is one line."""
    chip = convert(tower(), CHIP)
    config = chip.get_config()
    config["config"]["depth"] = 1
    with pytest.raises(ConfigError, match=r"makes no layer 'blocks\.1\.part', which was converted"):
        type(chip).from_config(config)


@keras.saving.register_keras_serializable(package="test_own_classes")
class Namesake(keras.Model):
    """One layer's attribute bears the name that Keras or the user gave to a layer in a private attribute."""

    def __init__(self, given: bool = False) -> None:
        super().__init__()
        self.given = given
        self.dense_1 = layers.Dense(4, name="x" if given else "dense")
        self._head = layers.Dense(2, name="dense_1")
        self._tail = layers.Dense(2, name="dense_1")

    def call(self, x: Any) -> Any:
        return self._tail(self._head(self.dense_1(x)))

    def get_config(self) -> dict[str, Any]:
        return {"given": self.given}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("digital", [None, "<last>", "<first>"])
def test_layers_of_one_name_are_each_their_own(given: bool, digital: str | None, tmp_path: Path) -> None:
    """Each is converted or copied with its own weights and draws, and comes back from a file."""
    model = Namesake(given)
    model(X)
    chip = convert(model, "ideal", {} if digital is None else {digital: None})
    np.testing.assert_allclose(chip(X), model(X), rtol=1e-4, atol=1e-5)
    keys = [crossbar.name for _, crossbar in crossbars_of(chip)]
    assert len(set(keys)) == len(keys) == (3 if digital is None else 2)
    names = [entry.name for entry in conversion_report(chip).modules]
    assert len(set(names)) == len(names)
    chip.save(tmp_path / "chip.keras")
    assert_same(keras.models.load_model(tmp_path / "chip.keras"), chip)
    np.testing.assert_allclose(to_native(chip)(X), model(X), rtol=1e-4, atol=1e-5)


class Looped(keras.Model):
    """Its attributes hold themselves, and a function whose closure is not filled yet."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = layers.Dense(3)
        notes: dict[str, Any] = {"steps": [self.fc]}
        notes["notes"] = notes
        notes["steps"].append(notes["steps"])
        self.__dict__["notes"] = notes  # not by assignment, where Keras goes through it for ever

        def late() -> Any:
            return never

        if self.built:
            never = 1
        self.late = late

    def call(self, x: Any) -> Any:
        return self.fc(x)

    def get_config(self) -> dict[str, Any]:
        return {}


def test_attributes_that_hold_themselves() -> None:
    """They are gone through once, and functions without all of their variables are looked into."""
    model = Looped()
    model(X)
    chip = convert(model, "ideal")
    np.testing.assert_allclose(chip(X), model(X), rtol=1e-4, atol=1e-5)
    assert chip.notes["steps"][0] is chip.fc
    assert type(chip.fc) is XbarDense
