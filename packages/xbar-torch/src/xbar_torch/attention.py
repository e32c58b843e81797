"""Multi-head attention with its four projections on crossbars; the attention product is digital."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xbar_core._checks import check_by_name
from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_torch._bridge import resolve_chip, undrawn
from xbar_torch.linear import XbarLinear
from xbar_torch.native import NativeTwin, native_tensors

_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class XbarMultiheadAttention(NativeTwin):
    """Attention on crossbar arrays: the twin of `torch.nn.MultiheadAttention`.

    Parameters
    ----------
    *arguments, **options
        As in `torch.nn.MultiheadAttention`, drawn from the same generator.
    config : str, Path or Chip
        Preset's name, chip file or chip.
    seed : int or None
        Takes the place of the chip's seed.
    name : int or str
        Keys the draws of the layer; give each layer of a network its own.
    signed_input : bool
        False where queries, keys and values cannot be negative: their words then have no sign bit.
    w_max : mapping of str to float, or None
        Ranges of weights by their native names, weight units (that of ``in_proj_weight`` holds for each
        of its three parts); the others follow the chip's rule.

    Attributes
    ----------
    q_proj, k_proj, v_proj, out_proj : XbarLinear
        The projections, each on arrays of its own with its own weight range.
    in_proj_weight : Tensor (3 embed_dim, embed_dim) or None
        The three input projections where they have one shape, as in torch; read-only.
    in_proj_bias : Tensor (3 embed_dim,) or None
        Their biases; read-only.
    bias_k, bias_v : Parameter or None
        Digital.
    """

    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None
    _qkv_same_embed_dim = False
    """Keeps `torch.nn.TransformerEncoderLayer` from its fused kernel, which would read native weights."""

    def __init__(
        self,
        *arguments: Any,
        config: str | Path | Chip = "ideal",
        seed: int | None = None,
        name: int | str = 0,
        signed_input: bool = True,
        w_max: Mapping[str, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        native = nn.MultiheadAttention(*arguments, **options)
        self._adopt(native, resolve_chip(config, seed), name, signed_input, w_max)

    def _adopt(
        self,
        native: nn.MultiheadAttention,
        chip: Chip,
        name: int | str,
        signed_input: bool,
        w_max: Mapping[str, float] | None,
    ) -> None:
        self.key = name
        self.embed_dim, self.num_heads, self.head_dim = native.embed_dim, native.num_heads, native.head_dim
        self.kdim, self.vdim, self.dropout = native.kdim, native.vdim, native.dropout
        self.batch_first, self.add_zero_attn = native.batch_first, native.add_zero_attn
        for extra in ("bias_k", "bias_v"):
            self.register_parameter(extra, cast(nn.Parameter | None, getattr(native, extra)))
        given = _ranges(native, w_max)
        for own, weight, bias, native_name in native_projections(native):
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
            linear.weight = nn.Parameter(weight.detach())
            if bias is not None:
                linear.bias = nn.Parameter(bias.detach().clone())
            signed = signed_input or own == "out_proj"
            twin = XbarLinear.from_native(
                linear, chip, name=f"{name}.{own}", signed_input=signed, w_max=given.get(native_name)
            )
            twin.crossbars[""].state.requires_grad_(native.get_parameter(native_name).requires_grad)
            self.add_module(own, twin)

    def _projection(self, name: str) -> XbarLinear:
        module = self._modules[name]
        assert isinstance(module, XbarLinear)
        return module

    @property
    def in_proj_weight(self) -> Tensor | None:
        """The input projections (3 embed_dim, embed_dim), None where their shapes differ; read-only."""
        if self.kdim != self.embed_dim or self.vdim != self.embed_dim:
            return None
        return torch.cat([self._projection(name).weight for name in _PROJECTIONS])

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The biases (3 embed_dim,) of the input projections, None where there are none; read-only."""
        biases = [self._projection(name).bias for name in _PROJECTIONS]
        held: list[Tensor] = [bias for bias in biases if bias is not None]
        return torch.cat(held) if held else None

    def load_native(
        self, source: nn.Module | Mapping[str, Any], w_max: Mapping[str, float] | None = None
    ) -> None:
        """Program the weights of a native layer, or of its ``state_dict``; biases are copied."""
        native = self.to_native().to(self._projection("out_proj").crossbars[""].state.dtype)
        given = _ranges(native, w_max)
        shapes = {name: tuple(value.shape) for name, value in native.state_dict().items()}
        native.load_state_dict(native_tensors(source, shapes, None, self.key))
        for own, weight, bias, native_name in native_projections(native):
            found = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
            self._projection(own).load_native(found, given.get(native_name))
        with torch.no_grad():
            for name in ("bias_k", "bias_v"):
                held = self._parameters[name]
                if held is not None:
                    held.copy_(native.get_parameter(name))

    def reset_parameters(self) -> None:
        """Draw new first weights as the native twin does, and program them."""
        native = self.to_native()
        native._reset_parameters()
        self.load_native(native)

    def to_native(self) -> nn.MultiheadAttention:
        """Return a native layer with the weights that the states stand for."""
        out = self._projection("out_proj")
        state = out.crossbars[""].state
        native = undrawn(
            nn.MultiheadAttention,
            self.embed_dim,
            self.num_heads,
            self.dropout,
            bias=out.bias is not None,
            add_bias_kv=self.bias_k is not None,
            add_zero_attn=self.add_zero_attn,
            kdim=self.kdim,
            vdim=self.vdim,
            batch_first=self.batch_first,
            device=state.device,
            dtype=out.crossbars[""].digital or state.dtype,
        )
        with torch.no_grad():
            for own, weight, bias, native_name in native_projections(native):
                twin = self._projection(own)
                weight.copy_(twin.weight)
                native.get_parameter(native_name).requires_grad_(twin.crossbars[""].state.requires_grad)
                if bias is not None and twin.bias is not None:
                    bias.copy_(twin.bias)
            for name in ("bias_k", "bias_v"):
                held = self._parameters[name]
                if held is not None:
                    native.get_parameter(name).copy_(held)
        return native.train(self.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the attention output and its weights, as `torch.nn.MultiheadAttention` does.

        Parameters
        ----------
        query, key, value : Tensor (length, batch, features)
            With ``batch_first`` (batch, length, features); without a batch (length, features).
        key_padding_mask, need_weights, attn_mask, average_attn_weights
            As in torch; masks are boolean (True is left out) or added to the scores.
        is_causal : bool
            As in torch a hint, which needs `attn_mask`; the mask decides.
        """
        batched = query.ndim == 3
        self._check(query, key, value)
        if is_causal and attn_mask is None:
            raise ConfigError(
                "is_causal: True without attn_mask; it is a hint only: give the causal attn_mask"
            )
        if not batched:
            query, key, value = query[None], key[None], value[None]
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q = self._projection("q_proj")(query)
        k = self._projection("k_proj")(key)
        v = self._projection("v_proj")(value)
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(k.shape[0], 1, -1)], dim=1)
            v = torch.cat([v, self.bias_v.expand(v.shape[0], 1, -1)], dim=1)
            extra += 1
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            extra += 1
        mask = self._mask(attn_mask, key_padding_mask, q, key.shape[1], extra)
        mixed, weights = self._attend(self._heads(q), self._heads(k), self._heads(v), mask, need_weights)
        output = self._projection("out_proj")(mixed)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        for name, tensor, size in (
            ("query", query, self.embed_dim),
            ("key", key, self.kdim),
            ("value", value, self.vdim),
        ):
            if tensor.ndim not in (2, 3) or tensor.ndim != query.ndim or tensor.shape[-1] != size:
                axes = "batch, length" if self.batch_first else "length, batch"
                rule = f"is not ({axes}, {size}), nor (length, {size}) as query, key and value"
                raise self.misfit(name, tensor.shape, rule)
        if key.shape[:-1] != value.shape[:-1]:
            raise self.misfit("value", value.shape, f"does not go with keys of shape {tuple(key.shape)}")
        batch = 0 if self.batch_first else 1
        if query.ndim == 3 and query.shape[batch] != key.shape[batch]:
            raise self.misfit(
                "key", key.shape, f"has another batch than queries of shape {tuple(query.shape)}"
            )

    def _heads(self, values: Tensor) -> Tensor:
        """Return (batch, heads, length, head_dim)."""
        return values.reshape(*values.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _mask(
        self, attention: Tensor | None, padding: Tensor | None, q: Tensor, keys: int, extra: int
    ) -> Tensor | None:
        """Return what is added to the scores (batch or 1, heads or 1, queries or 1, keys), or None."""
        batch, queries = q.shape[:2]
        total: Tensor | None = None
        if attention is not None:
            shapes = ((queries, keys), (batch * self.num_heads, queries, keys))
            if tuple(attention.shape) not in shapes:
                raise self.misfit("attn_mask", attention.shape, f"is not {shapes[0]} or {shapes[1]}")
            added = _additive(attention, q.dtype)
            total = added if added.ndim == 2 else added.view(batch, self.num_heads, queries, keys)
        if padding is not None:
            if padding.ndim == 1:
                padding = padding[None]
            if tuple(padding.shape) != (batch, keys):
                raise self.misfit("key_padding_mask", padding.shape, f"is not {(batch, keys)}")
            added = _additive(padding, q.dtype).view(batch, 1, 1, keys)
            total = added if total is None else total + added
        return total if total is None or extra == 0 else F.pad(total, (0, extra))

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mixed values (batch, queries, embed_dim), and the weights of every head if asked."""
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)
            weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
            if dropout > 0.0:
                weights = F.dropout(weights, dropout)
            mixed = weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return mixed.transpose(1, 2).flatten(2), weights

    def extra_repr(self) -> str:
        """Return what `print` shows."""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}"


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)


def _ranges(native: nn.MultiheadAttention, w_max: Mapping[str, float] | None) -> dict[str, float]:
    """Return the ranges that were given, by the native names of weights, checked."""
    names = dict.fromkeys(name for *_, name in native_projections(native))
    return check_by_name("w_max", w_max, names, "weight")


def native_projections(
    native: nn.MultiheadAttention,
) -> list[tuple[str, Tensor, Tensor | None, str]]:
    """Return (name, weight, bias, native name of the weight) of the projections; parts are views."""
    biases: list[Tensor | None] = [None] * 3
    bias = native._parameters["in_proj_bias"]
    if bias is not None:
        biases = list(torch.chunk(bias, 3))
    whole = native._parameters["in_proj_weight"]
    if whole is not None:
        weights = list(torch.chunk(whole, 3))
        names = ["in_proj_weight"] * 3
    else:
        names = [f"{name}_weight" for name in _PROJECTIONS]
        weights = [cast(Tensor, native.get_parameter(name)) for name in names]
    found = list(zip(_PROJECTIONS, weights, biases, names, strict=True))
    out = native.out_proj
    return [*found, ("out_proj", out.weight, out.bias, "out_proj.weight")]
