"""The chip tree: files in and out without loss, values by path, and errors that name the mend."""

from __future__ import annotations

import copy
import dataclasses
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbar_core import AAM, FCM, ConfigError, Ideal, Interpolated, Wires
from xbar_core.config import (
    Adc,
    Array,
    Chip,
    CrossbarBackward,
    DeterministicUpdate,
    Device,
    Drift,
    DynamicRange,
    ExactBackward,
    Faults,
    FixedRange,
    FixedWeight,
    Input,
    JumpTable,
    JumpTableDevice,
    Mapping,
    MappingScale,
    MaxAbs,
    MeasuredCurve,
    NativeScale,
    NativeWeight,
    NoNoise,
    OddPolynomial,
    Precision,
    ProgrammingError,
    ReadNoise,
    SqrtNoise,
    StochasticUpdate,
    TrackedRange,
    TxsimNoise,
    Update,
    Variation,
    apply_overrides,
    preset,
    preset_names,
)
from xbar_core.config._codec import Tagged, hints, split_hint
from xbar_core.config.loading import parse_override
from xbar_core.engine import Layout


def unit(low: float = 0.0, high: float = 1.0) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False)


RANGES = st.one_of(
    st.builds(DynamicRange),
    st.builds(TrackedRange, batches=st.integers(1, 500)),
    st.builds(TrackedRange, statistic=st.just("percentile"), percentile=unit(1, 100), epochs=st.just(2)),
    st.builds(FixedRange, value=unit(1e-9, 1e3)),
)
CURVES = st.one_of(
    st.none(),
    st.builds(OddPolynomial, st.tuples(unit(-0.1, 0.1), unit(-0.1, 0.1))),
    st.just(MeasuredCurve((-1.0, 0.0, 1.0), (-0.9, 0.01, 1.0), "adc.csv")),
)
TABLE = JumpTable((1e-6, 5e-6), (0.0, 0.5, 1.0), ((0.0, 1e-7, 2e-7), (-1e-8, 0.0, 1e-8)), "t.csv")
NOISES = st.one_of(
    st.builds(NoNoise, stage=st.sampled_from(["after_lr", "before_lr"])),
    st.builds(TxsimNoise, gamma=unit(0, 20)),
    st.builds(SqrtNoise, gamma=unit(0, 20), stage=st.just("before_lr")),
)
LAW: dict[str, Any] = {
    "v_up": unit(-9, 9),
    "v_down": unit(-9, 9),
    "pair": st.sampled_from([None, "both", "carry", "one_sided"]),
    "scale": st.one_of(st.builds(MappingScale), st.builds(NativeScale, w_max=unit(0.1, 9), dw_max=st.none())),
    "gradient": st.sampled_from(["quantised", "full"]),
    "noise": NOISES,
}
PLAIN: dict[str, Any] = {
    "r_min": unit(1e3, 1e5),
    "r_max": unit(2e5, 1e8),
    "levels": st.one_of(st.none(), st.integers(64, 500)),
    "variation": st.one_of(
        st.none(), st.builds(Variation, st.just("lognormal"), unit(), unit(), unit(), unit())
    ),
    "faults": st.one_of(st.none(), st.builds(Faults, unit(0, 0.3), unit(0, 0.3), unit(0, 0.3))),
    "read_noise": st.one_of(st.none(), st.builds(ReadNoise, unit(), st.just("per_batch"))),
    "drift": st.one_of(st.none(), st.builds(Drift, unit(0, 0.1), unit(0, 0.1), unit(0.1, 30))),
    "programming_error": st.one_of(st.none(), st.builds(ProgrammingError, unit(), st.just("absolute"))),
}
CHIPS = st.builds(
    Chip,
    name=st.text(max_size=12),
    seed=st.integers(0, 2**63 - 1),
    array=st.builds(Array, st.integers(1, 300), st.integers(1, 300), st.sampled_from(["open", "g_min"])),
    wires=st.builds(Wires, unit(0.1, 10), unit(0.1, 10), unit(1, 1e3), st.just(0.0)),
    circuit=st.one_of(
        st.builds(Ideal),
        st.builds(AAM, st.integers(0, 5)),
        st.builds(FCM, st.one_of(st.none(), st.just(1e-6))),
        st.builds(Interpolated, st.integers(1, 99), st.sampled_from(["anchored", "distortion"])),
    ),
    device=st.builds(Device, **PLAIN),
    precision=st.one_of(st.none(), st.builds(Precision, st.integers(2, 32), st.just("nearest"))),
    mapping=st.builds(
        Mapping,
        kind=st.sampled_from(["balanced", "differential"]),
        weight_bits=st.one_of(st.none(), st.integers(2, 6)),
        w_max=st.one_of(
            st.builds(MaxAbs, unit(1, 9)), st.builds(FixedWeight, unit(0.1, 9)), st.builds(NativeWeight)
        ),
    ),
    input=st.builds(
        Input, st.integers(2, 16), st.sampled_from([None, 1, 2]), v_read=unit(0.1, 2), range=RANGES
    ),
    adc=st.builds(
        Adc,
        st.one_of(st.none(), st.integers(2, 12)),
        range=RANGES,
        subtract=st.sampled_from(["analog", "digital"]),
        gain_error=unit(0, 0.1),
        offset_error=unit(0, 1e-6),
        noise=unit(0, 1e-6),
        nonlinearity=CURVES,
    ),
    update=st.one_of(
        st.builds(Update, **LAW),
        st.builds(DeterministicUpdate, bits=st.integers(2, 8), samples_per_write=st.just(1), **LAW),
        st.builds(StochasticUpdate, stream_length=st.integers(1, 99), **LAW),
    ),
    backward=st.one_of(st.builds(ExactBackward), st.builds(CrossbarBackward, RANGES, RANGES)),
    sources=st.just((("device.r_min", "assumed: drawn"),)),
)


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


