"""Plain Keras networks to train natively or to convert: twins of the torch networks, channels last.

Layers bear the names of their torch twins (``"layers.1"``), and images are put into torch's order before
they are flattened: a network of either framework puts the same weight on the same device.

References
----------
Y. LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998
(LeNet-5); A. Krizhevsky et al., ImageNet classification with deep convolutional neural networks,
NIPS 2012 (AlexNet); K. Simonyan and A. Zisserman, ICLR 2015, arXiv:1409.1556 (VGG-16); K. He et al.,
CVPR 2016, arXiv:1512.03385 (ResNets); K. He et al., ICCV 2015, arXiv:1502.01852 (first weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers

from xbar_core._checks import check_integer
from xbar_core.errors import ShapeError
from xbar_core.lab.importing import check_network_name
from xbar_tf.own_network import own_network


def network_names() -> tuple[str, ...]:
    """Return the names that `build` knows."""
    return tuple(_builders())


def build(name: str, classes: int, image_shape: Sequence[int], *, seed: int | None = None) -> keras.Model:
    """Return a functional model with freshly drawn weights, distributed as torch's are.

    Parameters
    ----------
    name : str
        A name of `network_names`, or the import path of the user's own function,
        ``package.module:function``, which is called with ``classes`` and ``image_shape`` and returns a
        model.
    classes : int
        Number of outputs, which are logits.
    image_shape : sequence of int
        (channels, height, width) of one image, as data sets give it. The model takes images (batch,
        height, width, channels); the MLP takes samples of any other number of axes as they are.
    seed : int or None
        Of the first weights and of dropout; None, and the user's own functions, draw from Keras' generator.

    Raises
    ------
    ConfigError
        No network has this name (the text gives the nearest one), or the user's function fails or returns
        no model.
    ShapeError
        The images are too small for the network, or no images; or the user's network does not take them,
        or does not return a logit for each class.

    Examples
    --------
    >>> lenet = build("lenet5", classes=10, image_shape=(1, 28, 28))
    >>> lenet(np.zeros((2, 28, 28, 1))).shape
    TensorShape([2, 10])
    """
    known = _builders()
    check_network_name(name, known)
    check_integer("classes", classes, minimum=1)
    shape = tuple(check_integer("image_shape", length, minimum=1) for length in image_shape)
    sample = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    if name not in known:
        return own_network(name, classes, shape, sample)
    image = layers.Input(sample, name="image", dtype=keras.config.dtype_policy().variable_dtype)
    logits = known[name](_Twins(seed), image, classes, shape)
    return keras.Model(image, logits, name=name)


Network = Callable[["_Twins", Any, int, tuple[int, ...]], Any]
"""A function (layers, image, classes, image_shape) -> logits."""


def _builders() -> dict[str, Network]:
    return {
        "mlp": _mlp,
        "lenet5": _lenet5,
        "alexnet": _alexnet,
        "vgg16": _vgg16,
        "resnet18": partial(_resnet, blocks=2, widths=(64, 128, 256, 512), project=True),
        "resnet20": partial(_resnet, blocks=3, widths=(16, 32, 64), project=False),
        "resnet56": partial(_resnet, blocks=9, widths=(16, 32, 64), project=False),
        "lstm": _lstm,
    }


class _Twins:
    """Layers that start as torch's do: kernels and biases uniform within 1 / sqrt(fan in)."""

    def __init__(self, seed: int | None) -> None:
        self._generator = None if seed is None else np.random.Generator(np.random.Philox(seed))

    def seed(self) -> int | None:
        """Return a new seed, or None for Keras' generator."""
        return None if self._generator is None else int(self._generator.integers(2**31))

    def uniform(self, fan_in: int) -> keras.initializers.Initializer:
        """Return torch's default distribution, "Kaiming uniform" of a = sqrt(5)."""
        limit = 1.0 / math.sqrt(fan_in)
        return keras.initializers.RandomUniform(-limit, limit, self.seed())

    def dense(self, x: Any, units: int, name: str) -> Any:
        """Apply a `torch.nn.Linear`."""
        fan_in = x.shape[-1]
        kernel, bias = self.uniform(fan_in), self.uniform(fan_in)
        return layers.Dense(units, kernel_initializer=kernel, bias_initializer=bias, name=name)(x)

    def conv(self, x: Any, filters: int, size: int, name: str, **options: Any) -> Any:
        """Apply a `torch.nn.Conv2d`; options are Keras'."""
        fan_in = x.shape[-1] * size * size
        options = {
            "kernel_initializer": self.uniform(fan_in),
            "bias_initializer": self.uniform(fan_in),
            **options,
        }
        return layers.Conv2D(filters, size, name=name, **options)(x)

    def plain_conv(self, x: Any, filters: int, size: int, stride: int, name: str) -> Any:
        """Apply a convolution of a residual network: no bias, normal weights of variance 2 / fan out."""
        padding = "same" if stride == 1 else "valid"
        if stride > 1 and size > 1:  # there Keras' "same" would pad one side only
            x = layers.ZeroPadding2D(size // 2)(x)
        normal = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", self.seed())
        options = {"strides": stride, "padding": padding, "use_bias": False, "kernel_initializer": normal}
        return self.conv(x, filters, size, name, **options)


def _normed(x: Any, name: str) -> Any:
    """Apply a `torch.nn.BatchNorm2d`; its momentum counts the new batch, Keras' the old average."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _flat(x: Any) -> Any:
    """Flatten samples in torch's order: channels, height, width."""
    if len(x.shape) == 4:
        x = layers.Permute((3, 1, 2))(x)
    return layers.Flatten()(x)


def _mlp(twins: _Twins, image: Any, classes: int, shape: tuple[int, ...]) -> Any:
    """Fully connected layers of 300 and 100 with ReLU between them."""
    x = _flat(image)
    for index, units in ((1, 300), (3, 100)):
        x = layers.ReLU()(twins.dense(x, units, f"layers.{index}"))
    return twins.dense(x, classes, "layers.5")


def _lenet5(twins: _Twins, image: Any, classes: int, shape: tuple[int, ...]) -> Any:
    """LeNet-5 with ReLU and max-pooling: convolutions 6 and 16 of 5x5 without padding, then 120-84."""
    _check_images("lenet5", shape, minimum=16)
    x = image
    for name, filters in (("conv1", 6), ("conv2", 16)):
        x = layers.MaxPooling2D(2)(layers.ReLU()(twins.conv(x, filters, 5, name)))
    x = _flat(x)
    for name, units in (("fc1", 120), ("fc2", 84)):
        x = layers.ReLU()(twins.dense(x, units, name))
    return twins.dense(x, classes, "fc3")


def _alexnet(twins: _Twins, image: Any, classes: int, shape: tuple[int, ...]) -> Any:
    """AlexNet in the size for CIFAR: five 3x3 convolutions, three linear layers with dropout."""
    _check_images("alexnet", shape, minimum=16)
    x = twins.conv(layers.ZeroPadding2D(1)(image), 64, 3, "features.0", strides=2)
    x = layers.MaxPooling2D(2)(layers.ReLU()(x))
    for index, filters in ((3, 192), (6, 384), (8, 256), (10, 256)):
        x = layers.ReLU()(twins.conv(x, filters, 3, f"features.{index}", padding="same"))
        if index in (3, 10):
            x = layers.MaxPooling2D(2)(x)
    x = _flat(x)
    for index in (2, 5):
        x = layers.Dropout(0.5, seed=twins.seed())(x)
        x = layers.ReLU()(twins.dense(x, 4096, f"classifier.{index}"))
    return twins.dense(x, classes, "classifier.7")


def _vgg16(twins: _Twins, image: Any, classes: int, shape: tuple[int, ...]) -> Any:
    """VGG-16 in the size for CIFAR: 13 convolutions with batch normalisation, one linear layer."""
    _check_images("vgg16", shape, minimum=32)
    x, index = image, 0
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x = twins.conv(x, filters, 3, f"features.{index}", padding="same", use_bias=False)
            x = layers.ReLU()(_normed(x, f"features.{index + 1}"))
            index += 3
        x = layers.MaxPooling2D(2)(x)
        index += 1
    return twins.dense(layers.GlobalAveragePooling2D()(x), classes, "fc")


def _resnet(
    twins: _Twins,
    image: Any,
    classes: int,
    shape: tuple[int, ...],
    *,
    blocks: int,
    widths: Sequence[int],
    project: bool,
) -> Any:
    """Residual network of basic blocks on a 3x3 convolution; every stage but the first halves the image."""
    _check_images("resnet", shape, minimum=8)
    x = layers.ReLU()(_normed(twins.plain_conv(image, widths[0], 3, 1, "conv1"), "bn1"))
    for stage, width in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(twins, x, width, stride, f"stages.{stage}.{block}", project=project)
    return twins.dense(layers.GlobalAveragePooling2D()(x), classes, "fc")


def _basic_block(twins: _Twins, x: Any, width: int, stride: int, name: str, *, project: bool) -> Any:
    """Two 3x3 convolutions with batch normalisation beside a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution if `project`, else the subsampled input with
    channels of 0 added, which has no weights (the paper's option A).
    """
    out = layers.ReLU()(_normed(twins.plain_conv(x, width, 3, stride, f"{name}.conv1"), f"{name}.bn1"))
    out = _normed(twins.plain_conv(out, width, 3, 1, f"{name}.conv2"), f"{name}.bn2")
    if stride == 1 and x.shape[-1] == width:
        shortcut = x
    elif project:
        shortcut = _normed(twins.plain_conv(x, width, 1, stride, f"{name}.shortcut.0"), f"{name}.shortcut.1")
    else:
        shortcut = Subsample(stride, width - x.shape[-1])(x)
    return layers.ReLU()(layers.Add()([out, shortcut]))


def _lstm(twins: _Twins, image: Any, classes: int, shape: tuple[int, ...]) -> Any:
    """An LSTM of 128 that reads an image row by row, and a linear layer on its last output."""
    channels, height, width = _check_images("lstm", shape, minimum=1)
    rows = layers.Reshape((height, channels * width))(layers.Permute((1, 3, 2))(image))
    hidden = 128
    limit = 1.0 / math.sqrt(hidden)
    states = layers.LSTM(
        hidden,
        kernel_initializer=twins.uniform(hidden),
        recurrent_initializer=twins.uniform(hidden),
        bias_initializer=TwoUniform(-limit, limit, twins.seed()),
        unit_forget_bias=False,
        name="lstm",
    )(rows)
    return twins.dense(states, classes, "fc")


def _check_images(network: str, shape: tuple[int, ...], *, minimum: int) -> tuple[int, int, int]:
    """Return (channels, height, width), after checking that the network can take such images."""
    if len(shape) != 3 or min(shape[1:]) < minimum:
        raise ShapeError(
            f"image_shape: {shape} does not fit {network}; it takes (channels, height, width) with "
            f"at least {minimum}x{minimum} pixels"
        )
    channels, height, width = shape
    return channels, height, width


@keras.saving.register_keras_serializable(package="xbar_tf")
class Subsample(layers.Layer):
    """Every `stride`-th pixel, with `extra` channels of 0 added, half of them before the others.

    Parameters
    ----------
    stride : int
        Step along height and width, pixels.
    extra : int
        Channels to add.
    """

    def __init__(self, stride: int, extra: int, **options: Any) -> None:
        super().__init__(**options)
        self.stride, self.extra = stride, extra

    def call(self, inputs: Any) -> Any:
        """Return the smaller images (batch, height, width, channels + extra)."""
        before = self.extra // 2
        x = inputs[:, :: self.stride, :: self.stride]
        return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (before, self.extra - before)))

    def get_config(self) -> dict[str, Any]:
        """Return what `from_config` takes."""
        return {**super().get_config(), "stride": self.stride, "extra": self.extra}


@keras.saving.register_keras_serializable(package="xbar_tf")
class TwoUniform(keras.initializers.RandomUniform):
    """Sum of two uniform numbers: torch's two biases of a recurrent layer in Keras' one."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Return numbers of this shape."""
        return keras.ops.sum(super().__call__((2, *shape), dtype), axis=0)
