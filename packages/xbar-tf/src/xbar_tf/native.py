"""One layer from its native form to crossbars and back: configuration, shapes, weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_tf._bridge import Array
from xbar_tf.attention import XbarMultiHeadAttention
from xbar_tf.conv import XbarConv1D, XbarConv2D, XbarConv3D
from xbar_tf.dense import XbarDense
from xbar_tf.depthwise import XbarDepthwiseConv2D
from xbar_tf.einsum_dense import XbarEinsumDense
from xbar_tf.host import OURS, CrossbarLayer, native_config
from xbar_tf.recurrent import XbarGRU, XbarLSTM, XbarSimpleRNN


def twins() -> dict[type[keras.layers.Layer], type[keras.layers.Layer]]:
    """Return the layers on crossbars by the native layers that they stand for."""
    layers = keras.layers
    return {
        layers.Dense: XbarDense,
        layers.Conv1D: XbarConv1D,
        layers.Conv2D: XbarConv2D,
        layers.Conv3D: XbarConv3D,
        layers.DepthwiseConv2D: XbarDepthwiseConv2D,
        layers.SimpleRNN: XbarSimpleRNN,
        layers.LSTM: XbarLSTM,
        layers.GRU: XbarGRU,
        layers.EinsumDense: XbarEinsumDense,
        layers.MultiHeadAttention: XbarMultiHeadAttention,
    }


def on_crossbars(layer: Any) -> bool:
    """Return whether a layer is one on crossbars, as a whole."""
    return isinstance(layer, CrossbarLayer | XbarMultiHeadAttention)


def unbuilt_twin(
    native: keras.layers.Layer,
    twin: type[keras.layers.Layer],
    chip: Chip,
    *,
    key: str,
    signed_input: bool = True,
    w_max: Mapping[str, float] | None = None,
) -> keras.layers.Layer:
    """Return the layer on crossbars with the arguments of a native one, without weights yet.

    Parameters
    ----------
    native : Layer
        The native layer.
    twin : type
        From `twins`.
    chip : Chip
        Its chip.
    key : str
        Keys the draws.
    signed_input : bool
        Whether inputs can be negative.
    w_max : mapping of str to float, or None
        Ranges by the native name of the weight.
    """
    config = native.get_config()
    config.pop("quantization_config", None)
    mine = dict(zip(OURS, (chip, key, signed_input, dict(w_max or {})), strict=True))
    return twin.from_config({**config, **mine})


def fill(twin: Any, native: keras.layers.Layer) -> None:
    """Build a layer on crossbars and program the weights of a built native one; digital ones are copied."""
    if isinstance(twin, XbarMultiHeadAttention):
        twin.adopt(native)
        return
    weights = [np.asarray(keras.ops.convert_to_numpy(value)) for value in native.weights]
    ahead = ("kernel_initializer", "recurrent_initializer")
    drawn = {name: getattr(twin, name) for name in ahead if name in vars(twin)}
    for name, value in zip(drawn, weights, strict=False):
        setattr(twin, name, _given(value))
    try:
        twin.build_from_config(native.get_build_config())
    finally:
        for name, initializer in drawn.items():
            setattr(twin, name, initializer)
    if twin.bias is not None:
        twin.bias.assign(weights[-1])


def _given(value: Array) -> Callable[..., tf.Tensor]:
    if not np.isfinite(value).all():
        raise ConfigError("the weight holds NaN or infinity; convert finite weights")
    return lambda shape, dtype=None: tf.constant(value, dtype)


def native_class(twin: keras.layers.Layer) -> type[keras.layers.Layer]:
    """Return the native layer that a layer on crossbars stands for."""
    for native, ours in twins().items():
        if type(twin) is ours:
            return native
    raise ConfigError(
        f"layer {twin.name!r}: {type(twin).__name__} has no native twin; its class must be one of "
        f"{', '.join(ours.__name__ for ours in twins().values())}"
    )


def unbuilt_native(twin: keras.layers.Layer) -> keras.layers.Layer:
    """Return the native layer with the arguments of one on crossbars, without weights yet."""
    return native_class(twin).from_config(native_config(twin))


def fill_native(native: Any, twin: Any) -> None:
    """Build a native layer with the weights that one on crossbars stands for now."""
    if isinstance(twin, XbarMultiHeadAttention):
        twin.fill_native(native)
        return
    native.build_from_config(twin.get_build_config())
    native.set_weights(native_weights(twin))


def native_weights(twin: Any) -> list[Array]:
    """Return the weights of the native layer that a layer on crossbars stands for now."""
    values: Sequence[Any] = [getattr(twin, name) for name in twin.weight_names()]
    values = [*values, *([] if twin.bias is None else [twin.bias])]
    return [np.asarray(keras.ops.convert_to_numpy(value)) for value in values]