BAD: list[tuple[str, str]] = [
    ("array.row=3", "array.row: unknown key, did you mean 'rows'?"),
    ("arry.rows=3", "arry: unknown key, did you mean 'array'?"),
    ("array.rows=0", "array.rows: 0 is out of range"),
    ("array.rows=2.5", "array.rows: 2.5 is not an integer"),
    ("circuit.kind=fmc", "circuit.kind: unknown value 'fmc', did you mean 'fcm'?"),
    ("circuit.period=3", "circuit.period: unknown key of kind = 'ideal'; it belongs to 'interpolated'"),
    ("circuit.kind=interpolated", "circuit.period: missing"),
    ("device.r_min=1e9", "device.r_min: 1e+09 ohm is not below device.r_max"),
    ("device.r_min=nan", "device.r_min: nan is out of range"),
    ("device.faults={open=0.6, stuck_at_g_min=0.6}", "device.faults: the fractions add up to 1.2"),
    ("device.kind=jump-table", "device.up: missing"),
    ("device.drift.t0=1", "device.drift.nu: missing"),
    ("device.levels=1", "device.levels: 1 is out of range"),
    ("mapping.cell_bits=2", "mapping.cell_bits: 2 with mapping.weight_bits = None"),
    ("mapping.w_max.rule=fixed", "mapping.w_max.value: missing"),
    ("mapping.w_max.headroom=0.5", "mapping.w_max.headroom: 0.5 is out of range"),
    ("input.dac_bits=2", "input.dac_bits: 2 with input.bits = None"),
    ("input.bits=1", "input.bits: 1 with backward.mode = 'crossbar'"),
    ("input.range.rule=fixed", "input.range.value: missing"),
    ("input.range.statistic=percentile", "input.range.percentile: None does not fit"),
    ("input.range={epochs=1}", "input.range.rule: missing"),
    ("adc.bits=1", "adc.bits: 1 with adc.subtract = 'analog'"),
    ("adc.range={rule='tracked', batches=1, epochs=1}", "adc.range.epochs: 1 given beside batches"),
    ("adc.nonlinearity=[2.0]", "adc.nonlinearity.coefficients: [2.0] make the curve fall"),
    ("adc.nonlinearity={kind='table', x=[0, 1], y=[1, 0]}", "adc.nonlinearity.y[1]: 0.0 does not rise"),
    ("adc.nonlinearity={kind='table', path='none.csv'}", "adc.nonlinearity.path: no file"),
    ("update.snap=nearest", "update.snap: 'nearest' without levels"),
    ("update.bits=4", "update.bits: unknown key of encoding = 'ideal'; it belongs to 'deterministic'"),
    ("update.encoding=stochastic", "update.stream_length: missing"),
    ("update.noise.law=txsim", "update.noise.gamma: missing"),
    ("update.v_up=high", "update.v_up: 'high' is not a real number"),
    ("update={encoding='ideal', pair='carry', pairs='x'}", "update.pairs: unknown key, did you mean 'pair'?"),
    ("backward.mode=digital", "backward.mode: unknown value 'digital'"),
    ("precision.bits=1", "precision.bits: 1 is out of range"),
    ("wires=3", "wires: 3 is not a table"),
    ("seed.x=3", "seed.x: seed is a plain value"),
    ("seed", "override 'seed': not of the form path=value"),
    ("wires.r_row=[1", "'[1' is not a TOML value"),
]


