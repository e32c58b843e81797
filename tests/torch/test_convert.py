"""Conversion of whole networks and back."""

from __future__ import annotations

import copy
import io
import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from xbar_core.config import preset
from xbar_core.errors import ConfigError, ShapeError
from xbar_torch.convert import conversion_report, convert, to_native
from xbar_torch.host import crossbars_of
from xbar_torch.linear import XbarLinear
from xbar_torch.tied import XbarTiedLinear
from xbar_torch.zoo import build


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            fc1=nn.Linear(12, 10),
            relu=nn.ReLU(),
            norm=nn.LayerNorm(10),
            fc2=nn.Linear(10, 8),
            fc3=nn.Linear(8, 3),
        )
    ).double()


def states(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: crossbar.state.detach().clone() for name, crossbar in crossbars_of(model)}


def snapshot(model: nn.Module) -> tuple[list[str], dict[str, torch.Tensor]]:
    return [f"{n}:{type(m).__name__}" for n, m in model.named_modules()], copy.deepcopy(model.state_dict())


def assert_untouched(model: nn.Module, before: tuple[list[str], dict[str, torch.Tensor]]) -> None:
    after = snapshot(model)
    assert after[0] == before[0]
    assert all(torch.equal(after[1][name], value) for name, value in before[1].items())


@pytest.mark.parametrize("name", ["mlp", "lenet5", "resnet20"])
def test_ideal_chip_is_the_native_network(name: str) -> None:
    """On the ideal chip in float64 a converted network computes what the native one does, and back."""
    torch.manual_seed(0)
    native = build(name, 10, (1, 28, 28)).double()
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    before = snapshot(native)
    chip = convert(native, "ideal")
    assert_untouched(native, before)
    native.eval(), chip.eval()
    torch.testing.assert_close(chip(x), native(x), rtol=1e-11, atol=1e-12)
    back = to_native(chip)
    assert [f"{n}:{type(m).__name__}" for n, m in back.named_modules()] == before[0]
    torch.testing.assert_close(dict(back.state_dict()), dict(native.state_dict()), rtol=1e-12, atol=1e-13)


def test_first_training_step_follows_the_native_network() -> None:
    """Gradients of biases and weights on the ideal chip are the native ones."""
    native = mlp()
    chip = convert(native, "ideal")
    x = torch.rand(5, 12, dtype=torch.float64)
    native(x).square().sum().backward()
    chip(x).square().sum().backward()
    for name, crossbar in crossbars_of(chip):
        layer = native.get_submodule(name.removesuffix(".state"))
        torch.testing.assert_close(crossbar.weight_gradient(), layer.weight.grad.T, rtol=1e-11, atol=1e-13)
    for name in ("fc1.bias", "norm.weight", "fc3.bias"):
        torch.testing.assert_close(
            chip.get_parameter(name).grad, native.get_parameter(name).grad, rtol=1e-11, atol=1e-13
        )


@pytest.mark.parametrize("mapping", ["differential", "balanced", "offset"])
def test_native_weights_after_a_step_of_any_optimizer(mapping: str) -> None:
    """A step of Adam moves states beyond [0, 1]; to_native gives what the ideal chip reads, at once."""
    chip = convert(mlp(), preset("ideal").with_("mapping.kind", mapping).with_("mapping.w_max.headroom", 1.0))
    optimizer = torch.optim.Adam(chip.parameters(), lr=0.02)
    x = torch.rand(5, 12, dtype=torch.float64)
    chip(x).square().sum().backward()
    optimizer.step()
    assert any(float(state.min()) < 0.0 or float(state.max()) > 1.0 for state in states(chip).values())
    torch.testing.assert_close(to_native(chip).eval()(x), chip.eval()(x), rtol=1e-11, atol=1e-12)


