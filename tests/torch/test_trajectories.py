"""An ideal chip follows native torch training: to rounding in float64, as well as torch itself in float32."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from xbar_core.config import preset
from xbar_core.lab.data.digits import enlarge
from xbar_torch import zoo
from xbar_torch.convert import convert
from xbar_torch.host import crossbars_of
from xbar_torch.optim import PulseSGD

STEPS = 100


class Task(NamedTuple):
    network: str
    rate: float
    side: int  # pixels of an image
    batch: int = 16


TASKS = [
    pytest.param(Task("mlp", 0.05, 8, 64), id="mlp"),
    pytest.param(Task("lenet5", 0.05, 28, 32), id="lenet5"),
    pytest.param(Task("lstm", 0.05, 8), id="lstm"),
    pytest.param(Task("resnet20", 0.01, 8), id="resnet20", marks=pytest.mark.slow),
]
PAIRS = [("balanced", "both"), ("differential", "carry")]


def digits(side: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised scans of digits, as they are or enlarged."""
    raw = load_digits()
    images = torch.from_numpy(enlarge(raw.images.astype("int64")) if side == 28 else raw.images)[:, None]
    images = images.to(torch.float64)
    return ((images - images.mean()) / images.std()).to(dtype), torch.from_numpy(raw.target)


def network(task: Task, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    return zoo.build(task.network, classes=10, image_shape=(1, task.side, task.side)).to(dtype)


def on_chip(native: nn.Module, mapping: str, pair: str, reach: dict[str, float] | None = None) -> nn.Module:
    """Return the network on an ideal chip, with room for the largest weights of native training."""
    chip = preset("ideal").with_values({"mapping.kind": mapping, "update.pair": pair})
    on_crossbars = {name.replace("state", "weight") for name, _ in crossbars_of(convert(native, chip))}
    w_max = {name: 2.0 * largest for name, largest in (reach or {}).items() if name in on_crossbars}
    return convert(native, chip, w_max=w_max)


def optimizer_of(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    if any(crossbars_of(model)):
        return PulseSGD(model, lr=rate, momentum=0.9)
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def train(
    model: nn.Module, task: Task, dtype: torch.dtype, rounding: dict[str, float] | None = None, seed: int = 0
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the losses of training and the largest weights met; nothing may saturate on a chip.

    `rounding` disturbs parameters of two dimensions or more after each step as the rounding of a pair of
    float32 states near 1/2 does: by up to w_max 2**-25 and w_max 2**-26, w_max being 2 times the numbers
    given; `seed` keys it.
    """
    images, targets = digits(task.side, dtype)
    optimizer, generator = optimizer_of(model, task.rate), torch.Generator().manual_seed(seed)
    losses, reach = [], {name: float(p.detach().abs().max()) for name, p in model.named_parameters()}
    for step in range(STEPS):
        batch = torch.arange(step * task.batch, (step + 1) * task.batch) % len(images)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[batch]), targets[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if isinstance(optimizer, PulseSGD):
            assert not any(count.saturated for count in optimizer.counts.values()), optimizer.counts
        for name, p in model.named_parameters():
            if rounding is not None and p.ndim >= 2:
                draws = torch.rand((2, *p.shape), generator=generator, dtype=torch.float64) - 0.5
                error = 2.0 * rounding[name] * (draws[0] * 2.0**-24 + draws[1] * 2.0**-25)
                p.data = (p.data.double() + error).to(dtype)
            reach[name] = max(reach[name], float(p.detach().abs().max()))
    return torch.stack(losses).double(), reach


def deviation(losses: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((losses - wanted).abs() / wanted.abs()).max())


def has_learned(losses: torch.Tensor) -> bool:
    """Return whether the loss has fallen by at least 30%."""
    return bool(losses[-10:].mean() < 0.7 * losses[:3].mean())


@pytest.mark.parametrize("task", TASKS)
def test_float64(task, capsys):
    """Losses of 100 steps with momentum 0.9 agree with native training to 1e-8, under both pairs."""
    start = network(task, torch.float64)
    wanted, reach = train(copy.deepcopy(start), task, torch.float64)
    assert has_learned(wanted)
    for mapping, pair in PAIRS:
        losses, _ = train(on_chip(start, mapping, pair, reach), task, torch.float64)
        off = deviation(losses, wanted)
        with capsys.disabled():
            print(f"\n{task.network} {task.side}x{task.side} float64 {mapping}/{pair}: {off:.1e}", end=" ")
        assert off < 1e-8


def nudged(native: nn.Module, seed: int) -> nn.Module:
    """Return a copy whose weights are one ulp away, up or down at random."""
    other = copy.deepcopy(native)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            sign = torch.randint(0, 2, p.shape, generator=generator).to(p) * 2 - 1
            p.copy_(torch.nextafter(p, sign * float("inf")))
    return other


@pytest.mark.parametrize("task", TASKS)
def test_float32(task, capsys):
    """Rounding grows as it does in native training that starts one ulp away, at most 10 times as much.

    Numbers near 0 are as fine on devices near g_min as natively (differential). Devices near the middle of
    their range (balanced) round them at every step to multiples of w_max 2**-25: such a chip is compared with
    native training that is disturbed as much, for whether a ReLU flips is chance.
    """
    start = network(task, torch.float32)
    wanted, reach = train(copy.deepcopy(start), task, torch.float32)
    assert has_learned(wanted)
    natives = {
        "differential": max(
            deviation(train(nudged(start, seed), task, torch.float32)[0], wanted) for seed in range(3)
        ),
        "balanced": max(
            deviation(train(copy.deepcopy(start), task, torch.float32, reach, seed)[0], wanted)
            for seed in range(4)
        ),
    }
    for mapping, pair in reversed(PAIRS):
        losses, _ = train(on_chip(start, mapping, pair, reach), task, torch.float32)
        chip, native = deviation(losses, wanted), natives[mapping]
        with capsys.disabled():
            what = "one ulp away" if mapping == "differential" else "rounded as much"
            print(
                f"\n{task.network} {task.side}x{task.side} float32 {mapping}/{pair}: "
                f"chip {chip:.1e}, native {what} {native:.1e}",
                end=" ",
            )
        assert chip <= 10 * native


@pytest.mark.parametrize("task", TASKS)
def test_first_step_in_float32(task):
    """Outputs and gradients of the first step agree to 1e-5 of their largest."""
    start = network(task, torch.float32)
    images, targets = digits(task.side, torch.float32)
    for mapping, pair in PAIRS:
        found = []
        for model in (copy.deepcopy(start), on_chip(start, mapping, pair)):
            y = model(images[: task.batch])
            nn.functional.cross_entropy(y, targets[: task.batch]).backward()
            found.append((y.detach(), gradients(model)))
        (y, native), (y_chip, chip) = found
        assert close(y_chip, y)
        assert chip.keys() == native.keys()
        for name in native:
            assert close(chip[name], native[name]), name


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return dL/dw by native name, crossbar weights as (out, in)."""
    states = dict(crossbars_of(model))
    found = {}
    for name, parameter in model.named_parameters():
        if name in states:
            native = name.rpartition("state")
            gradient = states[name].weight_gradient().T
            found[f"{native[0]}weight{native[2]}"] = gradient
        else:
            found[name] = parameter.grad
    return {name: gradient.reshape(gradient.shape[0], -1) for name, gradient in found.items()}


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 1e-5 * wanted.abs().max())