@pytest.mark.parametrize(("override", "text"), BAD, ids=[o for o, _ in BAD])
def test_bad_values_are_named(override: str, text: str) -> None:
    """Every error names path, value, rule and the nearest known word."""
    with pytest.raises(ConfigError) as error:
        apply_overrides(Chip(), [override])
    assert text in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["device.levels=8", "mapping.weight_bits=4"], "device.levels: 8 is fewer than the 15 levels"),
        (
            ["device.levels=15", "mapping.weight_bits=4", "mapping.kind=differential"],
            "device.levels: 15 is fewer than the 16 levels",
        ),
        (
            ["mapping.weight_bits=4", "mapping.cell_bits=5"],
            "mapping.cell_bits: 5 with mapping.weight_bits = 4",
        ),
        (
            ["device.levels=3", "mapping.weight_bits=4", "mapping.cell_bits=2"],
            "device.levels: 3 is fewer than the 4 levels",
        ),
        (["mapping.weight_bits=1"], "mapping.weight_bits: 1 with mapping.kind = 'balanced'"),
        (["device.levels=2"], "device.levels: 2 with mapping.kind = 'balanced'"),
        (["mapping.kind=offset", "update.pair=carry"], "update.pair: 'carry' with mapping.kind = 'offset'"),
        (
            [
                "mapping.weight_bits=4",
                "mapping.cell_bits=2",
                "update.encoding=stochastic",
                "update.stream_length=10",
            ],
            "update.encoding: 'stochastic' with 2 slices per weight",
        ),
        (["seed=1", "seed=2"], "seed is set twice"),
    ],
)
def test_impossible_combinations_are_named(overrides: list[str], text: str) -> None:
    """Parts that are fine alone and impossible together raise once, at construction."""
    with pytest.raises(ConfigError, match="^") as error:
        apply_overrides(Chip(), overrides)
    assert text in str(error.value)


@pytest.mark.parametrize("kind", ["balanced", "differential", "offset"])
@pytest.mark.parametrize("cell", [1, 2, 3])
def test_a_sliced_word_takes_every_digit(kind: str, cell: int) -> None:
    """A cell of a sliced word holds 2**cell_bits digits in every mapping, one bit among them."""
    overrides = [f"mapping.kind={kind}", "mapping.weight_bits=6", f"mapping.cell_bits={cell}"]
    chip = apply_overrides(Chip(), [*overrides, f"device.levels={2**cell}"])
    assert chip.mapping.device_levels == 2**cell
    assert chip.mapping.slices == 6 // cell
    assert Layout(chip, 3, 2).code.cell_levels == 2**cell


def test_jump_tables_exclude_the_exponential_law() -> None:
    """A measured table already holds non-linearity and noise; setting them as well is an error."""
    device = JumpTableDevice(up=TABLE, down=TABLE)
    assert Chip(device=device).device.kind == "jump-table"
    for override in ("update.v_up=0.1", "update.v_down=0.1"):
        with pytest.raises(ConfigError, match="the table already holds the non-linearity"):
            apply_overrides(Chip(device=device), [override])
    with pytest.raises(ConfigError, match="the table already holds the noise"):
        apply_overrides(Chip(device=device), ["update.noise.law=sqrt", "update.noise.gamma=1"])
    with pytest.raises(ConfigError, match="a table has no v to spread"):
        apply_overrides(Chip(device=device), ["device.variation.sigma_v=0.1"])


