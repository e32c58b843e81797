"""The convolutions: torch's twins in every option, on arrays of their own for every group."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from xbar_core.config import Chip, preset
from xbar_core.engine import (
    Call,
    Encoded,
    Layout,
    Ranges,
    Request,
    encode,
    program,
    read_encoded,
    read_matrices,
)
from xbar_core.engine.patches import Geometry
from xbar_core.errors import ConfigError, ShapeError
from xbar_torch import XbarConv1d, XbarConv2d, XbarConv3d
from xbar_torch.patches import fold, unfold

QUIET = preset("txsim-8bit").with_("update.noise.gamma", 0.0)
# No distortion, but the roads of a chip that has some: every read passes a converter.
CLEAN = QUIET.with_values(
    {
        "circuit": {"kind": "ideal"},
        "input.bits": None,
        "input.nonlinearity": None,
        "adc.bits": None,
        "adc.nonlinearity": None,
        "adc.range": {"rule": "fixed", "value": 1.0},
        "backward.current_range": {"rule": "fixed", "value": 1.0},
    }
)
ROADS = {
    "ideal": preset("ideal"),
    "clean": CLEAN,
    "small arrays": CLEAN.with_values({"array.rows": 10, "array.cols": 3}),
    "unfolded": CLEAN.with_values({"adc.gain_error": 1e-15, "array.rows": 10}),
    "digital": CLEAN.with_("adc.subtract", "digital"),
    "offset": CLEAN.with_values({"mapping.kind": "offset", "update.pair": None}),
    "exact": CLEAN.with_values({"backward.mode": "exact", "array.rows": 10}),
    "dac": CLEAN.with_values({"input.signed": "two_phase"}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"stride": (2, 3), "padding": (1, 2)},
    "dilated": {"dilation": (2, 1), "padding": 1},
    "same": {"padding": "same", "kernel_size": (4, 3)},
    "grouped": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4, "bias": False},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "reflect": {"padding": (2, 1), "padding_mode": "reflect", "groups": 2},
}


def pair(option: str, chip: Chip | str, **more: Any) -> tuple[XbarConv2d, nn.Conv2d]:
    """A crossbar convolution and the native one with the same weights, float64."""
    torch.manual_seed(1)
    arguments = {"kernel_size": 3, **OPTIONS[option], "dtype": torch.float64, **more}
    layer = XbarConv2d(4, 8, config=chip, name="conv", **arguments)
    return layer, layer.to_native()


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("road", ROADS)
def test_every_road_is_native_without_distortion(option: str, road: str) -> None:
    """Outputs and all gradients are native's to rounding, whichever way a read is computed."""
    layer, native = pair(option, ROADS[road])
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    y, expected = layer(x), native(z)
    assert y.shape == expected.shape
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, z.grad, rtol=1e-8, atol=1e-8)
    found = layer.crossbars[""].weight_gradient()
    torch.testing.assert_close(found.T.reshape(native.weight.shape), native.weight.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("option", ["strided", "grouped", "dilated"])
@pytest.mark.parametrize("kind", ["8bit", "two_phase", "digital", "offset", "noisy", "sliced"])
def test_crossbar_mode_is_the_core_on_patches(option: str, kind: str) -> None:
    """Forward, dL/dx and dL/dw are the engine's reads of unfolded words, every group on its own arrays."""
    chip = {
        "8bit": QUIET,
        "two_phase": QUIET.with_("input.signed", "two_phase"),
        "digital": QUIET.with_("adc.subtract", "digital"),
        "offset": QUIET.with_values({"mapping.kind": "offset", "update.pair": None}),
        "noisy": QUIET.with_values({"adc.gain_error": 0.01, "adc.noise": 1e-8}),
        "sliced": QUIET.with_values({"mapping.weight_bits": 6, "mapping.cell_bits": 2}),
    }[kind].with_values(
        {
            "array.rows": 10,
            "input.range": {"rule": "fixed", "value": 2.5},
            "adc.range": {"rule": "fixed", "value": 1e-5},
            "backward.error_range": {"rule": "fixed", "value": 3.0},
            "backward.current_range": {"rule": "fixed", "value": 1e-5},
        }
    )
    layer, native = pair(option, chip, bias=False)
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    dy = torch.randn_like(y)
    y.backward(dy)
    crossbar, geometry = layer.crossbars[""], layer._geometry
    results, columns, gradients = [], [], []
    torch.manual_seed(1)
    weight = nn.Conv2d(4, 8, 3, groups=layer.groups, bias=False, dtype=torch.float64).weight.detach()
    whole = weight.reshape(8, -1).T
    for part in range(layer.groups):
        name = "conv" if layer.groups == 1 else f"conv/{part}"
        layout = Layout(chip, whole.shape[0], 8 // layer.groups, name)
        block = whole[:, crossbar.columns(part)].contiguous()
        state, buffers = program(layout, block, w_max=float(layer.w_max))
        (matrices,) = read_matrices([Request(layout, buffers, state)])
        call = Call(0, training=True)
        share = slice(part * 4 // layer.groups, (part + 1) * 4 // layer.groups)
        sent = encode(layout, layout.forward, x.detach()[:, share], 2.5, call)
        one = geometry._replace(groups=1)
        patches = Encoded(
            unfold(sent.value, one).mT.contiguous(),
            tuple(unfold(v, one).mT.contiguous() for v in sent.voltages),
            2.5,
        )
        read = read_encoded(layout, layout.forward, matrices, buffers, Ranges(), patches, call)
        results.append(read.result.mT)
        part_dy = dy[:, crossbar.columns(part)].reshape(3, 8 // layer.groups, -1).mT.contiguous()
        errors = encode(layout, layout.backward, part_dy, 3.0, call)
        back = read_encoded(layout, layout.backward, matrices, buffers, Ranges(), errors, call)
        columns.append(back.result.mT)
        gradients.append(7.5 * torch.einsum("nli,nlo->io", patches.value, errors.value))
    expected = torch.cat(results, 1).reshape(y.shape)
    scale = expected.abs().max()
    # A sum in another order flips a code now and then; none here.
    assert (y - expected).abs().max() <= 1e-9 * scale
    dx = fold(torch.cat(columns, 1), geometry, x.shape[2:])
    assert (x.grad - dx).abs().max() <= 1e-9 * dx.abs().max()
    found = crossbar.weight_gradient()
    torch.testing.assert_close(found, torch.cat(gradients, -1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("option", ["strided", "grouped", "circular"])
@pytest.mark.parametrize("kind", ["ideal", "aam", "fcm"])
def test_exact_mode_is_the_derivative(option: str, kind: str) -> None:
    """Gradcheck in `exact` mode, rounding off and ranges fixed."""
    chip = QUIET.with_values(
        {
            "circuit": {"kind": kind},
            "backward.mode": "exact",
            "input.bits": None,
            "adc.bits": None,
            "input.range": {"rule": "fixed", "value": 4.0},
            "adc.range": {"rule": "fixed", "value": 2e-5},
            "array.rows": 10,
        }
    )
    torch.manual_seed(1)
    arguments = {"kernel_size": 2, **OPTIONS[option], "dtype": torch.float64}
    layer = XbarConv2d(2, 4, config=chip, **arguments)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    layer(x)

    def function(x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"state": state}, (x,))

    state = layer.state.detach().clone().clamp(0.05, 0.95).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, state), eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize(("layer", "native", "shape"), [
    (XbarConv1d, nn.Conv1d, (3, 4, 9)),
    (XbarConv3d, nn.Conv3d, (2, 4, 5, 6, 4)),
])  # fmt: skip
@pytest.mark.parametrize("road", ["ideal", "clean", "small arrays", "exact"])
def test_other_dimensions(layer: Any, native: Any, shape: tuple[int, ...], road: str) -> None:
    """One and three dimensions agree with torch's twins, options included."""
    torch.manual_seed(0)
    ours = layer(4, 6, 3, stride=2, padding=1, dilation=1, groups=2, dtype=torch.float64, config=ROADS[road])
    theirs = ours.to_native()
    assert type(theirs) is native
    x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    ours(x).square().sum().backward()
    theirs(z).square().sum().backward()
    torch.testing.assert_close(ours(x), theirs(z), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x.grad, z.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_fold_is_the_transpose_of_unfold(dims: int) -> None:
    """<unfold(x), c> = <x, fold(c)> for strides, paddings and dilations."""
    padding = ((1, 1), (0, 0), (2, 2))[:dims]
    geometry = Geometry((2, 3, 2)[:dims], (2, 1, 2)[:dims], padding, (1, 2, 1)[:dims])
    x = torch.randn(2, 3, *(7, 8, 5)[:dims], dtype=torch.float64)
    columns = unfold(x, geometry)
    other = torch.randn_like(columns)
    left, right = (columns * other).sum(), (x * fold(other, geometry, x.shape[2:])).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-12)


def test_arguments_and_shapes_are_native() -> None:
    """Attributes, weight shape, initial weights; a sample without batch axis; groups side by side."""
    torch.manual_seed(3)
    native = nn.Conv2d(4, 8, (3, 2), stride=2, padding="valid", dilation=1, groups=2)
    torch.manual_seed(3)
    layer = XbarConv2d(4, 8, (3, 2), stride=2, padding="valid", dilation=1, groups=2, config="ideal")
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                 "padding_mode"):  # fmt: skip
        assert getattr(layer, name) == getattr(native, name)
    assert layer.weight.shape == native.weight.shape
    torch.testing.assert_close(layer.weight, native.weight, rtol=0, atol=2e-7)
    assert layer.state.shape == (2, 12, 8)
    x = torch.randn(4, 9, 9)
    torch.testing.assert_close(layer(x), native(x), rtol=1e-4, atol=1e-5)


def test_groups_keep_their_own_draws_through_a_checkpoint() -> None:
    """Every group's devices differ; states, draws and references come back from a state_dict."""
    chip = QUIET.with_values(
        {"device.variation": {"sigma": 0.1}, "circuit": {"kind": "interpolated", "period": 5}}
    )
    layer, _ = pair("grouped", chip)
    assert layer.variation.shape[0] == 2
    assert not torch.equal(layer.variation[0], layer.variation[1])
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    crossbar = layer.crossbars[""]
    crossbar.write(-crossbar.weight_gradient(), rate=0.01)
    layer(x)
    twin, _ = pair("grouped", chip)
    twin.load_state_dict(layer.state_dict())
    layer.eval()
    twin.eval()
    assert torch.equal(layer(x), twin(x))
    assert torch.equal(layer(x), copy.deepcopy(layer)(x))


def test_ranges_of_groups_are_one_statistic() -> None:
    """A grouped convolution observes once a call, its largest current whichever group it is in."""
    values = {"adc.gain_error": 1e-12}
    for chip in (QUIET, QUIET.with_values(values)):
        layer, _ = pair("grouped", chip)
        x = torch.randn(3, 4, 9, 8, dtype=torch.float64, requires_grad=True)
        layer(x).sum().backward()
        seen = layer.crossbars[""].ranges
        assert [r.batches for r in seen] == [1, 1, 0, 1]
        if chip is QUIET:
            expected = seen.to_array()
    np.testing.assert_allclose(seen.to_array(), expected, rtol=1e-9)


def test_training_lowers_the_loss_with_noise() -> None:
    """Ten steps on the full preset, write noise included, lower the loss."""
    torch.manual_seed(0)
    layer = XbarConv2d(2, 4, 3, padding=1, config="txsim-8bit")
    x, target = torch.randn(8, 2, 6, 6), torch.randn(8, 4, 6, 6)
    losses = []
    for _ in range(10):
        layer.zero_grad()
        loss = (layer(x) - target).square().mean()
        loss.backward()
        losses.append(loss.item())
        crossbar = layer.crossbars[""]
        crossbar.write(-crossbar.weight_gradient(), rate=0.2)
    assert losses[-1] < losses[0]


def test_bad_input_is_named() -> None:
    """Channels, ranks, NaN, native layers of another shape."""
    layer, _ = pair("plain", QUIET)
    with pytest.raises(ShapeError, match=r"not \(batch, 4, size, size\)"):
        layer(torch.randn(3, 5, 9, 9, dtype=torch.float64))
    with pytest.raises(FloatingPointError, match="layer 'conv'"):
        layer(torch.full((3, 4, 9, 9), float("nan"), dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"size \(2, 2\) is smaller than the kernel \(3, 3\)"):
        layer(torch.zeros(3, 4, 2, 2, dtype=torch.float64))
    with pytest.raises(ShapeError, match="weight has shape"):
        layer.load_native(nn.Conv2d(4, 8, 5))
    with pytest.raises(ConfigError, match="no 'bias'"):
        layer.load_native(nn.Conv2d(4, 8, 3, bias=False))


@pytest.mark.parametrize("road", ["ideal", "clean"])
def test_empty_batch(road: str) -> None:
    """A batch of no images gives no outputs, and counts as a call."""
    layer = XbarConv2d(4, 8, 3, stride=2, groups=2, config=ROADS[road])
    assert layer(torch.zeros(0, 4, 7, 6)).shape == (0, 8, 3, 2)
    assert layer.crossbars[""].counters.calls == 1


@pytest.mark.parametrize("road", ["ideal", "clean"])
def test_autocast_and_half_precision(road: str) -> None:
    """The analog path stays wide in autocast; a bfloat16 model gets bfloat16 back."""
    layer = XbarConv2d(4, 8, 3, config=ROADS[road])
    layer.eval()
    x = torch.randn(2, 4, 6, 6)
    plain = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), plain)
    layer.to(torch.bfloat16)
    y = layer(x.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), plain, rtol=0.05, atol=0.05)
