"""The chip tree: files in and out without loss, and values by path."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest
from core.chips import CHIPS
from hypothesis import given, settings

from xbar_core import FCM, Ideal, Interpolated, Wires
from xbar_core.config import (
    Chip,
    CrossbarBackward,
    Drift,
    DynamicRange,
    Mapping,
    MaxAbs,
    NoNoise,
    TrackedRange,
    apply_overrides,
    preset,
)
from xbar_core.config._codec import Tagged, hints, split_hint
from xbar_core.config.loading import parse_override


@settings(max_examples=60)
@given(chip=CHIPS)
def test_toml_and_json_lose_nothing(chip: Chip, tmp_path_factory: pytest.TempPathFactory) -> None:
    """read(write(chip)) = chip, in both formats, for every model of every union."""
    folder = tmp_path_factory.mktemp("chips")
    chip.to_toml(folder / "chip.toml")
    chip.to_json(folder / "chip.json")
    assert Chip.from_toml(folder / "chip.toml") == chip
    assert Chip.from_json(folder / "chip.json") == chip
    assert Chip.from_dict(chip.to_dict()) == chip
    assert hash(Chip.from_dict(chip.to_dict())) == hash(chip)


def unions(model: type, path: str = "") -> dict[str, Tagged]:
    """Return every union below a dataclass by dotted path."""
    found: dict[str, Tagged] = {}
    for name, hint in hints(model).items():
        inner, tagged = split_hint(hint)
        where = f"{path}{name}"
        if tagged is not None:
            found[where] = tagged
        for part in [*tagged.models.values()] if tagged is not None else [inner]:
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                found.update(unions(part, f"{where}."))
    return found


REQUIRED = {
    "interpolated": {"period": 10},
    "fixed": {"value": 2.0},
    "deterministic": {"bits": 4},
    "stochastic": {"stream_length": 10},
    "txsim": {"gamma": 5.0},
    "sqrt": {"gamma": 0.1},
    "polynomial": {"coefficients": [0.01]},
    "table": {"x": [-1, 1], "y": [-1, 1]},
    "jump-table": {
        "up": {"conductance": [1e-6, 1e-5], "cdf": [0, 1], "dg": [[0, 1e-7], [0, 1e-7]]},
        "down": {"conductance": [1e-6, 1e-5], "cdf": [0, 1], "dg": [[-1e-7, 0], [-1e-7, 0]]},
    },
}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (path, name)
        for path, tagged in unions(Chip).items()
        for name in tagged.models
        if not path.startswith(("device.up", "device.down"))
    ],
)
def test_every_model_is_reached_by_overrides(path: str, name: str) -> None:
    """Any model of any union can be chosen on the command line, in any order of the overrides."""
    tag = unions(Chip)[path].tag
    values = {f"{path}.{tag}": name} | {f"{path}.{k}": v for k, v in REQUIRED.get(name, {}).items()}
    forward = Chip().with_values(values)
    assert Chip().with_values(dict(reversed(values.items()))) == forward
    part: Any = forward
    for key in path.split("."):
        part = getattr(part, key)
    assert type(part) is unions(Chip)[path].models[name]


def test_optional_fields_default_to_none() -> None:
    """A None is written by leaving the key out, so a field that may be None must default to None."""

    def check(model: type) -> None:
        for field in dataclasses.fields(model):
            hint = hints(model)[field.name]
            inner, tagged = split_hint(hint)
            if "None" in str(hint) and tagged is None:
                assert field.default is None, f"{model.__name__}.{field.name}"
            for part in [*tagged.models.values()] if tagged is not None else [inner]:
                if dataclasses.is_dataclass(part) and isinstance(part, type):
                    check(part)

    check(Chip)


def test_tag_fields_match_the_union() -> None:
    """A model's own tag attribute is the word that chooses it in a file."""
    for path, tagged in unions(Chip).items():
        for name, model in tagged.models.items():
            own = getattr(model, tagged.tag, name)
            assert own == name, f"{path}: {model.__name__}.{tagged.tag} is {own!r}"


