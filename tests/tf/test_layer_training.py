"""Networks of Keras layers on crossbars: Keras' ways of training, saving and copying them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
from tf.layer_cases import EXACT, QUIET, draw, lenet

from xbar_core.config import Chip, preset
from xbar_tf import (
    PulseSGD,
    XbarDense,
    crossbars_of,
    finish_epoch,
)


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
