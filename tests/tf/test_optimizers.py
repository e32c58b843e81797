"""PulseSGD: plain SGD on an ideal chip, device writes on others, one clear line for what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf

from xbar_core.config import Chip, preset
from xbar_core.engine import Call, pulse_update, update
from xbar_core.errors import ConfigError
from xbar_tf import LayerStatistics, PulseSGD, XbarDense, crossbars_of

WIDE = {"rule": "max_abs", "headroom": 50.0}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
PULSES = {
    "deterministic": {"update.encoding": "deterministic", "update.bits": 7},
    "stochastic": {"update.encoding": "stochastic", "update.stream_length": 31},
}
HYPER: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.9, "weight_decay": 0.05},
    {"momentum": 0.9, "global_clipnorm": 0.05},
    {"clipnorm": 0.05},
    {"clipvalue": 0.01},
    {"momentum": 0.5, "gradient_accumulation_steps": 3},
]
MAPPINGS = [("balanced", "both"), ("differential", "carry"), ("offset", "both")]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def ideal(**values: Any) -> Chip:
    return preset("ideal").with_values({"mapping.w_max": WIDE, **values})


def model_on(chip: Chip | None, seed: int = 0) -> Any:
    """Return a small network, natively or on a chip, with the same first weights."""
    keras.utils.set_random_seed(seed)
    dense: Any = keras.layers.Dense
    options: dict[str, Any] = {}
    if chip is not None:
        dense, options = XbarDense, {"config": chip}
    layers = [dense(5, activation="tanh", name="a", **options), dense(3, name="b", **options)]
    return keras.Sequential([keras.Input((6,)), *layers], name="net")


def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((32, 6))
    return x, x[:, :3].argmax(axis=1)


def run(model: Any, optimizer: Any, steps: int = 12, eager: bool = False) -> np.ndarray:
    """Return the losses of some steps of `fit`."""
    model.compile(optimizer, LOSS, run_eagerly=eager)
    return np.array([model.train_on_batch(*data()) for _ in range(steps)])


def taped(model: Any, optimizer: Any) -> list[Any]:
    """Do one step of a custom loop; return the gradients."""
    x, y = data()
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return gradients


def states(model: Any) -> dict[str, np.ndarray]:
    return {str(v.path): np.array(v) for v in model.variables}


@pytest.mark.parametrize("hyper", HYPER, ids=str)
@pytest.mark.parametrize("eager", [False, True])
def test_ideal_chip_equals_plain_sgd(hyper: dict[str, Any], eager: bool) -> None:
    """On an ideal device `fit` with a schedule does what keras.optimizers.SGD does at the same numbers."""
    rate = keras.optimizers.schedules.ExponentialDecay(0.2, 3, 0.7)
    native, chip = model_on(None), model_on(ideal())
    wanted = run(native, keras.optimizers.SGD(rate, **hyper), eager=eager)
    found = run(chip, PulseSGD(rate, **hyper), eager=eager)
    assert wanted[-1] < 0.99 * wanted[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    np.testing.assert_allclose(chip.layers[1].kernel, native.layers[1].kernel, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("mapping", "pair"), MAPPINGS)
def test_all_mappings(mapping: str, pair: str) -> None:
    """The mapping of weights to devices makes no difference to an ideal chip."""
    chip = ideal(**{"mapping.kind": mapping, "update.pair": pair})
    wanted = run(model_on(None), keras.optimizers.SGD(0.2, 0.9))
    np.testing.assert_allclose(run(model_on(chip), PulseSGD(0.2, 0.9)), wanted, rtol=1e-11)


def test_rule_of_torch() -> None:
    """velocity = m velocity + (g + decay w), w -= rate velocity, whatever the rate was before."""
    model = model_on(ideal())
    optimizer = PulseSGD(0.2, 0.9, rule="torch", weight_decay=0.05)
    kernel, velocity = np.array(model.layers[1].kernel), 0.0
    for rate in (0.2, 0.1, 0.3):
        optimizer.learning_rate = rate
        bar = taped(model, optimizer)[2]
        gradient = np.array(model.layers[1].crossbars[""].weight_gradient(bar))
        velocity = 0.9 * velocity + gradient + 0.05 * kernel
        kernel = kernel - rate * velocity
        np.testing.assert_allclose(model.layers[1].kernel, kernel, rtol=1e-11, atol=1e-13)


def test_step_is_the_engines_update() -> None:
    """A chip with non-linearity and write noise gets the engine's update, keyed by the count of updates."""
    model = model_on(preset("txsim").with_("mapping.w_max", WIDE))
    optimizer = PulseSGD(0.1, 0.9)
    for _ in range(3):
        taped(model, optimizer)
    crossbar = model.layers[1].crossbars[""]
    before, velocity = np.array(crossbar.state), np.array(optimizer.momentums[2])
    bar = taped(model, optimizer)[2]
    velocity = float(np.float32(0.9)) * velocity + np.array(crossbar.weight_gradient(bar))
    wanted = update(crossbar.layout, before, crossbar.buffers(), -velocity, rate=0.1, count=3)
    np.testing.assert_allclose(np.array(crossbar.state), wanted.state, rtol=0, atol=1e-15)
    assert crossbar.counter("updates") == 4


