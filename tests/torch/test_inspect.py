"""Inspection: what the chip does to every layer, checked against chips of which the answer is known."""

from __future__ import annotations

import copy
import csv
import math

import numpy as np
import pytest
import torch
from torch import nn

from xbar_core.config import preset
from xbar_core.errors import ConfigError
from xbar_torch.calibration import calibrate
from xbar_torch.convert import convert
from xbar_torch.host import crossbars_of
from xbar_torch.inspect import STAGES, inspect

QUIET = {"update.noise.gamma": 0.0}


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, groups=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 36, 10),
    )


def images(count=4):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_ideal_chip_costs_nothing():
    """Without non-idealities nothing is lost to wires or clipped and every ratio is that of rounding."""
    report = inspect(convert(network(), "ideal"), images())
    for layer in report.layers:
        assert np.abs(layer.distortion).max() == 0
        assert layer.clipped.currents == layer.clipped.inputs == 0
        assert [stage.name for stage in layer.stages] == list(STAGES)
        assert all(stage.snr_db > 100 for stage in layer.stages)


def test_arrays_and_utilisation():
    """Arrays are those of the tiling, two for each tile of a pair, and cells are counted once."""
    conv, grouped, linear = inspect(convert(network(), "txsim-8bit"), images()).layers
    assert (conv.name, conv.shape, conv.arrays) == ("0.state", (9, 4), 2)
    assert conv.utilisation == pytest.approx(9 * 4 / 64**2)
    assert (grouped.shape, grouped.arrays) == ((2 * 18, 6), 2 * 2)
    assert (linear.shape, linear.arrays) == ((216, 10), 4 * 2)
    assert linear.utilisation == pytest.approx(216 * 10 / (4 * 64**2))
    assert linear.conductance.shape == (2 * 216 * 10,)
    assert linear.conductance.min() >= 1e-6 * (1 - 1e-6)
    assert linear.conductance.max() <= 1e-5 * (1 + 1e-6)


def test_each_stage_shows_where_it_is_switched_on():
    """Of two chips that differ in one stage only, that stage is the costliest of the worse one."""
    wires = {"wires.r_row": 100.0, "wires.r_col": 100.0, "circuit": {"kind": "fcm"}}
    coarse_dac, coarse_adc = {"input.bits": 3}, {"adc.bits": 4}
    spread = {"device.variation": {"sigma": 0.2}}
    for values, stage in ((wires, "wires"), (coarse_dac, "dac"), (coarse_adc, "adc"), (spread, "devices")):
        report = inspect(convert(network(), preset("ideal").with_values(values)), images())
        for layer in report.layers:
            assert layer.costliest == stage
            before = STAGES.index(stage)
            assert all(each.snr_db > 60 for each in layer.stages[:before])
            assert layer.stages[before].snr_db < 60


def test_programming_shows_against_the_native_network():
    """Levels of the devices cost nothing against what they hold, and much against what was wanted."""
    native = network()
    coarse = {"mapping.weight_bits": 4, "mapping.w_max": {"rule": "max_abs", "headroom": 1.0}}
    model = convert(native, preset("ideal").with_values(coarse))
    assert all(layer.costliest == "" for layer in _rounded(inspect(model, images())))
    for layer in inspect(model, images(), native=native).layers:
        assert layer.costliest == "weights"
        assert layer.stages[0].snr_db < 40


def _rounded(report):
    """Return layers without the errors of float32."""
    import dataclasses

    for layer in report.layers:
        stages = tuple(stage._replace(error=round(stage.error, 4)) for stage in layer.stages)
        yield dataclasses.replace(layer, stages=stages)


def test_distortion_grows_with_the_wires():
    """Ten times the wire resistance loses more of every layer's conductances."""
    chip = preset("txsim-8bit")
    more = chip.with_values({"wires.r_row": 10.0, "wires.r_col": 46.0})
    small, large = (inspect(convert(network(), each), images()).layers for each in (chip, more))
    for a, b in zip(small, large, strict=True):
        assert 0 < np.median(a.distortion) < np.median(b.distortion)


def test_small_ranges_clip():
    """A model that was calibrated on small images clips large ones, at DAC and ADC."""
    model = convert(network(), "txsim-8bit")
    calibrate(model, [0.1 * images()])
    calm, loud = inspect(model, 0.05 * images()).layers[0], inspect(model, images()).layers[0]
    assert calm.clipped.inputs == 0
    assert loud.clipped.inputs > 0.1 * loud.clipped.of_inputs
    assert loud.stages[STAGES.index("dac")].snr_db < calm.stages[STAGES.index("dac")].snr_db


def test_nothing_changes():
    """Modes, ranges, counters and outputs are those of before, and the layers are watched no more."""
    model = convert(network(), "txsim-8bit")
    model(images())
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    inspect(model, images())
    assert [module.training for module in model.modules()] == modes
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(crossbar.seen is None for _, crossbar in crossbars_of(model))


WIRED = preset("ideal").with_values({"circuit": {"kind": "fcm"}, "wires": {"r_row": 1.0, "r_col": 4.6}})


