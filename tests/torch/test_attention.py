"""Attention and transformer layers: their torch twins on the ideal chip."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xbar_core.config import preset
from xbar_core.errors import ConfigError, ShapeError
from xbar_torch.attention import XbarMultiheadAttention
from xbar_torch.convert import conversion_report, convert, to_native
from xbar_torch.host import crossbars_of
from xbar_torch.zoo import build

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch-first": {"batch_first": True},
    "no-bias": {"bias": False},
    "other-sizes": {"kdim": 5, "vdim": 3},
    "extra-rows": {"add_bias_kv": True, "add_zero_attn": True},
}


def pair(**options: Any) -> tuple[XbarMultiheadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    native = nn.MultiheadAttention(8, 2, dtype=torch.float64, **options)
    for parameter in native.parameters():
        nn.init.normal_(parameter, std=0.5)
    return XbarMultiheadAttention.from_native(copy.deepcopy(native), "ideal"), native


def inputs(layer: XbarMultiheadAttention) -> tuple[Tensor, Tensor, Tensor]:
    """Return 4 queries and 6 keys and values, of 3 samples."""
    made = [
        torch.randn(length, 3, size, dtype=torch.float64)
        for length, size in ((4, layer.embed_dim), (6, layer.kdim), (6, layer.vdim))
    ]
    q, k, v = ((x.transpose(0, 1).contiguous() if layer.batch_first else x).requires_grad_() for x in made)
    return q, k, v


def masks(kind: str) -> dict[str, Tensor]:
    causal = torch.triu(torch.ones(4, 6, dtype=torch.bool), 2)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[1, 4:] = True
    every = torch.randn(6, 4, 6, dtype=torch.float64)
    left_out = torch.zeros(3, 6).double().masked_fill_(padding, -math.inf)
    return {
        "none": {},
        "boolean": {"attn_mask": causal, "key_padding_mask": padding},
        "added": {"attn_mask": every},
        "both": {
            "attn_mask": every,
            "key_padding_mask": left_out,
        },
    }[kind]


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("mask", ["none", "boolean", "added", "both"])
@pytest.mark.parametrize("options", OPTIONS)
def test_ideal_chip_is_the_torch_twin(options: str, mask: str, need_weights: bool) -> None:
    """Outputs, attention weights and gradients agree to 1e-12, with masks and extra rows."""
    layer, native = pair(**OPTIONS[options])
    q, k, v = inputs(layer)
    given = masks(mask)
    ours = layer(q, k, v, need_weights=need_weights, **given)
    theirs = native(q, k, v, need_weights=need_weights, **given)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(theirs[0])
    ours_bar = torch.autograd.grad((weights * ours[0]).sum(), (q, k, v, layer.out_proj.state))
    theirs_bar = torch.autograd.grad((weights * theirs[0]).sum(), (q, k, v, native.out_proj.weight))
    torch.testing.assert_close(ours_bar[:3], theirs_bar[:3], rtol=1e-11, atol=1e-12)
    layer.out_proj.state.grad = ours_bar[3]
    bar = layer.out_proj.crossbars[""].weight_gradient()
    torch.testing.assert_close(bar, theirs_bar[3].T, rtol=1e-11, atol=1e-12)


def test_gradients_of_the_input_projections() -> None:
    """The three input projections get the three parts of torch's gradient."""
    layer, native = pair(batch_first=True)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    layer(x, x, x)[0].square().sum().backward()
    native(x, x, x)[0].square().sum().backward()
    parts = [getattr(layer, name) for name in ("q_proj", "k_proj", "v_proj")]
    bar = torch.cat([part.crossbars[""].weight_gradient().T for part in parts])
    torch.testing.assert_close(bar, native.in_proj_weight.grad, rtol=1e-11, atol=1e-12)
    bias = torch.cat([part.bias.grad for part in parts])
    torch.testing.assert_close(bias, native.in_proj_bias.grad, rtol=1e-11, atol=1e-12)