def test_network_is_solved_together() -> None:
    """The optimizer links the layers of its model, so that one solve serves them all."""
    model = model_on(ideal())
    PulseSGD(0.1).build(model.trainable_variables)
    assert len({id(crossbar.group) for _, crossbar in crossbars_of(model)}) == 1


def test_saturation_is_counted() -> None:
    """Devices asked beyond their range are counted by path of the state, for each step."""
    model = model_on(ideal(**{"mapping.w_max": {"rule": "max_abs", "headroom": 1.0}}))
    optimizer = PulseSGD(1e-9)
    run(model, optimizer, steps=1)
    assert {path: count.saturated for path, count in optimizer.counts.items()} == {
        str(path): 0 for path, _ in crossbars_of(model)
    }
    optimizer.learning_rate = 1e3
    run(model, optimizer, steps=1)
    assert sum(count.saturated for count in optimizer.counts.values()) > 5


def test_nothing_is_written_where_a_gradient_is_not_finite() -> None:
    """One NaN anywhere stops the whole step with the layer's name; no variable and no moment has moved."""
    for poisoned in (0, 3):
        model, optimizer = model_on(ideal()), PulseSGD(0.1, 0.9)
        gradients = taped(model, optimizer)
        broken = [np.array(gradient) for gradient in gradients]
        broken[poisoned].flat[1] = np.nan
        before, moments = states(model), [np.array(v) for v in optimizer.variables]
        with pytest.raises(FloatingPointError, match="layer 'a'.*update 1" if poisoned == 0 else "b/bias"):
            optimizer.apply([tf.constant(g) for g in broken], model.trainable_variables)
        for name, value in states(model).items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)
        for found, wanted in zip(optimizer.variables, moments, strict=True):
            np.testing.assert_array_equal(np.array(found), wanted)


def test_frozen_layers_stay() -> None:
    """Layers that are not trainable are neither written nor counted, and do not decay."""
    model = model_on(ideal())
    model.layers[0].trainable = False
    before = np.array(model.layers[0].state)
    optimizer = PulseSGD(0.1, weight_decay=0.1)
    run(model, optimizer, steps=2)
    np.testing.assert_array_equal(np.array(model.layers[0].state), before)
    assert len(optimizer.counts) == 1


def test_configuration_comes_back() -> None:
    """A serialised optimizer is the same optimizer, schedules and statistics included."""
    rate = keras.optimizers.schedules.CosineDecay(0.1, 100)
    optimizer = PulseSGD(
        rate, 0.8, True, rule="torch", weight_decay=0.01, statistics={"a/kernel": LayerStatistics(1.0, 0.1)}
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, PulseSGD)
    assert again.get_config() == optimizer.get_config()


