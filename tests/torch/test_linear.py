"""The linear layer: torch's twin, its states, its life in torch."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xbar_core.config import Chip, preset
from xbar_core.engine import Call, Layout, Ranges, Request, forward, program, read_matrices, vjp
from xbar_core.errors import ConfigError, ShapeError
from xbar_torch import PulseSGD, XbarLinear, crossbars_of, finish_epoch
from xbar_torch.host import is_device_state

QUIET = preset("txsim-8bit").with_("update.noise.gamma", 0.0)
CHIPS = {
    "ideal": preset("ideal"),
    "8bit": QUIET,
    "offset": QUIET.with_values({"mapping.kind": "offset", "adc.subtract": "digital"}),
    "noisy": QUIET.with_values({"device.read_noise": {"sigma": 0.01}, "adc.gain_error": 0.01}),
    "drawn": QUIET.with_("device.read_noise", {"sigma": 0.01, "kind": "per_batch"}),
    "interpolated": QUIET.with_("circuit", {"kind": "interpolated", "period": 3, "reuse": "anchored"}),
    "sliced": preset("txsim-sliced").with_("update.noise.gamma", 0.0),
    "16bit": preset("txsim-16bit"),
    "faulty": QUIET.with_("device.faults", {"stuck_at_g_min": 0.02, "open": 0.01}),
}


def layer_on(chip: Chip | str, inputs: int = 70, outputs: int = 9, **more: object) -> XbarLinear:
    torch.manual_seed(1)
    return XbarLinear(inputs, outputs, config=chip, name="fc", **more)  # type: ignore[arg-type]


def train(layer: nn.Module, steps: int, seed: int = 5) -> list[float]:
    """Plain SGD on the chip for some steps; returns the losses."""
    torch.manual_seed(seed)
    dtype = next(layer.parameters()).dtype
    x, target = torch.randn(16, 70, dtype=dtype), torch.randn(16, 9, dtype=dtype)
    losses = []
    for _ in range(steps):
        layer.zero_grad()
        loss = (layer(x) - target).square().mean()
        loss.backward()
        losses.append(loss.item())
        for _, crossbar in crossbars_of(layer):
            gradient = crossbar.weight_gradient()
            assert gradient is not None
            crossbar.write(-gradient, rate=0.1)
    return losses


def test_same_arguments_and_start_as_native() -> None:
    """Arguments, attributes, shapes, initial weights and random draws are those of nn.Linear."""
    torch.manual_seed(3)
    native = nn.Linear(7, 5)
    after = torch.rand(())
    torch.manual_seed(3)
    layer = XbarLinear(7, 5, config="ideal")
    assert torch.rand(()) == after
    assert (layer.in_features, layer.out_features) == (7, 5)
    assert layer.weight.shape == native.weight.shape
    assert torch.allclose(layer.weight, native.weight, rtol=0, atol=2e-7)
    assert torch.equal(layer.bias, native.bias)
    assert XbarLinear(7, 5, bias=False).bias is None
    assert layer.state.shape == (2, 7, 5)
    assert "chip='ideal'" in repr(layer)


def test_ideal_chip_is_native() -> None:
    """On the ideal chip output and gradients are native's to rounding, in float64."""
    layer = XbarLinear(30, 11, config="ideal", dtype=torch.float64)
    native = layer.to_native()
    x = torch.randn(4, 6, 30, dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    (layer(x) ** 2).sum().backward()
    (native(z) ** 2).sum().backward()
    torch.testing.assert_close(x.grad, z.grad, rtol=1e-12, atol=1e-12)
    found = layer.crossbars[""].weight_gradient()
    torch.testing.assert_close(found.T, native.weight.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.bias.grad, native.bias.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["8bit", "offset", "noisy", "sliced", "16bit", "interpolated", "faulty"])
def test_crossbar_mode_is_the_core(name: str) -> None:
    """Output, dL/dx and dL/dw of the layer are those of the engine on NumPy arrays, in float64."""
    chip = CHIPS[name]
    layer = layer_on(chip, dtype=torch.float64)
    torch.manual_seed(0)
    x = torch.randn(8, 70, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(8, 9, dtype=torch.float64)
    y = layer(x)
    y.backward(dy)
    layout = Layout(chip, 70, 9, "fc")
    torch.manual_seed(1)
    weight = nn.Linear(70, 9, dtype=torch.float64).weight.detach().numpy().T.copy()
    state, buffers = program(layout, weight)
    (matrices,) = read_matrices([Request(layout, buffers, state)])
    call = Call(step=0, training=True)
    result, residual, ranges = forward(layout, matrices, buffers, Ranges(), x.detach().numpy(), call)
    gradients = vjp(layout, matrices, buffers, ranges, residual, dy.numpy())
    scale = np.abs(result).max()
    assert np.abs(y.detach().numpy() - layer.bias.detach().numpy() - result).max() <= 1e-10 * scale
    assert np.abs(x.grad.numpy() - gradients.x).max() <= 1e-10 * np.abs(gradients.x).max()
    found = layer.crossbars[""].weight_gradient()
    assert np.abs(found.numpy() - gradients.weight).max() <= 1e-12 * np.abs(gradients.weight).max()
    learned = layer.crossbars[""].ranges.to_array()
    np.testing.assert_allclose(learned, gradients.ranges.to_array(), rtol=1e-12)


@pytest.mark.parametrize("kind", ["ideal", "aam", "fcm", "interpolated"])
@pytest.mark.parametrize("mapping", ["balanced", "offset"])
def test_exact_mode_is_the_derivative(kind: str, mapping: str) -> None:
    """Gradcheck in `exact` mode, rounding off and ranges fixed, for every circuit model."""
    chip = QUIET.with_values(
        {
            "circuit": {"kind": kind, **({"period": 1_000_000} if kind == "interpolated" else {})},
            "backward.mode": "exact",
            "mapping.kind": mapping,
            "input.bits": None,
            "adc.bits": None,
            "input.range": {"rule": "fixed", "value": 3.0},
            "adc.range": {"rule": "fixed", "value": 2e-5},
            "array.rows": 4,
            "array.cols": 4,
        }
    )
    layer = XbarLinear(6, 5, config=chip, dtype=torch.float64)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    layer(x)  # projects once, and gives the interpolated model its reference

    def function(x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"state": state}, (x,))

    state = layer.state.detach().clone().clamp(0.05, 0.95).requires_grad_()
    assert torch.autograd.gradcheck(function, (x, state), eps=1e-6, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", CHIPS)
def test_saved_and_loaded_layer_continues_bit_by_bit(name: str, tmp_path: Path) -> None:
    """state_dict, strict loading, deepcopy and pickle keep states, draws, ranges, counters, references."""
    layer = layer_on(CHIPS[name])
    train(layer, 4)
    layer.eval()
    layer(torch.randn(2, 70))
    layer.train()
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer_on(CHIPS[name])]
    twins[2].load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True), strict=True)
    reference = train(layer, 5)
    for twin in twins:
        assert train(twin, 5) == reference
        assert torch.equal(twin.state, layer.state)
    finish_epoch(layer)
    assert layer.state_dict()["counters"].tolist() == [9, 1, 9, 1, 1]