def test_same_network_and_seed_give_the_same_chip() -> None:
    """Names and seed key the draws: not the order, not the global generator, not what else is converted."""
    noisy = preset("txsim-8bit").with_("device.programming_error", {"sigma": 0.05})
    one = states(convert(mlp(), noisy))
    torch.manual_seed(77)
    two = states(convert(mlp(), noisy, overrides={"fc1": None}))
    other = states(convert(mlp(), noisy, seed=1))
    for name, state in two.items():
        assert torch.equal(state, one[name])
        assert not torch.equal(state, other[name])
    assert not torch.equal(one["fc1.state"][:, :8, :3], one["fc3.state"])


def test_global_generator_is_left_alone() -> None:
    """Neither way of conversion draws from torch's generator."""
    model = mlp()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    to_native(convert(model, "txsim-8bit"))
    assert torch.equal(torch.rand(3), expected)


def test_patterns_choose_chips() -> None:
    """A later pattern wins, a pattern holds for what is inside, <first> and <last> are convertible layers."""
    model = nn.ModuleDict({"body": mlp(), "head": nn.Sequential(nn.ReLU(), nn.Linear(3, 2).double())})
    chip = convert(model, "ideal", overrides={"body*": None, "body.fc?": "txsim", "body.fc2": None})
    report = conversion_report(chip)
    assert [(m.name, m.chip) for m in report.converted] == [
        ("body.fc1", "txsim"),
        ("body.fc3", "txsim"),
        ("head.1", "ideal"),
    ]
    assert report["body.fc2"].note == "kept digital by 'body.fc2'"
    chip = convert(model, "ideal", overrides={"<first>": None, "<last>": None})
    assert [m.name for m in conversion_report(chip).converted] == ["body.fc2", "body.fc3"]
    chip = convert(model, "ideal", overrides={"body": None})
    assert [m.name for m in conversion_report(chip).converted] == ["head.1"]


def test_report_lists_everything() -> None:
    """Every module is listed with arrays and weights, or with the reason why it stays digital."""
    looped = nn.RNN(3, 3)
    looped.weight_ih_l0 = looped.weight_hh_l0
    model = nn.ModuleDict(
        {
            "looped": looped,
            "embed": nn.Embedding(7, 12),
            "mlp": mlp(),
            "up": nn.ConvTranspose2d(2, 2, 3),
            "lazy": nn.LazyLinear(4),
            "normed": parametrizations.weight_norm(nn.Linear(3, 3)),
        }
    )
    report = conversion_report(convert(model, preset("ideal").with_("array", {"rows": 8, "cols": 8})))
    assert report["mlp.fc1"].arrays == 2 * 2 * 2
    assert report["mlp.fc1"].weights == 120
    assert report["mlp.fc1"].utilisation == 120 / (4 * 64)
    assert report.arrays == sum(m.arrays for m in report.converted) == 8 + 4 + 2
    reasons = {module.name: module.note for module in report.digital}
    assert reasons["embed"] == reasons["up"] == "no crossbar twin for this type"
    assert reasons["mlp.relu"] == "no weights"
    assert reasons["mlp.norm"] == "normalisation is digital"
    assert "run it once" in reasons["lazy"]
    assert "parametrized" in reasons["normed"]
    assert reasons["looped"] == "two of its own parameters are one"
    table = str(report)
    assert all(module.name in table for module in report.modules)
    assert "on 14 arrays" in table


def test_one_solve_serves_all_layers() -> None:
    """All crossbars of a converted network, and of its copy, share one group."""
    chip = convert(mlp(), "txsim")
    groups = {id(crossbar.group) for _, crossbar in crossbars_of(chip)}
    assert len(groups) == 1
    assert len(list(next(crossbars_of(chip))[1].group)) == 3
    chip(torch.rand(2, 12, dtype=torch.float64))
    assert all(not crossbar.prepare(True) for _, crossbar in crossbars_of(chip))


class Tied(nn.Module):
    def __init__(self, share_bias: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        if share_bias:
            self.b.bias = self.a.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.a(x)))


