"""Weights cross between torch and Keras layers: the layer computes what its twin computes, and back again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from xbar_core import ConfigError, ShapeError
from xbar_tf.exchange import from_torch, to_torch


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


def sequence(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """The outputs of a recurrent torch module."""
    return module(torch.from_numpy(x))[0].detach().numpy()


def images(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """What torch makes of channels-last samples."""
    y = module(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).detach().numpy()
    return np.moveaxis(y, 1, -1) if y.ndim > 2 else y


def plain(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """What torch makes of samples as they are."""
    return module(torch.from_numpy(x)).detach().numpy()


def attended(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """What torch's attention makes of samples that look at themselves."""
    values = torch.from_numpy(x)
    return module(values, values, values)[0].detach().numpy()


class SelfAttention(layers.MultiHeadAttention):
    """Keras' attention with one input, as a layer of a sequential model.

    Heads are 4 or 1 wide: Keras rounds the root of their width to float32.
    """

    def __init__(self, heads: int = 2, **options: Any) -> None:
        super().__init__(heads, 8 // heads, **options)

    def build(self, shape: Any) -> None:
        super().build(shape, shape)

    def call(self, x: Any) -> Any:
        return super().call(x, x)

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.fixture(autouse=True)
def float64() -> Any:
    """Every layer of a test is in float64, in either framework."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
    keras.config.set_dtype_policy(policy)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Any]], tuple[int, ...], Any]] = {
    "dense": (lambda: nn.Linear(5, 3), lambda: [layers.Dense(3)], (4, 5), plain),
    "dense without bias": (
        lambda: nn.Linear(5, 3, bias=False),
        lambda: [layers.Dense(3, use_bias=False)],
        (4, 5),
        plain,
    ),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3), lambda: [layers.Conv1D(4, 3)], (2, 7, 3), images),
    "grouped conv2d": (
        lambda: nn.Conv2d(4, 6, (2, 3), groups=2),
        lambda: [layers.Conv2D(6, (2, 3), groups=2)],
        (2, 5, 6, 4),
        images,
    ),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), lambda: [layers.Conv3D(3, 2)], (2, 3, 4, 5, 2), images),
    "depthwise": (
        lambda: nn.Conv2d(3, 6, 2, groups=3),
        lambda: [layers.DepthwiseConv2D(2, depth_multiplier=2)],
        (2, 4, 5, 3),
        images,
    ),
    "layer norm": (
        lambda: nn.LayerNorm(5),
        lambda: [layers.LayerNormalization(epsilon=1e-5)],
        (4, 5),
        plain,
    ),
    "simple rnn": (
        lambda: nn.RNN(4, 3, batch_first=True),
        lambda: [layers.SimpleRNN(3, return_sequences=True)],
        (2, 5, 4),
        sequence,
    ),
    "lstm": (
        lambda: nn.LSTM(4, 3, batch_first=True),
        lambda: [layers.LSTM(3, return_sequences=True)],
        (2, 5, 4),
        sequence,
    ),
    "gru": (
        lambda: nn.GRU(4, 3, batch_first=True),
        lambda: [layers.GRU(3, return_sequences=True)],
        (2, 5, 4),
        sequence,
    ),
    "gru without bias": (
        lambda: nn.GRU(4, 3, batch_first=True, bias=False),
        lambda: [layers.GRU(3, return_sequences=True, use_bias=False)],
        (2, 5, 4),
        sequence,
    ),
    "two layers, both directions": (
        lambda: nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True),
        lambda: [layers.Bidirectional(layers.LSTM(3, return_sequences=True)) for _ in range(2)],
        (2, 5, 4),
        sequence,
    ),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda: [SelfAttention()],
        (2, 5, 8),
        attended,
    ),
    "attention without bias": (
        lambda: nn.MultiheadAttention(8, 8, batch_first=True, bias=False),
        lambda: [SelfAttention(8, use_bias=False)],
        (2, 5, 8),
        attended,
    ),
    "flattened features": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 5)),
        lambda: [
            layers.Conv2D(3, 2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.BatchNormalization(epsilon=1e-5),
            layers.Dense(5),
        ],
        (2, 4, 5, 2),
        images,
    ),
    "flattened image": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(24, 5)),
        lambda: [layers.Flatten(), layers.Dense(5)],
        (2, 3, 4, 2),
        images,
    ),
    "flattened signal": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(12, 5)),
        lambda: [layers.Conv1D(3, 2), layers.Flatten(), layers.Dense(5)],
        (2, 5, 2),
        images,
    ),
    "permuted twice": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(36, 5)),
        lambda: [
            layers.Conv2D(3, 2),
            layers.Permute((2, 3, 1)),
            layers.Permute((3, 2, 1)),
            layers.Flatten(),
            layers.Dense(5),
        ],
        (2, 4, 5, 2),
        None,  # torch's twin permutes in its forward
    ),
}


def twins(case: str) -> tuple[nn.Module, keras.Model, np.ndarray, Any]:
    make, given, shape, run = CASES[case]
    x = np.random.default_rng(0).standard_normal(shape)
    model = keras.Sequential(given())
    model(x)
    return make().eval(), model, x, run


@pytest.mark.parametrize("case", [case for case, entry in CASES.items() if entry[3] is not None])
def test_layers_compute_the_same(case: str) -> None:
    """With torch's weights a Keras layer gives torch's outputs (float64, 1e-12)."""
    module, model, x, run = twins(case)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if value.dtype.is_floating_point:
                value.uniform_(0.5, 1.5) if "var" in name else value.normal_()
    from_torch(arrays(module), model)
    np.testing.assert_allclose(np.asarray(model(x)), run(module, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back(case: str) -> None:
    """What came from torch goes back unchanged (of two biases of which Keras holds the sum, the sum)."""
    module, model, *_ = twins(case)
    state = arrays(module)
    from_torch(state, model)
    found = to_torch(model, names=state)
    assert list(found) == list(state)
    for key, value in state.items():
        summed = "bias_" in key and "gru" not in case
        other = key.replace("_ih_", "_hh_") if "_ih_" in key else key.replace("_hh_", "_ih_")
        wanted, held = (value + state[other], found[key] + found[other]) if summed else (value, found[key])
        np.testing.assert_array_equal(held, wanted, err_msg=key)
        assert held.dtype == wanted.dtype
    module.load_state_dict({key: torch.from_numpy(value) for key, value in found.items()})


def test_permutation_before_the_flatten_is_followed() -> None:
    """Features that `Permute` puts into torch's order need no other order of rows."""
    module = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(36, 5))
    model = keras.Sequential(
        [layers.Conv2D(3, 2), layers.Permute((3, 1, 2)), layers.Flatten(), layers.Dense(5)]
    )
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 2))
    model(x)
    from_torch(arrays(module), model)
    np.testing.assert_array_equal(model.layers[-1].get_weights()[0], module[2].weight.detach().numpy().T)
    np.testing.assert_allclose(np.asarray(model(x)), images(module, x), rtol=1e-12, atol=1e-12)