def test_strict_loading_names_what_is_missing() -> None:
    """A checkpoint without ranges or with a foreign key is refused by name."""
    layer = layer_on(QUIET)
    held = layer.state_dict()
    del held["ranges"]
    with pytest.raises(RuntimeError, match="ranges"):
        layer.load_state_dict(held)
    with pytest.raises(RuntimeError, match="Unexpected.*weight"):
        layer.load_state_dict({**layer.state_dict(), "weight": layer.weight})


def test_moving_keeps_the_analog_path_wide() -> None:
    """float64 and back keeps values; half precision moves the bias alone, and outputs follow the input."""
    layer = layer_on(CHIPS["sliced"])
    words = layer.words.clone()
    layer.double()
    assert layer.state.dtype == layer.bias.dtype == torch.float64
    assert layer(torch.randn(2, 70, dtype=torch.float64)).dtype == torch.float64
    layer.float()
    assert torch.equal(layer.words, words)
    assert layer.words.dtype == torch.float64
    layer.to(torch.bfloat16)
    assert (layer.state.dtype, layer.bias.dtype) == (torch.float32, torch.bfloat16)
    assert layer(torch.randn(2, 70, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["ideal", "8bit"])
def test_autocast_leaves_the_analog_path_alone(name: str) -> None:
    """In bfloat16 autocast the products stay float32: outputs and gradients equal those without it."""
    layer = layer_on(CHIPS[name])
    layer.eval()
    x = torch.randn(4, 70)
    plain = layer(x)
    plain.sum().backward()
    expected = layer.state.grad.clone()
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.float32
    y.sum().backward()
    assert torch.equal(y, plain)
    assert torch.equal(layer.state.grad, expected)


def test_compiled_layer_gives_the_same() -> None:
    """torch.compile leaves the engine out (a graph break) and changes no result."""
    layer = layer_on(QUIET)
    model = nn.Sequential(layer, nn.ReLU())
    model.eval()
    x = torch.randn(4, 70)
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(compiled(x), model(x))
    compiled(x).sum().backward()
    assert layer.state.grad is not None


def test_weight_is_read_only_and_differentiable() -> None:
    """`weight` cannot be assigned; a penalty on it reaches the states."""
    layer = layer_on("ideal")
    with pytest.raises(AttributeError, match="weight is read-only.*load_native"):
        layer.weight = nn.Parameter(torch.zeros(9, 70))
    layer.weight.square().sum().backward()
    gradient = layer.crossbars[""].weight_gradient()
    torch.testing.assert_close(gradient.T, 2.0 * layer.weight.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["ideal", "8bit", "faulty"])
def test_a_penalty_may_be_taken_before_the_forward_pass(name: str) -> None:
    """The projection of a training forward leaves a graph of `weight` or of states in range alone."""
    layer = layer_on(CHIPS[name])
    x = torch.randn(4, 70)
    gradients = []
    for early in (True, False):
        layer.zero_grad()
        out = None if early else layer(x).sum()
        penalty = layer.weight.square().sum() + layer.state.square().sum()
        ((layer(x).sum() if out is None else out) + penalty).backward()
        gradients.append(layer.state.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        layer.state.add_(0.7)
    penalty = layer.weight.square().sum()
    (layer(x).sum() + penalty).backward()


def test_any_change_of_the_states_is_noticed() -> None:
    """In-place steps, `.data` and a replaced storage all change the next output."""
    layer = layer_on(QUIET)
    layer.eval()
    x = torch.randn(4, 70)
    seen = [layer(x)]
    with torch.no_grad():
        layer.state.mul_(0.9)
    seen.append(layer(x))
    layer.state.data.mul_(0.9)
    seen.append(layer(x))
    layer.state.data = layer.state.data * 0.9
    seen.append(layer(x))
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(seen))


def test_states_return_into_their_range_in_training() -> None:
    """The next training forward projects states to [0, 1] in place; evaluation reads them clipped."""
    layer = layer_on(QUIET)
    x = torch.randn(4, 70)
    with torch.no_grad():
        layer.state.add_(0.7)
    layer.eval()
    seen = layer(x)
    assert layer.state.max() > 1.0
    layer.train()
    layer(x)
    assert layer.state.max() <= 1.0
    layer.eval()
    torch.testing.assert_close(layer(x), seen, rtol=0.2, atol=0.2)
    assert layer.conductances().max() <= 1.0001 * layer.chip.device.g_max


def test_states_that_change_unseen_return_into_their_range_too() -> None:
    """What is written through `.data` after a training forward is projected by the next one, and read so."""
    layer = layer_on(QUIET)
    x = torch.randn(4, 70)
    layer(x)
    layer.state.data.add_(0.7)
    wanted = layer.state.detach().clamp(0.0, 1.0)
    layer(x)
    assert torch.equal(layer.state, wanted)
    assert torch.equal(layer.crossbars[""].asked[0].state, wanted)


def test_states_that_change_unseen_after_a_write_return_too() -> None:
    """What is written through `.data` between a step of `PulseSGD` and the next forward is projected."""
    layer = layer_on(QUIET)
    optimizer = PulseSGD(layer, lr=0.1)
    for training in (True, False):
        layer.train()
        layer(torch.randn(4, 70)).sum().backward()
        optimizer.step()
        layer.state.data.fill_(5.0)
        layer.train(training)(torch.randn(4, 70))
        assert bool((layer.crossbars[""].asked[0].state == 1.0).all())
        assert bool((layer.state == (1.0 if training else 5.0)).all())


def test_states_beyond_their_range_stand_for_what_is_read() -> None:
    """`weight` and `reprogram` take states as a read does, in [0, 1]; the gradient is decoding's."""
    layer = XbarLinear(9, 5, config=preset("ideal"), dtype=torch.float64)
    with torch.no_grad():
        layer.state.sub_(0.002)  # pairs of the differential mapping keep one side at 0
    layer.eval()
    eye = torch.eye(9, dtype=torch.float64)
    read = (layer(eye) - layer.bias).detach()
    torch.testing.assert_close(layer.weight.T, read, rtol=1e-12, atol=1e-13)
    layer.weight.sum().backward()
    assert layer.state.min() < 0
    w_max = layer.crossbars[""].w_max.expand(9, 5)
    assert torch.equal(layer.state.grad, torch.stack([w_max, -w_max]))
    layer.crossbars[""].reprogram()
    torch.testing.assert_close(layer.weight.T, read, rtol=1e-12, atol=1e-13)


def test_a_wrong_shape_in_a_checkpoint_overwrites_nothing() -> None:
    """Of a layer one tensor of which does not fit none is loaded."""
    layer, other = layer_on(QUIET), layer_on(QUIET)
    train(other, 2)
    found = {**other.state_dict(), "bias": torch.zeros(3)}
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(
        RuntimeError, match=r"bias: the checkpoint's shape is \(3,\), the model's \(9,\); no tensor"
    ):
        layer.load_state_dict(found)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


@pytest.mark.parametrize("shape", [(3,), (1, 1)])
def test_a_wrong_shape_of_a_range_overwrites_nothing(shape: tuple[int, ...]) -> None:
    """Buffers without axes count, too; one number in a list, as old files have it, is loaded."""
    layer, other = layer_on(QUIET), layer_on(QUIET)
    train(other, 2)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(
        RuntimeError, match=r"w_max: .*is \(\d.*the model's \(\); no tensor .*build the model"
    ):
        layer.load_state_dict({**other.state_dict(), "w_max": torch.ones(shape)})
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    layer.load_state_dict({**other.state_dict(), "w_max": torch.full((1,), 2.0)})
    assert layer.w_max.item() == 2.0


def test_hooks_of_loading_run_before_the_checks() -> None:
    """A hook that renames or reshapes what an older file holds is not too late, and runs once."""
    layer, other = layer_on(QUIET), layer_on(QUIET)
    train(other, 2)
    found = dict(other.state_dict())
    found["count"], found["offset"] = found.pop("counters"), found.pop("bias")[None]
    called = []

    def renamed(_: nn.Module, state_dict: dict[str, torch.Tensor], prefix: str, *rest: object) -> None:
        called.append(prefix)
        state_dict["counters"], state_dict["bias"] = state_dict.pop("count"), state_dict.pop("offset")[0]

    layer.register_load_state_dict_pre_hook(renamed)
    layer.load_state_dict(found)
    assert called == [""]
    assert layer.crossbars[""].counters == other.crossbars[""].counters
    assert torch.equal(layer.bias, other.bias)


def test_states_stay_marked_where_parameters_are_made_anew() -> None:
    """A layer that was moved to another kind of device still says which Parameters are device states."""
    assert is_device_state(layer_on(QUIET).to("meta").state)
    assert not is_device_state(layer_on(QUIET).to("meta").bias)


def test_evaluation_advances_nothing_but_its_own_counter() -> None:
    """Evaluation learns no range, counts no update and leaves the interpolation's reference alone."""
    layer = layer_on(CHIPS["interpolated"])
    train(layer, 2)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.eval()
    for _ in range(5):
        layer(torch.randn(3, 70))
    after = layer.state_dict()
    assert before.keys() == after.keys()
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"counters"}


