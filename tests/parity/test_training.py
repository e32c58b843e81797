"""Networks trained in both frameworks: the same weights, data and seed are one training, noise included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import keras
import tensorflow as tf
import torch

import xbar_tf
import xbar_torch
from xbar_core.config import Chip, preset
from xbar_tf import _recurrent_layer, exchange, time_steps, trainer_state
from xbar_tf import zoo as keras_zoo
from xbar_torch import zoo as torch_zoo

CLASSES, BATCH, STEPS = 10, 8, 4
RATE, MOMENTUM = 0.05, 0.9
# Devices, reads and converters that draw, and ranges that learn.
NOISY = preset("txsim-8bit").with_values(
    {
        "device.variation": {"sigma": 0.05, "sigma_v": 0.02},
        "device.faults": {"stuck_at_g_min": 0.01, "stuck_at_g_max": 0.01},
        "device.read_noise": {"sigma": 0.01},
        "adc.noise": 1e-8,
    }
)
# Of equal values in a max-pooling window the first one gets the gradient, in both frameworks. The codes of a
# convolution are often equal, and so are its outputs where they come from one row of arrays; sums over
# several rows of arrays are equal but for rounding, which then decides.
ONE_ROW = {"array.rows": 256}
PLAIN = preset("txsim").with_("device.variation", {"sigma": 0.05, "sigma_v": 0.02})
PULSED = preset("txsim-8bit").with_values({"update.encoding": "stochastic", "update.stream_length": 15})


@pytest.fixture(params=["float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have Keras make networks and optimizers in a dtype."""
    yield from _floats(request.param)


@pytest.fixture
def single() -> Iterator[str]:
    """Have Keras make networks in float32, whatever came before."""
    yield from _floats("float32")


def _floats(dtype: str) -> Iterator[str]:
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    yield dtype
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def shape_of(network: str) -> tuple[int, int, int]:
    return (1, 20, 20) if network.startswith("lenet5") else (1, 8, 8)


def natives(network: str, dtype: str, seed: int = 1) -> tuple[Any, Any]:
    """Return the same network in torch and in Keras; "lenet5 mean" pools by averages.

    Of torch's two biases of an LSTM one is kept as it is: both together would learn twice as fast as
    Keras' single one.
    """
    torch.manual_seed(seed)
    name, _, pooling = network.partition(" ")
    module = torch_zoo.build(name, CLASSES, shape_of(network)).to(getattr(torch, dtype))
    with pytest.MonkeyPatch.context() as patch:
        if pooling == "mean":
            module.pool = torch.nn.AvgPool2d(2)
            patch.setattr(keras_zoo.layers, "MaxPooling2D", keras.layers.AveragePooling2D)
        model = keras_zoo.build(name, CLASSES, shape_of(network))
    for parameter_name, parameter in module.named_parameters():
        parameter.requires_grad_("bias_hh" not in parameter_name)
    exchange.from_torch({name: value.numpy() for name, value in module.state_dict().items()}, model)
    return module, model


def batches(network: str, dtype: str, steps: int, size: int = BATCH) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return noise on top of one picture for each class."""
    rng = np.random.default_rng(0)
    pictures = rng.standard_normal((CLASSES, *shape_of(network)))
    labels = [rng.integers(0, CLASSES, size) for _ in range(steps)]
    return [((pictures[y] + 0.3 * rng.standard_normal(pictures[y].shape)).astype(dtype), y) for y in labels]


def torch_step(module: Any, optimizer: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    optimizer.zero_grad()
    logits = module(torch.from_numpy(x))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    loss.backward()
    optimizer.step()
    return logits.detach().numpy(), loss.item()


def keras_step(model: Any, optimizer: Any, eager: bool = False) -> Any:
    def step(x: tf.Tensor, y: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return logits, loss

    return step if eager else tf.function(step, reduce_retracing=True)


def last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


def states(model: Any) -> dict[str, np.ndarray]:
    """Return device states by torch's names, and ranges and counters beside them."""
    found = {}
    kind = xbar_torch if isinstance(model, torch.nn.Module) else xbar_tf
    for path, crossbar in kind.crossbars_of(model):
        name = str(path).replace("/", ".")
        if kind is xbar_torch:
            values = crossbar.state.detach().numpy(), crossbar.ranges.to_array()
            found[name] = (*values, crossbar.counters.to_array())
        else:
            held = crossbar.variables
            found[name] = tuple(held[each].numpy() for each in ("state", "ranges", "counters"))
    return found


def assert_same_chip(module: Any, model: Any, tolerance: float) -> None:
    """Compare devices, ranges and counters; both zoos flatten images in torch's order."""
    ours, theirs = states(model), states(module)
    assert ours.keys() == theirs.keys()
    for name, (state, ranges, counters) in theirs.items():
        np.testing.assert_allclose(ours[name][0], state, rtol=0, atol=tolerance, err_msg=name)
        np.testing.assert_allclose(ours[name][1], ranges, rtol=max(tolerance, 1e-12), err_msg=name)
        np.testing.assert_array_equal(ours[name][2], counters, err_msg=name)


