"""PulseSGD: plain SGD on an ideal chip, device writes on others, one clear line for what cannot be."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from xbar_core.config import Chip, preset
from xbar_core.engine import Call, pulse_update, update
from xbar_core.engine.calibration import LayerStatistics
from xbar_core.errors import ConfigError
from xbar_torch.host import crossbars_of
from xbar_torch.linear import XbarLinear
from xbar_torch.optim import PulseSGD

WIDE = {"rule": "max_abs", "headroom": 50.0}


def ideal(**values):
    return preset("ideal").with_values({"mapping.w_max": WIDE, **values})


def pair_of_models(chip: Chip, seed: int = 0):
    """Return a native network and its twin on a chip, float64."""
    torch.manual_seed(seed)
    native = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    layers = [
        XbarLinear.from_native(copy.deepcopy(native[k]), chip, name=k) if k % 2 == 0 else nn.Tanh()
        for k in range(3)
    ]
    return native, nn.Sequential(*layers)


def data(seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 6, generator=generator, dtype=torch.float64)
    return x, x[:, :3].argmax(dim=1)


def run(model, optimizer, steps=12, before_step=None, scheduler=None):
    """Return the losses of some training steps."""
    x, target = data()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        if before_step is not None:
            before_step(model, optimizer)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


HYPER = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.05},
    {"momentum": 0.8, "weight_decay": 0.05, "nesterov": True},
]
MAPPINGS = [("balanced", "both"), ("differential", "carry"), ("offset", "both")]


@pytest.mark.parametrize("hyper", HYPER, ids=str)
@pytest.mark.parametrize(("mapping", "pair"), MAPPINGS)
def test_ideal_chip_equals_plain_sgd(hyper, mapping, pair):
    """With an ideal device a write of the step is w - lr velocity: torch.optim.SGD at the same numbers."""
    native, chip = pair_of_models(ideal(**{"mapping.kind": mapping, "update.pair": pair}))
    wanted = run(native, torch.optim.SGD(native.parameters(), lr=0.2, **hyper))
    found = run(chip, PulseSGD(chip, lr=0.2, **hyper))
    assert wanted[-1] < 0.8 * wanted[0]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-12, atol=0)
    torch.testing.assert_close(chip[2].weight, native[2].weight, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(chip[0].bias, native[0].bias, rtol=1e-11, atol=1e-13)


def test_groups_and_schedulers_act_as_natively():
    """Rates, momenta and decays of groups, and what a scheduler does to them, mean what they mean in SGD."""
    native, chip = pair_of_models(ideal())
    losses = []
    for model in (native, chip):
        groups = [
            {"params": model[0].parameters(), "lr": 0.3, "momentum": 0.5},
            {"params": model[2].parameters(), "weight_decay": 0.02},
        ]
        optimizer = (
            torch.optim.SGD(groups, lr=0.1, momentum=0.9)
            if model is native
            else PulseSGD(groups, lr=0.1, momentum=0.9, model=chip)
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, [0.3, 0.2], total_steps=12)
        losses.append(run(model, optimizer, scheduler=scheduler))
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", [2.0, float("inf")])
def test_clipping_measures_weight_units(norm):
    """clip_grad_norm_ of the optimizer is torch's own on the native gradients."""
    native, chip = pair_of_models(ideal())
    norms: dict[str, list[float]] = {"native": [], "chip": []}

    def clip_native(model, optimizer):
        norms["native"].append(
            float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05, norm_type=norm))
        )

    def clip_chip(model, optimizer):
        norms["chip"].append(float(optimizer.clip_grad_norm_(0.05, norm_type=norm)))

    wanted = run(native, torch.optim.SGD(native.parameters(), lr=0.5, momentum=0.9), before_step=clip_native)
    found = run(chip, PulseSGD(chip, lr=0.5, momentum=0.9), before_step=clip_chip)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-9, atol=0)
    torch.testing.assert_close(torch.tensor(norms["chip"]), torch.tensor(norms["native"]), rtol=1e-9, atol=0)