def test_exact_gradient_is_the_derivative() -> None:
    """gradcheck through wires and the attention product: states and input."""
    chip = preset("txsim-8bit").with_("backward", {"mode": "exact"})
    for field in ("input", "adc"):
        chip = chip.with_(f"{field}.bits", None).with_(f"{field}.nonlinearity", None)
    torch.manual_seed(0)
    native = nn.MultiheadAttention(4, 2, batch_first=True, dtype=torch.float64)
    layer = XbarMultiheadAttention.from_native(native, chip).eval()
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)

    def outputs(x: Tensor, *_: Tensor) -> Tensor:
        result: Tensor = layer(x, x, x, need_weights=False)[0]
        return result

    assert torch.autograd.gradcheck(outputs, (x, *layer.parameters()), eps=1e-6, atol=1e-8, rtol=1e-5)


def test_one_sample_and_weights_of_every_head() -> None:
    """Without a batch axis, and with weights that are not averaged over heads."""
    layer, native = pair()
    x = torch.randn(5, 8, dtype=torch.float64)
    for average in (False, True):
        ours, theirs = (each(x, x, x, average_attn_weights=average) for each in (layer, native))
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_way_back(options: str) -> None:
    """to_native returns the weights, by the native names; read-only properties show them."""
    layer, native = pair(**OPTIONS[options])
    back = layer.to_native()
    torch.testing.assert_close(dict(back.state_dict()), dict(native.state_dict()), rtol=1e-12, atol=1e-14)
    for name in ("in_proj_weight", "in_proj_bias"):
        torch.testing.assert_close(getattr(layer, name), getattr(native, name), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("options", OPTIONS)
def test_native_weights_load(options: str) -> None:
    """load_native takes a layer or its state_dict; what does not fit changes nothing."""
    layer, native = pair(**OPTIONS[options])
    other = copy.deepcopy(native)
    other._reset_parameters()
    for source in (other, native.state_dict()):
        layer.load_native(source)
        wanted = source.state_dict() if isinstance(source, nn.Module) else source
        torch.testing.assert_close(dict(layer.to_native().state_dict()), dict(wanted), rtol=1e-12, atol=1e-14)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ShapeError, match=r"out_proj.weight has shape \(9, 9\)"):
        layer.load_native({**native.state_dict(), "out_proj.weight": torch.zeros(9, 9)})
    with pytest.raises(ConfigError, match="has 'in_proj', which this layer has not"):
        layer.load_native({**native.state_dict(), "in_proj": torch.zeros(9, 9)})
    with pytest.raises(ConfigError, match=r"w_max: 'in_proj' is no weight, did you mean '.*proj_weight'"):
        layer.load_native(native, w_max={"in_proj": 1.0})
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    with pytest.raises(ConfigError, match=r"w_max: 'q_proj' is no weight.*they are .*out_proj\.weight$"):
        XbarMultiheadAttention(9, 3, w_max={"q_proj": 1.0}, **OPTIONS[options])


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_transformer_encoder_converts(training: bool, grad: bool, norm_first: bool) -> None:
    """Encoder layers run on crossbars in every mode: torch's fused kernel for inference is not taken."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first, dtype=torch.float64
    )
    native = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first).train(training)
    chip = convert(native, "ideal")
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    padding = torch.arange(5) >= torch.tensor([5, 3, 4])[:, None]
    before = [crossbar.counters.calls + crossbar.counters.evaluations for _, crossbar in crossbars_of(chip)]
    with torch.set_grad_enabled(grad):
        ours, theirs = chip(x, src_key_padding_mask=padding), native(x, src_key_padding_mask=padding)
    # torch's nested tensors leave zeros where the input is padded.
    torch.testing.assert_close(ours[~padding], theirs[~padding], rtol=1e-11, atol=1e-12)
    after = [crossbar.counters.calls + crossbar.counters.evaluations for _, crossbar in crossbars_of(chip)]
    assert len(after) == 12
    assert after == [count + 1 for count in before]
    back = to_native(chip)
    assert back.use_nested_tensor == native.use_nested_tensor
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(back(x, src_key_padding_mask=padding), theirs, rtol=1e-11, atol=1e-12)


def test_decoder_and_whole_transformer_convert() -> None:
    """nn.Transformer: self and cross attention with a causal mask."""
    torch.manual_seed(0)
    native = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True, dtype=torch.float64)
    chip = convert(native, "ideal")
    source, target = torch.randn(2, 6, 8).double(), torch.randn(2, 4, 8).double()
    mask = nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64)
    ours, theirs = (each(source, target, tgt_mask=mask, tgt_is_causal=True) for each in (chip, native))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_vision_transformer_trains_as_torch_does() -> None:
    """A converted ViT gives the native logits and gradients of what stays digital."""
    torch.manual_seed(0)
    native = build("vit", 10, (1, 8, 8)).double()
    chip = convert(native, "ideal")
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    for model in (native, chip):
        model(x).square().sum().backward()
    torch.testing.assert_close(chip.position.grad, native.position.grad, rtol=1e-10, atol=1e-11)
    report = conversion_report(chip)
    assert report["encoder.layers.0.self_attn"].became == "XbarMultiheadAttention"
    assert report[""].note == "parameters of a container"
    assert report[""].weights == native.position.numel()


def test_wires_cost_something() -> None:
    """On a chip with wires the attention differs from the native one, by little."""
    layer, native = pair(batch_first=True)
    chip = convert(native, "txsim-8bit")
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    difference = (chip(x, x, x)[0] - native(x, x, x)[0]).abs().max()
    assert 1e-4 < difference < 0.5


def test_frozen_projections_stay_frozen() -> None:
    """requires_grad of the native weights carries over, also where conversion runs without gradients."""
    native = nn.MultiheadAttention(8, 2)
    native.out_proj.weight.requires_grad_(False)
    with torch.no_grad():
        chip = convert(native, "ideal")
    assert [p.state.requires_grad for p in (chip.q_proj, chip.k_proj, chip.out_proj)] == [True, True, False]
    back = to_native(chip)
    assert (back.in_proj_weight.requires_grad, back.out_proj.weight.requires_grad) == (True, False)


def test_parts_are_named_with_their_layer() -> None:
    """A pattern for a part of the attention is told what it is part of; the layer itself can stay digital."""
    model = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.raises(
        ConfigError, match=r"'self_attn.out_proj' matches no module.*did you mean 'self_attn'"
    ):
        convert(model, "ideal", overrides={"self_attn.out_proj": None})
    chip = convert(model, preset("ideal"), overrides={"self_attn": None})
    assert isinstance(chip.self_attn, nn.MultiheadAttention)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((4, 3, 7), (6, 3, 8), (6, 3, 8)), {}, r"query: shape \(4, 3, 7\)"),
        (((4, 3, 8), (6, 3, 8), (5, 3, 8)), {}, r"value: shape \(5, 3, 8\) does not go with"),
        (((4, 3, 8), (6, 2, 8), (6, 2, 8)), {}, r"key: shape \(6, 2, 8\) has another batch"),
        (((4, 3, 8), (6, 3, 8), (6, 3, 8)), {"attn_mask": torch.zeros(6, 4)}, r"attn_mask: shape \(6, 4\)"),
        (((4, 3, 8),) * 3, {"key_padding_mask": torch.zeros(4, 3)}, r"key_padding_mask: shape \(4, 3\)"),
    ],
)
def test_wrong_shapes_are_named(
    shapes: tuple[tuple[int, ...], ...], options: dict[str, Any], message: str
) -> None:
    """Queries, keys, values and masks that do not fit are one clear line."""
    layer = XbarMultiheadAttention(8, 2)
    with pytest.raises(ShapeError, match=message):
        layer(*(torch.zeros(shape) for shape in shapes), **options)


def test_causal_hint_needs_a_mask() -> None:
    """is_causal alone decides nothing, as in torch."""
    x = torch.zeros(4, 2, 8)
    with pytest.raises(ConfigError, match="is_causal"):
        XbarMultiheadAttention(8, 2)(x, x, x, is_causal=True)
