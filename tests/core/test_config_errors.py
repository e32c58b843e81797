"""Errors of the chip tree: each names path, value, rule and mend, whatever was given."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from core.chips import TABLE, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from xbar_core import ConfigError, Interpolated
from xbar_core.config import (
    Adc,
    Chip,
    Drift,
    Faults,
    JumpTableDevice,
    MeasuredCurve,
    NativeScale,
    OddPolynomial,
    Precision,
    ReadNoise,
    StochasticUpdate,
    Variation,
    apply_overrides,
)
from xbar_core.engine import Layout

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