@pytest.mark.parametrize("share_bias", [False, True])
def test_tied_weights_stay_tied(share_bias: bool) -> None:
    """Two linear layers with one weight get one crossbar and add up their gradients; the way back ties."""
    torch.manual_seed(0)
    native = Tied(share_bias).double()
    chip = convert(native, "ideal")
    assert len(list(crossbars_of(chip))) == 1
    assert (chip.a is chip.b) == share_bias
    assert share_bias or isinstance(chip.b, XbarTiedLinear)
    x = torch.rand(4, 6, dtype=torch.float64)
    native(x).square().sum().backward()
    chip(x).square().sum().backward()
    torch.testing.assert_close(chip(x), native(x), rtol=1e-12, atol=1e-13)
    crossbar = next(crossbars_of(chip))[1]
    torch.testing.assert_close(crossbar.weight_gradient(), native.a.weight.grad.T, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(chip.b.bias.grad, native.b.bias.grad, rtol=1e-11, atol=1e-12)
    fresh = convert(Tied(share_bias).double(), "ideal")
    fresh.load_state_dict(chip.state_dict())
    assert torch.equal(fresh(x), chip(x))
    assert torch.equal(copy.deepcopy(chip)(x), chip(x))
    back = to_native(chip)
    assert back.a.weight is back.b.weight
    assert (back.a.bias is back.b.bias) == share_bias
    torch.testing.assert_close(back(x), native(x), rtol=1e-12, atol=1e-13)


def test_shared_module_stays_shared() -> None:
    """A module that stands in two places is one layer on one crossbar in both."""
    layer = nn.Linear(4, 4)
    chip = convert(nn.Sequential(layer, nn.Tanh(), layer), "ideal")
    assert chip[0] is chip[2]
    back = to_native(chip)
    assert back[0] is back[2]


def test_weight_tied_to_an_embedding_is_refused() -> None:
    """An embedding reads its table in another way: one clear line says what to keep digital."""
    model = nn.ModuleDict({"embed": nn.Embedding(9, 5), "decoder": nn.Linear(5, 9)})
    model["decoder"].weight = model["embed"].weight
    with pytest.raises(ConfigError, match=r"decoder.weight: .*embed.weight \(Embedding\), which stays"):
        convert(model, "ideal")
    chip = convert(model, "ideal", overrides={"decoder": None})
    assert chip["decoder"].weight is chip["embed"].weight


def test_tied_layers_on_two_chips_are_refused() -> None:
    """One weight cannot sit on two chips, nor be half digital."""
    for choice in ("txsim", None):
        with pytest.raises(ConfigError, match=r"a\.weight|b\.weight"):
            convert(Tied(False), "ideal", overrides={"b": choice})


def test_frozen_layers_stay_frozen_and_hooks_stay() -> None:
    """requires_grad, training mode and forward hooks survive both ways."""
    model = mlp()
    model.fc1.weight.requires_grad_(False)
    model.fc2.eval()
    seen: list[str] = []
    model.fc3.register_forward_hook(lambda *_: seen.append("called"))
    chip = convert(model, "ideal")
    assert not chip.fc1.state.requires_grad
    assert chip.fc2.state.requires_grad
    assert (chip.fc1.training, chip.fc2.training) == (True, False)
    back = to_native(chip)
    assert not back.fc1.weight.requires_grad
    assert not back.fc2.training
    for each in (chip, back):
        each(torch.rand(1, 12, dtype=torch.float64))
    assert seen == ["called", "called"]


def test_in_place_keeps_the_model() -> None:
    """inplace replaces layers of the given model and keeps its biases as the same Parameters."""
    model = mlp()
    bias = model.fc1.bias
    assert convert(model, "ideal", inplace=True) is model
    assert isinstance(model.fc1, XbarLinear)
    assert model.fc1.bias is bias


class Held(nn.Module):
    """Layers that are registered, and held in plain lists, tuples and dicts as well."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.order = [self.one, (self.two, "relu")]
        self.by_name = {"deep": {"one": self.one}}
        self.order.append(self.order)
        self.again = (self.order[1], self.order[1])
        self.twice = self.again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (two, _), one = self.order[1], self.by_name["deep"]["one"]
        result: torch.Tensor = self.order[0](x) + two(torch.relu(one(x)))
        return result


@pytest.mark.parametrize("inplace", [False, True])
def test_layers_are_replaced_wherever_they_are_held(inplace: bool) -> None:
    """Plain containers among a module's attributes hold the twins afterwards, of a copy or in place."""
    model = Held()
    order = model.order
    chip = convert(model, "txsim", inplace=inplace)
    assert (chip.order is order) is inplace
    assert chip.order[0] is chip.by_name["deep"]["one"] is chip.one
    assert chip.order[1] == (chip.two, "relu")
    assert chip.order[2] is chip.order
    assert chip.twice is chip.again
    assert chip.again[0] is chip.again[1] is chip.order[1]
    chip(torch.rand(2, 4)).sum().backward()
    assert chip.one.state.grad is not None
    assert chip.two.state.grad is not None
    if not inplace:
        assert model.order[0] is model.one
        assert isinstance(model.one, nn.Linear)


def test_copy_shares_no_memory() -> None:
    """Training the converted copy leaves the native model alone."""
    native = mlp()
    before = snapshot(native)
    chip = convert(native, "ideal")
    optimizer = torch.optim.SGD(chip.parameters(), lr=0.1)
    chip(torch.rand(3, 12, dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert_untouched(native, before)
    assert all(parameter.grad is None for parameter in native.parameters())


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (nn.Linear, (4, 3)),
        (nn.Conv2d, (4, 6, 3)),
        (nn.Conv1d, (4, 6, 1)),
        (nn.LSTM, (4, 3, 2)),
        (nn.GRU, (4, 3)),
    ],
)
def test_first_weights_are_drawn_anew_as_natively(kind: Any, arguments: tuple[int, ...]) -> None:
    """reset_parameters programs what the native layer draws; native weights are contiguous, as torch's."""
    native = kind(*arguments, dtype=torch.float64)
    chip = convert(native, "ideal")
    for layer in (native, chip):
        torch.manual_seed(3)
        layer.reset_parameters()
    back = to_native(chip)
    torch.testing.assert_close(dict(back.state_dict()), dict(native.state_dict()), rtol=1e-12, atol=1e-14)
    assert all(parameter.is_contiguous() for parameter in back.parameters())


def test_a_single_layer_converts() -> None:
    """The model may itself be a layer."""
    layer = nn.Linear(3, 2)
    chip = convert(layer, "ideal", overrides={"*": "txsim"})
    assert isinstance(chip, XbarLinear)
    assert chip.chip.name == "txsim"
    assert isinstance(to_native(chip), nn.Linear)


def test_subclass_with_its_own_forward_stays_digital() -> None:
    """A subclass that only adds names converts; one that computes something else does not."""

    class Named(nn.Linear):
        label = "named"

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2.0 * super().forward(x)

    chip = convert(nn.Sequential(Named(3, 3), Scaled(3, 3)), "ideal")
    assert isinstance(chip[0], XbarLinear)
    assert isinstance(chip[1], Scaled)
    assert conversion_report(chip)["1"].note == "a Linear with a forward of its own"


def test_pickle_and_trained_weights_go_back() -> None:
    """A trained chip survives pickling, and to_native returns the weights that its states stand for."""
    chip = convert(mlp(), "txsim-8bit")
    with torch.no_grad():
        chip.fc1.state.add_(0.01 * torch.rand_like(chip.fc1.state)).clamp_(0, 1)
    held = io.BytesIO()
    torch.save(chip, held)
    held.seek(0)
    loaded = torch.load(held, weights_only=False)
    assert torch.equal(to_native(loaded).fc1.weight, chip.fc1.weight)
    assert str(conversion_report(loaded)) == str(conversion_report(chip))


def test_ranges_of_weights_can_be_given() -> None:
    """w_max by the native name of the weight reaches the layer; the others keep the chip's rule."""
    chip = convert(mlp(), "txsim", w_max={"fc1.weight": 2.5})
    assert chip.fc1.w_max.item() == 2.5
    assert chip.fc2.w_max.item() == pytest.approx(4 * mlp().fc2.weight.abs().max().item())
    with pytest.raises(ConfigError, match=r"w_max: 'fc1.weigth' is no weight.*did you mean 'fc1.weight'"):
        convert(mlp(), "ideal", w_max={"fc1.weigth": 2.5})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overrides": {"fc9": None}}, r"'fc9' matches no module.*did you mean 'fc"),
        ({"overrides": {"*.conv": "txsim"}}, r"'\*\.conv' matches no module"),
        ({"overrides": {"relu": "txsim"}}, r"'relu' \(ReLU\) cannot go on crossbars: no weights"),
        ({"unsigned": ("fc2", "norm")}, r"'norm' \(LayerNorm\) cannot go on crossbars: normalisation"),
        ({"unsigned": 3}, r"unsigned: 3 is no string but of type int; give a pattern, or several"),
        ({"unsigned": ("fc2", 3)}, r"unsigned: 3 is no string but of type int; give a pattern"),
        ({"config": "txsim-8bits"}, r"did you mean 'txsim-8bit'"),
        ({"overrides": {"fc2": "txsin"}}, r"did you mean 'txsim'"),
        ({"overrides": "fc2"}, r"overrides: 'fc2' is a str; give a mapping of pattern to chip or None"),
        ({"overrides": ["fc2"]}, r"overrides: \['fc2'\] is a list; give a mapping"),
        ({"w_max": 2.0}, r"w_max: 2\.0 is a float; give a mapping of native weight to range"),
    ],
)
def test_bad_requests_change_nothing(arguments: dict[str, object], message: str) -> None:
    """A name, pattern or chip that is wrong is one clear line with the nearest match."""
    model = mlp()
    before = snapshot(model)
    with pytest.raises(ConfigError, match=message):
        convert(model, **{"config": "ideal", "inplace": True, **arguments})  # type: ignore[arg-type]
    assert_untouched(model, before)