def test_sequences_are_flattened_alike() -> None:
    """What a recurrent layer returns has no channels axis: time, then units, in both frameworks."""
    model = keras.Sequential([layers.LSTM(3, return_sequences=True), layers.Flatten(), layers.Dense(2)])
    model(np.zeros((1, 4, 5)))
    lstm, linear = nn.LSTM(5, 3, batch_first=True), nn.Linear(12, 2)
    state = {f"a.{key}": value for key, value in arrays(lstm).items()}
    from_torch(state | {f"b.{key}": value for key, value in arrays(linear).items()}, model)
    np.testing.assert_array_equal(model.layers[-1].get_weights()[0], linear.weight.detach().numpy().T)


def test_names_decide_where_they_agree() -> None:
    """Layers named as torch's modules are matched by name, in whatever order the state lists them."""
    model = keras.Sequential([layers.Dense(3, name="first"), layers.Dense(3, name="second")])
    model(np.zeros((1, 3)))
    first, second = arrays(nn.Linear(3, 3)), arrays(nn.Linear(3, 3))
    state = {f"second.{key}": value for key, value in second.items()}
    from_torch(state | {f"first.{key}": value for key, value in first.items()}, model)
    np.testing.assert_array_equal(model.get_layer("first").get_weights()[0], first["weight"].T)
    assert set(to_torch(model)) == {"first.weight", "first.bias", "second.weight", "second.bias"}


