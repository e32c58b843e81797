"""Convolution of every channel by itself, on crossbars."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core.errors import ShapeError
from xbar_tf.conv import ConvolutionLayer, Size


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarDepthwiseConv2D(ConvolutionLayer):
    """Convolution of every channel by itself: the twin of `keras.layers.DepthwiseConv2D`.

    Every channel has arrays of its own.

    Parameters
    ----------
    kernel_size, strides, padding, depth_multiplier, data_format, dilation_rate, activation, use_bias,
    depthwise_initializer, bias_initializer, depthwise_regularizer, bias_regularizer, activity_regularizer,
    bias_constraint
        As of the native layer, drawn from the same generator.
    depthwise_constraint : None
        Devices cannot be constrained; anything else raises.
    config : str, Path, mapping or Chip
        Preset's name, chip file, chip as a dict, or chip.
    seed, key, signed_input, w_max
        As of `xbar_tf.CrossbarLayer`.

    Attributes
    ----------
    state : Variable (devices, kernel cells, channels x depth_multiplier)
        Normalised device states in [0, 1]; the columns of a channel stand side by side.
    kernel : Tensor (*kernel_size, channels, depth_multiplier)
        The weights that they stand for; read-only.
    bias : Variable (channels x depth_multiplier,) or None
        Digital.
    """

    kernel_name = "depthwise_kernel"

    def __init__(
        self,
        kernel_size: Size,
        strides: Size = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Size = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        depthwise_regularizer: Any = None,
        depthwise_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            2,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=depthwise_initializer,
            kernel_regularizer=depthwise_regularizer,
            kernel_constraint=depthwise_constraint,
            **kwargs,
        )
        if depth_multiplier <= 0:
            raise ShapeError(f"depth_multiplier: {depth_multiplier}; give an integer above 0")
        self.depth_multiplier = depth_multiplier
        self.depthwise_initializer, self.depthwise_regularizer = (
            self.kernel_initializer,
            self.kernel_regularizer,
        )

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.channels * self.depth_multiplier

    @property
    def depthwise_kernel(self) -> tf.Tensor:
        """The same as `kernel`."""
        return self.kernel

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        """Return (*kernel_size, channels, depth_multiplier)."""
        return (*self.kernel_size, channels, self.depth_multiplier)

    def to_matrix(self, kernel: Any) -> Any:
        """Return the kernel (*kernel_size, channels, multiplier) with rows cells, columns by channel."""
        return np.asarray(kernel).reshape(math.prod(self.kernel_size), -1)

    def to_kernel(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return the kernel of a matrix (cells, channels x multiplier)."""
        return tf.reshape(matrix, (*self.kernel_size, -1, self.depth_multiplier))

    def native(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the native layer's convolution."""
        return keras.ops.depthwise_conv(
            x, kernel, self.strides, self.padding, self.data_format, dilation_rate=self.dilation_rate
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Program the layer for inputs of a shape."""
        self.channels = self.groups = self.channels_of(input_shape, 1 if self.channels_first else -1)
        super().build(input_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output."""
        self.channels = self.groups = self.channels_of(input_shape, 1 if self.channels_first else -1)
        return super().compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        config = super().get_config()
        for name in ("initializer", "regularizer"):
            config[f"depthwise_{name}"] = config.pop(f"kernel_{name}")
        return {**config, "depth_multiplier": self.depth_multiplier}