def test_clipping_values_is_in_weight_units():
    """clip_grad_value_ of the optimizer is torch's own on the native gradients."""
    native, model = pair_of_models(ideal())
    wanted = run(
        native,
        torch.optim.SGD(native.parameters(), 0.3),
        before_step=lambda m, o: nn.utils.clip_grad_value_(m.parameters(), 0.02),
    )
    found = run(model, PulseSGD(model, 0.3), before_step=lambda m, o: o.clip_grad_value_(0.02))
    assert found == pytest.approx(wanted, rel=1e-10)
    assert found != pytest.approx(run(native, torch.optim.SGD(native.parameters(), 0.3)), rel=1e-3)


def test_clipping_of_torch_reaches_the_write():
    """What torch.nn.utils does to state.grad scales the step: the write follows .grad."""
    _, chip = pair_of_models(ideal())
    x, target = data()
    nn.functional.cross_entropy(chip(x), target).backward()
    before, gradient = chip[0].weight.detach().clone(), chip[0].crossbars[""].weight_gradient().T.clone()
    total = torch.nn.utils.clip_grad_norm_([chip[0].state], 1e-3)
    assert total > 1e-3
    PulseSGD(chip, lr=0.5).step()
    expected = before - 0.5 * gradient * 1e-3 / (total + 1e-6)
    torch.testing.assert_close(chip[0].weight, expected, rtol=1e-9, atol=1e-14)


def test_step_is_the_engines_update():
    """A chip with non-linearity and write noise gets the engine's update, keyed by the count of updates."""
    chip = preset("txsim").with_values({"mapping.w_max": WIDE})
    _, model = pair_of_models(chip)
    optimizer = PulseSGD(model, lr=0.1, momentum=0.9)
    run(model, optimizer, steps=3)
    crossbar = model[2].crossbars[""]
    state = crossbar.state.detach().clone()
    x, target = data()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), target).backward()
    velocity = 0.9 * optimizer.state[crossbar.state]["momentum_buffer"] + crossbar.weight_gradient()
    wanted = update(crossbar.layout, state, crossbar.buffers(), -velocity, rate=0.1, count=3)
    optimizer.step()
    torch.testing.assert_close(crossbar.state.detach(), wanted.state, rtol=0, atol=0)
    assert crossbar.counters.updates == 4


def test_matrices_follow_the_step():
    """Matrices that were computed before a step are not used after it."""
    chip = preset("txsim")
    _, model = pair_of_models(chip)
    optimizer = PulseSGD(model, lr=0.5)
    x, _ = data()
    run(model, optimizer, steps=1)
    before = model.eval()(x).detach()
    run(model.train(), optimizer, steps=1)
    after = model.eval()(x).detach()
    fresh = copy.deepcopy(model)
    torch.testing.assert_close(after, fresh(x).detach(), rtol=1e-9, atol=1e-12)
    assert (after - before).abs().max() > 1e-3


def test_network_is_solved_together():
    """The optimizer links the layers of its model, so that one solve serves them all."""
    _, model = pair_of_models(ideal())
    PulseSGD(model, lr=0.1)
    groups = {id(crossbar.group) for _, crossbar in crossbars_of(model)}
    assert len(groups) == 1


def test_saturation_is_counted():
    """Devices asked beyond their range are counted by name of the state, for each step."""
    _, model = pair_of_models(ideal(**{"mapping.w_max": {"rule": "max_abs", "headroom": 1.0}}))
    optimizer = PulseSGD(model, lr=0.0)
    run(model, optimizer, steps=1)
    assert set(optimizer.counts) == {"0.state", "2.state"}
    assert all(count.saturated == 0 for count in optimizer.counts.values())
    optimizer.param_groups[0]["lr"] = 1e3
    run(model, optimizer, steps=1)
    assert optimizer.counts["2.state"].saturated > 5