def test_weights_of_models_in_models_are_found() -> None:
    """A model in a model, and the layer in `TimeDistributed`, are searched."""
    inner = keras.Sequential([keras.Input((6,), dtype="float64"), layers.Dense(4), layers.ReLU()])
    model = keras.Sequential([layers.TimeDistributed(layers.Dense(6)), layers.TimeDistributed(inner)])
    x = np.random.default_rng(0).standard_normal((2, 3, 5))
    model(x)
    module = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 4), nn.ReLU())
    from_torch(arrays(module), model)
    np.testing.assert_allclose(np.asarray(model(x)), plain(module, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "state", "kind", "text"),
    [
        (
            [layers.Dense],
            {"a.weight": (3, 5), "a.bias": (3,), "b.weight": (2, 3)},
            ConfigError,
            r"model: 1 layers with weights \(dense.*\) do not fit 2 torch modules \(a, b\)",
        ),
        (
            [layers.Dense],
            {"a.weight": (3, 4), "a.bias": (3,)},
            ShapeError,
            r"layer 'dense.*' \(Dense\): weight of torch's 'a' has shape \(3, 4\); the layer needs \(3, 5\)",
        ),
        ([layers.Dense], {"a.weight": (3, 5)}, ConfigError, "torch's 'a' has no 'bias'; it has weight"),
        (
            [layers.Dense],
            {"a.weight": (3, 5), "a.bias": (3,), "a.scale": (3,)},
            ConfigError,
            "has 'scale', for which the layer has no place",
        ),
        ([layers.PReLU], {"a.weight": (1,)}, ConfigError, r"\(PReLU\): no layer of torch has such weights"),
    ],
)
def test_what_does_not_line_up_is_refused(
    given: list[Any], state: dict[str, tuple[int, ...]], kind: type[ValueError], text: str
) -> None:
    """The layer, the tensor and the shapes are named, and nothing is overwritten."""
    model = keras.Sequential([make(3) if make is layers.Dense else make() for make in given])
    model(np.zeros((2, 5)))
    before = model.get_weights()
    with pytest.raises(kind, match=text):
        from_torch({key: np.zeros(shape) for key, shape in state.items()}, model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_later_misfit_overwrites_nothing() -> None:
    """All layers are checked before the first is written."""
    model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    model(np.zeros((2, 5)))
    before = model.get_weights()
    state = {
        "a.weight": np.ones((3, 5)),
        "a.bias": np.ones(3),
        "b.weight": np.ones((2, 4)),
        "b.bias": np.ones(2),
    }
    with pytest.raises(ShapeError, match=r"\(2, 4\); the layer needs \(2, 3\)"):
        from_torch(state, model)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gru_that_torch_has_not_is_refused() -> None:
    """A GRU whose reset gate acts before the product is another function; the text says which one fits."""
    model = keras.Sequential([layers.GRU(3, reset_after=False)])
    model(np.zeros((2, 4, 5)))
    with pytest.raises(ConfigError, match="build the GRU with reset_after=True"):
        to_torch(model)


def test_attention_that_looks_elsewhere_crosses_over() -> None:
    """Keys and values of other widths have matrices of their own in torch, under the layer's name."""
    query, value = keras.Input((5, 8), dtype="float64"), keras.Input((4, 3), dtype="float64")
    model = keras.Model([query, value], layers.MultiHeadAttention(2, 4, name="mixer")(query, value))
    module = nn.ModuleDict({"mixer": nn.MultiheadAttention(8, 2, kdim=3, vdim=3, batch_first=True)})
    state = arrays(module)
    from_torch(state, model)
    rng = np.random.default_rng(0)
    q, v = rng.standard_normal((2, 5, 8)), rng.standard_normal((2, 4, 3))
    there = torch.from_numpy(v)
    wanted = module["mixer"](torch.from_numpy(q), there, there)[0].detach().numpy()
    np.testing.assert_allclose(np.asarray(model([q, v])), wanted, rtol=1e-12, atol=1e-12)
    found = to_torch(model)
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_attention_that_torch_has_not_is_refused() -> None:
    """Heads that are together wider than the queries have no twin in torch."""
    x = keras.Input((5, 6))
    model = keras.Model(x, layers.MultiHeadAttention(2, 8, name="mixer")(x, x))
    with pytest.raises(ConfigError, match="'mixer' .MultiHeadAttention.: no layer of torch has such weights"):
        to_torch(model)