def test_no_input_gradient_where_none_is_required() -> None:
    """A first layer solves no transposed array and gets its weight gradient all the same."""
    layer = layer_on(QUIET)
    layer(torch.randn(3, 70)).sum().backward()
    assert layer.crossbars[""].matrices()[0].backward is None
    assert layer.state.grad is not None
    layer.state.requires_grad_(False)
    x = torch.randn(3, 70, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("name", ["ideal", "8bit"])
def test_nan_is_named(name: str) -> None:
    """NaN in inputs and gradients: one line with layer and step, nothing overwritten."""
    layer = layer_on(CHIPS[name])
    bad = torch.randn(3, 70)
    bad[1, 2] = float("nan")
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with pytest.raises(FloatingPointError, match="layer 'fc'.*update 0.*input"):
        layer(bad)
    y = layer(torch.randn(3, 70))
    with pytest.raises(FloatingPointError, match="layer 'fc'.*gradient"):
        (y * float("inf")).sum().backward()
    assert layer.state.grad is None
    with pytest.raises(FloatingPointError, match="step"):
        layer.crossbars[""].write(torch.full((70, 9), float("nan")))
    assert torch.equal(before["state"], layer.state)
    with torch.no_grad():
        layer.state[0, 3, 4] = float("nan")
    with pytest.raises(FloatingPointError, match="layer 'fc'.*device state holds NaN"):
        layer(torch.randn(3, 70))


def test_bad_input_is_named() -> None:
    """Wrong shapes and dtypes, unknown presets, foreign native layers."""
    layer = layer_on(QUIET)
    with pytest.raises(ShapeError, match="in_features = 70"):
        layer(torch.randn(3, 71))
    with pytest.raises(
        ShapeError, match=r"^layer 'fc': input: dtype torch.float64 .*use x.to\(torch.float32\)"
    ):
        layer(torch.randn(3, 70, dtype=torch.float64))
    with pytest.raises(ConfigError, match="did you mean 'txsim-8bit'"):
        XbarLinear(3, 4, config="txsim-8bits")
    with pytest.raises(ConfigError, match="config: 3 is a int; give a preset"):
        XbarLinear(3, 4, config=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="complex64 is not a real"):
        XbarLinear(3, 4, dtype=torch.complex64)
    before = layer.state.clone()
    with pytest.raises(ShapeError, match="^layer 'fc': weight has shape"):
        layer.load_native(nn.Linear(71, 9))
    with pytest.raises(ConfigError, match="^layer 'fc': the native layer has no 'bias'"):
        layer.load_native(nn.Linear(70, 9, bias=False))
    assert torch.equal(layer.state, before)


@pytest.mark.parametrize("config", ["ideal", "txsim-8bit"])
def test_empty_batch(config: str) -> None:
    """A batch of no samples gives no outputs and zero gradients, as natively; it counts as a call."""
    layer = XbarLinear(4, 3, config=config)
    y = layer(torch.zeros(2, 0, 4))
    assert y.shape == (2, 0, 3)
    y.sum().backward()
    assert layer.state.grad is not None
    assert not layer.state.grad.any()
    layer.eval()(torch.zeros(0, 4))
    counters = layer.crossbars[""].counters
    assert (counters.calls, counters.evaluations) == (1, 1)


def test_native_weights_come_and_go() -> None:
    """load_native programs a native layer or its state_dict; to_native reads it back."""
    native = nn.Linear(70, 9)
    layer = layer_on("ideal")
    layer.load_native(native.state_dict())
    back = layer.to_native()
    torch.testing.assert_close(back.weight, native.weight, rtol=0, atol=1e-6)
    assert torch.equal(back.bias, native.bias)
    twin = XbarLinear.from_native(native, "ideal")
    assert twin.bias is native.bias
    assert layer.conductances().shape == (2, 70, 9)


def test_frozen_draws_belong_to_the_chip_and_the_name() -> None:
    """The same seed and name give the same devices, another seed or name others; loading restores them."""
    chip = QUIET.with_("device.variation", {"sigma": 0.1})
    one, same = XbarLinear(7, 5, config=chip, name="a"), XbarLinear(7, 5, config=chip, name="a")
    assert torch.equal(one.variation, same.variation)
    assert not torch.equal(one.variation, XbarLinear(7, 5, config=chip, name="b").variation)
    other = XbarLinear(7, 5, config=chip, name="a", seed=1)
    assert not torch.equal(one.variation, other.variation)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.variation, other.variation)
    one.load_native(nn.Linear(7, 5))
    assert torch.equal(one.variation, same.variation)


def test_per_batch_conductances_are_drawn_for_every_call() -> None:
    """Two calls of a chip that redraws differ; a chip that does not repeats itself in evaluation."""
    x = torch.randn(4, 70)
    for name, equal in (("drawn", False), ("8bit", True)):
        layer = layer_on(CHIPS[name])
        layer.eval()
        assert torch.equal(layer(x), layer(x)) == equal


def test_vanishing_errors_convert_to_zero() -> None:
    """Errors too small for float32 to have an inverse give zero gradients, not NaN."""
    layer = layer_on(QUIET)
    x = torch.rand(2, 70, requires_grad=True)
    y = layer(x)
    y.backward(torch.full_like(y, 1e-42))
    assert x.grad.abs().max() == 0.0
    assert layer.state.grad.abs().max() == 0.0
