"""Accuracy over chips and ages: who is programmed, when it is read, and how sure the mean is."""

from __future__ import annotations

import csv
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbar_core import ConfigError
from xbar_core.config import Chip, preset
from xbar_core.lab.ages import UNITS, age_text, parse_ages
from xbar_core.lab.data import DataSet
from xbar_core.lab.evaluation import deployed, differences, evaluate_chips, evaluate_trained, interval
from xbar_core.lab.trainer import Recipe, Scores

RNG = np.random.default_rng(0)
DATA = DataSet(
    "made-up",
    RNG.normal(size=(90, 3)),
    RNG.integers(0, 2, 90),
    RNG.normal(size=(40, 3)),
    np.zeros(40, int),
    2,
)
RECIPE = Recipe(network="made-up", batch=32, optimizer="adam")
DRIFTING = Chip(name="drifting").with_values(
    {"device.drift.nu": 0.05, "device.drift.t0": 2.0, "device.variation.sigma": 0.1}
)
WEIGHTS = {"w": np.ones((3, 2), np.float32)}


class Recorder:
    """Stands in for an adapter: writes down what is asked of it; accuracy falls with age and seed."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.optimizers: set[str] = set()

    def factory(self, recipe: Recipe, data: DataSet, chip: Chip | None) -> Any:
        self.optimizers.add(recipe.optimizer)
        return FakeTrainer(self.log, None if chip is None else chip.seed)


class FakeTrainer:
    def __init__(self, log: list[tuple[Any, ...]], seed: int | None) -> None:
        self.log, self.seed, self.seconds = log, seed, None

    def program(self, weights: Mapping[str, Any]) -> None:
        self.log.append(("program", self.seed, sorted(weights)))

    def calibrate(self, batches: Iterable[Any]) -> None:
        self.log.append(("calibrate", self.seed, sum(len(y) for _, y in batches), self.seconds))

    def age(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.log.append(("age", self.seed, seconds))

    def evaluate(self, batches: Iterable[Any]) -> Scores:
        samples = sum(len(y) for _, y in batches)
        seed, seconds = self.seed or 0, self.seconds or 1.0
        return Scores(0.5, 0.9 - 0.01 * seed - 0.001 * np.log(seconds), samples)


def test_each_chip_is_programmed_once_and_then_ages() -> None:
    """Chips take seeds after the trained one's; programmed and calibrated first, then time passes."""
    recorder = Recorder()
    found = evaluate_chips(
        recorder.factory, RECIPE, DATA, DRIFTING.with_("seed", 7), WEIGHTS, chips=2, ages=(100.0, 10.0)
    )
    chips = [entry for entry in recorder.log if entry[1] is not None]
    assert chips == [
        step
        for seed in (8, 9)
        for step in [
            ("program", seed, ["w"]),
            ("calibrate", seed, 90, None),
            ("age", seed, 10.0),
            ("age", seed, 100.0),
            ("age", seed, None),
        ]
    ]
    assert [(r.chip, r.seed, r.age) for r in found.readings] == [
        (0, 8, 10.0), (0, 8, 100.0), (1, 9, 10.0), (1, 9, 100.0),
    ]  # fmt: skip
    assert found.digital == pytest.approx(0.9)
    assert (found.samples, found.drifts) == (40, True)


def test_one_chip_at_a_time_is_in_memory() -> None:
    """A trainer that refers to itself is gone before the next chip's is made; the native one stays."""
    alive: list[int] = []
    made: weakref.WeakSet[Any] = weakref.WeakSet()

    def factory(recipe: Recipe, data: DataSet, chip: Chip | None) -> Any:
        alive.append(len(made))
        trainer = FakeTrainer([], None)
        trainer.log.append((trainer,))
        made.add(trainer)
        return trainer

    evaluate_chips(factory, RECIPE, DATA, DRIFTING, WEIGHTS, chips=4)
    assert alive == [0, 1, 1, 1, 1]


def test_any_recipe_can_be_evaluated() -> None:
    """Nothing trains, so an optimizer that a chip cannot train with is not asked for."""
    recorder = Recorder()
    evaluate_chips(recorder.factory, RECIPE, DATA, DRIFTING, WEIGHTS, chips=1)
    assert recorder.optimizers == {"sgd"}


def test_alike_chips_are_evaluated_once_and_said_so() -> None:
    """Without anything drawn one chip stands for all, without drift one age for all, with a note each."""
    recorder = Recorder()
    found = evaluate_chips(
        recorder.factory, RECIPE, DATA, preset("txsim-8bit"), WEIGHTS, chips=20, ages=(1.0, 1e6)
    )
    assert len(found.readings) == 1
    assert not found.drifts
    assert "all its chips are alike" in found.notes[0]
    assert "does not drift" in found.notes[1]


def test_trained_chip_ages_without_being_programmed() -> None:
    """The very chip that was trained is read at each age, and is as new afterwards."""
    log: list[tuple[Any, ...]] = []
    trainer: Any = FakeTrainer(log, DRIFTING.seed)
    found = evaluate_trained(trainer, RECIPE, DATA, DRIFTING, ages=(5.0, 1.0))
    assert log == [("age", 0, 1.0), ("age", 0, 5.0), ("age", 0, None)]
    assert [r.age for r in found.readings] == [1.0, 5.0]
    still = evaluate_trained(trainer, RECIPE, DATA, preset("ideal"), ages=(1.0, 5.0))
    assert len(still.readings) == 1
    assert "does not drift" in still.notes[0]
    assert [r.age for r in evaluate_trained(trainer, RECIPE, DATA, DRIFTING).readings] == [2.0]