def test_files_named_in_a_chip_file_are_read_beside_it(tmp_path: Path) -> None:
    """Relative paths start at the chip file's folder; the chip carries the content from then on."""
    (tmp_path / "curve.csv").write_text("x,y,remark\n-1,-1,a\n0,0.01,b\n1,1,c\n")
    (tmp_path / "up.csv").write_text(
        "G bins, CDF, dG\n1e-6,4e-6,9e-6\n0,1\n\n1e-8,2e-8,3e-8\n2e-8,3e-8,4e-8\n"
    )
    (tmp_path / "chip.toml").write_text(
        '[device]\nkind = "jump-table"\nup = { path = "up.csv" }\ndown = { path = "up.csv" }\n'
        '[adc]\nnonlinearity = { kind = "table", path = "curve.csv" }\n'
    )
    chip = Chip.from_toml(tmp_path / "chip.toml")
    assert chip.adc.nonlinearity == MeasuredCurve((-1.0, 0.0, 1.0), (-1.0, 0.01, 1.0), "curve.csv")
    assert isinstance(chip.device, JumpTableDevice)
    assert chip.device.up is not None
    assert chip.device.up.dg == ((1e-8, 2e-8), (2e-8, 3e-8), (3e-8, 4e-8))
    chip.to_toml(tmp_path / "copy.toml")
    (tmp_path / "curve.csv").unlink()
    (tmp_path / "up.csv").unlink()
    assert Chip.from_toml(tmp_path / "copy.toml") == chip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-6,2e-6\n0,1\n1e-8,2e-8\n", "holds 1 lines of [2] changes; expected 2 lines"),
        ("1e-6,2e-6\n0,1\n1e-8,2e-8\n1e-8\n", "the file may be truncated"),
        ("1e-6,2e-6\n0,1\n1e-8,abc\n1e-8,1e-8\n", "line 3, column 2: 'abc' is not a finite number"),
        ("", "is not a jump table"),
        (
            "2e-6,1e-6\n0,1\n1e-8,2e-8\n1e-8,2e-8\n",
            "device.up.conductance: must hold at least two values that rise",
        ),
        ("1e-6,2e-6\n0,1\n1e-8,2e-8\n1e-9,2e-8\n", "device.up.dg: a row falls along the cdf axis"),
    ],
)
def test_bad_jump_tables_are_named(text: str, expected: str, tmp_path: Path) -> None:
    """A foreign or truncated table raises with file, line and rule."""
    (tmp_path / "up.csv").write_text(text)
    with pytest.raises(ConfigError) as error:
        Chip().with_values(
            {"device": {"kind": "jump-table", "up": {"path": "up.csv"}, "down": {"path": "up.csv"}}},
            folder=tmp_path,
        )
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("chip.toml", b"name = 'x'\n[array\nrows = 3", "not a TOML file, or a truncated one"),
        ("chip.toml", b"\x89PNG\r\n\x1a\n\xff\xfe", "cannot be read as text"),
        ("chip.toml", b"", "the file is empty"),
        ("chip.json", b'{"name": "x", "array": {"rows": 3', "not a JSON file, or a truncated one"),
        ("chip.json", b"[1, 2]", "holds a list"),
        ("chip.toml", b"[tool.poetry]\nname = 'x'\n", "tool: unknown key"),
    ],
)
def test_foreign_and_truncated_files_are_named(name: str, content: bytes, text: str, tmp_path: Path) -> None:
    """A file that is no chip file raises ConfigError in one line, whatever it holds."""
    (tmp_path / name).write_bytes(content)
    read = Chip.from_json if name.endswith("json") else Chip.from_toml
    with pytest.raises(ConfigError) as error:
        read(tmp_path / name)
    assert text in str(error.value)


