"""Fully connected layer on crossbars."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core.errors import ShapeError
from xbar_tf.functional import crossbar_linear
from xbar_tf.host import CrossbarLayer, reject_kernel_constraint


class KernelLayer(CrossbarLayer):
    """Base of layers with one kernel on crossbars, a digital bias and an activation.

    Parameters
    ----------
    activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        As of `keras.layers.Dense`.
    kernel_constraint : None
        Devices cannot be constrained; anything else raises.
    bias_constraint
        As of `keras.layers.Dense`.
    **kwargs
        As of `CrossbarLayer`.
    """

    kernel_name = "kernel"

    def __init__(
        self,
        *,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        reject_kernel_constraint(kernel_constraint)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = None
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.bias: keras.Variable | None = None

    @classmethod
    def weight_names(cls) -> tuple[str, ...]:
        """Return the name of the kernel."""
        return (cls.kernel_name,)

    def _w_max(self, suffix: str) -> float | None:
        found: float | None = self._given_w_max.get(self.kernel_name)
        return found

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        """Return the shape of the native kernel for inputs of this many channels."""
        raise NotImplementedError

    def to_matrix(self, kernel: Any) -> Any:
        """Return a native kernel (tensor or array) as a matrix (in, out)."""
        raise NotImplementedError

    def to_kernel(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return a matrix (in, out) as a native kernel."""
        raise NotImplementedError

    def make_weights(self, channels: int, outputs: int, parts: int = 1) -> None:
        """Draw kernel and bias as the native layer does and program the kernel."""
        kernel = self.initial(self.kernel_initializer, self.kernel_shape(channels))
        regularizer = None
        if self.kernel_regularizer is not None:
            # Keras hands over the state; the term is one of the weights that it stands for.
            def regularizer(state: Any) -> tf.Tensor:
                return self.kernel_regularizer(self.kernel)

        self.add_crossbar("", self.to_matrix(kernel), parts=parts, regularizer=regularizer)
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(outputs,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    @property
    def kernel(self) -> tf.Tensor:
        """The weights that the states stand for, as the native layer shapes them; read-only."""
        if not self.crossbars:
            raise AttributeError(f"{self.name}: no {self.kernel_name} before the layer is built")
        return self.to_kernel(self.crossbars[""].weight())

    def load_native(self, source: keras.layers.Layer, w_max: float | None = None) -> None:
        """Program the weights of a built native layer; the bias is copied."""
        kernel = np.asarray(keras.ops.convert_to_numpy(source.kernel))
        wanted = tuple(self.kernel.shape)
        if kernel.shape != wanted:
            raise ShapeError(
                f"{self.name}: {self.kernel_name} of {source.name!r} has shape {kernel.shape}, "
                f"this layer's is {wanted}"
            )
        shapes = [None if bias is None else tuple(bias.shape) for bias in (source.bias, self.bias)]
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"{self.name}: bias of {source.name!r} has shape {shapes[0]}, this layer's is {shapes[1]}; "
                "give both use_bias=True, or neither"
            )
        self.program("", self.to_matrix(kernel), w_max)
        if self.bias is not None:
            self.bias.assign(source.bias)

    def finished(self, y: tf.Tensor, channels_first: bool = False) -> tf.Tensor:
        """Return a read with bias and activation, in the layer's compute dtype."""
        if self.bias is not None:
            bias = tf.cast(self.bias.value, y.dtype)
            y = y + (tf.reshape(bias, (-1, *(1,) * (len(y.shape) - 2))) if channels_first else bias)
        y = y if y.dtype == self.compute_dtype else tf.cast(y, self.compute_dtype)
        return y if self.activation is None else self.activation(y)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        serialize = keras.saving.serialize_keras_object
        config: dict[str, Any] = super().get_config()
        names = ["activation", "kernel_initializer", "bias_initializer", "kernel_regularizer"]
        names += ["bias_regularizer", "activity_regularizer", "bias_constraint"]
        config["use_bias"] = self.use_bias
        for name in names:
            value = getattr(self, name)
            config[name] = keras.activations.serialize(value) if name == "activation" else serialize(value)
        return config


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarDense(KernelLayer):
    """``y = activation(x W + b)`` with W on crossbar arrays and b digital: the twin of `keras.layers.Dense`.

    Parameters
    ----------
    units, activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
    activity_regularizer, bias_constraint
        As of `keras.layers.Dense`, drawn from the same generator.
    config : str, Path, mapping or Chip
        Preset's name, chip file, chip as a dict, or chip.
    seed, key, signed_input, w_max
        As of `xbar_tf.CrossbarLayer`.

    Attributes
    ----------
    state : Variable (devices, in, units)
        Normalised device states in [0, 1].
    kernel : Tensor (in, units)
        The weights that they stand for; read-only.
    bias : Variable (units,) or None
        Digital.

    Examples
    --------
    >>> import numpy as np
    >>> from xbar_tf import XbarDense
    >>> layer = XbarDense(2, config="txsim-8bit", name="dense")
    >>> layer(np.ones((3, 4), "float32")).shape
    TensorShape([3, 2])
    """

    def __init__(self, units: int, activation: Any = None, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(activation=activation, use_bias=use_bias, **kwargs)
        if not isinstance(units, int) or units <= 0:
            raise ShapeError(f"units: {units!r}; give an integer above 0")
        self.units = units
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        """Return (in, units)."""
        return channels, self.units

    def to_matrix(self, kernel: Any) -> Any:
        """Return the kernel: it is the matrix."""
        return kernel

    def to_kernel(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return the matrix: it is the kernel."""
        return matrix

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Program the layer for inputs (batch, ..., in)."""
        channels = self.channels_of(input_shape)
        self.make_weights(channels, self.units)
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: channels})
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return ``activation(inputs W + b)``, inputs (batch, ..., in)."""
        return self.finished(crossbar_linear(inputs, self.crossbars[""], bool(training)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (batch, ..., units)."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        return {**super().get_config(), "units": self.units}
