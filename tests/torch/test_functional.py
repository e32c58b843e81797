"""Matrices of a whole network in one solve, products of a crossbar weight, and what torch asks of both."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from xbar_core.config import Chip, preset
from xbar_core.engine import group
from xbar_torch import XbarConv2d, XbarLinear, crossbar_linear, crossbars_of, link

QUIET = preset("txsim-8bit").with_("update.noise.gamma", 0.0)


def network(chip: Chip | str = QUIET) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        XbarConv2d(1, 3, 3, config=chip, name="conv"),
        nn.ReLU(),
        nn.Flatten(),
        XbarLinear(3 * 36, 20, config=chip, name="hidden", signed_input=False),
        nn.ReLU(),
        XbarLinear(20, 4, config=chip, name="last", signed_input=False),
    )


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of layers in every call of the expensive step."""
    calls: list[int] = []
    real = group.read_matrices

    def counted(requests: Any) -> Any:
        calls.append(len(requests))
        return real(requests)

    monkeypatch.setattr(group, "read_matrices", counted)
    return calls


def train_step(model: nn.Module, x: torch.Tensor) -> None:
    model.zero_grad()
    model(x).square().mean().backward()
    for _, crossbar in crossbars_of(model):
        gradient = crossbar.weight_gradient()
        assert gradient is not None
        crossbar.write(-gradient, rate=0.1)


def test_one_solve_serves_all_layers(solves: list[int]) -> None:
    """A linked model solves once per update, whatever it is asked in between."""
    model = network()
    link(model)
    x = torch.rand(5, 1, 8, 8)
    train_step(model, x)
    solves.clear()
    for _ in range(3):
        train_step(model, x)
    assert solves == [3, 3, 3]
    solves.clear()
    model(x)
    model.eval()
    model(x)
    model(x)
    assert solves == [3]


def test_a_layer_alone_solves_for_itself(solves: list[int]) -> None:
    """Without a link every layer asks for its own matrices; results are the same."""
    x = torch.rand(5, 1, 8, 8)
    alone, linked = network(), network()
    link(linked)
    for _ in range(3):
        train_step(alone, x)
        train_step(linked, x)
    assert torch.equal(alone(x), linked(x))
    assert 1 in solves


def test_copies_are_linked_among_themselves(solves: list[int]) -> None:
    """Deep copies and unpickled models share one solve; a copied layer brings no other along."""
    model = network()
    link(model)
    x = torch.rand(2, 1, 8, 8)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        handles = [crossbar for _, crossbar in crossbars_of(twin)]
        assert {id(c.group) for c in handles} == {id(handles[0].group)}
        assert handles[0].group is not model[0].crossbars[""].group
        solves.clear()
        assert torch.equal(twin(x), model(x))
        assert solves[0] == 3
    layer = copy.deepcopy(model[5])
    assert len(list(layer.crossbars[""].group)) == 1
    assert len(pickle.dumps(model[5])) < 20_000


def test_a_group_does_not_keep_models_alive() -> None:
    """Handles are held weakly: a deleted model leaves its group."""
    model = network()
    shared = link(model)
    assert len(list(shared)) == 3
    del model[5]
    gc.collect()
    assert len(list(shared)) == 2


def test_names_of_states() -> None:
    """crossbars_of gives the names that the parameters have."""
    model = network()
    names = [name for name, _ in crossbars_of(model)]
    assert names == ["0.state", "3.state", "5.state"]
    assert set(names) <= set(dict(model.named_parameters()))


def test_first_layer_solves_one_direction() -> None:
    """Only layers whose input has a gradient get a transposed array."""
    model = network()
    link(model)
    train_step(model, torch.rand(2, 1, 8, 8))
    model(torch.rand(2, 1, 8, 8))
    found = [crossbar.matrices()[0].backward is None for _, crossbar in crossbars_of(model)]
    assert found == [True, False, False]


def test_gradient_of_the_state_is_that_of_the_weight() -> None:
    """dL/ds is dL/dw times the mapping's gain; scaling it scales the weight gradient that comes back."""
    for chip in (QUIET, QUIET.with_("mapping.kind", "offset"), preset("txsim-sliced")):
        layer = XbarLinear(5, 3, config=chip, dtype=torch.float64)
        layer(torch.randn(4, 5, dtype=torch.float64)).square().sum().backward()
        crossbar = layer.crossbars[""]
        whole = crossbar.weight_gradient()
        torch.testing.assert_close(crossbar.state_gradient(whole), layer.state.grad, rtol=1e-12, atol=0)
        layer.state.grad.mul_(0.25)
        torch.testing.assert_close(crossbar.weight_gradient(), 0.25 * whole, rtol=1e-12, atol=0)


def test_one_weight_may_be_read_many_times() -> None:
    """Tied weights and time steps: gradients of several reads add up, matrices are solved once."""
    layer = XbarLinear(6, 6, bias=False, config=QUIET, dtype=torch.float64)
    x = torch.randn(4, 6, dtype=torch.float64)
    crossbar = layer.crossbars[""]
    crossbar_linear(x, crossbar).sum().backward()
    once = layer.state.grad.clone()
    (crossbar_linear(x, crossbar) + crossbar_linear(x, crossbar)).sum().backward()
    assert crossbar.counters.calls == 3
    torch.testing.assert_close(layer.state.grad, 3.0 * once, rtol=0.2, atol=0.0)
    assert crossbar_linear(x[0], crossbar).shape == (6,)
    assert crossbar_linear(x.reshape(2, 2, 6), crossbar).shape == (2, 2, 6)


def test_any_optimizer_trains_in_exact_mode() -> None:
    """Adam on the states lowers the loss of a distorted network; the states stay in range."""
    chip = QUIET.with_("backward.mode", "exact")
    model = network(chip)
    link(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, target = torch.rand(16, 1, 8, 8), torch.randint(4, (16,))
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    model(x)
    assert losses[-1] < 0.8 * losses[0]
    for _, crossbar in crossbars_of(model):
        assert 0.0 <= crossbar.state.min() <= crossbar.state.max() <= 1.0


def test_pulsed_chip_keeps_the_factors_of_one_step() -> None:
    """x and dy of a step reproduce dL/dw; those of an earlier state are dropped."""
    chip = QUIET.with_("update", {"encoding": "deterministic", "bits": 8})
    for layer, x in (
        (XbarLinear(6, 4, config=chip, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)),
        (XbarConv2d(2, 4, 3, groups=2, padding=1, config=chip, dtype=torch.float64),
         torch.randn(3, 2, 5, 5, dtype=torch.float64)),
    ):  # fmt: skip
        crossbar = layer.crossbars[""]
        for _ in range(2):
            layer.zero_grad()
            layer(x).square().sum().backward()
            parts = [torch.einsum("npi,npo->io", p.x, p.dy) for p in crossbar.pulses]
            assert [p.part for p in crossbar.pulses] == list(range(crossbar.parts))
            torch.testing.assert_close(
                torch.cat(parts, -1), crossbar.weight_gradient(), rtol=1e-9, atol=1e-12
            )
            with torch.no_grad():
                layer.state.mul_(0.99)


def test_inference_mode_does_not_poison_training() -> None:
    """Matrices computed in inference mode serve training afterwards."""
    for chip in (QUIET, preset("ideal")):
        model = network(chip)
        link(model)
        x = torch.rand(2, 1, 8, 8)
        with torch.inference_mode():
            model(x)
        train_step(model, x)