def test_checkpoint_goes_on_bit_for_bit():
    """Model and optimizer saved, loaded into new ones and trained on give the losses of an unbroken run."""
    chip = preset("txsim")
    _, model = pair_of_models(chip)
    optimizer = PulseSGD(model, lr=0.05, momentum=0.9)
    run(model, optimizer, steps=4)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    wanted = run(model, optimizer, steps=4)
    _, other = pair_of_models(chip, seed=9)
    again = PulseSGD(other, lr=0.7, momentum=0.1)
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    assert again.param_groups[0]["lr"] == 0.05
    assert run(other, again, steps=4) == wanted


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_model_and_optimizer_are_copied_together(copied):
    """A deep copy, or an unpickled pair, trains on as the original does, and apart from it."""
    _, model = pair_of_models(preset("txsim-8bit"))
    optimizer = PulseSGD(model, lr=0.05, momentum=0.9)
    run(model, optimizer, steps=2)
    other, others = copied((model, optimizer))
    assert run(other, others, steps=3) == run(model, optimizer, steps=3)


def test_nothing_is_written_where_a_gradient_is_not_finite():
    """One NaN anywhere stops the whole step with the layer's name; no parameter has moved."""
    for poisoned in ("0.state", "2.bias"):
        _, model = pair_of_models(ideal())
        optimizer = PulseSGD(model, lr=0.1, momentum=0.9)
        x, target = data()
        nn.functional.cross_entropy(model(x), target).backward()
        dict(model.named_parameters())[poisoned].grad.view(-1)[1] = float("nan")
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(
            FloatingPointError, match=r"2\.bias" if "bias" in poisoned else r"layer 0.*update 0"
        ):
            optimizer.step()
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name


def test_closure():
    """A closure is called with gradients on and its loss returned, as torch optimizers do."""
    _, model = pair_of_models(ideal())
    optimizer = PulseSGD(model, lr=0.1)
    x, target = data()

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert optimizer.step(closure) < first


def test_frozen_parameters_stay():
    """Parameters without gradient are neither written nor counted."""
    _, model = pair_of_models(ideal())
    model[0].state.requires_grad_(False)
    before = model[0].state.detach().clone()
    optimizer = PulseSGD(model, lr=0.1, weight_decay=0.1)
    run(model, optimizer, steps=2)
    assert torch.equal(model[0].state, before)
    assert set(optimizer.counts) == {"2.state"}


PULSES = {
    "deterministic": {"update.encoding": "deterministic", "update.bits": 7},
    "stochastic": {"update.encoding": "stochastic", "update.stream_length": 31},
}


@pytest.mark.parametrize("encoding", PULSES)
def test_pulses_are_the_engines(encoding):
    """A pulsed step is pulse_update of the words that the DAC sent, keyed by the count of updates."""
    chip = preset("txsim-8bit").with_values(
        {"mapping.w_max": WIDE, **PULSES[encoding], "update.noise.gamma": 0.0}
    )
    _, model = pair_of_models(chip)
    optimizer = PulseSGD(model, lr=0.1)
    run(model, optimizer, steps=2)
    crossbar = model[0].crossbars[""]
    state = crossbar.state.detach().clone()
    x, target = data()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), target).backward()
    (kept,) = crossbar.pulses
    assert kept.x.shape == (32, 1, 6)
    assert kept.dy.shape == (32, 1, 5)
    wanted = pulse_update(
        crossbar.layout,
        state,
        crossbar.buffers(),
        kept.x,
        kept.dy,
        rate=0.1,
        x_max=kept.x.abs().max(),
        dy_max=kept.dy.abs().max(),
        count=2,
        call=Call(),
    )
    optimizer.step()
    torch.testing.assert_close(crossbar.state.detach(), wanted.state, rtol=0, atol=0)
    assert not crossbar.pulses


@pytest.mark.parametrize("encoding", PULSES)
def test_pulses_train(encoding):
    """Pulses follow the gradient: the loss falls about as with batch writes."""
    _, batch = pair_of_models(ideal())
    wanted = run(batch, PulseSGD(batch, lr=0.3), steps=25)
    _, model = pair_of_models(ideal(**PULSES[encoding]))
    found = run(model, PulseSGD(model, lr=0.3), steps=25)
    assert wanted[-1] < 0.7 * wanted[0]
    assert abs(found[-1] - wanted[-1]) < 0.15 * (wanted[0] - wanted[-1])