@pytest.mark.parametrize("chip", ["ideal", "txsim-8bit", WIRED], ids=["ideal", "txsim-8bit", "wired"])
def test_recurrent_layers(chip):
    """Every weight of a recurrent layer is inspected, by name, on the inputs of its own steps."""
    torch.manual_seed(0)
    model = convert(nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True), chip)
    report = inspect(model, torch.randn(3, 4, 5))
    shapes = {"ih_l0": (5, 28), "hh_l0": (7, 28), "ih_l1": (14, 28), "hh_l1": (7, 28)}
    wanted = {f"state_{name}{way}": shape for name, shape in shapes.items() for way in ("", "_reverse")}
    assert {layer.name: layer.shape for layer in report.layers} == wanted
    assert all(layer.stages for layer in report.layers)
    if chip is WIRED:
        assert {layer.costliest for layer in report.layers} == {"wires"}


@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 4}], ids=["joint", "own"])
def test_attention_against_its_native_weights(sizes):
    """The projections are held against their parts of the native weight, or against their own."""
    torch.manual_seed(0)
    native = nn.ModuleDict({"mha": nn.MultiheadAttention(8, 2, batch_first=True, **sizes)})
    coarse = {"mapping.weight_bits": 4, "mapping.w_max": {"rule": "max_abs", "headroom": 1.0}}
    model = convert(native, preset("ideal").with_values(coarse))
    batch = (
        torch.randn(2, 3, 8),
        torch.randn(2, 5, sizes.get("kdim", 8)),
        torch.randn(2, 5, sizes.get("vdim", 8)),
    )
    model.forward, native.forward = (lambda *b, m=m: m["mha"](*b) for m in (model, native))
    report = inspect(model, batch, native=native)
    assert [layer.name for layer in report.layers] == [
        f"mha.{name}.state" for name in ("q_proj", "k_proj", "v_proj", "out_proj")
    ]
    assert all(20 < layer.stages[0].snr_db < 40 for layer in report.layers), "4 bits, of the right weights"


def test_wrapped_models_are_held_against_bare_ones():
    """`torch.compile` puts a word into the names of the one, of the other, or of a part."""
    native, x = network(), images()
    model = convert(native, preset("ideal").with_("mapping.weight_bits", 6))
    wanted = [layer.stages for layer in inspect(model, x, native=native).layers]
    compiled = [torch.compile(each, backend="eager") for each in (model, native)]
    assert [layer.stages for layer in inspect(compiled[0], x, native=native).layers] == wanted
    assert [layer.stages for layer in inspect(model, x, native=compiled[1]).layers] == wanted
    averaged = torch.optim.swa_utils.AveragedModel(native)
    assert [layer.stages for layer in inspect(model, x, native=averaged).layers] == wanted
    with pytest.raises(ConfigError, match="native: a OrderedDict is no torch.nn.Module"):
        inspect(model, x, native=native.state_dict())


def test_table_and_figure():
    """The table has a line for each layer; the figure draws without error and saves."""
    pytest.importorskip("matplotlib")
    report = inspect(convert(network(), "txsim-8bit"), images())
    lines = str(report).splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[0].split()[0] == "layer"
    assert all(line.startswith(layer.name) for line, layer in zip(lines[1:], report.layers, strict=False))
    figure = report.figure()
    assert len(figure.axes) == 3
    figure.canvas.draw()


def test_zero_inputs_have_no_ratio_but_no_error_either():
    """A batch of zeros has no signal: ratios are infinite or undefined, nothing raises."""
    report = inspect(convert(network(), preset("txsim-8bit").with_values(QUIET)), torch.zeros(2, 1, 8, 8))
    assert all(not math.isnan(stage.snr_db) for stage in report.layers[0].stages)


def test_bad_arguments():
    """A native model, a twin of another shape, no samples: one line each."""
    with pytest.raises(ConfigError, match="model: has no crossbar weights"):
        inspect(network(), images())
    model = convert(network(), "ideal")
    with pytest.raises(ConfigError, match=r"native: has no weight '0\.weight' that fits"):
        inspect(model, images(), native=nn.Linear(3, 3))
    with pytest.raises(ConfigError, match="samples: 0 is out of range"):
        inspect(model, images(), samples=0)


def test_csv_holds_the_numbers_of_the_table(tmp_path):
    """The file has a line for each layer, every column filled where the batch reached the layer."""
    report = inspect(convert(network(), "txsim-8bit"), images())
    report.write_csv(tmp_path / "layers.csv")
    with (tmp_path / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == [layer.name for layer in report.layers]
    for row, layer in zip(rows, report.layers, strict=True):
        assert all(row.values())
        assert (int(row["inputs"]), int(row["arrays"])) == (layer.shape[0], layer.arrays)
        assert float(row["conductance_p50"]) == pytest.approx(np.median(layer.conductance), rel=1e-12)
        assert float(row["snr_db_wires"]) == layer.stages[2].snr_db
        assert int(row["of_currents"]) == layer.clipped.of_currents