def trained(
    network: str,
    chip: Chip,
    dtype: str,
    momentum: float,
    steps: int,
    tolerance: float,
    eager: bool = False,
) -> Any:
    """Train both and compare outputs, losses and devices after every step."""
    native, twin = natives(network, dtype)
    module, model = xbar_torch.convert(native, chip), xbar_tf.convert(twin, chip)
    assert_same_chip(module, model, 1e-15 if dtype == "float64" else 1e-7)
    first = xbar_torch.PulseSGD(module, lr=RATE, momentum=momentum)
    step = keras_step(model, xbar_tf.PulseSGD(RATE, momentum=momentum, rule="torch"), eager)
    for x, y in batches(network, dtype, steps):
        logits, loss = torch_step(module, first, x, y)
        found, own = step(last(x), y)
        scale = np.abs(logits).max()
        np.testing.assert_allclose(found.numpy(), logits, rtol=0, atol=tolerance * scale)
        assert float(own) == pytest.approx(loss, rel=tolerance)
        assert_same_chip(module, model, tolerance)
    return module, model


@pytest.mark.parametrize(
    ("network", "chip"),
    [("lenet5", NOISY.with_values(ONE_ROW)), ("lenet5 mean", NOISY), ("lstm", NOISY)],
    ids=["lenet5", "lenet5 mean", "lstm"],
)
def test_noisy_chip_in_float64(network: str, chip: Chip, dtype: str) -> None:
    """Converters, noise, variation and faults: forward, states, ranges agree to 1e-9 through every step."""
    trained(network, chip, dtype, MOMENTUM, STEPS, 1e-9)


def test_pulses_in_float64(dtype: str) -> None:
    """Stochastic pulses are drawn alike and write the same devices."""
    trained("lenet5 mean", PULSED, dtype, 0.0, STEPS, 1e-9)


def test_sliced_weights_in_float64(dtype: str) -> None:
    """Words of weights on several cells agree, too."""
    sliced = preset("txsim-8bit").with_values({"mapping.weight_bits": 6, "mapping.cell_bits": 2})
    trained("lenet5 mean", sliced, dtype, 0.9, STEPS, 1e-9)


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("reuse", ["anchored", "distortion"])
@pytest.mark.parametrize("network", ["lenet5", "lstm"])
def test_interpolated_circuit_in_float64(network: str, reuse: str, eager: bool, dtype: str) -> None:
    """Exact solutions are due at the same updates, whoever asks first, and what they leave is alike.

    Without converters: words of an earlier converter often lie half-way between two of the next one.
    """
    chip = PLAIN.with_("circuit", {"kind": "interpolated", "period": 2, "reuse": reuse})
    module, model = trained(network, chip, dtype, MOMENTUM, STEPS, 1e-9, eager)
    ours = {str(path).replace("/", "."): crossbar for path, crossbar in xbar_tf.crossbars_of(model)}
    for path, crossbar in xbar_torch.crossbars_of(module):
        held = ours[str(path)].variables
        for side, reference in enumerate(crossbar.references[0]):
            update = -1 if reference is None else reference.update
            assert held["reference_updates"].numpy()[side] == update
            if reference is not None:
                factor = held["references"].numpy()[0, side, 0]
                np.testing.assert_allclose(factor, reference.factor, rtol=1e-9)


@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
@pytest.mark.parametrize("network", ["lenet5", "lstm"])
def test_interpolation_counts_steps_of_ordinary_optimizers(network: str, eager: bool, dtype: str) -> None:
    """A step of SGD on the states is an update: exact solutions are due at the same steps in both.

    Looks in evaluation and saving in between count nothing.
    """
    chip = PLAIN.with_values(
        {"circuit": {"kind": "interpolated", "period": 2}, "backward": {"mode": "exact"}}
    )
    native, twin = natives(network, dtype)
    module, model = xbar_torch.convert(native, chip), xbar_tf.convert(twin, chip)
    first = torch.optim.SGD(module.parameters(), 0.0625, 0.875)  # exact in float32, which Keras' are
    step = keras_step(model, keras.optimizers.SGD(0.0625, 0.875), eager)
    solved = []
    for index, (x, y) in enumerate(batches(network, dtype, 5)):
        logits, _ = torch_step(module, first, x, y)
        np.testing.assert_allclose(step(last(x), y)[0].numpy(), logits, atol=1e-9 * np.abs(logits).max())
        if index % 2:
            with torch.no_grad():
                module.eval()(torch.from_numpy(x))
            module.train()
            model(last(x))
        module.state_dict()
        trainer_state.collect(model, keras.optimizers.SGD())
        assert_same_chip(module, model, 1e-9)
        held = [dict(kind.crossbars_of(each)) for kind, each in ((xbar_torch, module), (xbar_tf, model))]
        theirs = [c.references[0][0].update for c in held[0].values()]
        ours = [int(c.variables["reference_updates"].numpy()[0]) for c in held[1].values()]
        assert ours == theirs
        solved.append(set(ours))
        assert {c.counter("updates") for c in held[1].values()} == {index + 1}
    # Read before the step; the evaluations after steps 2 and 4 are the first to meet what they left.
    assert solved == [{0}, {2}, {2}, {4}, {4}]


