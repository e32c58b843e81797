"""The weights of one Keras layer as the tensors of its torch twin, and back: an entry for each kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from xbar_core.errors import ConfigError

Numbers = NDArray[Any]
Tensors = dict[str, Numbers]

COUNTER = "num_batches_tracked"
"""Torch's count of batches in a normalisation, which Keras does not have."""

GRU_GATES = (1, 0, 2)
"""Torch's gates are r z n, Keras' z r h: the exchange is its own inverse."""


@dataclass(frozen=True)
class TwinWeights:
    """How a layer is translated, its weights in the order of `get_weights`.

    Parameters
    ----------
    to_keras : callable
        Weights from the tensors of the torch module.
    to_torch : callable
        Tensors from the weights.
    by_input : int
        So many leading weights have one row for each input of the layer.
    """

    to_keras: Callable[[Tensors], list[Numbers]]
    to_torch: Callable[[list[Numbers]], Tensors]
    by_input: int = 0


def twin_weights(layer: Any) -> TwinWeights:
    """Return the translation of a built layer.

    Raises
    ------
    ConfigError
        The layer has weights, but no twin in torch.
    """
    if isinstance(layer, layers.Dense):
        return TwinWeights(
            lambda t: [t["weight"].T, *_biases(t)], lambda w: _tensors(w[0].T, w[1:]), by_input=1
        )
    if isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Conv3D):
        return TwinWeights(
            lambda t: [np.moveaxis(t["weight"], (1, 0), (-2, -1)), *_biases(t)],
            lambda w: _tensors(np.moveaxis(w[0], (-2, -1), (1, 0)), w[1:]),
        )
    if isinstance(layer, layers.DepthwiseConv1D | layers.DepthwiseConv2D):
        return _depthwise(layer.depth_multiplier)
    if isinstance(layer, layers.BatchNormalization) and layer.center == layer.scale:
        affine = ("weight", "bias") if layer.scale else ()
        return _vectors((*affine, "running_mean", "running_var"), {COUNTER: np.array(0)})
    if isinstance(layer, layers.LayerNormalization) and layer.center and layer.scale:
        return _vectors(("weight", "bias"))
    if isinstance(layer, layers.Embedding):
        return TwinWeights(lambda t: [t["weight"]], lambda w: {"weight": w[0]})
    if isinstance(layer, layers.SimpleRNN | layers.LSTM):
        return TwinWeights(_summed_biases, lambda w: _recurrent(w[:2], [(b, 0 * b) for b in w[2:]]))
    if isinstance(layer, layers.GRU) and layer.reset_after:
        return TwinWeights(_gru, lambda w: _recurrent(map(_gates, w[:2]), [tuple(_gates(b)) for b in w[2:]]))
    if isinstance(layer, layers.MultiHeadAttention) and _is_torch_attention(layer):
        return _attention(layer.num_heads)
    fix = (
        "build the GRU with reset_after=True" if isinstance(layer, layers.GRU) else "set its weights by hand"
    )
    raise ConfigError(
        f"layer {layer.name!r} ({type(layer).__name__}): no layer of torch has such weights; {fix}"
    )


def _biases(tensors: Tensors) -> list[Numbers]:
    return [tensors["bias"]] if "bias" in tensors else []


def _tensors(weight: Numbers, biases: Sequence[Numbers]) -> Tensors:
    return {"weight": weight, **({"bias": biases[0]} if biases else {})}


def _vectors(names: Sequence[str], constant: Tensors | None = None) -> TwinWeights:
    """Translate weights that both frameworks hold alike, one number for each feature."""
    return TwinWeights(
        lambda t: [t[name] for name in names],
        lambda w: {**dict(zip(names, w, strict=True)), **(constant or {})},
        by_input=len(names),
    )


