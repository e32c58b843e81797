"""The Keras networks are the torch ones: the same logits, gradients and distribution of first weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from xbar_core import ConfigError, ShapeError
from xbar_core.lab.data import Batches, evaluation_batches, load_data
from xbar_tf.exchange import from_torch, to_torch
from xbar_tf.zoo import TwoUniform, build, network_names
from xbar_torch.zoo import build as build_torch

CIFAR, MNIST = (3, 32, 32), (1, 28, 28)
LARGE = ("alexnet", "vgg16", "resnet18", "resnet56")
NETWORKS = [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in network_names()]
SMALL = {"mlp": (2, 6, 5), "lenet5": MNIST, "lstm": (2, 7, 5)}


def image_of(name: str) -> tuple[int, ...]:
    return SMALL.get(name, CIFAR)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def pair(name: str, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, keras.Model, np.ndarray]:
    """A network in both frameworks, with weights and statistics of torch's, and images."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    native, image = build_torch(name, 5, image_of(name)).to(dtype), image_of(name)
    for module in native.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    twin = build(name, 5, image, seed=1)
    from_torch({key: value.numpy() for key, value in native.state_dict().items()}, twin)
    return native, twin, torch.randn(3, *image, dtype=dtype, generator=generator).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_torch(name: str) -> None:
    """The same weights and images give the same logits in evaluation (float32, 1e-5 of the largest)."""
    native, twin, x = pair(name)
    with torch.no_grad():
        wanted = native.eval()(torch.from_numpy(x)).numpy()
    found = np.asarray(twin(channels_last(x), training=False))
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.fixture
def float64() -> Iterator[None]:
    """New layers compute in float64."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(policy)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["lenet5", "lstm"])
def test_float64_is_float64_throughout(name: str) -> None:
    """Under Keras' float64 policy the logits are torch's to 1e-13."""
    native, twin, x = pair(name, torch.float64)
    with torch.no_grad():
        wanted = native.eval()(torch.from_numpy(x)).numpy()
    found = np.asarray(twin(channels_last(x), training=False))
    assert found.dtype == np.float64
    assert np.abs(found - wanted).max() <= 1e-13 * np.abs(wanted).max()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_torch(name: str) -> None:
    """The loss has the same gradient with respect to every weight (float64, 1e-10 of its largest).

    In float32 a rounding that takes one ReLU across 0 shows as 2e-4.
    """
    native, twin, x = pair(name, torch.float64)
    y = np.array([0, 3, 1])
    torch.nn.functional.cross_entropy(native.eval()(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    with tf.GradientTape() as tape:
        logits = twin(channels_last(x), training=False)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")(y, logits)
    variables = [weight.value for weight in twin.trainable_weights]
    gradients = tape.gradient(loss, variables)
    for weight, gradient in zip(twin.trainable_weights, gradients, strict=True):
        weight.assign(gradient)
    for key, found in to_torch(twin).items():
        parameter = dict(native.named_parameters()).get(key)
        if parameter is None or "bias_hh" in key:  # one bias in Keras, whose gradient bias_ih shows
            continue
        wanted = parameter.grad.numpy()
        assert np.abs(found - wanted).max() <= 1e-10 * np.abs(wanted).max(), key


@pytest.mark.parametrize("name", NETWORKS)
def test_first_weights_are_distributed_as_those_of_torch(name: str) -> None:
    """Weights have torch's mean 0 and variance within five standard errors; biases stay in torch's limits."""
    torch.manual_seed(0)
    native = {key: value.numpy() for key, value in build_torch(name, 5, image_of(name)).state_dict().items()}
    twin = to_torch(build(name, 5, image_of(name), seed=3))
    assert {key: value.shape for key, value in twin.items()} == {k: v.shape for k, v in native.items()}
    for key, wanted in native.items():
        found = twin[key]
        if "bias_hh" in key:
            continue
        if "bias_ih" in key:
            wanted = wanted + native[key.replace("ih", "hh")]
        if wanted.std() == 0.0:
            np.testing.assert_array_equal(found, wanted, err_msg=key)
            continue
        if key.endswith(".bias"):  # too few for a variance: all different, within the limit
            limit = 1.0 / np.sqrt(np.prod(native[key.removesuffix("bias") + "weight"].shape[1:]))
            assert 0.3 * limit < np.abs(found).max() <= limit, key
            assert len(set(found)) > 0.99 * len(found), key
            continue
        # The variance of a sample variance is at most that of a normal's, 2 / n, for both samples.
        assert abs(found.var() / wanted.var() - 1.0) < 5.0 * np.sqrt(4.0 / wanted.size), key
        assert abs(found.mean()) < 5.0 * found.std() / np.sqrt(found.size), key


def test_same_seed_same_network_and_no_two_layers_alike() -> None:
    """A seed fixes the first weights without Keras' generator; layers of one shape differ."""
    first, again, other = (build("resnet20", 10, CIFAR, seed=seed) for seed in (7, 7, 8))
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.any(first.get_layer("conv1").kernel != other.get_layer("conv1").kernel)
    kernels = [first.get_layer(f"stages.0.{block}.conv1").get_weights()[0] for block in range(2)]
    assert np.any(kernels[0] != kernels[1])