def test_defaults_are_the_ideal_chip() -> None:
    """Nothing given: no non-ideality, and the defaults that the physics pages state."""
    chip = Chip()
    assert chip.circuit == Ideal()
    assert chip.wires == Wires()
    assert chip.mapping == Mapping("balanced", w_max=MaxAbs(4.0))
    assert chip.update.noise == NoNoise(stage="after_lr")
    assert not chip.input.converts
    assert not chip.adc.converts
    assert isinstance(chip.input.range, TrackedRange)
    assert isinstance(chip.adc.range, TrackedRange)
    assert chip.backward == CrossbarBackward(DynamicRange(), TrackedRange())
    assert chip.array.unused == "open"


@pytest.mark.parametrize(
    ("kind", "given_pair", "pair"),
    [
        ("balanced", None, "both"),
        ("offset", None, "both"),
        ("differential", None, "carry"),
        ("differential", "both", "both"),
    ],
)
def test_pair_default_follows_the_mapping(kind: str, given_pair: str | None, pair: str) -> None:
    """carry with differential, both otherwise, unless given."""
    chip = Chip().with_values({"mapping.kind": kind, "update.pair": given_pair})
    assert chip.pair == pair


def test_with_changes_one_value_and_leaves_the_chip_alone() -> None:
    """with_ returns a new chip; the old one is frozen."""
    chip = preset("txsim-8bit")
    changed = chip.with_("update.v_up", 0.5)
    assert changed.update.v_up == 0.5
    assert chip.update.v_up == 0.01
    assert changed.with_("update.v_up", 0.01).update == chip.update
    with pytest.raises(dataclasses.FrozenInstanceError):
        chip.seed = 3  # type: ignore[misc]


def test_a_part_can_be_set_whole() -> None:
    """with_ takes parts as well as plain values, and None takes an optional part away."""
    chip = Chip().with_("circuit", FCM(1e-6)).with_("device.drift", Drift(0.05))
    assert chip.circuit == FCM(1e-6)
    assert chip.device.drift == Drift(0.05)
    assert chip.with_("device.drift", None).device.drift is None


def test_a_new_tag_keeps_what_both_models_share() -> None:
    """circuit.kind from interpolated to fcm keeps rtol and drops period."""
    chip = Chip(circuit=Interpolated(10, rtol=1e-6))
    assert chip.with_("circuit.kind", "fcm").circuit == FCM(1e-6)
    assert chip.with_("update.noise.law", "none") == chip


def test_a_changed_value_loses_its_source() -> None:
    """A preset never claims that a paper states what the user set."""
    chip = preset("txsim-8bit").with_("device.r_min", 2e5).with_("update.noise.gamma", 1.0)
    assert chip.source_of["device.r_min"] == "set by the user"
    assert chip.source_of["update.noise.gamma"] == "set by the user"
    assert chip.source_of["device.r_max"].startswith("published")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("update.v_up=0.5", ("update.v_up", 0.5)),
        ("array.rows = 32", ("array.rows", 32)),
        ("circuit.kind=fcm", ("circuit.kind", "fcm")),
        ("adc.nonlinearity=[0.01, 0.0]", ("adc.nonlinearity", [0.01, 0.0])),
        ("mapping.w_max={rule='fixed', value=2}", ("mapping.w_max", {"rule": "fixed", "value": 2})),
        ("precision=none", ("precision", None)),
    ],
)
def test_override_values(text: str, expected: tuple[str, Any]) -> None:
    """The value of path=value is TOML, or a bare word."""
    assert parse_override(text) == expected


def test_the_word_none_names_a_law_and_takes_values_away() -> None:
    """update.noise.law=none is the law without noise; device.levels=none takes the levels away."""
    chip = apply_overrides(preset("ag-si"), ["update.noise.law=none", "device.levels=none"])
    assert chip.update.noise == NoNoise()
    assert chip.device.levels is None


def test_import_is_fast_and_loads_no_framework() -> None:
    """The chip description alone loads no numba kernel of a framework, plot or command line."""
    code = (
        "import sys, time; t = time.perf_counter(); import xbar_core.config; "
        "print(time.perf_counter() - t, any(m in sys.modules for m in ('torch', 'matplotlib', 'typer')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = result.stdout.split()
    assert loaded == "False"
    assert float(seconds) < 2.0