def _depthwise(multiplier: int) -> TwinWeights:
    """Translate (...window, in, multiplier) and (in x multiplier, 1, ...window)."""

    def to_keras(tensors: Tensors) -> list[Numbers]:
        weight = tensors["weight"][:, 0]
        split = weight.reshape(-1, multiplier, *weight.shape[1:])
        return [np.moveaxis(split, (0, 1), (-2, -1)), *_biases(tensors)]

    def to_torch(weights: list[Numbers]) -> Tensors:
        split = np.moveaxis(weights[0], (-2, -1), (0, 1))
        return _tensors(split.reshape(-1, 1, *split.shape[2:]), weights[1:])

    return TwinWeights(to_keras, to_torch)


# Recurrent layers: Keras adds one bias where torch adds two, except in a GRU, which needs both.


def _summed_biases(tensors: Tensors) -> list[Numbers]:
    biases = [tensors["bias_ih"] + tensors["bias_hh"]] if "bias_ih" in tensors else []
    return [tensors["weight_ih"].T, tensors["weight_hh"].T, *biases]


def _gru(tensors: Tensors) -> list[Numbers]:
    biases = [np.stack([tensors["bias_ih"], tensors["bias_hh"]])] if "bias_ih" in tensors else []
    return [_gates(value) for value in (tensors["weight_ih"].T, tensors["weight_hh"].T, *biases)]


def _gates(value: Numbers) -> Numbers:
    """Exchange the gates r and z of a GRU, blocks of the last axis."""
    blocks = np.split(value, 3, axis=-1)
    return np.concatenate([blocks[gate] for gate in GRU_GATES], axis=-1)


def _recurrent(kernels: Any, biases: list[Any]) -> Tensors:
    kernel, recurrent_kernel = kernels
    tensors = {"weight_ih": kernel.T, "weight_hh": recurrent_kernel.T}
    for first, second in biases:
        tensors |= {"bias_ih": first, "bias_hh": second}
    return tensors


# Attention: torch has the first three projections in one matrix where their inputs are as wide.

_PROJECTIONS = tuple(f"{name}_proj_weight" for name in "qkv")


def _is_torch_attention(layer: Any) -> bool:
    """Return whether heads together are as wide as queries, and no gate stands behind them."""
    width = layer.num_heads * layer.key_dim
    outputs = layer.output_dense.kernel.shape[-1]
    plain = layer.value_dim == layer.key_dim and getattr(layer, "_gate_dense", None) is None
    return plain and width == outputs == layer.query_dense.kernel.shape[0]


def _attention(heads: int) -> TwinWeights:
    """Translate kernels (in, heads, width) and (heads, width, out), each before its bias."""

    def to_keras(tensors: Tensors) -> list[Numbers]:
        joined = tensors.get("in_proj_weight")
        kernels = [tensors[name] for name in _PROJECTIONS] if joined is None else np.split(joined, 3)
        found = [kernel.T.reshape(kernel.shape[1], heads, -1) for kernel in kernels]
        out = tensors["out_proj.weight"].T
        found.append(out.reshape(heads, -1, out.shape[-1]))
        if "in_proj_bias" not in tensors:
            return found
        biases = [bias.reshape(heads, -1) for bias in np.split(tensors["in_proj_bias"], 3)]
        pairs = zip(found, [*biases, tensors["out_proj.bias"]], strict=True)
        return [value for pair in pairs for value in pair]

    def to_torch(weights: list[Numbers]) -> Tensors:
        kernels, biases = (weights, []) if len(weights) == 4 else (weights[::2], weights[1::2])
        each = [kernel.reshape(kernel.shape[0], -1).T for kernel in kernels[:3]]
        tensors: Tensors = dict(zip(_PROJECTIONS, each, strict=True))
        if len({kernel.shape for kernel in each}) == 1:
            tensors = {"in_proj_weight": np.concatenate(each)}
        if biases:
            tensors["in_proj_bias"] = np.concatenate([bias.ravel() for bias in biases[:3]])
        tensors["out_proj.weight"] = kernels[3].reshape(-1, kernels[3].shape[-1]).T
        if biases:
            tensors["out_proj.bias"] = biases[3]
        return tensors

    return TwinWeights(to_keras, to_torch)