def test_fine_codes_approach_the_batch_gradient():
    """Deterministic codes of many bits make the batch's outer product: plain SGD."""
    native, model = pair_of_models(ideal(**{"update.encoding": "deterministic", "update.bits": 30}))
    wanted = run(native, torch.optim.SGD(native.parameters(), lr=0.3))
    found = run(model, PulseSGD(model, lr=0.3))
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-6, atol=0)


def test_pulses_of_several_calls_are_all_written():
    """A layer used twice in one step, with batches of different size, is written by both uses."""
    chip = ideal(**{"update.encoding": "deterministic", "update.bits": 30})
    torch.manual_seed(0)
    native = nn.Linear(4, 4).double()
    layer = XbarLinear.from_native(copy.deepcopy(native), chip)
    x = torch.randn(8, 4, dtype=torch.float64)
    for model, optimizer in (
        (native, torch.optim.SGD(native.parameters(), lr=0.1)),
        (layer, PulseSGD(layer, lr=0.1)),
    ):
        y = model(torch.tanh(model(x))[:5])
        (y**2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight, native.weight, rtol=1e-6, atol=1e-8)


def step_with(model, optimizer, loss_scale=1.0, between=None):
    """Do one step on a loss that is scaled, with something between backward and step."""
    x, target = data()
    optimizer.zero_grad()
    (loss_scale * nn.functional.cross_entropy(model(x), target)).backward()
    if between is not None:
        between()
    optimizer.step()


@pytest.mark.parametrize("encoding", PULSES)
def test_pulses_follow_what_scales_the_gradient(encoding):
    """Gradients that are divided by a loss scale, or clipped by torch, write scaled pulses."""
    chip = preset("txsim-8bit").with_values({**PULSES[encoding], "update.noise.gamma": 0.0})
    wanted, scaled, clipped = (pair_of_models(chip)[1] for _ in range(3))
    before = wanted[0].state.detach().clone()
    step_with(wanted, PulseSGD(wanted, lr=0.1))
    optimizer, scaler = PulseSGD(scaled, lr=0.1), torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(()))  # starts it
    step_with(scaled, optimizer, 1024.0, lambda: scaler.unscale_(optimizer))
    torch.testing.assert_close(scaled[0].state, wanted[0].state, rtol=0, atol=1e-12)
    step_with(
        clipped,
        PulseSGD(clipped, lr=0.1),
        between=lambda: nn.utils.clip_grad_norm_(clipped.parameters(), 1e-9),
    )
    assert (clipped[0].state - before).abs().max() < 1e-6 < (wanted[0].state - before).abs().max()


def test_pulses_of_another_gradient_are_refused():
    """Pulses of a step that model.zero_grad() threw away, or a penalty that no pulse knows: one line."""
    _, model = pair_of_models(ideal(**PULSES["deterministic"]))
    optimizer, (x, target) = PulseSGD(model, lr=0.1), data()
    nn.functional.cross_entropy(model(x[:9]), target[:9]).backward()
    before = model[0].state.detach().clone()
    with pytest.raises(ConfigError, match="not that of the kept pulses.*zero_grad"):
        step_with(model, optimizer, between=lambda: model[2].state.grad[0].add_(0.1))
    assert torch.equal(model[0].state, before)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[:9]), target[:9]).backward()
    model.zero_grad()
    nn.functional.cross_entropy(model(x[9:]), target[9:]).backward()
    with pytest.raises(ConfigError, match="not that of the kept pulses"):
        optimizer.step()
    assert torch.equal(model[0].state, before)


def test_zero_grad_forgets_pulses():
    """Inputs and errors of a step that is thrown away are not written by the next one."""
    chip = ideal(**PULSES["deterministic"])
    _, model = pair_of_models(chip)
    optimizer = PulseSGD(model, lr=0.1)
    x, target = data()
    nn.functional.cross_entropy(model(x), target).backward()
    assert model[0].crossbars[""].pulses
    optimizer.zero_grad()
    assert not model[0].crossbars[""].pulses