def test_model_is_a_module() -> None:
    """What is no module is named."""
    with pytest.raises(ConfigError, match="model: a str is no"):
        convert("resnet20")  # type: ignore[arg-type]


def test_chip_that_cannot_hold_a_layer_changes_nothing() -> None:
    """The layer is named, and the first layers are not replaced when the last one fails."""
    model = mlp()
    before = snapshot(model)
    narrow = preset("ideal").with_("mapping.kind", "offset").with_("array", {"rows": 8, "cols": 1})
    with pytest.raises(ConfigError, match=r"layer 'fc3': array.cols: 1"):
        convert(model, "ideal", overrides={"fc3": narrow}, inplace=True)
    assert_untouched(model, before)
    with torch.no_grad():
        model.fc3.weight[0, 0] = math.nan
    with pytest.raises(ConfigError, match=r"layer 'fc3': weight: holds NaN"):
        convert(model, "ideal", inplace=True)
    assert isinstance(model.fc1, nn.Linear)


def test_double_conversion_is_refused() -> None:
    """A converted model, whole or in part, is not converted again; a native one has no way back."""
    chip = convert(mlp(), "ideal", overrides={"fc1": None})
    with pytest.raises(ConfigError, match=r"layer 'fc2' \(XbarLinear\) is on crossbars already"):
        convert(chip, "ideal")
    with pytest.raises(ConfigError, match="no layer on crossbars"):
        to_native(mlp())
    with pytest.raises(ConfigError, match="not made by convert"):
        conversion_report(mlp())


