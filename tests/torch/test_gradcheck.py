"""`exact` mode is the derivative: gradcheck of every layer type through every circuit model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xbar_core.config import Chip, preset
from xbar_torch import (
    XbarConv1d,
    XbarConv2d,
    XbarConv3d,
    XbarGRU,
    XbarLinear,
    XbarLSTM,
    XbarRNN,
    convert,
)
from xbar_torch.attention import XbarMultiheadAttention

CIRCUITS: dict[str, dict[str, Any]] = {
    "ideal": {"kind": "ideal"},
    "aam0": {"kind": "aam", "order": 0},
    "aam2": {"kind": "aam", "order": 2},
    "fcm": {"kind": "fcm"},
    "anchored": {"kind": "interpolated", "period": 1_000_000, "reuse": "anchored"},
    "distortion": {"kind": "interpolated", "period": 1_000_000, "reuse": "distortion"},
}
LAYERS: dict[str, tuple[Any, tuple[Any, ...], tuple[int, ...]]] = {
    "linear": (XbarLinear, (6, 5), (2, 6)),
    "conv1d": (XbarConv1d, (2, 4, 3, 2, 1), (2, 2, 7)),
    "conv2d": (XbarConv2d, (2, 4, 2), (2, 2, 3, 4)),
    "conv3d": (XbarConv3d, (2, 2, 2), (1, 2, 3, 2, 3)),
    "rnn": (XbarRNN, (3, 4), (3, 2, 3)),
    "lstm": (XbarLSTM, (3, 4), (3, 2, 3)),
    "gru": (XbarGRU, (3, 4), (3, 2, 3)),
    "attention": (XbarMultiheadAttention, (4, 2), (3, 2, 4)),
}


def smooth_chip(circuit: str) -> Chip:
    """Return a small chip with curved converters that do not round, ranges fixed and wide."""
    return preset("txsim-8bit").with_values(
        {
            "circuit": CIRCUITS[circuit],
            "array": {"rows": 5, "cols": 4},
            "backward.mode": "exact",
            "input.bits": None,
            "adc.bits": None,
            "input.range": {"rule": "fixed", "value": 5.0},
            "adc.range": {"rule": "fixed", "value": 4e-5},
        }
    )


def first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("circuit", CIRCUITS)
@pytest.mark.parametrize("kind", LAYERS)
def test_exact_mode_is_the_derivative(kind: str, circuit: str) -> None:
    """Inputs, states and biases; the interpolated models have their reference and keep it."""
    layer_type, arguments, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer: nn.Module = layer_type(*arguments, config=smooth_chip(circuit), dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    inputs = 3 if kind == "attention" else 1
    layer(*[x] * inputs)
    layer.eval()
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        held = dict(zip(names, values, strict=True))
        return first(torch.func.functional_call(layer, held, tuple([x] * inputs)))

    values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    arguments = (x, *values)
    assert torch.autograd.gradcheck(function, arguments, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


@pytest.mark.parametrize("name", ["convolution", "lstm", "attention"])
def test_compiled_networks_give_the_same(name: str) -> None:
    """torch.compile leaves the engine out of every kind of layer and changes neither output nor gradient."""
    torch.manual_seed(0)
    networks: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "convolution": (nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten()), (2, 1, 6, 6)),
        "lstm": (nn.LSTM(3, 4, batch_first=True), (2, 3, 3)),
        "attention": (nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (2, 3, 4)),
    }
    native, shape = networks[name]
    model = convert(native, "txsim-8bit").eval()
    x = torch.randn(shape)
    first(model.train()(x)).sum().backward()  # ranges learn
    model.eval()
    found = []
    for run in (model, torch.compile(model, backend="eager")):
        model.zero_grad()
        y = first(run(x))
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=0, atol=0)