@pytest.mark.parametrize("network", ["lenet5", "lstm"])
def test_float32_without_converters(network: str, single: str) -> None:
    """Without converters float32 agrees to 1e-5."""
    trained(network, PLAIN, single, MOMENTUM, STEPS, 1e-5)


Seen = dict[str, list[np.ndarray]]


def assert_same_codes(ours: Seen, theirs: Seen, least: int) -> None:
    """At least 99.99% of the codes agree, the rest are one step apart."""
    assert ours.keys() == theirs.keys()
    equal = total = 0
    for name, arrays in theirs.items():
        for found, wanted in zip(ours[name], arrays, strict=True):
            # Sums of codes: whole multiples of one step, which is the smallest difference of two of them.
            gaps = np.diff(np.unique(wanted))
            step = gaps[gaps > 1e-5 * np.abs(wanted).max()].min(initial=np.abs(wanted).max() or 1.0)
            apart = np.abs(np.rint(found / step) - np.rint(wanted / step))
            assert apart.max() <= 1, name
            equal, total = equal + int((apart == 0).sum()), total + apart.size
    assert total >= least
    assert equal >= 0.9999 * total


def noted(seen: Seen, name: str, value: Any) -> None:
    seen.setdefault(name, []).append(np.array(value.detach() if isinstance(value, torch.Tensor) else value))


def test_float32_codes_through_lenet5(single: str) -> None:
    """Two noisy training steps: codes of all reads in both directions, and the devices after each step.

    Every layer of Keras gets the activations and errors that torch's got: one code that is a step apart
    would send errors through other units of pooling and of ReLU, and so move many codes after it.
    """
    chip = NOISY.with_values(ONE_ROW)
    native, twin = natives("lenet5", single)
    module, model = xbar_torch.convert(native, chip), xbar_tf.convert(twin, chip)
    first = xbar_torch.PulseSGD(module, lr=RATE, momentum=MOMENTUM)
    second = xbar_tf.PulseSGD(RATE, momentum=MOMENTUM, rule="torch")
    theirs, ours, given, errors = Seen(), Seen(), {}, {}
    for path, _ in xbar_torch.crossbars_of(module):
        name = str(path).removesuffix(".state")
        layer, there = model.get_layer(name), module.get_submodule(name)

        def forward(there: Any, x: Any, y: torch.Tensor, name: str = name) -> None:
            given[name] = channels_last(x[0])
            bias = there.bias.reshape(-1, *(1,) * (y.ndim - 2))
            noted(theirs, name, channels_last(y - bias))

        def backward(there: Any, dx: Any, dy: Any, name: str = name) -> None:
            errors[name] = channels_last(dy[0])
            if dx[0] is not None:
                noted(theirs, f"{name} backward", channels_last(dx[0]))

        def called(x: Any, training: Any = None, call: Any = layer.call, layer: Any = layer) -> Any:
            x = sent_on(x, given[layer.name], lambda dx: noted(ours, f"{layer.name} backward", dx))
            y = call(x, training=training)
            noted(ours, layer.name, y - layer.bias.value)
            return sent_back(y, errors[layer.name])

        there.register_forward_hook(forward)
        there.register_full_backward_hook(backward)
        layer.__dict__["call"] = called
    for x, y in batches("lenet5", single, 2, size=64):
        torch_step(module, first, x, y)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(tf.constant(last(x)), training=True))
        second.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        assert_same_chip(module, model, 1e-6)
    ours.pop("conv1 backward", None)  # torch needs no errors before its first layer
    assert_same_codes(ours, theirs, least=300_000)


