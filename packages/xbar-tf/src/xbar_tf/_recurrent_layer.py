"""What all recurrent layers on crossbars share: weights, states, the way of a sequence through the layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from xbar_core._checks import check_by_name
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf._bridge import to_analog, wants_gradient
from xbar_tf._recurrence import Cell, Loop
from xbar_tf.crossbar import Crossbar
from xbar_tf.functional import crossbar_linear
from xbar_tf.host import CrossbarLayer, native_config
from xbar_tf.time_steps import TimeSteps

SUFFIXES = {"kernel": "_ih_l0", "recurrent_kernel": "_hh_l0"}
"""Endings of the crossbar weights, as torch names them."""


class RecurrentLayer(CrossbarLayer):
    """Base of the recurrent layers.

    Parameters
    ----------
    units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer, ...
        All arguments of the native layer, drawn from the same generator.
    kernel_constraint, recurrent_constraint : None
        Devices cannot be constrained; anything else raises.
    seed : int or None
        Of the dropout masks, as in Keras; a chip's own seed stands in its `config`.
    use_cudnn : "auto" or False
        Taken as the native layer takes it: a chip has no such kernel.
    config, key, signed_input
        As of `xbar_tf.CrossbarLayer`. Hidden states are signed.
    w_max : mapping of str to float, or None
        Ranges of ``"kernel"`` and ``"recurrent_kernel"``, weight units; the others follow the chip's rule.

    Attributes
    ----------
    state_ih_l0, state_hh_l0 : Variable (devices, in, gates x units)
        Normalised device states in [0, 1]. Names, keys of draws and columns are those of torch's layer of one
        depth (of its ``_reverse`` direction where `go_backwards`), so that both frameworks have one chip.
    kernel, recurrent_kernel : Tensor (in, gates x units)
        The weights that they stand for, as the native layer orders them; read-only.
    bias : Variable or None
        Digital, as of the native layer.

    Notes
    -----
    All inputs of a sequence are read in one call; hidden states are read step by step, each step with noise
    of its own, with matrices that are computed once. Gates and activations are digital. With a dropout mask
    for every gate (`recurrent_dropout`, or `implementation` 1) the inputs of every gate are sent apart.
    Masked steps are sent as 0.
    """

    native_class: ClassVar[Any]
    gates: ClassVar[int] = 1
    gate_order: ClassVar[Sequence[int]] = (0,)
    """Which of the native layer's gates each of torch's is; an exchange, so its own inverse."""
    seeds_first: ClassVar[bool] = False
    """Whether the native layer makes the generator of its masks before its initializers."""

    def __init__(
        self,
        units: int,
        *,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(units, int) or units <= 0:
            raise ShapeError(f"units: {units!r}; give an integer above 0")
        for name, constraint in (("kernel", kernel_constraint), ("recurrent", recurrent_constraint)):
            if constraint is not None:
                raise ConfigError(
                    f"{name}_constraint: {constraint!r}; weights are what devices hold, and moving them is "
                    "a write: leave it None, and bound the weights by w_max or by a regularizer"
                )
        self.units, self.use_bias = units, use_bias
        # Whatever draws its own seed does so in the native layer's order.
        self.seed = seed
        if self.seeds_first:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.dropout, self.recurrent_dropout = (min(1.0, max(0.0, p)) for p in (dropout, recurrent_dropout))
        if not self.seeds_first:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.return_sequences, self.return_state = return_sequences, return_state
        self.go_backwards, self.stateful, self.unroll = go_backwards, stateful, unroll
        self.zero_output_for_mask = zero_output_for_mask
        self.bias: keras.Variable | None = None
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(ndim=3)
        # Not by assignment: what is kept between batches is no weight, in Keras as well.
        self.__dict__["states"] = None

    # What a kind of layer says of itself.

    @property
    def state_size(self) -> list[int]:
        """Widths of the states, the hidden state first."""
        return [self.units]

    @property
    def bias_shape(self) -> tuple[int, ...]:
        """Shape of the native layer's bias."""
        return (self.gates * self.units,)

    @property
    def masks(self) -> int:
        """Number of dropout masks of an input."""
        return 1

    def initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Return what the native layer's bias starts as."""
        return self.bias_initializer(shape, dtype=dtype)

    def cell(self, bias: tf.Tensor | None) -> tuple[Cell, tf.Tensor | None]:
        """Return one step, and the part of the bias that is added to what inputs give."""
        raise NotImplementedError

    # Weights.

    @classmethod
    def weight_names(cls) -> tuple[str, ...]:
        """Return the native names of the two weights."""
        return tuple(SUFFIXES)

    def crossbar(self, name: str) -> Crossbar:
        """Return the handle of ``"kernel"`` or ``"recurrent_kernel"``."""
        if not self.crossbars:
            raise AttributeError(f"{self.name}: no {name} before the layer is built")
        found: Crossbar = self.crossbars[self._suffix(name)]
        return found

    def _suffix(self, name: str) -> str:
        return SUFFIXES[name] + ("_reverse" if self.go_backwards else "")

    def _w_max(self, suffix: str) -> float | None:
        return next((w for name, w in self._given_w_max.items() if self._suffix(name) == suffix), None)

    @property
    def kernel(self) -> tf.Tensor:
        """The weights of the inputs (in, gates x units)."""
        return self._ordered(self.crossbar("kernel").weight())

    @property
    def recurrent_kernel(self) -> tf.Tensor:
        """The weights of the hidden state (units, gates x units)."""
        return self._ordered(self.crossbar("recurrent_kernel").weight())

    def _ordered(self, values: Any) -> Any:
        """Return gates, blocks of the last axis, in torch's order from the native one, or the other way."""
        if self.gates == 1 or list(self.gate_order) == list(range(self.gates)):
            return values
        blocks = [values[..., gate * self.units : (gate + 1) * self.units] for gate in self.gate_order]
        return np.concatenate(blocks, -1) if isinstance(values, np.ndarray) else tf.concat(blocks, -1)

    def build(self, sequences_shape: tuple[int | None, ...], initial_state_shape: Any = None) -> None:
        """Program the layer for sequences (batch, length, in)."""
        channels, columns = self.channels_of(sequences_shape), self.gates * self.units
        kernel = self.initial(self.kernel_initializer, (channels, columns))
        recurrent = self.initial(self.recurrent_initializer, (self.units, columns))
        for name, value in (("kernel", kernel), ("recurrent_kernel", recurrent)):
            signed = self.signed_input or name == "recurrent_kernel"
            regularizer = self._regularizer(name)
            self.add_crossbar(
                self._suffix(name), self._ordered(value), signed_input=signed, regularizer=regularizer
            )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self.bias_shape,
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if self.stateful:
            self._make_states(sequences_shape[0])
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: channels})
        self.built = True

    def _regularizer(self, name: str) -> Callable[[tf.Tensor], tf.Tensor] | None:
        regularizer = self.kernel_regularizer if name == "kernel" else self.recurrent_regularizer
        # Keras hands over the state; the term is one of the weights that it stands for.
        return None if regularizer is None else lambda state: regularizer(getattr(self, name))

    def load_native(self, source: keras.layers.RNN, w_max: Mapping[str, float] | None = None) -> None:
        """Program the weights of a built native layer; the bias is copied."""
        ranges = check_by_name("w_max", w_max, SUFFIXES, "weight")
        given = source.get_weights()
        shapes = [value.shape for value in given]
        wanted = [tuple(self.kernel.shape), tuple(self.recurrent_kernel.shape)]
        wanted += [self.bias_shape] if self.use_bias else []
        if shapes != wanted:
            raise ShapeError(
                f"{self.name}: the weights of {source.name!r} have shapes {shapes}, this layer's are {wanted}"
            )
        for name, value in zip(SUFFIXES, given, strict=False):
            self.program(self._suffix(name), self._ordered(value), ranges.get(name))
        if self.bias is not None:
            self.bias.assign(given[2])

    def to_native(self) -> keras.layers.RNN:
        """Return a native layer with the weights that the states stand for."""
        native = self.native_class.from_config(native_config(self))
        native.build_from_config(self.get_build_config())
        weights = [self.kernel, self.recurrent_kernel, *([] if self.bias is None else [self.bias])]
        native.set_weights([keras.ops.convert_to_numpy(value) for value in weights])
        return native

    # States between batches.

    def _make_states(self, batch: int | None) -> None:
        if batch is None:
            raise ShapeError(
                f"{self.name}: stateful=True needs a batch of known size; give batch_shape=(samples, length, "
                "features) to the Input"
            )
        dtype = self.analog_dtype
        self.__dict__["states"] = [
            keras.Variable("zeros", (batch, size), dtype, trainable=False, name="rnn_state")
            for size in self.state_size
        ]

    def reset_state(self) -> None:
        """Begin the next batch from states of 0."""
        for state in self.states or ():
            state.assign(tf.zeros_like(state.value))

    def reset_states(self) -> None:
        """Do what `reset_state` does."""
        self.reset_state()

    def _initial(self, given: Any, x: tf.Tensor) -> list[tf.Tensor]:
        if given is None and self.stateful:
            given = [state.value for state in self.states]
            batch = given[0].shape[0]
            if x.shape[0] not in (None, batch):
                raise ShapeError(
                    f"{self.name}: {x.shape[0]} samples; this stateful layer keeps {batch} states"
                )
        if given is None:
            return [tf.zeros((tf.shape(x)[0], size), x.dtype) for size in self.state_size]
        states = list(given) if isinstance(given, list | tuple) else [given]
        widths = [state.shape[-1] for state in states]
        if widths != self.state_size:
            raise ShapeError(f"{self.name}: initial states of widths {widths}; they are {self.state_size}")
        return [to_analog(state, x.dtype) for state in states]

    # The forward pass.

    def call(
        self, sequences: tf.Tensor, initial_state: Any = None, mask: Any = None, training: bool | None = False
    ) -> Any:
        """Return what the native layer returns: the outputs, and the final states with `return_state`.

        Parameters
        ----------
        sequences : Tensor (batch, length, in)
            Inputs.
        initial_state : Tensor or list of Tensor (batch, units), or None
            Zeros where None.
        mask : bool Tensor (batch, length) or None
            False where a step is skipped.
        training : bool
            Whether the call trains.
        """
        if self.unroll and sequences.shape[1] is None:
            raise ShapeError(f"{self.name}: unroll=True needs a known length; give it to the Input")
        training, hidden = bool(training), self.crossbar("recurrent_kernel")
        x = to_analog(sequences, hidden.dtype)
        states = self._initial(initial_state, x)
        if mask is not None:
            mask = tf.cast(mask[0] if isinstance(mask, list | tuple) else mask, "bool")
            x = tf.where(mask[..., None], x, tf.zeros((), x.dtype))
        bias = None if self.bias is None else self._ordered(tf.cast(self.bias.value, x.dtype))
        cell, input_bias = self.cell(bias)
        ones = tf.ones_like(x[:, 0])
        masks = self._dropout_masks(ones, self.dropout, training)
        inputs = self.crossbar("kernel")
        from_x = self._dropped(lambda x: crossbar_linear(x, inputs, training), x, masks)
        from_x = from_x if input_bias is None else from_x + input_bias
        masks = self._dropout_masks(tf.ones_like(states[0]), self.recurrent_dropout, training)
        steps = TimeSteps(hidden, training, tf.executing_eagerly() and wants_gradient(from_x))
        loop = Loop(self.go_backwards, self.return_sequences, self.zero_output_for_mask, self.unroll)

        def read(h: tf.Tensor, call: Any) -> tf.Tensor:
            return self._dropped(lambda h: steps.product(h, call), h, masks)

        output, states = loop.run(cell, read, from_x, mask, steps.begin(states))
        output, *states = steps.end([output, *states], tf.shape(x)[1] * cell.reads)
        if self.stateful:
            for kept, state in zip(self.states, states, strict=True):
                kept.assign(state)
        output = tf.cast(output, self.compute_dtype)
        if not self.return_state:
            return output
        return (output, *(tf.cast(state, self.compute_dtype) for state in states))

    def _dropout_masks(self, ones: tf.Tensor, rate: float, training: bool) -> list[tf.Tensor]:
        """Return the masks of an input, in torch's order of gates; none outside training."""
        if not training or not 0.0 < rate < 1.0:
            return []
        masks = [keras.random.dropout(ones, rate, seed=self.seed_generator) for _ in range(self.masks)]
        return masks if self.masks == 1 else [masks[gate] for gate in self.gate_order]

    def _dropped(
        self, read: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, masks: list[tf.Tensor]
    ) -> tf.Tensor:
        """Return a read of x (batch, ..., in) under no mask, one mask, or one for every gate."""
        if not masks:
            return read(x)
        each = [x * (mask if len(x.shape) == 2 else mask[:, None]) for mask in masks]
        if len(each) == 1:
            return read(each[0])
        results = tf.split(read(tf.concat(each, 0)), len(each), 0)
        return tf.concat([tf.split(y, self.gates, -1)[gate] for gate, y in enumerate(results)], -1)

    # What Keras asks.

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        """Return the shape of the outputs, and those of the states with `return_state`."""
        batch, length = sequences_shape[0], sequences_shape[1]
        output = (batch, length, self.units) if self.return_sequences else (batch, self.units)
        return (output, *((batch, size) for size in self.state_size)) if self.return_state else output

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        """Return the mask of the outputs."""
        mask = mask[0] if isinstance(mask, list | tuple) else mask
        output = mask if self.return_sequences else None
        return [output, *(None for _ in self.state_size)] if self.return_state else output

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        config: dict[str, Any] = super().get_config()
        plain = [
            "units",
            "use_bias",
            "dropout",
            "recurrent_dropout",
            "seed",
            "return_sequences",
            "return_state",
        ]
        plain += ["go_backwards", "stateful", "unroll", "zero_output_for_mask"]
        config |= {name: getattr(self, name) for name in plain}
        config["activation"] = keras.activations.serialize(self.activation)
        objects = ["kernel_initializer", "recurrent_initializer", "bias_initializer", "kernel_regularizer"]
        objects += ["recurrent_regularizer", "bias_regularizer", "activity_regularizer", "bias_constraint"]
        return config | {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in objects}
