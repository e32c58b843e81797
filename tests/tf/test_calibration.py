"""calibrate: ranges from data, nothing else touched; native_statistics: maxima of native training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf
from keras import layers

from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_tf import calibrate, convert, crossbars_of, native_statistics

LOSS = keras.losses.MeanSquaredError()


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    stack = [
        layers.Dense(6, "relu", name="one"),
        layers.BatchNormalization(name="norm"),
        layers.Dropout(0.5),
        layers.Dense(4, name="two"),
    ]
    return keras.Sequential([keras.Input((8,)), *stack])


def batches(count: int = 3) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal((16, 8)).astype("f4"), np.ones((16, 4), "f4")) for _ in range(count)]


def others(model: Any) -> dict[str, np.ndarray]:
    return {str(v.path): np.array(v) for v in model.variables if not v.path.endswith("ranges")}


@pytest.mark.parametrize("loss", [None, LOSS])
@pytest.mark.parametrize("as_dataset", [False, True])
def test_only_ranges_change(loss: Any, as_dataset: bool) -> None:
    """Weights, statistics, counters and dropout's generator stay; ranges are learned, backward ones too."""
    model = convert(network(), "txsim-8bit")
    before = others(model)
    data: Any = batches()
    if as_dataset:
        x, y = (np.concatenate(parts) for parts in zip(*data, strict=True))
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    found = calibrate(model, data, loss)
    for name, value in others(model).items():
        if not name.endswith("counters"):
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    for path, crossbar in crossbars_of(model):
        assert found[path] == crossbar.ranges
        assert crossbar.ranges.input_range.batches >= 3
        backward = loss is not None and path.startswith("two")  # nobody asks for dL/dx of the data
        assert (crossbar.ranges.error_current_range.batches > 0) == backward
        assert [crossbar.counter(name) for name in ("calls", "updates")] == [0, 0]


def test_calibrated_ranges_do_not_move() -> None:
    """After calibration a sample is read the same alone and beside others."""
    model = convert(network(), "txsim-8bit")
    calibrate(model, batches())
    x = batches()[0][0]
    alone = np.concatenate([np.array(model(x[k : k + 1])) for k in range(16)])
    np.testing.assert_allclose(np.array(model(x)), alone, rtol=0, atol=1e-6)


def test_ranges_are_the_largest_numbers_of_the_data() -> None:
    """The full scale of the first layer's inputs is the mean of the batches' maxima."""
    model = convert(network(), "txsim-8bit")
    found = calibrate(model, batches())
    wanted = np.mean([np.abs(x).max() for x, _ in batches()])
    assert found["one/state"].input_range.value == pytest.approx(wanted, rel=1e-6)


def test_failure_restores() -> None:
    """No batch, or one that the model does not take: ranges and counters are as before."""
    model = convert(network(), "txsim-8bit")
    calibrate(model, batches())
    before = {str(v.path): np.array(v) for v in model.variables}
    with pytest.raises(ConfigError, match="yields no batch"):
        calibrate(model, [])
    with pytest.raises(ValueError, match="shape"):
        calibrate(model, [np.ones((2, 3), "f4")])
    with pytest.raises(ConfigError, match="yields no targets"):
        calibrate(model, [batches()[0][0]], LOSS)
    for variable in model.variables:
        np.testing.assert_array_equal(np.array(variable), before[str(variable.path)])
    with pytest.raises(ConfigError, match="no crossbar weights"):
        calibrate(network(), batches())


def test_statistics_of_native_training() -> None:
    """One step of SGD: the largest change is the rate times the largest gradient."""
    model = network()
    x, y = batches(1)[0]
    start = np.array(model.get_layer("two").kernel)
    found = native_statistics(model, [(x, y)], keras.optimizers.SGD(0.1), LOSS)
    end = np.array(model.get_layer("two").kernel)
    key = next(key for key in found if key.endswith("two/kernel"))
    assert found[key].dw_max == pytest.approx(np.abs(end - start).max(), rel=1e-6)
    assert found[key].w_max == pytest.approx(max(np.abs(start).max(), np.abs(end).max()), rel=1e-6)
    with pytest.raises(ConfigError, match="to_native"):
        native_statistics(convert(network()), [(x, y)], keras.optimizers.SGD(0.1), LOSS)
    with pytest.raises(ConfigError, match="no batch"):
        native_statistics(model, [], keras.optimizers.SGD(0.1), LOSS)


def test_pulses_with_native_statistics() -> None:
    """Statistics of the native network serve the converted one: names agree."""
    from xbar_tf import PulseSGD

    chip = preset("ideal").with_("update.scale", {"rule": "native"})
    x, y = batches(1)[0]
    statistics = native_statistics(network(), [(x, y)], keras.optimizers.SGD(0.1), LOSS)
    model = convert(network(), chip)
    model.compile(PulseSGD(0.1, statistics=statistics), "mse")
    assert np.isfinite(model.train_on_batch(x, y))
