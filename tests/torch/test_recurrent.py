"""Recurrent layers: their torch twins on the ideal chip, and the time loop on the others."""

from __future__ import annotations

import copy
import gc
import itertools
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from xbar_core.config import Chip, preset
from xbar_core.engine import group
from xbar_core.errors import ConfigError, ShapeError
from xbar_torch import _recurrence
from xbar_torch.convert import conversion_report, convert, to_native
from xbar_torch.crossbar import Crossbar
from xbar_torch.functional import crossbar_linear, is_product
from xbar_torch.host import crossbars_of
from xbar_torch.recurrent import XbarGRU, XbarLSTM, XbarRNN
from xbar_torch.time_steps import TimeSteps

KINDS: dict[str, tuple[Any, type[nn.Module], dict[str, Any]]] = {
    "rnn-tanh": (XbarRNN, nn.RNN, {}),
    "rnn-relu": (XbarRNN, nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (XbarLSTM, nn.LSTM, {}),
    "lstm-projected": (XbarLSTM, nn.LSTM, {"proj_size": 2}),
    "gru": (XbarGRU, nn.GRU, {}),
}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "deep": {"num_layers": 3, "bias": False},
    "both-ways": {"bidirectional": True, "batch_first": True, "num_layers": 2},
}


def stepwise() -> Chip:
    """Return an ideal chip whose input range makes it take the time loop rather than torch's own."""
    return preset("ideal").with_("input.range", {"rule": "fixed", "value": 1e3})


CHIPS = {"product": preset("ideal"), "stepwise": stepwise()}


def pair(kind: str, chip: Chip, **options: Any) -> tuple[Any, Any]:
    twin, native_type, extra = KINDS[kind]
    torch.manual_seed(0)
    native = native_type(3, 4, dtype=torch.float64, **extra, **options)
    return twin.from_native(copy.deepcopy(native), chip), native


def tensors(result: Any) -> list[Tensor]:
    if isinstance(result, PackedSequence):
        return [result.data]
    if isinstance(result, Tensor):
        return [result]
    return list(itertools.chain.from_iterable(tensors(each) for each in result))