def test_saved_model_goes_on_bit_for_bit(tmp_path: Any) -> None:
    """A compiled model saved and loaded trains on as the first one does, noise and moments included."""
    model = model_on(preset("txsim"))
    run(model, PulseSGD(0.05, 0.9), steps=3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for _ in range(3):
        model.train_on_batch(*data())
        again.train_on_batch(*data())
    for found, wanted in zip(again.variables, model.variables, strict=True):
        np.testing.assert_array_equal(np.array(found), np.array(wanted), err_msg=str(wanted.path))


def test_mixed_precision() -> None:
    """Under mixed_float16 the scale of the loss is no part of the step: training follows the unscaled one."""
    losses = {}
    for policy in ("float32", "mixed_float16"):
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(policy)
        losses[policy] = run(model_on(ideal(**PULSES["deterministic"])), PulseSGD(0.3), steps=15)
    assert losses["float32"][-1] < 0.9 * losses["float32"][0]
    np.testing.assert_allclose(losses["mixed_float16"], losses["float32"], rtol=0.02)


@pytest.mark.parametrize("encoding", PULSES)
def test_pulses_are_the_engines(encoding: str) -> None:
    """A pulsed step is pulse_update of the words that the DAC sent, keyed by the count of updates."""
    chip = preset("txsim-8bit").with_values(
        {"mapping.w_max": WIDE, **PULSES[encoding], "update.noise.gamma": 0.0}
    )
    model, optimizer = model_on(chip), PulseSGD(0.1)
    taped(model, optimizer)
    crossbar = model.layers[0].crossbars[""]
    before = np.array(crossbar.state)
    x, y = data()
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    ((kept,),) = crossbar.pulses
    assert kept.x.shape == (32, 1, 6)
    assert kept.dy.shape == (32, 1, 5)
    wanted = pulse_update(
        crossbar.layout,
        before,
        crossbar.buffers(),
        kept.x,
        kept.dy,
        rate=0.1,
        x_max=np.abs(kept.x).max(),
        dy_max=np.abs(kept.dy).max(),
        count=1,
        call=Call(),
    )
    optimizer.apply(gradients, model.trainable_variables)
    np.testing.assert_allclose(np.array(crossbar.state), wanted.state, rtol=0, atol=1e-15)
    assert not crossbar.pulses


@pytest.mark.parametrize(
    "hyper", [{}, {"clipnorm": 0.05}, {"global_clipnorm": 0.02}, {"gradient_accumulation_steps": 2}]
)
def test_fine_codes_approach_the_batch_gradient(hyper: dict[str, Any]) -> None:
    """Deterministic codes of many bits make the batch's outer product: plain SGD, clipped or accumulated."""
    chip = ideal(**{"update.encoding": "deterministic", "update.bits": 30})
    wanted = run(model_on(None), keras.optimizers.SGD(0.3, **hyper))
    np.testing.assert_allclose(run(model_on(chip), PulseSGD(0.3, **hyper)), wanted, rtol=1e-6)


@pytest.mark.parametrize("field", ["momentum", "weight_decay", "clipvalue"])
def test_pulses_allow_neither_momentum_nor_decay(field: str) -> None:
    """They need what a rank-1 pulse has not: one line before anything is written."""
    model = model_on(ideal(**PULSES["stochastic"]))
    optimizer = PulseSGD(0.1, **{field: 0.5})
    with pytest.raises(ConfigError, match=rf"{field}: 0\.5 with update\.encoding = 'stochastic'"):
        optimizer.build(model.trainable_variables)


def test_native_scale_of_each_layer() -> None:
    """With rule native a weight step moves devices by R / (2 w_max) of the layer's own native maximum."""
    chip = ideal(**{"update.scale": {"rule": "native"}, "mapping.kind": "balanced"})
    with pytest.raises(ConfigError, match=r"update\.scale: rule = 'native' without values \(net/a/state\)"):
        PulseSGD(0.1).build(model_on(chip).trainable_variables)
    statistics = {"net/a/kernel": LayerStatistics(2.0, 0.1), "net/b/kernl": LayerStatistics(3.0, 0.1)}
    with pytest.raises(ConfigError, match="statistics: none for 'net/b/kernel', did you mean 'net/b/kernl'"):
        PulseSGD(0.1, statistics=statistics).build(model_on(chip).trainable_variables)
    statistics["b/kernel"] = statistics.pop("net/b/kernl")
    model = model_on(chip)
    before = [np.array(layer.state) for layer in model.layers]
    optimizer = PulseSGD(0.1, statistics=statistics)
    gradients = taped(model, optimizer)
    for layer, state, bar, w_max in zip(model.layers, before, gradients[::2], (2.0, 3.0), strict=True):
        gradient = np.array(layer.crossbars[""].weight_gradient(bar))
        moved = np.array(layer.state)[0] - state[0]
        np.testing.assert_allclose(moved, -0.1 * gradient * 0.5 / w_max, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"nesterov": True}, "nesterov"),
        ({"rule": "jax"}, "rule"),
        ({"use_ema": True}, "use_ema"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"learning_rate": -1.0}, "learning_rate"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], text: str) -> None:
    """Numbers out of range are named at construction."""
    with pytest.raises(ConfigError, match=text):
        PulseSGD(**options)


