"""Presets: every number has a source, every label is recovered, wires follow their formula."""

from __future__ import annotations

import math
import re
import tomllib
from importlib import resources
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbar_core import ConfigError, Wires
from xbar_core.config import Chip, preset, preset_names, summarize, wires_for_node
from xbar_core.config.wires import LINE_WIDTH, RHO_BULK, copper_resistivity
from xbar_core.devices.curves import curve_label, update_curve

WORDS = ("measured: ", "published: ", "assumed: ")


def numbers(data: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return every number of nested plain data by dotted path; a list of numbers counts as one."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        where = f"{path}{key}"
        if isinstance(value, dict):
            found.update(numbers(value, f"{where}."))
        elif isinstance(value, list) or (isinstance(value, int | float) and not isinstance(value, bool)):
            found[where] = value
    return found


@pytest.mark.parametrize("name", preset_names())
def test_every_number_has_a_source(name: str) -> None:
    """Each number that is in its file, or differs from the default, says where it comes from."""
    chip = preset(name)
    default = numbers(Chip().to_dict())
    own = {path: value for path, value in numbers(chip.to_dict()).items() if default.get(path) != value}
    file = resources.files("xbar_core.config") / "presets" / f"{name}.toml"
    own |= numbers(tomllib.loads(file.read_text(encoding="utf-8")))
    sources = chip.source_of
    for path in own:
        parts = path.split(".")
        above = [".".join(parts[:k]) for k in range(1, len(parts) + 1)]
        assert any(p in sources for p in above), f"{path} = {own[path]} has no entry in [sources]"
    for path, text in sources.items():
        assert text.startswith(WORDS), f"{path}: {text!r} does not say measured, published or assumed"
        part: Any = chip
        for key in path.split("."):
            part = getattr(part, key)
        assert part is not None, f"{path}: a source for a value that is not set"


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_named_as_its_file_and_says_what_it_is(name: str) -> None:
    """xbar presets lists what xbar show and preset() understand."""
    chip = preset(name)
    assert chip.name == name
    assert chip.description
    assert "\n" not in chip.description


@pytest.mark.parametrize(
    "wanted", ["ideal", "txsim", "txsim-8bit", "txsim-16bit", "txsim-sliced", "stt-mram", "dwmtj"]
)
def test_the_promised_presets_exist(wanted: str) -> None:
    """The presets of the paper and a low-resistance spintronic one."""
    assert wanted in preset_names()


LABELS = {
    (name, path): float(re.findall(r"label (-?[\d.]+)", text)[0])
    for name in preset_names()
    for path, text in preset(name).sources
    if path in ("update.v_up", "update.v_down") and "label" in text
}


def test_at_least_seven_devices_have_a_published_label() -> None:
    """The label test below has something to recover."""
    assert len({name for name, _ in LABELS}) >= 7


@pytest.mark.parametrize(("name", "path"), list(LABELS))
def test_label_is_recovered_from_the_simulated_curve(name: str, path: str) -> None:
    """max distance of the preset's own curve from its straight line / 0.07 is the published label."""
    curve = update_curve(preset(name), pulses=400)
    simulated = curve_label(curve.up if path == "update.v_up" else curve.down)
    assert simulated == pytest.approx(LABELS[name, path], rel=1e-4)


@pytest.mark.parametrize("name", sorted({name for name, _ in LABELS}))
def test_write_noise_reproduces_the_published_sigma(name: str) -> None:
    """gamma = sigma sqrt(levels): one pulse of R / levels scatters by the published sigma of R."""
    chip = preset(name)
    text = chip.source_of["update.noise.gamma"]
    sigma = float(re.findall(r"sigma (?:below )?([\d.]+) %", text)[0]) / 100.0
    noise: Any = chip.update.noise
    assert chip.device.levels is not None
    assert noise.gamma / math.sqrt(chip.device.levels) == pytest.approx(sigma, rel=1e-9)


@pytest.mark.parametrize(
    "name", [n for n in preset_names() if "32 nm" in preset(n).source_of.get("wires.r_row", "")]
)
def test_wires_of_device_presets_follow_the_formula(name: str) -> None:
    """The wires that a preset states are those of wires_for_node, to the digits written."""
    wires = preset(name).wires
    assert wires.r_row == pytest.approx(wires_for_node(32, cell_f=4).r_row, rel=5e-4)
    assert wires.r_col == wires.r_row


def test_txsim_presets_differ_only_in_precision() -> None:
    """One chip in four precisions: array, wires, device, converters' curves and update are the same."""
    reference = preset("txsim")
    for name in ("txsim-8bit", "txsim-16bit", "txsim-sliced"):
        chip = preset(name)
        for part in ("array", "wires", "circuit", "device", "update", "backward"):
            assert getattr(chip, part) == getattr(reference, part), part
        assert chip.input.nonlinearity == reference.input.nonlinearity
        assert chip.adc.nonlinearity == reference.adc.nonlinearity
    assert reference.wires == Wires(1.0, 4.6, 500.0, 100.0)
    assert reference.update.noise.stage == "before_lr"
    assert reference.device.on_off == pytest.approx(10.0)


def test_resistivity_of_a_wide_line_is_bulk_copper() -> None:
    """rho(w -> infinity) = rho_bulk."""
    assert copper_resistivity(1e-3) == pytest.approx(RHO_BULK, rel=1e-3)


@given(width=st.floats(5e-9, 1e-5), aspect=st.floats(1.0, 5.0))
@settings(max_examples=50)
def test_narrower_lines_resist_more(width: float, aspect: float) -> None:
    """Grain boundaries and walls raise the resistivity above bulk, more so in narrower lines."""
    assert copper_resistivity(width, aspect) > RHO_BULK
    assert copper_resistivity(width, aspect) > copper_resistivity(1.1 * width, aspect)


def test_grain_boundary_term_has_its_small_parameter_expansion() -> None:
    """1 / (3 [1/3 - a/2 + a^2 - a^3 ln(1 + 1/a)]) = 1 + 3a/2 + O(a^2) where grains are large."""
    ratio = 39e-9 / 1e-4
    walls = 0.375 * 1.2 * 0.4 * 1.5 * ratio
    grains = copper_resistivity(1e-4) / RHO_BULK - walls
    assert (grains - 1.0) / ratio == pytest.approx(1.5, rel=5e-3)


def test_node_wires_scale_with_cell_and_node() -> None:
    """r = rho cell_f / (w AR): proportional to the cell's edge, rising as nodes shrink."""
    assert wires_for_node(22, 4).r_row == pytest.approx(2 * wires_for_node(22, 2).r_row)
    by_width = [wires_for_node(n).r_row for n in sorted(LINE_WIDTH, key=lambda n: -LINE_WIDTH[n])]
    assert (np.diff(by_width) >= 0).all()
    assert wires_for_node(45, r_source=10, r_sense=20).r_sense == 20.0
    with pytest.raises(ConfigError, match="is not in the list"):
        wires_for_node(33)


@pytest.mark.parametrize(
    ("node", "published"),
    [(90, 0.230), (65, 0.475), (45, 1.34), (32, 2.12), (22, 2.97), (14, 4.92), (10, 10.1)],
)
def test_node_wires_agree_with_the_benchmark_simulator(node: int, published: float) -> None:
    """Within 40 % of the values that NeuroSim's resistivities give for 4F cells."""
    assert wires_for_node(node, 4).r_row == pytest.approx(published, rel=0.4)


def test_summary_of_one_cell_is_a_voltage_divider() -> None:
    """A 1x1 array loses (r_source + r_sense) / (r_min + r_source + r_sense) of the read voltage."""
    chip = preset("txsim").with_values({"array.rows": 1, "array.cols": 1})
    summary = summarize(chip)
    assert summary.worst_drop == pytest.approx(600.0 / 100_600.0, rel=1e-9)
    assert summary.full_drive == pytest.approx(1.0 / 100_600.0, rel=1e-9)
    assert summary.full_scale == pytest.approx(1e-5, rel=1e-12)


def test_summary_of_an_ideal_chip_loses_nothing() -> None:
    """Without wires the full drive is the full scale and no model errs."""
    summary = summarize(preset("ideal"))
    assert summary.full_drive == pytest.approx(64 * 1e-5, rel=1e-12)
    assert summary.worst_drop == pytest.approx(0.0, abs=1e-12)
    assert max(error for _, error in summary.model_error) < 1e-14
    assert summary.on_off == pytest.approx(10.0)


def test_summary_refuses_arrays_too_large_for_a_quick_look() -> None:
    """More than 512 x 512 cells are an error that says what to lower."""
    with pytest.raises(ConfigError, match="set array.rows and array.cols lower"):
        summarize(Chip().with_values({"array.rows": 1024, "array.cols": 1024}))