def test_nothing_to_convert_is_an_error() -> None:
    """A model without a layer for crossbars is refused with the reasons; keeping all digital is a choice."""
    with pytest.raises(ConfigError, match=r"nothing in it can go .* '0' \(ReLU\): no weights; '1' \(Embed"):
        convert(nn.Sequential(nn.ReLU(), nn.Embedding(3, 2)), "ideal")
    assert not conversion_report(convert(mlp(), "ideal", overrides={"*": None})).converted


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Linear(4, 3), (2, 5), r"layer 'block\.0': input: shape \(2, 5\) does not end in in_features = 4"),
        (
            nn.Conv2d(3, 4, 3),
            (1, 5, 5),
            r"layer 'block\.0': input: shape \(1, 5, 5\) is not \(batch, 3, size",
        ),
        (nn.Conv2d(1, 4, 3), (1, 2, 2), r"layer 'block\.0': input: size \(2, 2\) is smaller"),
        (nn.LSTM(3, 4), (2, 5, 2), r"layer 'block\.0': input: shape \(2, 5, 2\) is not \(length, batch, 3\)"),
    ],
)
def test_shape_errors_name_the_layer(layer: nn.Module, shape: tuple[int, ...], message: str) -> None:
    """What does not fit is shown as it was given, with the layer's name in the network."""
    chip = convert(nn.ModuleDict({"block": nn.Sequential(layer)}), "ideal")
    with pytest.raises(ShapeError, match=message):
        chip["block"](torch.zeros(shape))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(3, 3), (2, 3)), (nn.Conv1d(3, 3, 1), (2, 3, 1)), (nn.GRU(3, 3), (4, 2, 3))],
)
def test_dtype_and_loading_errors_name_the_layer(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """A wrong dtype, and native weights that do not fit, begin with the layer's name in the network."""
    chip = convert(nn.ModuleDict({"block": nn.Sequential(layer)}), "ideal")["block"]
    with pytest.raises(ShapeError, match=r"^layer 'block\.0': input: dtype torch\.float64"):
        chip(torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(ConfigError, match=r"^layer 'block\.0': the native layer has no 'weight"):
        chip[0].load_native({})


def test_unsigned_inputs_are_declared() -> None:
    """Patterns of `unsigned` reach the layout of the layer."""
    for unsigned in ("fc2", ("fc2",)):
        chip = convert(mlp(), "txsim-8bit", unsigned=unsigned)
        assert [c.layout.signed_input for _, c in crossbars_of(chip)] == [True, False, True]


def test_half_precision_networks_convert() -> None:
    """A bfloat16 network gets float32 states and answers in bfloat16."""
    chip = convert(mlp().bfloat16(), "ideal")
    assert chip.fc1.state.dtype == torch.float32
    assert chip(torch.rand(2, 12, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_half_precision_networks_come_back(dtype: torch.dtype, late: bool) -> None:
    """Weights come back in the dtype that the network had or was given last, and the network runs in it."""
    layers = {
        "conv": nn.Conv1d(4, 4, 1),
        "fc": nn.Linear(4, 4, bias=False),
        "rnn": nn.LSTM(4, 4),
        "mha": nn.MultiheadAttention(4, 2),
    }
    model = nn.ModuleDict(layers)
    chip = convert(model, "ideal").to(dtype) if late else convert(model.to(dtype), "ideal")
    again = io.BytesIO()
    torch.save(chip, again)
    again.seek(0)
    x = torch.rand(3, 4, 4).to(dtype)
    for each in (chip, copy.deepcopy(chip), torch.load(again, weights_only=False)):
        back = to_native(each)
        assert {parameter.dtype for parameter in back.parameters()} == {dtype}
        torch.testing.assert_close(dict(back.state_dict()), dict(model.to(dtype).state_dict()))
        assert back["mha"](*[back["rnn"](back["fc"](back["conv"](x)))[0]] * 3)[0].dtype == dtype
    for wide in (torch.float32, torch.float64):
        assert {parameter.dtype for parameter in to_native(chip.to(wide)).parameters()} == {wide}
        assert chip["fc"].state.dtype == wide