def test_other_optimizers_keep_states_in_range() -> None:
    """With the exact derivative Adam trains the states, which stay in [0, 1]."""
    model = model_on(preset("txsim").with_("backward", {"mode": "exact"}))
    losses = run(model, keras.optimizers.Adam(0.05), steps=40)
    assert losses[-1] < 0.6 * losses[0]
    for layer in model.layers:
        state = np.array(layer.state)
        assert state.min() >= 0.0
        assert state.max() <= 1.0


@pytest.mark.parametrize("written", [1, 2])
def test_pulses_are_those_of_the_gradient(written: int) -> None:
    """Of several backward passes those are written whose gradient the optimizer is given."""
    chip = ideal(**{"update.encoding": "deterministic", "update.bits": 30})
    x, y = data()
    found = []
    for skipped in (True, False):
        model, optimizer = model_on(chip), PulseSGD(0.3)
        total: list[Any] = []
        for part in (slice(0, 8), slice(8, 20), slice(20, 32))[0 if skipped else 3 - written :]:
            with tf.GradientTape() as tape:
                loss = LOSS(y[part], model(x[part], training=True))
            total.append(tape.gradient(loss, model.trainable_variables))
        optimizer.apply(
            [sum(each) for each in zip(*total[-written:], strict=True)], model.trainable_variables
        )
        found.append([np.array(each) for each in model.trainable_variables])
    for mine, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-9, atol=1e-12)


def test_a_gradient_that_no_pulses_have_is_refused() -> None:
    """What a penalty adds cannot be written by pulses: one line, and nothing is written."""
    model, optimizer = model_on(ideal(**PULSES["deterministic"])), PulseSGD(0.3)
    x, y = data()
    with tf.GradientTape() as tape:
        loss = LOSS(y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    before = [np.array(each) for each in model.trainable_variables]
    with pytest.raises(
        ConfigError, match=r"layer '[ab]': the gradient of the state is not that of the kept pulses"
    ):
        optimizer.apply([tf.reverse(g, [-1]) for g in gradients], model.trainable_variables)
    for each, wanted in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(np.array(each), wanted)


def test_pulses_that_nobody_writes_do_not_pile_up() -> None:
    """Another optimizer moves the states: pulses of states that are no more are dropped."""
    model = model_on(ideal(**PULSES["deterministic"]))
    run(model, keras.optimizers.SGD(0.1), steps=4)
    assert [len(layer.crossbars[""].pulses) for layer in model.layers] == [1, 1]
