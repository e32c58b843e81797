"""Dense layer of an Einstein sum on crossbars."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core.engine.patches import Geometry
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf._bridge import host, to_analog
from xbar_tf.dense import KernelLayer
from xbar_tf.functional import crossbar_convolution, crossbar_linear, effective_weight, finite, is_product


@dataclass(frozen=True)
class EinsumProduct:
    """An Einstein sum of inputs and a kernel as products of vectors and matrices.

    Axes that inputs and kernel share and the output has not are summed: the rows of a matrix. Those of
    the kernel alone are its columns. Those of all three number matrices of their own.

    Parameters
    ----------
    inputs, kernel, outputs : str
        Labels of the axes, ellipses written out.
    sizes : dict of str to int
        Of the labels of the kernel.
    """

    inputs: str
    kernel: str
    outputs: str
    sizes: dict[str, int]

    @classmethod
    def of(cls, equation: str, rank: int, kernel_shape: Sequence[int]) -> EinsumProduct:
        """Return the product of an equation that Keras has checked, for inputs of so many axes."""
        inputs, kernel, outputs = re.split(",|->", equation.replace(" ", ""))
        spare = iter(sorted({*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"} - {*equation}))
        more = "".join(next(spare) for _ in range(rank - len(inputs.replace("...", ""))))
        inputs, outputs = (labels.replace("...", more) for labels in (inputs, outputs))
        product = cls(inputs, kernel, outputs, dict(zip(kernel, kernel_shape, strict=True)))
        lost = [label for label in product.free if label not in outputs]
        if lost or not product.free or inputs[0] in kernel:
            what = f"sums axis {lost[0]!r} of the inputs alone" if lost else "has weights for every sample"
            raise ConfigError(
                f"equation: {equation!r} {what}, which no array of devices does; sum before the layer, and "
                "begin the inputs with an axis for samples that the kernel has not"
            )
        return product

    @property
    def free(self) -> list[str]:
        """Axes of the inputs alone, samples first."""
        return [label for label in self.inputs if label not in self.kernel]

    @property
    def rows(self) -> list[str]:
        """Axes that are summed."""
        return [label for label in self.kernel if label not in self.outputs]

    @property
    def columns(self) -> list[str]:
        """Axes of the kernel alone."""
        return [label for label in self.kernel if label not in self.inputs]

    @property
    def shared(self) -> list[str]:
        """Axes of inputs, kernel and outputs: every index has a matrix of its own."""
        return [label for label in self.kernel if label in self.inputs and label in self.outputs]

    def size(self, labels: Sequence[str]) -> int:
        """Return the number of indices of some axes of the kernel."""
        return math.prod(self.sizes[label] for label in labels)

    def to_matrix(self, kernel: Any) -> Any:
        """Return a kernel as (rows, matrices x columns)."""
        order = [self.kernel.index(label) for label in (*self.rows, *self.shared, *self.columns)]
        return np.transpose(kernel, order).reshape(self.size(self.rows), -1)

    def to_kernel(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return the kernel of such a matrix."""
        labels = [*self.rows, *self.shared, *self.columns]
        whole = tf.reshape(matrix, [self.sizes[label] for label in labels])
        return tf.transpose(whole, [labels.index(label) for label in self.kernel])

    def vectors(self, x: tf.Tensor) -> tf.Tensor:
        """Return inputs as (samples, places, matrices x rows)."""
        labels = [*self.free, *self.shared, *self.rows]
        x = tf.transpose(x, [self.inputs.index(label) for label in labels])
        return tf.reshape(x, (tf.shape(x)[0], -1, self.size(self.shared) * self.size(self.rows)))

    def outcome(self, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return (samples, places, matrices x columns) as the outputs of inputs x."""
        labels = [*self.free, *self.shared, *self.columns]
        given = [x.shape[self.inputs.index(label)] for label in self.free]
        now = tf.shape(x)
        sizes = [
            now[self.inputs.index(label)] if n is None else n
            for label, n in zip(self.free, given, strict=True)
        ]
        kept = [self.sizes[label] for label in (*self.shared, *self.columns)]
        y = tf.reshape(y, [*sizes, *kept])
        y.set_shape([*given, *kept])
        return tf.transpose(y, [labels.index(label) for label in self.outputs])


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarEinsumDense(KernelLayer):
    """``y = act(einsum(equation, x, W) + b)``, W on crossbar arrays: the twin of `keras.layers.EinsumDense`.

    Parameters
    ----------
    equation, output_shape, activation, bias_axes, kernel_initializer, bias_initializer, kernel_regularizer,
    bias_regularizer, activity_regularizer, bias_constraint
        As of `keras.layers.EinsumDense`, drawn from the same generator.
    lora_rank, lora_alpha, gptq_unpacked_column_size, quantization_config : None
        Digital ways to have fewer or smaller weights, which arrays have not; anything else raises.
    config : str, Path, mapping or Chip
        Preset's name, chip file, chip as a dict, or chip.
    seed, key, signed_input, w_max
        As of `xbar_tf.CrossbarLayer`.

    Attributes
    ----------
    state : Variable (devices, summed, matrices x new)
        Normalised device states in [0, 1]. Axes that inputs, kernel and outputs share (``b`` in
        ``"ab,bc->abc"``) number matrices, each on arrays of its own.
    kernel : Tensor
        The weights that they stand for, shaped as in the equation; read-only.
    bias : Variable or None
        Digital.
    """

    def __init__(
        self,
        equation: str,
        output_shape: Any,
        activation: Any = None,
        bias_axes: str | None = None,
        *,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        gptq_unpacked_column_size: int | None = None,
        quantization_config: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activation=activation, use_bias=bias_axes is not None, **kwargs)
        for name, value in (("lora_rank", lora_rank), ("quantization_config", quantization_config)):
            if value is not None:
                raise ConfigError(f"{name}: {value!r}; devices hold the whole kernel: leave it None")
        self.equation, self.bias_axes = equation, bias_axes
        self.partial_output_shape = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)

    def _native(self, dtype: str | None = None) -> keras.layers.EinsumDense:
        return keras.layers.EinsumDense(
            self.equation,
            self.partial_output_shape,
            bias_axes=self.bias_axes,
            kernel_initializer=self.kernel_initializer,
            bias_initializer=self.bias_initializer,
            dtype=dtype,
            name=self.name,
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Program the layer for inputs of a shape."""
        with tf.init_scope():
            native = self._native(self.analog_dtype)
            native.build(input_shape)
            kernel = host(native.kernel).copy()
        self.product = EinsumProduct.of(self.equation, len(input_shape), kernel.shape)
        regularizer = None
        if self.kernel_regularizer is not None:
            # Keras hands over the state; the term is one of the weights that it stands for.
            def regularizer(state: Any) -> tf.Tensor:
                return self.kernel_regularizer(self.kernel)

        parts = self.product.size(self.product.shared)
        self.add_crossbar("", self.product.to_matrix(kernel), parts=parts, regularizer=regularizer)
        if self.use_bias:
            with tf.init_scope():
                bias = host(native.bias).copy()
            self.bias = self.add_weight(
                name="bias",
                shape=bias.shape,
                initializer=lambda shape, dtype: tf.cast(bias, dtype),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = keras.layers.InputSpec(ndim=len(input_shape))
        self.built = True

    def to_matrix(self, kernel: Any) -> Any:
        """Return a kernel as (summed, matrices x new)."""
        return self.product.to_matrix(kernel)

    def to_kernel(self, matrix: tf.Tensor) -> tf.Tensor:
        """Return the kernel of such a matrix."""
        return self.product.to_kernel(matrix)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Return ``activation(einsum(equation, inputs, W) + b)``."""
        crossbar, training = self.crossbars[""], bool(training)
        x = to_analog(inputs, crossbar.dtype)
        if is_product(crossbar):
            kernel = self.to_kernel(effective_weight(crossbar, training))
            return self.finished(keras.ops.einsum(self.equation, finite(x, crossbar), kernel))
        vectors = self.product.vectors(x)
        if crossbar.parts == 1:
            y = crossbar_linear(vectors, crossbar, training)
        else:  # matrices side by side are a convolution of one cell in groups
            geometry = Geometry((1,), (1,), ((0, 0),), (1,), crossbar.parts)
            y = crossbar_convolution(vectors, crossbar, geometry, training)
        return self.finished(self.product.outcome(y, x))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        """Return the shape of the output."""
        return self._native().compute_output_shape(input_shape)

    def load_native(self, source: keras.layers.Layer, w_max: float | None = None) -> None:
        """Program the weights of a built native layer of the same equation; the bias is copied."""
        if source.equation != self.equation:
            raise ShapeError(
                f"{self.name}: the equation of {source.name!r} is {source.equation!r}, this layer's is "
                f"{self.equation!r}"
            )
        super().load_native(source, w_max)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        config = super().get_config()
        del config["use_bias"]
        names = {"equation": self.equation, "output_shape": self.partial_output_shape}
        return {**config, **names, "bias_axes": self.bias_axes}