def test_summary_and_csv_hold_every_reading(tmp_path: Path) -> None:
    """Mean, worst and best are those of the readings, and the file holds each of them."""
    found = evaluate_chips(Recorder().factory, RECIPE, DATA, DRIFTING, WEIGHTS, chips=3, ages=(1.0, 1e3))
    first, second = found.summary()
    assert (first.age, first.chips, second.age) == (1.0, 3, 1e3)
    assert (first.worst, first.mean, first.best) == pytest.approx((0.87, 0.88, 0.89))
    assert first.low < first.mean < first.high
    assert second.mean == pytest.approx(0.88 - 0.001 * np.log(1e3))
    found.write_csv(tmp_path / "e.csv")
    with (tmp_path / "e.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [r.accuracy for r in found.readings]
    assert [row["seed"] for row in rows] == ["1", "1", "2", "2", "3", "3"]
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    (axes,) = found.figure().axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1 s", "16.7 min"]


@settings(max_examples=15)
@given(chips=st.integers(2, 30), seed=st.integers(0, 99))
def test_interval_over_chips_is_students(chips: int, seed: int) -> None:
    """Several chips: mean -+ t s / sqrt(n), t from SciPy's distribution, kept within 0 and 1."""
    stats = pytest.importorskip("scipy.stats")
    accuracy = np.random.default_rng(seed).uniform(0.5, 1.0, chips)
    low, high = interval(accuracy, 100)
    wanted = stats.t.interval(0.95, chips - 1, accuracy.mean(), accuracy.std(ddof=1) / np.sqrt(chips))
    assert (low, high) == pytest.approx((max(wanted[0], 0), min(wanted[1], 1)), rel=1e-9)


@settings(max_examples=15)
@given(right=st.integers(0, 50), samples=st.integers(50, 500))
def test_interval_of_one_chip_is_wilsons(right: int, samples: int) -> None:
    """One chip: Wilson's interval of its right samples, as SciPy computes it."""
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.binomtest(right, samples).proportion_ci(0.95, method="wilson")
    assert interval(np.array([right / samples]), samples) == pytest.approx(tuple(wanted), rel=1e-9, abs=1e-12)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 2000 draws of 5 chips about a known mean 95 % hold it, within three standard errors."""
    rng = np.random.default_rng(1)
    hits = sum(
        low <= 0.8 <= high
        for low, high in (interval(row, 100) for row in rng.normal(0.8, 0.02, size=(2000, 5)))
    )
    assert abs(hits / 2000 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 2000)


def test_deployed_chips_use_their_whole_range() -> None:
    """Headroom 1 for a network that is not trained any more; a fixed range stays."""
    whole = Chip().with_("mapping.w_max.headroom", 1.0)
    assert deployed(preset("txsim-8bit")).mapping.w_max == whole.mapping.w_max
    native = Chip().with_("mapping.w_max.rule", "native")
    assert deployed(native) == whole
    fixed = Chip().with_values({"mapping.w_max.rule": "fixed", "mapping.w_max.value": 2.0})
    assert deployed(fixed) is fixed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("device.variation.sigma", 0.1),
        ("device.faults.open", 0.01),
        ("device.programming_error.sigma", 0.1),
        ("device.read_noise.sigma", 0.1),
        ("adc.gain_error", 0.01),
        ("adc.offset_error", 1e-9),
        ("adc.noise", 1e-9),
    ],
)
def test_what_makes_chips_differ_is_named(path: str, value: float) -> None:
    """Each source of a difference is found, and a zero is none."""
    assert differences(Chip()) == ()
    (name,) = differences(Chip().with_(path, value))
    assert path.startswith(name)
    assert differences(Chip().with_(path, 0.0)) == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s,1d,1y", (1, 86400, 31557600)),
        ("2 h", (7200,)),
        ("1.5min, 90s", (90,)),
        ("1e3s,0.1 s", (0.1, 1e3)),
    ],
)
def test_ages_are_read_with_their_units(text: str, seconds: tuple[float, ...]) -> None:
    """Units s, min, h, d, y; rising, each once."""
    assert parse_ages(text) == pytest.approx(seconds)


@given(number=st.integers(1, 999), unit=st.sampled_from(list(UNITS)))
def test_age_text_is_read_back(number: int, unit: str) -> None:
    """What is printed is a time that means the same, to the three digits printed."""
    seconds = number * UNITS[unit]
    assert parse_ages(age_text(seconds)) == pytest.approx((seconds,), rel=5e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "'1' has no unit; write a number with one of the units s, min, h, d, y"),
        ("1w", "'1w' has unknown unit 'w'"),
        ("", "'' is no time"),
        ("1s,,1d", "'' is no time"),
        ("-1s", "'-1s' is no time"),
        ("1..2s", "is no time"),
        ("0s", "time: 0.0 is out of range; it must be finite and above 0"),
        ("1e9y", "at most 1e"),
        ("soon", "'soon' is no time"),
    ],
)
def test_bad_ages_are_refused(text: str, message: str) -> None:
    """A time without a unit, of an unknown one, or not above 0 is named with the rule."""
    with pytest.raises(ConfigError, match=message):
        parse_ages(text)