@pytest.mark.parametrize("field", ["momentum", "weight_decay"])
@pytest.mark.parametrize("encoding", PULSES)
def test_pulses_allow_neither_momentum_nor_decay(field, encoding):
    """Both need what a rank-1 pulse has not: an error at construction, and when a group is changed later."""
    _, model = pair_of_models(ideal(**PULSES[encoding]))
    with pytest.raises(
        ConfigError, match=rf"{field}: 0\.9 with update\.encoding = '{encoding}' \(0\.state\)"
    ):
        PulseSGD(model, lr=0.1, **{field: 0.9})
    optimizer = PulseSGD(model, lr=0.1)
    optimizer.param_groups[0][field] = 0.9
    before = model[0].state.detach().clone()
    with pytest.raises(ConfigError, match=field):
        run(model, optimizer, steps=1)
    assert torch.equal(model[0].state, before)
    biases = [{"params": [model[0].bias], field: 0.9}, {"params": [model[0].state, model[2].state]}]
    PulseSGD(biases, lr=0.1, model=model)


def test_native_scale_of_each_layer():
    """With rule native a weight step moves devices by R / (2 w_max) of the layer's own native maximum."""
    values = {"update.scale": {"rule": "native"}, "mapping": {"kind": "balanced", "w_max": WIDE}}
    _, model = pair_of_models(preset("ideal").with_values(values))
    with pytest.raises(ConfigError, match=r"update\.scale: rule = 'native' without values \(0\.state\)"):
        PulseSGD(model, lr=0.1)
    statistics = {"0.weight": LayerStatistics(2.0, 0.1), "1.weight": LayerStatistics(3.0, 0.1)}
    with pytest.raises(ConfigError, match=r"statistics: none for '2\.weight', did you mean"):
        PulseSGD(model, lr=0.1, statistics=statistics)
    statistics["2.weight"] = LayerStatistics(3.0, 0.1)
    optimizer = PulseSGD(model, lr=0.1, statistics=statistics)
    x, target = data()
    nn.functional.cross_entropy(model(x), target).backward()
    crossbar = model[2].crossbars[""]
    before, gradient = crossbar.state.detach().clone(), crossbar.weight_gradient()
    optimizer.step()
    moved = crossbar.state.detach()[0] - before[0]
    torch.testing.assert_close(moved, -0.1 * gradient / (2 * 3.0), rtol=1e-9, atol=1e-15)


def test_native_step_is_the_full_scale_of_pulses():
    """With dw_max a full-scale product of codes moves a weight by dw_max, and codes beyond it saturate."""
    values = {"update.scale": {"rule": "native"}, "update.encoding": "deterministic", "update.bits": 8}
    torch.manual_seed(0)
    layer = XbarLinear(1, 1, bias=False, dtype=torch.float64, config=ideal(**values))
    w_max = float(layer.w_max)
    statistics = {"weight": LayerStatistics(w_max, 1e-3)}
    before = layer.weight.detach().clone()
    optimizer = PulseSGD(layer, lr=0.5, statistics=statistics)
    (layer(torch.ones(1, 1, dtype=torch.float64)) * 100.0).sum().backward()
    optimizer.step()
    torch.testing.assert_close(before - layer.weight, torch.full_like(before, 1e-3), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": -0.1}, "lr: -0.1 is out of range"),
        ({"lr": float("nan")}, "lr: nan is out of range"),
        ({"lr": "a"}, "lr: 'a' is not a real number"),
        ({"lr": None}, "lr: None is not a real number"),
        ({"lr": 0.1, "momentum": -1}, "momentum: -1 is out of range"),
        ({"lr": 0.1, "weight_decay": torch.tensor(-1)}, "weight_decay: -1 is out of range"),
        ({"lr": 0.1, "nesterov": True}, "nesterov: True wants momentum"),
    ],
)
def test_bad_numbers(values, message):
    """A number out of range: one line with its name and rule."""
    _, model = pair_of_models(ideal())
    with pytest.raises(ConfigError, match=message):
        PulseSGD(model, **values)