@settings(max_examples=60)
@given(cut=st.integers(0, 1500), data=st.data())
def test_a_truncated_chip_file_never_ends_in_another_error(
    cut: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any prefix of a chip file is a chip or a ConfigError."""
    text = preset(data.draw(st.sampled_from(preset_names()))).to_toml()
    path = tmp_path_factory.mktemp("cut") / "chip.toml"
    path.write_text(text[: min(cut, len(text))])
    try:
        Chip.from_toml(path)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_missing_files_and_presets_name_the_nearest(tmp_path: Path) -> None:
    """A mistyped name gets the nearest existing one."""
    (tmp_path / "chip.toml").write_text("name = 'x'")
    with pytest.raises(ConfigError, match="did you mean 'chip.toml'"):
        Chip.from_toml(tmp_path / "chip.tml")
    with pytest.raises(ConfigError, match="did you mean 'txsim-8bit'"):
        preset("txsim-8bits")


@settings(max_examples=60)
@given(c=st.lists(unit(-0.6, 0.6), min_size=1, max_size=3))
def test_polynomials_are_accepted_exactly_where_they_rise(c: list[float]) -> None:
    """The check of the slope agrees with a fine sampling of y(x), but for slopes near zero."""
    import numpy as np

    x = np.linspace(-1.0, 1.0, 4001)
    slope = 1.0 + sum(ck * ((2 * k + 3) * x ** (2 * k + 2) - 1.0) for k, ck in enumerate(c))
    lowest = float(np.min(slope))
    if abs(lowest) < 1e-5:
        return
    if lowest > 0.0:
        OddPolynomial(tuple(c))
    else:
        with pytest.raises(ConfigError, match="make the curve fall"):
            OddPolynomial(tuple(c))


JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    float("inf"),
    float("nan"),
    10**30,
    "",
    "x",
    [],
    [[]],
    [1, "a"],
    {},
    {"a": 1},
    {"kind": 3},
    {"rule": []},
    {"path": 3},
    {"path": "."},
    {"kind": "table", "x": 3, "y": None},
]


def paths(data: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every table and value of nested plain data."""
    for key, value in data.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


FULL = Chip(
    device=JumpTableDevice(
        up=TABLE,
        down=TABLE,
        drift=Drift(0.1),
        variation=Variation(),
        faults=Faults(),
        read_noise=ReadNoise(0.1),
    ),
    precision=Precision(16),
    circuit=Interpolated(10),
    adc=Adc(bits=8, nonlinearity=MeasuredCurve((-1.0, 1.0), (-1.0, 1.0))),
    update=StochasticUpdate(stream_length=10, scale=NativeScale(1.0, 1.0)),
    sources=(("seed", "assumed: x"),),
).to_dict()


def with_junk(path: tuple[str, ...], junk: Any) -> Chip:
    """Return the full chip with one table or value replaced."""
    data = copy.deepcopy(FULL)
    table = data
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = junk
    return Chip.from_dict(data)


@pytest.mark.parametrize("path", list(paths(FULL)), ids=".".join)
def test_junk_anywhere_is_a_config_error_or_a_chip(path: tuple[str, ...]) -> None:
    """Whatever stands in a file, the answer is a ConfigError or a chip that survives its own file."""
    for junk in JUNK:
        for make in (with_junk, lambda where, value: Chip().with_(".".join(where), value)):
            try:
                chip = make(path, junk)
            except ConfigError as error:
                assert "\n" not in str(error)  # noqa: PT017
                continue
            assert Chip.from_dict(tomllib.loads(chip.to_toml())) == chip
            hash(chip)


def test_the_word_none_names_a_law_and_takes_values_away() -> None:
    """update.noise.law=none is the law without noise; device.levels=none takes the levels away."""
    chip = apply_overrides(preset("ag-si"), ["update.noise.law=none", "device.levels=none"])
    assert chip.update.noise == NoNoise()
    assert chip.device.levels is None


def test_the_documented_file_has_every_key_and_loads(tmp_path: Path) -> None:
    """The reference chip file of the documentation is a valid chip and names every field there is."""
    page = Path(__file__).parents[2] / "docs" / "guide" / "chip.md"
    text = next(block for block in page.read_text().split("```") if block.startswith("toml"))[4:]
    (tmp_path / "chip.toml").write_text(text)
    chip = Chip.from_toml(tmp_path / "chip.toml")
    assert chip.device.faults == Faults(0.001, 0.001, 0.0)
    assert chip.input.range == TrackedRange("percentile", 99.9, epochs=1)

    def fields(model: type) -> set[str]:
        found = set(hints(model))
        for hint in hints(model).values():
            inner, tagged = split_hint(hint)
            for part in [*tagged.models.values()] if tagged is not None else [inner]:
                if dataclasses.is_dataclass(part) and isinstance(part, type):
                    found |= fields(part)
        return found

    # Points of inline tables have their own section on the page of devices.
    inline = {"coefficients", "source", "conductance", "cdf", "dg"}
    for name in fields(Chip) - inline:
        assert re.search(rf"\b{name}\b", text), f"{name} is not in the documented chip file"


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
