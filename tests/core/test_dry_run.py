"""A dry run counts what a network occupies and times steps without keeping or writing anything."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xbar_core.cli._dry_run import bytes_text, duration_text, show_dry_run
from xbar_core.config import Chip, preset
from xbar_core.lab.data import DataSet
from xbar_core.lab.dry_run import dry_run
from xbar_core.lab.importing import OwnCodeError
from xbar_core.lab.trainer import Footprint, Recipe, Scores, Step
from xbar_core.lab.training import Diverged

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 3))
DATA = DataSet("made-up", X, RNG.integers(0, 2, 70), X, RNG.integers(0, 2, 70), 2)
RECIPE = Recipe(network="net", batch=32, epochs=5)
LAYERS = [
    Footprint("fc1", (100, 64), 4, 12800, 0.78, 6464, 51200),
    Footprint("bn", (), 0, 0, 0.0, 128, 1024),
    Footprint("fc2", (64, 2), 2, 256, 0.02, 130, 2048),
]


class Sleeper:
    """Stands in for an adapter: the first step takes ten times as long as the others."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.took = seconds, list[float]()

    def footprint(self) -> list[Footprint]:
        return LAYERS

    def step(self, x: Any, y: Any, rate: float) -> Step:
        start = time.perf_counter()
        time.sleep(self.seconds * (1 if self.took else 10))
        self.took.append(time.perf_counter() - start)
        return Step(1.0, 0)

    def state(self) -> dict[str, Any]:
        return {"a": np.zeros(100), "b": np.zeros(3, np.float32)}

    def evaluate(self, batches: Iterable[Any]) -> Scores:
        time.sleep(0.02)
        return Scores(1.0, 0.5, sum(len(y) for _, y in batches))


def runs(chips: dict[str, Chip | None], seconds: float = 0.01) -> list[Any]:
    made: list[Any] = []

    def factory(recipe: Recipe, data: DataSet, chip: Chip | None) -> Any:
        made.append(Sleeper(seconds))
        return made[-1]

    return [(run, made[-1]) for run in dry_run(factory, RECIPE, DATA, chips)]


def test_times_are_those_of_steps_after_the_first() -> None:
    """The mean of the later steps is reported, and epoch and run follow from it and the evaluation."""
    ((run, trainer),) = runs({"native": None})
    assert (run.timed, len(trainer.took), run.steps, run.epochs) == (3, 4, 3, 5)
    assert np.mean(trainer.took[1:]) <= run.step_seconds < np.mean(trainer.took)
    assert run.evaluation_seconds >= 0.02
    assert run.epoch_seconds == 3 * run.step_seconds + run.evaluation_seconds
    assert run.seconds == 5 * run.epoch_seconds


@pytest.mark.parametrize(("period", "timed"), [(1, 3), (2, 2), (5, 5), (100, 12)])
def test_interpolated_circuits_are_timed_over_whole_periods(period: int, timed: int) -> None:
    """Exact solutions are met as often as in the run, where a period is short enough to wait for."""
    chip = preset("txsim-8bit").with_values({"circuit.kind": "interpolated", "circuit.period": period})
    ((run, _),) = runs({"chip": chip}, seconds=0.0)
    assert run.timed == timed


def test_sizes_are_counted() -> None:
    """Arrays and devices are sums over layers, the state that of a checkpoint, the peak the process'."""
    ((run, _),) = runs({"chip": preset("ideal")}, seconds=0.0)
    assert (run.arrays, run.devices, run.state_bytes) == (6, 13056, 812)
    assert run.peak_bytes is None or run.peak_bytes > 10_000_000


def test_screen_shows_layers_and_sums(capsys: pytest.CaptureFixture[str]) -> None:
    """Layers on crossbars one by one, digital ones together, and what every variant takes."""
    found = [run for run, _ in runs({"native": None, "ideal": preset("ideal")}, seconds=0.0)]
    show_dry_run(iter(found), RECIPE, DATA)
    lines = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("│") for line in capsys.readouterr().out.splitlines())
        if len(cells) > 2
    }
    assert lines["fc1"] == ["100 x 64", "4", "78%", "12,800", "6,464", "50 KiB"]
    assert lines["digital (1)"] == ["", "", "", "", "128", "1 KiB"]
    assert lines["together"] == ["", "6", "", "13,056", "6,722", "53 KiB"]
    assert lines["ideal"][:2] == ["6", "13,056"]
    assert "native" in lines


def test_numbers_are_printed_in_units_of_people() -> None:
    """Sizes in binary units, durations in the two largest units."""
    sizes = [bytes_text(n) for n in (0, 812, 2048, 5e6, 3e12)]
    assert sizes == ["0 B", "812 B", "2 KiB", "4.77 MiB", "2.79e+03 GiB"]
    durations = [duration_text(s) for s in (0.5, 59.4, 61, 3599, 3661, 2e5)]
    assert durations == ["0.5 s", "59.4 s", "1 min 1 s", "59 min 59 s", "1 h 1 min", "2 d 7 h"]


def test_steps_that_turn_to_nan_are_one_line() -> None:
    """A rate that makes weights explode within the timed steps is said, with variant and step."""

    class Exploding(Sleeper):
        def step(self, x: Any, y: Any, rate: float) -> Step:
            if len(self.took) == 2:
                raise FloatingPointError("the loss is nan")
            return super().step(x, y, rate)

    class Unlabelling(Sleeper):
        def evaluate(self, batches: Iterable[Any]) -> Scores:
            return super().evaluate(batches)._replace(loss=float("nan"))

    for kind, when in ((Exploding, "step 3"), (Unlabelling, "the evaluation")):
        with pytest.raises(
            Diverged, match=f"^native turned to NaN or infinity in {when} of the dry run: the loss"
        ):
            list(dry_run(lambda *given, kind=kind: kind(0.0), RECIPE, DATA, {"native": None}))  # type: ignore[arg-type,misc]


def test_own_network_that_fails_in_training_is_one_line() -> None:
    """What only training mode meets is said as in a run: network, step, variant and error."""

    class Failing(Sleeper):
        def step(self, x: Any, y: Any, rate: float) -> Step:
            raise KeyError("fc")

    class Unlabelling(Sleeper):
        def evaluate(self, batches: Iterable[Any]) -> Scores:
            raise KeyError("fc")

    own = replace(RECIPE, network="my_nets:build")
    for kind, when in ((Failing, "step 1"), (Unlabelling, "the evaluation")):
        text = f"^network: my_nets:build failed in {when} of the dry run of native: KeyError: 'fc'"
        with pytest.raises(OwnCodeError, match=text):
            list(dry_run(lambda *given, kind=kind: kind(0.0), own, DATA, {"native": None}))  # type: ignore[arg-type,misc]


def test_screen_says_whose_memory_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """On another device the process' memory is the host's only, and that is said."""
    found = [run for run, _ in runs({"native": None}, seconds=0.0)]
    for device, said in (("cpu", False), ("cuda:1", True)):
        show_dry_run(iter(found), replace(RECIPE, device=device), DATA)
        printed = " ".join(capsys.readouterr().out.split())
        assert ("on the host; what it takes on 'cuda:1' is not measured" in printed) is said