def test_parameters_want_their_model():
    """Bare parameters do not tell which of them are devices; treating them as numbers would be silent."""
    _, model = pair_of_models(ideal())
    with pytest.raises(ConfigError, match="model: not given beside parameters"):
        PulseSGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("change", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_states_of_another_model_are_refused(change):
    """Plain SGD on device states would be silent; digital parameters may come from anywhere."""
    (_, model), (_, other) = pair_of_models(ideal()), pair_of_models(ideal())
    model = change(model).to(torch.float32)
    with pytest.raises(
        ConfigError, match=r"params: a device state of shape \(2, 6, 5\) is none of the model's"
    ):
        PulseSGD(model.parameters(), lr=0.1, model=other)
    optimizer = PulseSGD(other, lr=0.1)
    with pytest.raises(ConfigError, match="give model= the network that it belongs to"):
        optimizer.add_param_group({"params": [model[2].state]})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [model[2].bias]})


def test_keys_of_groups():
    """A key that nothing reads is one line with the nearest match; names and schedulers' keys are known."""
    _, model = pair_of_models(ideal())
    with pytest.raises(
        ConfigError, match="momentun: unknown key of a parameter group, did you mean 'momentum'"
    ):
        PulseSGD([{"params": model.parameters(), "momentun": 0.9}], lr=0.1, model=model)
    optimizer = PulseSGD([{"params": [model[0].state], "name": "first"}], lr=0.1, momentum=0.5, model=model)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=12)
    torch.optim.swa_utils.SWALR(optimizer, 0.1)
    again = PulseSGD(optimizer.param_groups, lr=0.1, model=model)
    assert again.param_groups[0]["name"] == "first"
    PulseSGD(model.named_parameters(), lr=0.1, model=model)


def test_nan_of_a_digital_gradient_names_the_update():
    """A bias has no counters of its own: the update is that of the crossbars."""
    _, model = pair_of_models(ideal())
    optimizer = PulseSGD(model, lr=0.1)
    run(model, optimizer, steps=2)
    model[2].bias.grad[1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"2\.bias, update 2: the gradient holds NaN"):
        optimizer.step()


def test_other_optimizers_keep_states_in_range():
    """Adam moves states as numbers; the next training forward puts them back into [0, 1]."""
    chip = preset("txsim-8bit").with_values({"backward.mode": "exact"})
    _, model = pair_of_models(chip)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.6)
    losses = run(model, optimizer, steps=3)
    beyond = [model[k].state.detach() for k in (0, 2)]
    assert any(((state < 0) | (state > 1)).any() for state in beyond)
    model(data()[0])
    for layer in (model[0], model[2]):
        assert layer.state.min() >= 0
        assert layer.state.max() <= 1
    assert all(torch.isfinite(torch.tensor(losses)))


def test_hardware_aware_training_with_adam():
    """Adam on the states, through the true derivative of the 8-bit chip, teaches an MLP real digits."""
    raw = load_digits()
    x = torch.from_numpy(raw.data / 16.0).float()
    target = torch.from_numpy(raw.target)
    torch.manual_seed(0)
    chip = preset("txsim-8bit").with_values({"backward.mode": "exact"})
    model = nn.Sequential(
        XbarLinear(64, 32, config=chip, name=0), nn.ReLU(), XbarLinear(32, 10, config=chip, name=1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = accuracy(model, x[1200:], target[1200:])
    for step in range(120):
        batch = torch.arange(step * 64, (step + 1) * 64) % 1200
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), target[batch]).backward()
        optimizer.step()
        model(x[:1])
        for layer in (model[0], model[2]):
            assert layer.state.min() >= 0.0
            assert layer.state.max() <= 1.0
    assert before < 0.3
    assert accuracy(model, x[1200:], target[1200:]) > 0.85


def accuracy(model, x, target):
    model.eval()
    with torch.no_grad():
        share = (model(x).argmax(dim=1) == target).float().mean().item()
    model.train()
    return share
