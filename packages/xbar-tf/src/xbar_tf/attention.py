"""Multi-head attention with its projections on crossbars; the attention product is digital."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core._checks import check_by_name
from xbar_core.errors import ConfigError
from xbar_tf._bridge import host, require_backend, resolve_chip
from xbar_tf.crossbar import Crossbar
from xbar_tf.einsum_dense import XbarEinsumDense
from xbar_tf.host import Config, native_config

PROJECTIONS = {
    "query": ("_query_dense", "q_proj"),
    "key": ("_key_dense", "k_proj"),
    "value": ("_value_dense", "v_proj"),
    "gate": ("_gate_dense", "gate_proj"),
    "attention_output": ("_output_dense", "out_proj"),
}
"""Projections by their names in Keras: the attribute of the layer, and torch's name, which keys draws."""


@keras.saving.register_keras_serializable(package="xbar_tf")
class XbarMultiHeadAttention(keras.layers.MultiHeadAttention):
    """Attention on crossbar arrays: the twin of `keras.layers.MultiHeadAttention`.

    Parameters
    ----------
    *arguments, **options
        As of `keras.layers.MultiHeadAttention`, drawn from the same generator; `seed` is that of the
        dropout, `kernel_constraint` must be None.
    config : str, Path, mapping or Chip
        Preset's name, chip file, chip as a dict, or chip.
    key : int, str or None
        Keys the draws of the layer; None takes the layer's name. The projections are ``"{key}.q_proj"`` and
        so on, as in `xbar_torch`.
    signed_input : bool
        False where queries, keys and values cannot be negative: their words then have no sign bit.
    w_max : mapping of str to float, or None
        Ranges of ``"query"``, ``"key"``, ``"value"``, ``"gate"`` and ``"attention_output"``, weight units;
        the others follow the chip's rule.

    Attributes
    ----------
    query_dense, key_dense, value_dense, output_dense : XbarEinsumDense
        The projections, each on arrays of its own with its own weight range.

    Notes
    -----
    Masks, scores, softmax and dropout are Keras' own.
    """

    def __init__(
        self,
        *arguments: Any,
        config: Config = "ideal",
        key: int | str | None = None,
        signed_input: bool = True,
        w_max: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        require_backend()
        ranges = check_by_name("w_max", w_max, self.weight_names(), "weight")
        if options.get("kernel_constraint") is not None:
            raise ConfigError(
                f"kernel_constraint: {options['kernel_constraint']!r}; weights are what devices hold, and "
                "moving them is a write: leave it None, and bound the weights by w_max or by a regularizer"
            )
        super().__init__(*arguments, **options)
        # Keras would cast inputs to half precision under a mixed policy, and cannot compile NumPy.
        self.autocast = False
        self.supports_jit = False
        self.chip = resolve_chip(config)
        self.draw_key, self.signed_input = key, signed_input
        self._given_w_max = ranges

    @classmethod
    def weight_names(cls) -> tuple[str, ...]:
        """Return the names of the projections."""
        return tuple(PROJECTIONS)

    @property
    def projections(self) -> dict[str, XbarEinsumDense]:
        """The projections by their names in Keras."""
        found = {name: getattr(self, attribute, None) for name, (attribute, _) in PROJECTIONS.items()}
        return {name: layer for name, layer in found.items() if layer is not None}

    @property
    def crossbars(self) -> dict[str, Crossbar]:
        """Handles by the names of the projections; empty until the layer is built."""
        return {name: layer.crossbars[""] for name, layer in self.projections.items()}

    def build(self, query_shape: Any, value_shape: Any, key_shape: Any = None) -> None:
        """Program the projections for inputs of these shapes."""
        native = self.__dict__.pop("source", None)
        if native is None:
            with tf.init_scope():
                native = self._native()
                native.build(query_shape, value_shape, key_shape)
        # What depends on shapes alone; a projected value has one axis more.
        self._build_attention(len(value_shape) + 1)
        for name, (attribute, _) in PROJECTIONS.items():
            source = getattr(native, attribute, None)
            if source is not None:
                setattr(self, attribute, self._twin(name, source))
        self.built = True

    def adopt(self, native: keras.layers.MultiHeadAttention) -> None:
        """Build the layer with the weights of a built native one programmed; biases are copied."""
        self.__dict__["source"] = native  # not by assignment: it is no part of this layer
        self.build_from_config(native.get_build_config())

    def _native(self) -> keras.layers.MultiHeadAttention:
        # The objects themselves: a new one would draw another seed.
        starts = {
            "kernel_initializer": self._kernel_initializer,
            "bias_initializer": self._bias_initializer,
        }
        return keras.layers.MultiHeadAttention(**{**native_config(self), **starts})

    def _twin(self, name: str, source: keras.layers.EinsumDense) -> XbarEinsumDense:
        with tf.init_scope():
            kernel = host(source.kernel).copy()
            bias = None if source.bias is None else host(source.bias).copy()
        key = self.name if self.draw_key is None else self.draw_key
        twin = XbarEinsumDense(
            source.equation,
            source.partial_output_shape,
            activation=source.activation,
            bias_axes=source.bias_axes,
            kernel_initializer=lambda shape, dtype: tf.cast(kernel, dtype),
            bias_initializer=lambda shape, dtype: tf.cast(bias, dtype),
            kernel_regularizer=source.kernel_regularizer,
            bias_regularizer=source.bias_regularizer,
            activity_regularizer=source.activity_regularizer,
            bias_constraint=source.bias_constraint,
            config=self.chip,
            key=f"{key}.{PROJECTIONS[name][1]}",
            signed_input=self.signed_input or name == "attention_output",
            w_max=self._given_w_max.get(name),
            dtype=self.dtype_policy,
            name=name,
        )
        twin.key_of_file = self.draw_key is None
        twin.build(tuple(source.get_build_config()["input_shape"]))
        return twin

    def load_native(
        self, source: keras.layers.MultiHeadAttention, w_max: Mapping[str, float] | None = None
    ) -> None:
        """Program the weights of a built native layer; biases are copied."""
        ranges = check_by_name("w_max", w_max, self.weight_names(), "weight")
        for name, layer in self.projections.items():
            layer.load_native(getattr(source, PROJECTIONS[name][0]), ranges.get(name))

    def to_native(self) -> keras.layers.MultiHeadAttention:
        """Return a native layer with the weights that the states stand for."""
        native = self._native()
        self.fill_native(native)
        return native

    def fill_native(self, native: keras.layers.MultiHeadAttention) -> None:
        """Build a native layer with the weights that the states stand for."""
        native.build_from_config(self.get_build_config())
        for name, layer in self.projections.items():
            weights = [layer.kernel, *([] if layer.bias is None else [layer.bias])]
            twin = getattr(native, PROJECTIONS[name][0])
            twin.set_weights([np.asarray(keras.ops.convert_to_numpy(value)) for value in weights])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same layer."""
        mine = {"key": self.draw_key, "signed_input": self.signed_input, "w_max": dict(self._given_w_max)}
        return {**super().get_config(), "config": self.chip.to_dict(), **mine}
