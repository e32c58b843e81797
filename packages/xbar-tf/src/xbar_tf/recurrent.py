"""Recurrent layers on crossbars: kernel and recurrent kernel have arrays of their own."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from xbar_core.errors import ConfigError
from xbar_tf._recurrence import Cell, GRUCell, LSTMCell, SimpleCell
from xbar_tf._recurrent_layer import RecurrentLayer


class GatedLayer(RecurrentLayer):
    """Base of the recurrent layers with gates."""

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        implementation: int = 2,
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)
        if use_cudnn is True:
            raise ConfigError("use_cudnn: True; a chip has no such kernel: leave it 'auto'")
        self.recurrent_activation = keras.activations.get(recurrent_activation)
        self.implementation = 1 if self.recurrent_dropout else implementation

    @property
    def masks(self) -> int:
        """Number of dropout masks of an input."""
        return self.gates if self.implementation == 1 else 1

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        gate = keras.activations.serialize(self.recurrent_activation)
        return {**super().get_config(), "recurrent_activation": gate, "implementation": self.implementation}


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarSimpleRNN(RecurrentLayer):
    """``h = act(x W + h U + b)`` on crossbar arrays: the twin of `keras.layers.SimpleRNN`."""

    __doc__ += (RecurrentLayer.__doc__ or "").split("\n", 1)[1]
    native_class = keras.layers.SimpleRNN
    seeds_first = True

    def __init__(self, units: int, activation: Any = "tanh", use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)

    def cell(self, bias: tf.Tensor | None) -> tuple[Cell, tf.Tensor | None]:
        """Return one step, and the part of the bias that is added to what inputs give."""
        return SimpleCell(self.activation), bias


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarLSTM(GatedLayer):
    """Long short-term memory on crossbar arrays: the twin of `keras.layers.LSTM`."""

    __doc__ += (RecurrentLayer.__doc__ or "").split("\n", 1)[1]
    native_class = keras.layers.LSTM
    gates = 4
    gate_order = (0, 1, 2, 3)

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        unit_forget_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, recurrent_activation, use_bias, **kwargs)
        self.unit_forget_bias = unit_forget_bias

    @property
    def state_size(self) -> list[int]:
        """Widths of hidden and cell state."""
        return [self.units, self.units]

    def initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Return what the native layer's bias starts as: with `unit_forget_bias` 1 at the forget gate."""
        if not self.unit_forget_bias:
            return super().initial_bias(shape, dtype)
        ends = [self.bias_initializer((n * self.units,), dtype=dtype) for n in (1, 2)]
        return keras.ops.concatenate([ends[0], keras.ops.ones((self.units,), dtype), ends[1]])

    def cell(self, bias: tf.Tensor | None) -> tuple[Cell, tf.Tensor | None]:
        """Return one step, and the part of the bias that is added to what inputs give."""
        return LSTMCell(self.activation, self.recurrent_activation), bias

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        return {**super().get_config(), "unit_forget_bias": self.unit_forget_bias}


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarGRU(GatedLayer):
    """Gated recurrent unit on crossbar arrays: the twin of `keras.layers.GRU`.

    Without `reset_after` the reset gate acts before the product: two reads in a step.
    """

    __doc__ += (RecurrentLayer.__doc__ or "").split("\n", 1)[1]
    native_class = keras.layers.GRU
    gates = 3
    gate_order = (1, 0, 2)

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        *,
        reset_after: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, recurrent_activation, use_bias, **kwargs)
        self.reset_after = reset_after

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """Shape of the native layer's bias: of inputs and hidden state apart with `reset_after`."""
        return (2, 3 * self.units) if self.reset_after else (3 * self.units,)

    def cell(self, bias: tf.Tensor | None) -> tuple[Cell, tf.Tensor | None]:
        """Return one step, and the part of the bias that is added to what inputs give."""
        of_x, of_h = (bias, None) if bias is None or not self.reset_after else (bias[0], bias[1])
        return GRUCell(self.activation, self.recurrent_activation, self.reset_after, of_h), of_x

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        return {**super().get_config(), "reset_after": self.reset_after}
