"""Training on a device agrees with training on the host.

Tensors of a device take other roads: the array-API ladder, converters without one-pass kernels, updates on
tensors. Where there is no GPU, the same roads are taken by host tensors, so that they are tested everywhere.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xbar_core.config import Chip, preset
from xbar_core.engine import circuits, fused, matrices
from xbar_torch import PulseSGD, calibrate, convert, inspect, zoo
from xbar_torch.crossbar import Crossbar

NOISE = {
    "device.variation": {"sigma": 0.05},
    "device.faults": {"stuck_at_g_min": 0.01},
    "device.read_noise": {"sigma": 0.01},
    "adc.gain_error": 0.01,
    "adc.noise": 1e-8,
}
CHIPS: dict[str, Chip] = {
    "ideal": preset("ideal"),
    "txsim": preset("txsim"),
    "txsim-8bit": preset("txsim-8bit"),
    "noisy": preset("txsim-8bit").with_values(NOISE),
    "aam": preset("txsim-8bit").with_("circuit", {"kind": "aam", "order": 1}),
    "interpolated": preset("txsim-8bit").with_("circuit", {"kind": "interpolated", "period": 2}),
    "exact": preset("txsim-8bit").with_("backward.mode", "exact"),
    "pulses": preset("txsim-8bit").with_values({"update.encoding": "stochastic", "update.stream_length": 15}),
    "sliced": preset("txsim-sliced").with_values({"mapping.weight_bits": 8, "input.bits": 4}),
}


def network(name: str) -> tuple[nn.Module, Tensor]:
    """Return a small network and a batch of four samples."""
    torch.manual_seed(0)
    if name == "convolution":
        layers = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, groups=2)
        return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)), torch.randn(4, 2, 5, 5)
    if name == "lstm":
        return zoo.LSTMClassifier(5, (1, 3, 6), hidden=8), torch.randn(4, 1, 3, 6)
    return zoo.ViT(5, (1, 8, 8), width=8, depth=1, heads=2), torch.randn(4, 1, 8, 8)


@pytest.fixture(params=["roads", "cuda"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives the device, from then on; without a GPU its roads, on the host."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no GPU here; its roads are tested on the host")
        return lambda: torch.device("cuda")

    def roads() -> torch.device:
        monkeypatch.setattr(matrices, "_on_host", lambda request: request)
        monkeypatch.setattr(circuits, "_on_host", lambda arrays: False)
        monkeypatch.setattr(fused, "host_view", lambda array: None)
        monkeypatch.setattr("xbar_torch.crossbar.to_numpy", lambda values: values)
        return torch.device("cpu")

    return roads


def train(model: nn.Module, x: Tensor, target: Tensor, steps: int = 2) -> list[Tensor]:
    """Return losses and the last gradients and parameters, on the host."""
    crossbars = [m for m in model.modules() if hasattr(m, "crossbars")]
    pulsed = crossbars[0].chip.update.pulsed
    optimizer = PulseSGD(model, lr=0.05, momentum=0.0 if pulsed else 0.9)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        found.append(loss.detach())
    return [value.cpu() for value in (*found, *gradients, *(p.detach() for p in model.parameters()))]


@pytest.mark.parametrize("name", ["convolution", "lstm", "attention"])
@pytest.mark.parametrize("chip", CHIPS)
def test_training_agrees_with_the_host(chip: str, name: str, place: Any) -> None:
    """Two steps, draws included: to 1e-5 in float64 with converters, in float32 without."""
    dtype = torch.float32 if chip in ("ideal", "txsim") else torch.float64
    native, x = network(name)
    native, x, target = native.to(dtype), x.to(dtype), torch.randint(0, 5, (4,))
    wanted = train(convert(native, CHIPS[chip]), x, target)
    device = place()
    model = convert(native, CHIPS[chip]).to(device)
    found = train(model, x.to(device), target.to(device))
    assert all(t.device.type == device.type for t in (*model.parameters(), *model.buffers()))
    for value, reference in zip(found, wanted, strict=True):
        assert (value - reference).abs().max() <= 1e-5 * max(1.0, float(reference.abs().max()))


def test_tools_take_models_of_a_device(place: Any) -> None:
    """calibrate, inspect, state_dict and copies of a model on the device work as on the host."""
    native, x = network("convolution")
    native, x, device = native.double(), x.double(), place()
    model = convert(native, "txsim-8bit").to(device)
    calibrate(model, [(x.to(device), torch.zeros(4, dtype=torch.int64, device=device))])
    report = inspect(model, x.to(device))
    assert len(report.layers) == 3
    again = convert(native, "txsim-8bit").to(device)
    again.load_state_dict(model.state_dict())
    model.eval()
    again.eval()
    assert torch.equal(again(x.to(device)), model(x.to(device)))
    handle: Crossbar = model[5].crossbars[""]
    assert handle.conductances().device.type == device.type