def test_recurrent_bias_is_a_sum_of_two() -> None:
    """Its numbers reach twice the limit, with twice the variance of one uniform number."""
    drawn = np.asarray(TwoUniform(-0.5, 0.5, seed=0)((40_000,), "float64"))
    assert 0.5 < np.abs(drawn).max() <= 1.0
    assert drawn.var() == pytest.approx(2 / 12, rel=0.03)


@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet20", "lstm"])
def test_networks_are_saved_and_cloned(name: str, tmp_path: Path) -> None:
    """A `.keras` file and `clone_model` give the same network back."""
    network = build(name, 4, image_of(name), seed=0)
    x = channels_last(np.random.default_rng(0).standard_normal((2, *image_of(name))).astype(np.float32))
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    for other in (loaded, clone):
        np.testing.assert_array_equal(other(x), network(x))


@pytest.mark.parametrize("image", [MNIST, CIFAR, (3, 64, 64)])
@pytest.mark.parametrize("name", ["mlp", "lenet5", "alexnet", "resnet20", "lstm"])
def test_networks_take_the_data_sets_images(name: str, image: tuple[int, ...]) -> None:
    """Images of MNIST, CIFAR and Tiny-ImageNet give one logit a class."""
    channels, height, width = image
    assert build(name, 7, image, seed=0).compute_output_shape((2, height, width, channels)) == (2, 7)


def test_lenet_learns_digits() -> None:
    """Ten epochs of the embedded digits give more than 90% on images not seen."""
    data = load_data("digits", None, fetch=False)
    network = build("lenet5", 10, data.image_shape, seed=0)
    network.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    batches = Batches(data, 64, seed=0)
    for epoch in range(10):
        for x, y in batches.epoch(epoch):
            network.train_on_batch(channels_last(x), y)
    right = [
        network.predict_on_batch(channels_last(x)).argmax(1) == y for x, y in evaluation_batches(data, 500)
    ]
    assert np.concatenate(right).mean() > 0.9


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        (
            ("resnet-20", 10, CIFAR),
            ConfigError,
            r"network: unknown name 'resnet-20', did you mean 'resnet20'\?",
        ),
        (("lenet5", 10, (1, 8, 8)), ShapeError, "at least 16x16 pixels"),
        (("lstm", 10, (784,)), ShapeError, r"\(784,\) does not fit lstm"),
        (("mlp", 0, MNIST), ConfigError, "classes: 0 is out of range"),
        (("mlp", 10, (1, 0, 3)), ConfigError, "image_shape: 0 is out of range"),
    ],
)
def test_impossible_networks_are_refused(
    arguments: tuple[Any, ...], kind: type[Exception], text: str
) -> None:
    """A wrong name gets the nearest one; images that are too small are named with the rule."""
    with pytest.raises(kind, match=text):
        build(*arguments)


OWN = """
import keras

def build(classes, image_shape):
    channels, height, width = image_shape
    image = keras.Input((height, width, channels))
    return keras.Model(image, keras.layers.Dense(classes)(keras.layers.Flatten()(image)))

def first(classes, image_shape):
    image = keras.Input(image_shape)
    features = keras.layers.Flatten()(keras.layers.Conv2D(2, 2)(image))
    return keras.Model(image, keras.layers.Dense(classes)(features))

def images(classes, image_shape):
    return keras.Sequential([keras.layers.Conv2D(classes, 3)])

def number(classes, image_shape):
    return 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_keras_nets_for_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("own")
def test_own_network_is_found_by_import_path() -> None:
    """The function gets the data set's (channels, height, width); its model takes channels-last images."""
    network = build("own_keras_nets_for_test:build", 7, (2, 6, 5))
    assert network(np.zeros((3, 6, 5, 2), np.float32)).shape == (3, 7)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("first", ShapeError, r"does not take samples of shape \(6, 5, 2\) \(channels last\)"),
        ("images", ShapeError, r"images returns \(2, 4, 3, 7\) for 2 samples; .*, here \(2, 7\)"),
        ("number", ConfigError, "number returned a int; it must return a keras.Model"),
    ],
)
def test_own_network_that_does_not_fit_is_refused(name: str, kind: type[ValueError], text: str) -> None:
    """What takes other samples or returns no logits is named."""
    with pytest.raises(kind, match=f"^network: (?s:.*){text}"):
        build(f"own_keras_nets_for_test:{name}", 7, (2, 6, 5))
