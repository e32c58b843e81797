"""Calibration: ranges and scales that data tell, with nothing else changed."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from xbar_core.config import preset
from xbar_core.engine.calibration import LayerStatistics
from xbar_core.errors import ConfigError
from xbar_torch.calibration import calibrate, native_statistics
from xbar_torch.convert import convert
from xbar_torch.host import crossbars_of
from xbar_torch.linear import XbarLinear
from xbar_torch.optim import PulseSGD


def model_of(chip="txsim-8bit"):
    torch.manual_seed(0)
    return nn.Sequential(
        XbarLinear(6, 5, config=chip, name="a"),
        nn.BatchNorm1d(5),
        nn.Dropout(0.5),
        nn.ReLU(),
        XbarLinear(5, 3, config=chip, name="b"),
    )


def batches(count=4, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    x = scale * torch.randn(count, 16, 6, generator=generator)
    return [(each, each[:, :3].argmax(dim=1)) for each in x]


def test_input_range_is_the_mean_of_the_batches_maxima():
    """A range tracked over batches is the mean of their largest magnitudes, and is used in evaluation."""
    model, loader = model_of(), batches()
    found = calibrate(model, loader)
    expected = sum(float(x.abs().max()) for x, _ in loader) / len(loader)
    assert found["0.state"].input_range.value == pytest.approx(expected, rel=1e-6)
    assert found["0.state"].current_range.value > 0
    model.eval()
    alone, together = model(loader[0][0][:1]), model(loader[0][0])[:1]
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)


def test_what_was_learned_before_is_forgotten():
    """Calibration starts anew: data ten times larger give ranges ten times larger."""
    model = model_of()
    first = calibrate(model, batches())
    second = calibrate(model, batches(scale=10.0))
    ratio = second["0.state"].input_range.value / first["0.state"].input_range.value
    assert ratio == pytest.approx(10.0, rel=1e-5)


def test_frozen_ranges_stay_in_training():
    """Training leaves calibrated ranges alone, unless freeze=False lets the first batches go on."""
    for freeze, same in ((True, True), (False, False)):
        model = model_of()
        calibrate(model, batches(), freeze=freeze)
        before = model[0].crossbars[""].ranges.input_range.value
        model.train()(batches(scale=3.0)[0][0])
        assert (model[0].crossbars[""].ranges.input_range.value == before) is same


def test_ranges_tracked_over_epochs_are_frozen_too():
    """A rule that asks for epochs has had as many as it asks for."""
    tracked = {"rule": "tracked", "epochs": 3}
    model = model_of(preset("txsim-8bit").with_values({"adc.range": tracked, "input.range": tracked}))
    calibrate(model, batches())
    before = model[0].crossbars[""].ranges
    model.train()(batches(scale=3.0)[0][0])
    assert model[0].crossbars[""].ranges == before


def test_nothing_else_changes():
    """States, running statistics, gradients, counters and modes are as before, with and without a loss."""
    for loss in (None, nn.functional.cross_entropy):
        model = model_of()
        model[2].eval()
        model[0].bias.grad = torch.ones(5)
        before = copy.deepcopy(model.state_dict())
        calibrate(model, batches(), loss, freeze=False)
        after = model.state_dict()
        assert {name for name in after if not torch.equal(after[name], before[name])} == {
            "0.ranges",
            "4.ranges",
        }
        assert [module.training for module in model] == [True, True, False, True, True]
        assert torch.equal(model[0].bias.grad, torch.ones(5))
        assert model[0].state.grad is None


def test_loss_calibrates_the_backward_read():
    """Without a loss the backward currents have learned nothing; with one they have, where they are read."""
    model = model_of()
    assert calibrate(model, batches())["4.state"].error_current_range.batches == 0
    found = calibrate(model, batches(), nn.functional.cross_entropy)
    assert found["4.state"].error_current_range.value > 0
    assert found["0.state"].error_current_range.batches == 0, "the first layer reads no errors back"


def test_pulses_of_calibration_are_not_written():
    """A calibration with a loss leaves no pulses for the next step."""
    chip = preset("txsim-8bit").with_values({"update.encoding": "deterministic", "update.bits": 8})
    model = model_of(chip)
    calibrate(model, batches(), nn.functional.cross_entropy)
    assert not any(crossbar.pulses for _, crossbar in crossbars_of(model))


def test_ranges_are_saved_with_the_model():
    """A loaded model computes what the calibrated one does."""
    model, x = model_of(), batches()[0][0]
    calibrate(model, batches(scale=2.0))
    other = model_of()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x), model.eval()(x))


@pytest.mark.parametrize(
    ("loader", "loss", "message"),
    [
        ([], None, "loader: yields no batch"),
        ([torch.zeros(2, 6)], nn.functional.cross_entropy, "loader: yields no targets"),
    ],
)
def test_a_failure_changes_nothing(loader, loss, message):
    """An empty loader or one without targets: one line, and the ranges are what they were."""
    model = model_of()
    calibrate(model, batches())
    before = {name: crossbar.ranges for name, crossbar in crossbars_of(model)}
    with pytest.raises(ConfigError, match=message):
        calibrate(model, loader, loss)
    assert {name: crossbar.ranges for name, crossbar in crossbars_of(model)} == before
    assert model.training


def test_native_models_have_no_ranges():
    """A model without crossbar weights cannot be calibrated."""
    with pytest.raises(ConfigError, match="model: has no crossbar weights"):
        calibrate(nn.Linear(2, 2), [torch.zeros(1, 2)])


def test_native_statistics():
    """w_max and dw_max are the largest weight and the largest step of a training that can be repeated."""
    torch.manual_seed(0)
    native = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    twin = copy.deepcopy(native)
    optimizer = torch.optim.SGD(native.parameters(), lr=0.3, momentum=0.9)
    loss = nn.functional.cross_entropy
    found = native_statistics(native, batches(), optimizer, loss, epochs=2)
    assert set(found) == {"0.weight", "2.weight"}
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.3, momentum=0.9)
    trace = [twin[2].weight.detach().clone()]
    for x, target in itertools.chain(batches(), batches()):
        optimizer.zero_grad()
        loss(twin(x), target).backward()
        optimizer.step()
        trace.append(twin[2].weight.detach().clone())
    steps = [b - a for a, b in itertools.pairwise(trace)]
    expected = LayerStatistics(*(max(float(v.abs().max()) for v in values) for values in (trace, steps)))
    assert found["2.weight"] == pytest.approx(expected)


def test_statistics_scale_the_update():
    """The paper's scale: with native w_max of the layers, training on a chip still learns."""
    torch.manual_seed(0)
    chip = preset("ideal").with_values({"update.scale": {"rule": "native"}})
    native = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    layers = [XbarLinear.from_native(native[0], chip), nn.Tanh(), XbarLinear.from_native(native[2], chip)]
    model = copy.deepcopy(nn.Sequential(*layers))
    optimizer = torch.optim.SGD(native.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy
    statistics = native_statistics(native, batches(), optimizer, loss, epochs=5)
    optimizer = PulseSGD(model, lr=0.02, statistics=statistics)
    losses = []
    for x, target in batches() * 5:
        optimizer.zero_grad()
        value = loss(model(x), target)
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_dropout_inside_recurrent_layers_is_off():
    """Dropout between layers, by either road, changes no range and draws nothing; then it is as before."""
    x = [torch.randn(3, 4, 5)]
    for chip in ("ideal", "txsim-8bit"):
        torch.manual_seed(0)
        native = nn.GRU(5, 6, 2, dropout=0.9, batch_first=True)
        layer = convert(native, chip)
        state = torch.get_rng_state()
        found = calibrate(layer, x)
        assert torch.equal(torch.get_rng_state(), state)
        assert layer.dropout == 0.9
        native.dropout = 0.0
        assert calibrate(convert(native, chip), x) == found


def test_statistics_of_attention_and_wrapped_models():
    """Parts of a joint projection have statistics of their own, found by wrapped models, too."""
    chip = preset("ideal").with_values({"update.scale": {"rule": "native"}})
    for sizes in ({}, {"kdim": 6, "vdim": 5}):
        torch.manual_seed(0)
        native = nn.ModuleDict({"mha": nn.MultiheadAttention(6, 2, **sizes)})
        model, first = convert(native, chip), copy.deepcopy(native)
        native.forward = lambda x, mha=native["mha"]: mha(x, x, x[..., : mha.vdim])[0].mean(dim=1)
        optimizer = torch.optim.SGD(native.parameters(), lr=0.3)
        loader = [(x[:, None], y) for x, y in batches(1)]
        statistics = native_statistics(native, loader, optimizer, lambda y, t: y.square().sum())
        for row, name in enumerate(("q_proj", "k_proj", "v_proj")):
            before, after = (
                each["mha"].in_proj_weight[6 * row : 6 * row + 6]
                if not sizes
                else getattr(each["mha"], f"{name}_weight")
                for each in (first, native)
            )
            largest = max(float(w.detach().abs().max()) for w in (before, after))
            step = float((after - before).detach().abs().max())
            assert statistics[f"mha.{name}.weight"] == pytest.approx(LayerStatistics(largest, step))
        for wrapped in (model, torch.compile(model, backend="eager")):
            scales = PulseSGD(wrapped, lr=0.1, statistics=statistics)._scales
            assert {scale.w_max for scale in scales.values()} == {
                statistics[f"mha.{name}.weight"].w_max for name in ("q_proj", "k_proj", "v_proj", "out_proj")
            }


def test_statistics_leave_modes_alone():
    """Normalisation that is frozen stays so in training, and every mode comes back, also after an error."""
    native = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    native[1].eval()
    optimizer = torch.optim.SGD(native.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy
    native_statistics(native, batches(), optimizer, loss)
    assert not native[1].running_mean.any(), "it learned nothing"
    with pytest.raises(FloatingPointError):
        native_statistics(native, batches(scale=float("nan")), optimizer, loss)
    assert [module.training for module in native.modules()] == [True, True, False, True]


def test_statistics_are_those_of_a_native_model():
    """A model on a chip has no native statistics; a loader must yield; a loss must be finite."""
    loss = nn.functional.cross_entropy
    with pytest.raises(ConfigError, match="model: has crossbar weights"):
        native_statistics(model_of(), batches(), torch.optim.SGD(model_of().parameters(), lr=0.1), loss)
    native = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(native.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="loader: yields no batch"):
        native_statistics(native, [], optimizer, loss)
    with pytest.raises(ConfigError, match="loader: yields no batch in epoch 1; .*no generator"):
        native_statistics(native, iter(batches()), optimizer, loss, epochs=2)
    other = torch.optim.SGD(nn.Linear(6, 3).parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=r"optimizer: it changed no weight .* model.parameters\(\)"):
        native_statistics(native, batches(), other, loss)
    with pytest.raises(ConfigError, match="epochs: 0 is out of range"):
        native_statistics(native, batches(), optimizer, loss, epochs=0)
    with pytest.raises(FloatingPointError, match="step 0: the loss is nan"):
        native_statistics(native, batches(scale=float("nan")), optimizer, loss)
