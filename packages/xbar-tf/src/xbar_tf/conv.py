"""Convolutions on crossbars, in one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from xbar_core._checks import check_choice
from xbar_core.engine.patches import Geometry
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf._bridge import to_analog
from xbar_tf.dense import KernelLayer
from xbar_tf.functional import crossbar_convolution, effective_weight, finite, is_product

Size = int | Sequence[int]


class ConvolutionLayer(KernelLayer):
    """Base of the convolutions: sizes, padding, and the read.

    Parameters
    ----------
    kernel_size, strides, padding, data_format, dilation_rate
        As of `keras.layers.Conv2D`.
    rank : int
        Number of spatial dimensions.
    **kwargs
        As of `KernelLayer`.
    """

    def __init__(
        self,
        rank: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Size = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rank = rank
        self.kernel_size = _sizes("kernel_size", kernel_size, rank)
        self.strides = _sizes("strides", strides, rank)
        self.dilation_rate = _sizes("dilation_rate", dilation_rate, rank)
        self.padding = str(padding).lower()
        check_choice("padding", self.padding, ("valid", "same", *(("causal",) if rank == 1 else ())))
        self.data_format = keras.backend.image_data_format() if data_format is None else data_format
        check_choice("data_format", self.data_format, ("channels_last", "channels_first"))
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ConfigError(
                f"strides: {self.strides} with dilation_rate = {self.dilation_rate}; "
                "Keras has one of them above 1"
            )
        self.input_spec = keras.layers.InputSpec(ndim=rank + 2)
        self.groups = 1

    @property
    def channels_first(self) -> bool:
        """Whether channels stand before the spatial dimensions."""
        return self.data_format == "channels_first"

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        raise NotImplementedError

    def native(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the native layer's convolution."""
        raise NotImplementedError

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Program the layer for inputs of a shape."""
        axis = 1 if self.channels_first else -1
        channels = self.channels_of(input_shape, axis)
        if channels % self.groups:
            raise ShapeError(f"{self.name}: {channels} channels do not divide into groups = {self.groups}")
        self.compute_output_shape(input_shape)
        self.channels = channels
        self.make_weights(channels, self.outputs, parts=self.groups)
        self.input_spec = keras.layers.InputSpec(min_ndim=self.rank + 2, axes={axis: channels})
        self.built = True

    def geometry(self, size: Sequence[int | None]) -> Geometry:
        """Return the convolution of inputs of a spatial shape."""
        sides = []
        for n, k, s, d in zip(size, self.kernel_size, self.strides, self.dilation_rate, strict=True):
            extent = d * (k - 1) + 1
            total = 0
            if self.padding == "same":
                # Of an unknown size only a stride of 1 is known: TensorFlow pads by what is left over.
                left = s if n is None or n % s == 0 else n % s
                total = max(extent - left, 0)
            before = extent - 1 if self.padding == "causal" else total // 2
            sides.append((before, 0 if self.padding == "causal" else total - before))
        return Geometry(self.kernel_size, self.strides, tuple(sides), self.dilation_rate, self.groups)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return ``activation(convolution + b)``."""
        crossbar = self.crossbars[""]
        x = to_analog(inputs, crossbar.dtype)
        if is_product(crossbar):
            kernel = self.to_kernel(effective_weight(crossbar, bool(training)))
            return self.finished(self.native(finite(x, crossbar), kernel), self.channels_first)
        x = self._channels_last(x)
        size = list(x.shape[1:-1])
        if None in size and self.padding == "same" and max(self.strides) > 1:
            raise ShapeError(
                f"{self.name}: padding 'same' with strides {self.strides} needs the size of its inputs, "
                f"which are {tuple(inputs.shape)}; give the model's Input a full shape"
            )
        y = crossbar_convolution(x, crossbar, self.geometry(size), bool(training))
        if self.channels_first:
            y = tf.transpose(y, (0, self.rank + 1, *range(1, self.rank + 1)))
        return self.finished(y, self.channels_first)

    def _channels_last(self, x: tf.Tensor) -> tf.Tensor:
        return tf.transpose(x, (0, *range(2, self.rank + 2), 1)) if self.channels_first else x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output."""
        first = self.channels_first
        sizes = input_shape[2:] if first else input_shape[1:-1]
        geometry = self.geometry(sizes)
        found = [
            None if n is None else geometry.output([n] * self.rank)[axis] for axis, n in enumerate(sizes)
        ]
        if any(n is not None and n <= 0 for n in found):
            raise ShapeError(
                f"{self.name}: inputs {input_shape} are smaller than the kernel {self.kernel_size} with "
                f"dilation_rate {self.dilation_rate}"
            )
        batch = input_shape[0]
        return (batch, self.outputs, *found) if first else (batch, *found, self.outputs)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        names = ("kernel_size", "strides", "padding", "data_format", "dilation_rate")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class _XbarConv(ConvolutionLayer):
    """Base of the convolutions with a full kernel.

    Parameters
    ----------
    filters, kernel_size, strides, padding, data_format, dilation_rate, groups, activation, use_bias,
    kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, activity_regularizer,
    bias_constraint
        As of the native layer, drawn from the same generator. Every group has its own arrays.
    config : str, Path, mapping or Chip
        Preset's name, chip file, chip as a dict, or chip.
    seed, key, signed_input, w_max
        As of `xbar_tf.CrossbarLayer`.

    Attributes
    ----------
    state : Variable (devices, channels / groups x kernel cells, filters)
        Normalised device states in [0, 1]; the columns of a group stand side by side.
    kernel : Tensor (*kernel_size, channels / groups, filters)
        The weights that they stand for; read-only.
    bias : Variable (filters,) or None
        Digital.
    """

    _rank: ClassVar[int]

    def __init__(
        self,
        filters: int,
        kernel_size: Size,
        strides: Size = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Size = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            self._rank,
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation=activation,
            use_bias=use_bias,
            **kwargs,
        )
        if groups <= 0 or filters <= 0 or filters % groups:
            raise ShapeError(
                f"filters: {filters} with groups = {groups}; filters are a multiple of the groups"
            )
        self.filters, self.groups = filters, groups

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.filters

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        """Return (*kernel_size, channels / groups, filters)."""
        return (*self.kernel_size, channels // self.groups, self.filters)

    def to_matrix(self, kernel: Any) -> Any:
        """Return the kernel (*kernel_size, channels / groups, filters) with rows channels x cells."""
        return np.moveaxis(kernel, -2, 0).reshape(-1, self.filters)

    def to_kernel(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return the kernel of a matrix (channels / groups x cells, filters)."""
        whole = tf.reshape(matrix, (-1, *self.kernel_size, self.filters))
        return tf.transpose(whole, (*range(1, self.rank + 1), 0, self.rank + 1))

    def native(self, x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Return the native layer's convolution."""
        padding = self.padding
        if padding == "causal":
            ((before, _),) = self.geometry(x.shape[1:2]).padding
            sides = [[0, 0], [0, 0], [before, 0]] if self.channels_first else [[0, 0], [before, 0], [0, 0]]
            x, padding = tf.pad(x, sides), "valid"
        return keras.ops.conv(
            x, kernel, list(self.strides), padding, self.data_format, dilation_rate=self.dilation_rate
        )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        return {**super().get_config(), "filters": self.filters, "groups": self.groups}


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarConv1D(_XbarConv):
    """1-dimensional convolution on crossbar arrays: the twin of `keras.layers.Conv1D`."""

    __doc__ += (_XbarConv.__doc__ or "").split("\n", 1)[1]
    _rank = 1


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarConv2D(_XbarConv):
    """2-dimensional convolution on crossbar arrays: the twin of `keras.layers.Conv2D`."""

    __doc__ += (_XbarConv.__doc__ or "").split("\n", 1)[1]
    _rank = 2


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarConv3D(_XbarConv):
    """3-dimensional convolution on crossbar arrays: the twin of `keras.layers.Conv3D`."""

    __doc__ += (_XbarConv.__doc__ or "").split("\n", 1)[1]
    _rank = 3


def _sizes(name: str, value: Size, rank: int) -> tuple[int, ...]:
    """Return one size for every spatial dimension."""
    found = (value,) * rank if isinstance(value, int) else tuple(value)
    if len(found) != rank or not all(isinstance(n, int | np.integer) and n > 0 for n in found):
        raise ShapeError(f"{name}: {value!r}; give an integer above 0, or {rank} of them")
    return tuple(int(n) for n in found)