def assert_equal(chip_layer: Any, native: Any, x: Any, hx: Any = None) -> None:
    """Outputs, final states and all gradients agree to 1e-12."""
    ours, theirs = chip_layer(x, hx), native(x, hx)
    weights = [torch.randn_like(each) for each in tensors(theirs)]
    leaves = [each for each in tensors([x] if hx is None else [x, hx]) if each.requires_grad]
    gradients = []
    for result in (ours, theirs):
        for ours_leaf in leaves:
            ours_leaf.grad = None
        sum((w * each).sum() for w, each in zip(weights, tensors(result), strict=True)).backward()
        gradients.append([leaf.grad.clone() for leaf in leaves])
    torch.testing.assert_close(tensors(ours), tensors(theirs), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)
    for name, parameter in native.named_parameters():
        if name.startswith("weight"):
            bar = chip_layer.crossbars[name.removeprefix("weight")].weight_gradient().T
        else:
            bar = chip_layer.get_parameter(name).grad
        torch.testing.assert_close(bar, parameter.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("road", CHIPS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_ideal_chip_is_the_torch_twin(kind: str, shape: str, road: str) -> None:
    """Outputs, states and gradients are torch's, by torch's own loop and by the stepwise one."""
    layer, native = pair(kind, CHIPS[road], **SHAPES[shape])
    assert all(is_product(c) == (road == "product") for c in layer.crossbars.values())
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert_equal(layer, native, x)


@pytest.mark.parametrize("road", CHIPS)
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_and_initial_states(kind: str, road: str) -> None:
    """Sequences of several lengths, unsorted, with initial states and both directions."""
    layer, native = pair(kind, CHIPS[road], bidirectional=True, num_layers=2)
    x = pack_sequence([torch.randn(n, 3, dtype=torch.float64) for n in (2, 5, 1, 4)], enforce_sorted=False)
    hidden = KINDS[kind][2].get("proj_size", 4)
    h = torch.randn(4, 4, hidden, dtype=torch.float64, requires_grad=True)
    c = torch.randn(4, 4, 4, dtype=torch.float64, requires_grad=True)
    hx = (h, c) if kind.startswith("lstm") else h
    assert_equal(layer, native, x, hx)
    ours, theirs = layer(x, hx)[0], native(x, hx)[0]
    assert torch.equal(ours.batch_sizes, theirs.batch_sizes)
    assert torch.equal(ours.unsorted_indices, theirs.unsorted_indices)
    torch.testing.assert_close(
        pad_packed_sequence(ours)[0], pad_packed_sequence(theirs)[0], rtol=1e-12, atol=1e-12
    )


def test_ranges_learn_from_packed_rows_only() -> None:
    """A percentile of a packed batch is that of its rows: where a sequence is over nothing is read."""
    tracked = {"rule": "tracked", "statistic": "percentile", "percentile": 50.0}
    chip = preset("txsim-8bit").with_values({"input.range": tracked, "adc.range": tracked})
    rows = [torch.full((n, 3), 1.0 + n, dtype=torch.float64) for n in (1, 1, 1, 9)]
    layer, _ = pair("gru", chip)
    layer(pack_sequence(rows, enforce_sorted=False))
    ranges = layer.crossbars["_ih_l0"].ranges
    assert ranges.input_range.value == pytest.approx(10.0)
    plain, _ = pair("gru", chip)
    crossbar_linear(torch.cat(rows), plain.crossbars["_ih_l0"])
    assert ranges.current_range.value == pytest.approx(plain.crossbars["_ih_l0"].ranges.current_range.value)


@pytest.mark.parametrize("road", [*CHIPS, "txsim-8bit"])
def test_initial_states_must_be_finite(road: str) -> None:
    """NaN in any initial state, which gates would only pass on, is an error that names it."""
    for bad in range(2):
        layer, _ = pair("lstm", CHIPS.get(road) or preset(road))
        states = [torch.zeros(1, 2, 4, dtype=torch.float64) for _ in range(2)]
        states[bad][0, 1, 2] = float("nan")
        with pytest.raises(FloatingPointError, match="the initial state holds NaN"):
            layer(torch.zeros(5, 2, 3, dtype=torch.float64), tuple(states))


@pytest.mark.parametrize("road", [*CHIPS, "txsim-8bit"])
@pytest.mark.parametrize("kind", KINDS)
def test_empty_batches(kind: str, road: str) -> None:
    """No sequences give no outputs and zero gradients, as in torch; sequences of no steps are an error."""
    layer, native = pair(kind, CHIPS.get(road) or preset(road), batch_first=True, num_layers=2)
    x = torch.zeros(0, 3, 3, dtype=torch.float64, requires_grad=True)
    if road == "txsim-8bit":
        result = layer(x)
        assert [each.shape for each in tensors(result)] == [each.shape for each in tensors(native(x))]
        result[0].sum().backward()
        assert not layer.state_ih_l0.grad.any()
    else:
        assert_equal(layer, native, x)
    with pytest.raises(ShapeError, match=r"\(3, 0, 3\)"):
        layer(torch.zeros(3, 0, 3, dtype=torch.float64))


@pytest.mark.parametrize("road", CHIPS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_one_sequence_without_a_batch(batch_first: bool, road: str) -> None:
    """(length, in) gives (length, hidden), with states of two axes."""
    layer, native = pair("lstm", CHIPS[road], batch_first=batch_first)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert_equal(layer, native, x)
    assert_equal(layer, native, x, (torch.randn(1, 4).double(), torch.randn(1, 4).double()))


@pytest.mark.parametrize("road", CHIPS)
def test_dropout_acts_between_layers_in_training(road: str) -> None:
    """Dropout changes the result in training, not in evaluation; torch's own loop draws what torch draws."""
    layer, native = pair("gru", CHIPS[road], num_layers=2, dropout=0.5)
    x = torch.randn(4, 6, 3, dtype=torch.float64)
    torch.manual_seed(1)
    trained = layer(x)[0]
    torch.manual_seed(1)
    reference = native(x)[0]
    if road == "product":
        torch.testing.assert_close(trained, reference, rtol=1e-12, atol=1e-12)
    layer.eval(), native.eval()
    torch.testing.assert_close(layer(x)[0], native(x)[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(trained, layer(x)[0])


@pytest.mark.parametrize("kind", ["rnn-tanh", "lstm-projected", "gru"])
@pytest.mark.parametrize("converters", [False, True])
def test_exact_gradient_is_the_derivative(kind: str, converters: bool) -> None:
    """gradcheck through wires, curved converters and three steps: states, input and biases."""
    chip = preset("txsim-8bit").with_("backward", {"mode": "exact"}).with_("array", {"rows": 4, "cols": 4})
    for field in ("input", "adc"):
        chip = chip.with_(f"{field}.bits", None)
        if not converters:
            chip = chip.with_(f"{field}.nonlinearity", None)
    chip = chip.with_("input.range", {"rule": "fixed", "value": 4.0}) if converters else chip
    chip = chip.with_("adc.range", {"rule": "fixed", "value": 4e-5}) if converters else chip
    layer, _ = pair(kind, chip)
    layer.eval()
    parameters = list(layer.parameters())
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)

    def outputs(x: Tensor, *_: Tensor) -> Tensor:
        result: Tensor = layer(x)[0]
        return result

    assert torch.autograd.gradcheck(outputs, (x, *parameters), eps=1e-6, atol=1e-7, rtol=1e-5)


def test_matrices_are_computed_once_for_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps do not solve: the first sequence learns which weights are read backwards, an update takes one."""
    calls = []
    solve = group.read_matrices
    monkeypatch.setattr(
        group, "read_matrices", lambda requests: calls.append(len(requests)) or solve(requests)
    )
    layer = convert(nn.Sequential(nn.LSTM(3, 4, num_layers=2)), "txsim-8bit")[0]
    x = torch.randn(6, 2, 3, requires_grad=True)
    layer(x)[0].sum().backward()
    assert len(calls) <= 4, "more solves than weights: the steps solve"
    before = len(calls)
    layer(x)[0].sum().backward()
    assert len(calls) == before
    with torch.no_grad():
        layer.state_hh_l0.mul_(0.99)
    layer(x)[0].sum().backward()
    assert len(calls) == before + 1


def test_the_outer_products_of_a_sequence_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One gradient for each weight and sequence, equal to the sum over steps that are read one by one."""
    layer, _ = pair("rnn-tanh", preset("txsim-8bit"))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    layer(x)[0].sum().backward()
    layer.eval().zero_grad()
    h, steps = torch.zeros(2, 4, dtype=torch.float64), []
    for inputs in crossbar_linear(x, layer.crossbars["_ih_l0"]):
        read = crossbar_linear(h, layer.crossbars["_hh_l0"])
        h = torch.tanh(inputs + layer.bias_ih_l0 + read + layer.bias_hh_l0)
        steps.append(h)
    torch.stack(steps).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    counted, real = [], Crossbar.state_gradient
    monkeypatch.setattr(
        Crossbar, "state_gradient", lambda self, bar: counted.append(self.suffix) or real(self, bar)
    )
    layer(x)[0].square().sum().backward()
    assert sorted(counted) == ["_hh_l0", "_ih_l0"]
    for name, p in layer.named_parameters():
        torch.testing.assert_close(p.grad, wanted[name], rtol=0, atol=1e-12)


def test_a_sequence_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What joins its steps is freed with its graph; frozen weights need nothing."""
    seen: list[weakref.ref[TimeSteps]] = []

    def noted(*arguments: Any) -> TimeSteps:
        steps = TimeSteps(*arguments)
        seen.append(weakref.ref(steps))
        return steps

    monkeypatch.setattr(_recurrence, "TimeSteps", noted)
    layer, _ = pair("lstm", preset("txsim-8bit"))
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    gc.disable()
    try:
        for trained in (True, False):
            layer.requires_grad_(trained)
            layer(x)[0][1].sum().backward()
            assert (layer.state_hh_l0.grad is not None) == trained
            assert [steps() for steps in seen] == [None] * len(seen)
            layer.zero_grad()
    finally:
        gc.enable()


def test_conductances_drawn_per_batch_hold_for_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read noise of kind per_batch draws once in a sequence, and anew in the next."""
    calls = []
    solve = group.read_matrices
    monkeypatch.setattr(
        group, "read_matrices", lambda requests: calls.append(len(requests)) or solve(requests)
    )
    chip = preset("txsim-8bit").with_("device.read_noise", {"sigma": 0.05, "kind": "per_batch"})
    layer = convert(nn.Sequential(nn.RNN(3, 4)), chip)[0].eval()
    x = torch.randn(6, 2, 3)
    with torch.no_grad():
        first = layer(x)[0]
        assert sum(calls) <= 3
        assert not torch.equal(first, layer(x)[0])


def test_noise_is_fresh_in_every_step() -> None:
    """The same input and hidden state at two steps meet two draws of the read noise."""
    chip = preset("ideal").with_("device.read_noise", {"sigma": 0.1})
    layer, _ = pair("rnn-relu", chip)
    with torch.no_grad():
        layer.state_ih_l0.fill_(0.5)
        layer.bias_hh_l0.zero_()
        layer.bias_ih_l0.fill_(1.0)
    x = torch.zeros(3, 1, 3, dtype=torch.float64)
    ones = torch.ones(1, 1, 4, dtype=torch.float64)
    one, two = layer(x[:1], ones)[0], layer(x[:1], ones)[0]
    assert not torch.equal(one, two)
    again, _ = pair("rnn-relu", chip)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x)[0], layer(x)[0])


def test_ranges_learn_once_from_a_sequence() -> None:
    """A tracked range counts a sequence as one batch and keeps the largest of its steps."""
    chip = preset("txsim-8bit").with_("input.range", {"rule": "tracked", "batches": 3})
    layer, native = pair("rnn-tanh", chip)
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    hx = torch.full((1, 2, 4), 0.01, dtype=torch.float64)
    layer(x, hx)
    learned = layer.crossbars["_hh_l0"].ranges.input_range
    assert learned.batches == 1
    hidden = native(x, hx)[0][:-1]
    assert learned.value == pytest.approx(hidden.abs().max().item(), rel=0.1)
    layer(x, hx)
    assert layer.crossbars["_hh_l0"].ranges.input_range.batches == 2


def test_names_are_those_of_torch() -> None:
    """Arguments, attributes and weights of the twin; weights are read-only."""
    layer = XbarLSTM(3, 4, 2, bidirectional=True, config="ideal", dtype=torch.float64)
    native = layer.to_native()
    for name, parameter in native.named_parameters():
        held = getattr(layer, name)
        assert held.shape == parameter.shape
        torch.testing.assert_close(held, parameter, rtol=1e-14, atol=1e-15)
    shapes = [[[w.shape for w in each] for each in twin.all_weights] for twin in (layer, native)]
    assert shapes[0] == shapes[1]
    assert layer.state_hh_l1_reverse.shape == (2, 4, 16)
    with pytest.raises(AttributeError, match="weight_ih_l0 is read-only"):
        layer.weight_ih_l0 = torch.zeros(16, 3)
    with pytest.raises(AttributeError, match="weight_ih_l9"):
        _ = layer.weight_ih_l9
    for name in (
        "input_size",
        "hidden_size",
        "num_layers",
        "bias",
        "batch_first",
        "dropout",
        "bidirectional",
    ):
        assert getattr(layer, name) == getattr(native, name)
    assert "4, num_layers=2, bidirectional=True, chip='ideal'" in repr(layer)


def test_native_weights_load() -> None:
    """load_native takes a layer or its state_dict; what does not fit changes nothing."""
    layer = XbarGRU(3, 4, config="ideal", dtype=torch.float64)
    native = nn.GRU(3, 4, dtype=torch.float64)
    layer.load_native(native)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(layer(x), native(x), rtol=1e-12, atol=1e-13)
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ShapeError, match=r"weight_ih_l0 has shape \(15, 3\), this layer's is \(12, 3\)"):
        layer.load_native(nn.GRU(3, 5))
    with pytest.raises(ConfigError, match=r"'weight_ih_l1', which this layer has not.*weight_ih_l0"):
        layer.load_native(nn.GRU(3, 4, 2).state_dict())
    with pytest.raises(ConfigError, match=r"w_max: 'weight_ih_10' is no weight, did you mean 'weight_ih_l0'"):
        layer.load_native(native, w_max={"weight_ih_10": 1.0})
    with pytest.raises(ConfigError, match=r"w_max\['weight_hh_l0'\]: -1"):
        layer.load_native(native, w_max={"weight_hh_l0": -1.0})
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_unknown_names_of_ranges_are_refused() -> None:
    """A misspelt weight, or a bias, has no range."""
    for name in ("weight_ih_10", "bias_ih_l0"):
        with pytest.raises(
            ConfigError, match=f"w_max: '{name}' is no weight, did you mean .*they are weight_ih"
        ):
            XbarLSTM(3, 4, w_max={name: 1.0})


def test_conversion_of_a_recurrent_network() -> None:
    """convert and to_native keep layer, biases, arrays and given ranges."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": nn.LSTM(3, 4, num_layers=2), "out": nn.Linear(4, 2)}).double()
    chip = convert(model, "ideal", w_max={"rnn.weight_hh_l1": 3.0})
    assert chip["rnn"].w_max_hh_l1.item() == 3.0
    report = conversion_report(chip)["rnn"]
    assert (report.became, report.weights) == ("XbarLSTM", 16 * (3 + 4 + 4 + 4))
    back = to_native(chip)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(back["rnn"](x), model["rnn"](x), rtol=1e-12, atol=1e-13)
    assert len({crossbar.name for _, crossbar in crossbars_of(chip)}) == 5


@pytest.mark.parametrize(
    ("x", "hx", "message"),
    [
        (torch.zeros(5, 2, 7), None, r"input: shape \(5, 2, 7\) is not \(length, batch, 3\)"),
        (torch.zeros(5), None, r"input: shape \(5,\)"),
        (torch.zeros(0, 2, 3), None, r"input: shape \(0, 2, 3\)"),
        (torch.zeros(5, 2, 3), torch.zeros(1, 2, 4), r"hx: shapes .* initial states are .*4\)"),
    ],
)
def test_wrong_shapes_are_named(x: Tensor, hx: Any, message: str) -> None:
    """An input or an initial state that does not fit is one clear line."""
    with pytest.raises(ShapeError, match=message):
        XbarLSTM(3, 4)(x, hx)


def test_wrong_dtypes_are_named() -> None:
    """The error says whether the input or the initial state has another dtype than the states."""
    x, h = torch.zeros(5, 2, 3), torch.zeros(1, 2, 4)
    for given, name in (((x.double(), h), "input"), ((x, h.double()), "hx")):
        with pytest.raises(ShapeError, match=rf"^layer 'memory': {name}: dtype torch\.float64"):
            XbarGRU(3, 4, name="memory")(*given)


@pytest.mark.parametrize("config", ["ideal", "txsim-8bit"])
def test_not_a_number_names_the_layer(config: str) -> None:
    """NaN in an input says which layer met it."""
    layer = XbarGRU(3, 4, config=config, name="memory")
    with pytest.raises(FloatingPointError, match=r"layer 'memory_ih_l0'.*input holds NaN"):
        layer(torch.full((2, 1, 3), torch.nan))


def test_half_precision_and_copies() -> None:
    """A bfloat16 layer computes in float32 and answers in bfloat16; a copy is a chip of its own."""
    layer = XbarLSTM(3, 4, config="txsim-8bit").bfloat16()
    assert layer.state_hh_l0.dtype == torch.float32
    x = torch.randn(5, 2, 3, dtype=torch.bfloat16)
    output, (h, c) = layer(x)
    assert output.dtype == h.dtype == c.dtype == torch.bfloat16
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.state_hh_l0.fill_(0.5)
    assert not torch.equal(other.weight_hh_l0, layer.weight_hh_l0)