def channels_last(value: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(torch.movedim(value.detach(), 1, -1))


def sent_on(x: Any, wanted: np.ndarray, watch: Any) -> Any:
    """Return other activations of the same shape; watch the errors that come back."""

    @tf.custom_gradient
    def replaced(x: Any) -> Any:
        def gradient(dx: Any) -> Any:
            watch(dx)
            return dx

        return tf.constant(wanted), gradient

    return replaced(x)


def sent_back(y: Any, wanted: np.ndarray) -> Any:
    """Return y, and send other errors back."""

    @tf.custom_gradient
    def replaced(y: Any) -> Any:
        return tf.identity(y), lambda dy: tf.constant(wanted)

    return replaced(y)


def test_float32_codes_through_an_lstm(single: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two noisy training steps: codes of inputs and of hidden states, and the devices after each step."""
    native, twin = natives("lstm", single)
    module, model = xbar_torch.convert(native, NOISY), xbar_tf.convert(twin, NOISY)
    first = xbar_torch.PulseSGD(module, lr=RATE, momentum=MOMENTUM)
    step = keras_step(model, xbar_tf.PulseSGD(RATE, momentum=MOMENTUM, rule="torch"), eager=True)
    theirs, ours = Seen(), Seen()

    def watched(linear: Any, seen: Seen) -> Any:
        def note(x: Any, crossbar: Any, *training: Any) -> Any:
            y = linear(x, crossbar, *training)
            noted(seen, str(crossbar.name), y)
            return y

        return note

    for place, seen in ((xbar_torch._recurrence, theirs), (_recurrent_layer, ours), (time_steps, ours)):
        monkeypatch.setattr(place, "crossbar_linear", watched(place.crossbar_linear, seen))
    for x, y in batches("lstm", single, 2, size=32):
        torch_step(module, first, x, y)
        step(last(x), y)
        # A word of an error that is one step apart moves the devices of its row or column by a little.
        assert_same_chip(module, model, 1e-4)
        for name, (state, _, _) in states(module).items():
            moved = np.abs(states(model)[name][0] - state) > 1e-6
            assert moved.mean() < 0.02, name
    assert_same_codes(ours, theirs, least=400_000)


@pytest.mark.parametrize("network", ["lenet5", "lstm"])
def test_trained_networks_cross_over(network: str, dtype: str) -> None:
    """A chip trained in one framework, read back and programmed in the other, labels alike there."""
    chip = preset("ideal")
    module, model = trained(network, chip, dtype, MOMENTUM, 2, 1e-9)
    x, y = batches(network, dtype, 3)[2]
    # From torch to Keras.
    read = {name: value.detach().numpy() for name, value in xbar_torch.to_native(module).state_dict().items()}
    fresh = keras_zoo.build(network, CLASSES, shape_of(network))
    exchange.from_torch(read, fresh)
    ours = xbar_tf.convert(fresh, chip)
    with torch.no_grad():
        wanted = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours(last(x)).numpy(), wanted, rtol=0, atol=1e-9)
    # From Keras to torch.
    torch.manual_seed(7)
    other = torch_zoo.build(network, CLASSES, shape_of(network)).double()
    names = list(other.state_dict())
    state = exchange.to_torch(xbar_tf.to_native(model), names)
    other.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    theirs = xbar_torch.convert(other, chip).eval()
    with torch.no_grad():
        found = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, model(last(x)).numpy(), rtol=0, atol=1e-9)


def test_one_chip_file_drives_both(tmp_path: Any, dtype: str) -> None:
    """The same file gives the same conductances under both frameworks."""
    path = tmp_path / "chip.toml"
    path.write_text(NOISY.to_toml())
    native, twin = natives("lstm", dtype)
    module, model = xbar_torch.convert(native, path), xbar_tf.convert(twin, path)
    theirs = {str(name): c.conductances().numpy() for name, c in xbar_torch.crossbars_of(module)}
    for name, crossbar in xbar_tf.crossbars_of(model):
        np.testing.assert_allclose(crossbar.conductances(), theirs[name.replace("/", ".")], rtol=1e-12)


@pytest.mark.parametrize(
    ("network", "mapping"),
    [
        ("mlp", "differential"),
        ("lenet5", "differential"),
        ("lstm", "differential"),
        pytest.param("resnet20", "differential", marks=pytest.mark.slow),
        ("lenet5", "balanced"),
        ("lstm", "balanced"),
    ],
)
def test_ideal_chip_follows_native_keras(network: str, mapping: str, dtype: str) -> None:
    """Losses of 100 steps with momentum 0.9 agree with native Keras training to 1e-8."""
    _, native = natives(network, dtype)
    chip = xbar_tf.convert(native, preset("ideal").with_("mapping.kind", mapping))
    data = batches(network, dtype, 10, size=8 if network == "resnet20" else 32)
    rate = 0.01 if network == "resnet20" else RATE
    losses = []
    pairs = ((native, keras.optimizers.SGD(rate, MOMENTUM)), (chip, xbar_tf.PulseSGD(rate, MOMENTUM)))
    for model, optimizer in pairs:
        step = keras_step(model, optimizer)
        losses.append([float(step(last(data[k % 10][0]), data[k % 10][1])[1]) for k in range(100)])
    assert np.mean(losses[0][-10:]) < 0.7 * losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-8)
