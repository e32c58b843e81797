"""Runs that fail, with a trainer of NumPy: in one line that says where, with what was good kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core.fake_runs import DATA, RECIPE, SPEC, STEPS, Stopper, train_fakes
from core.fake_trainer import FakeTrainer

from xbar_core.config import Chip, preset
from xbar_core.errors import ConfigError
from xbar_core.lab.checkpoint import BEST, LAST, read_checkpoint
from xbar_core.lab.comparison import from_csv
from xbar_core.lab.data import Batches, limited
from xbar_core.lab.evaluation import evaluate_chips, evaluate_trained
from xbar_core.lab.importing import OwnCodeError
from xbar_core.lab.last_batch import check_last_batch
from xbar_core.lab.run import Diverged, Interrupted, Options, run
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.trainer import LayerHealth, Scores, Step
from xbar_core.lab.training import Event, Note, Training

pytest.importorskip("safetensors", reason="checkpoints need safetensors (the extra 'lab')")

CHIP = preset("txsim")
PLACE = "layer 'fc', gradient: 3 of 40 values are NaN or infinite"


class Spoiled(FakeTrainer):
    """After so many steps its weights are NaN: an evaluation raises on a chip, and scores NaN natively."""

    after = 2 * STEPS
    raising = ("evaluate", "health")

    def _spoiled(self, what: str) -> bool:
        if self.steps >= self.after and self.chip is not None and what in self.raising:
            raise FloatingPointError("the input holds NaN")
        return self.steps >= self.after

    def evaluate(self, batches: Iterable[Any]) -> Scores:
        scores = super().evaluate(batches)
        return scores._replace(loss=float("nan")) if self._spoiled("evaluate") else scores

    def health(self, x: Any) -> list[LayerHealth]:
        self._spoiled("health")
        return super().health(x)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[FakeTrainer]], type[FakeTrainer]]:
    """Have runs train a class of trainers."""
    return lambda kind: train_fakes(monkeypatch, kind)


def test_nan_of_the_last_step_of_an_epoch(tmp_path: Path, trained: Any) -> None:
    """No batch follows that would show it: the evaluation does, the epoch before it is what is kept."""
    trained(Spoiled)
    found = run(SPEC, tmp_path)
    text = f"turned to NaN or infinity in epoch 2, after its last step: {PLACE}; lower the learning rate"
    assert {name: text in each for name, each in found.diverged.items()} == {"native": True, "txsim": True}
    assert [epoch.epoch for epoch in from_csv((tmp_path / "metrics.csv").read_text())] == [1, 1]
    for name in SPEC.variants:
        for which in (LAST, BEST):
            assert read_checkpoint(tmp_path / name / which).state["rng/steps"].tolist() == [STEPS, 1]
        assert not list((tmp_path / name).glob(".spare-*"))


def test_nan_within_an_epoch_is_not_kept(tmp_path: Path, trained: Any) -> None:
    """Weights that a step made NaN do not replace the last checkpoint, which a run goes on from."""

    class FourthBreaks(FakeTrainer):
        def step(self, x: Any, y: Any, rate: float) -> Step:
            found = super().step(x, y, rate)
            if self.steps == 4:
                self.weight[0, 0] = np.nan
            return found

    trained(FourthBreaks)
    with pytest.raises(Interrupted):
        run(SPEC, tmp_path, Options(stop=Stopper(3), minutes=0.0))
    kept = read_checkpoint(tmp_path / "native" / LAST)
    assert kept.facts["position"]["step"] == 3
    assert all(np.isfinite(array).all() for array in kept.state.values())


def test_nan_ends_a_variant_with_its_place(tmp_path: Path, trained: Any) -> None:
    """The layer and stage are named; the others go on; the last checkpoint is from before."""
    trained(type("Bad", (FakeTrainer,), {"bad_step": 8}))
    spec = replace(SPEC, variants={"txsim": CHIP, "native": None})
    events: list[Event] = []
    found = run(spec, tmp_path, Options(events.append, minutes=0.0))
    assert list(found.diverged) == ["txsim", "native"]
    assert "epoch 2, step 3: layer 'fc', gradient" in found.diverged["txsim"]
    assert any(isinstance(event, Note) and "turned to NaN" in event.text for event in events)
    state = RunFolder.open(tmp_path).checkpoint("txsim", "last").state
    assert state["rng/steps"][0] == 8


def test_nan_in_a_look_at_the_layers(tmp_path: Path, trained: Any) -> None:
    """What is raised by the health of layers alone ends the variant, too, and the others go on."""
    trained(type("Unhealthy", (Spoiled,), {"raising": ("health",)}))
    spec = replace(SPEC, variants={"txsim": CHIP, "ideal": preset("ideal")})
    assert list(run(spec, tmp_path).diverged) == ["txsim", "ideal"]


def test_nan_while_a_note_is_made() -> None:
    """The layers are looked at for a note that nothing is learned: the same line if that raises."""

    class Stuck(Spoiled):
        learns = False
        raising = ("health",)

        def _spoiled(self, what: str) -> bool:
            return self.steps % STEPS > 0 and super()._spoiled(what)

    recipe = replace(RECIPE, epochs=80)
    training = Training("txsim", Stuck(recipe, DATA, CHIP), DATA, recipe, Batches(DATA, 16))
    with pytest.raises(Diverged, match=f"infinity in epoch [0-9]*, after step [0-9]*: {PLACE}"):
        training.run()


def test_place_that_cannot_be_found() -> None:
    """Where looking for the place fails as well, its error is the reason."""

    class Nowhere(Spoiled):
        def diagnose(self, x: Any, y: Any) -> str:
            raise FloatingPointError("not even states are finite")

    training = Training("txsim", Nowhere(RECIPE, DATA, CHIP), DATA, RECIPE, Batches(DATA, 16))
    with pytest.raises(Diverged, match="after its last step: not even states are finite;"):
        training.run()


@pytest.mark.parametrize("chip", [None, CHIP], ids=["native", "chip"])
def test_evaluation_of_weights_that_are_not_finite(chip: Chip | None) -> None:
    """One line that says what to take instead, for the trained chip and for new ones."""
    trainer = Spoiled(RECIPE, DATA, chip)
    trainer.steps = Spoiled.after
    text = r"not finite on this chip: the (loss|input).*; train again .*, or use another checkpoint"
    with pytest.raises(Diverged, match=text):
        evaluate_trained(trainer, RECIPE, DATA, CHIP)
    weights = {"weight": np.full_like(trainer.weight, np.nan)}
    with pytest.raises(Diverged, match="'weight' holds NaN or infinity"):
        evaluate_chips(Spoiled, RECIPE, DATA, CHIP, weights, chips=1)


def test_own_network_that_fails_in_evaluation() -> None:
    """On the trained chip and on new ones: network, chip and error in one line."""

    class Failing(FakeTrainer):
        def evaluate(self, batches: Iterable[Any]) -> Scores:
            raise KeyError("fc")

    own = replace(RECIPE, network="my_nets:build")
    text = f"network: my_nets:build failed in the evaluation on {CHIP.name}: KeyError: 'fc'"
    trainer = Failing(own, DATA, CHIP)
    with pytest.raises(OwnCodeError, match=text):
        evaluate_trained(trainer, own, DATA, CHIP)
    with pytest.raises(OwnCodeError, match=text):
        evaluate_chips(Failing, own, DATA, CHIP, trainer.weights(), chips=1)


class OneIsTooFew(FakeTrainer):
    """Fails on a batch of one sample, as batch normalisation does."""

    def step(self, x: Any, y: Any, rate: float) -> Step:
        if len(y) == 1:
            raise ValueError("Expected more than 1 value\nper channel")
        return super().step(x, y, rate)


def test_last_batch_of_one_sample_is_tried_before(tmp_path: Path, trained: Any) -> None:
    """49 samples in batches of 16 leave one: refused where the network cannot train on it, else trained."""
    for kind in (OneIsTooFew, FakeTrainer):
        trained(kind)
        data = limited(DATA, 49)
        spec = replace(SPEC, recipe=replace(RECIPE, epochs=1))
        if kind is FakeTrainer:
            run(spec, tmp_path / "run", data=data)
            assert (tmp_path / "run").exists()
            continue
        text = "batch: 16 leaves one sample for the last batch of an epoch of 49, .* fake cannot train"
        with pytest.raises(ConfigError, match=text):
            run(spec, tmp_path / "run", data=data)
        assert not (tmp_path / "run").exists()


def test_last_batch_of_one_sample_for_each_process() -> None:
    """Two processes share a last batch of two: each has one, and the text says so."""
    batches = Batches(limited(DATA, 50), 16, rank=1, ranks=2)
    text = "batch: 16 leaves one sample for each process for the last batch of an epoch of 50, "
    with pytest.raises(ConfigError, match=text):
        check_last_batch(OneIsTooFew(RECIPE, DATA, None), RECIPE, batches)


def test_network_that_fails_on_any_batch_is_not_blamed_on_the_last_one() -> None:
    """A batch of two is tried first: what it raises is the network's own fault."""

    class Failing(FakeTrainer):
        def step(self, x: Any, y: Any, rate: float) -> Step:
            raise KeyError("fc")

    batches = Batches(limited(DATA, 49), 16)
    own = replace(RECIPE, network="my_nets:build")
    with pytest.raises(OwnCodeError, match="network: my_nets:build failed in .* a batch of two.*: 'fc'"):
        check_last_batch(Failing(own, DATA, None), own, batches)
    with pytest.raises(KeyError, match="fc"):
        check_last_batch(Failing(RECIPE, DATA, None), RECIPE, batches)


def test_last_batch_that_is_not_finite_is_left_to_the_training() -> None:
    """A rate that explodes at once is no fault of the batch."""

    class Exploding(FakeTrainer):
        bad_step = 0

    batches = Batches(limited(DATA, 49), 16)
    check_last_batch(Exploding(RECIPE, DATA, None), RECIPE, batches)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError])
def test_own_network_that_fails_in_training(tmp_path: Path, trained: Any, error: type[Exception]) -> None:
    """Network, variant, step, batch and error are in one line; a network of ours keeps its traceback."""

    class Failing(FakeTrainer):
        def step(self, x: Any, y: Any, rate: float) -> Step:
            if self.steps == 3:
                raise error("nothing fits")
            return super().step(x, y, rate)

    trained(Failing)
    own = replace(SPEC, recipe=replace(RECIPE, network="my_nets:build"))
    text = (
        r"network: my_nets:build failed in the training of native, epoch 1, step 4, a batch of "
        rf"\(16, 1, 2, 5\): {error.__name__}: '?nothing fits"
    )
    with pytest.raises(OwnCodeError, match=text):
        run(own, tmp_path / "own")
    with pytest.raises(error, match="nothing fits"):
        run(SPEC, tmp_path / "ours")


@pytest.mark.parametrize(
    "name", ["run.json", "metrics.csv", "curves.png", "Metrics.CSV", "tensorboard", "native", "Native"]
)
def test_names_that_a_run_folder_uses_itself(name: str) -> None:
    """A chip cannot be called as one of the run's own files, nor as training without a chip."""
    with pytest.raises(ConfigError, match=f"variants: '{name}' .*give the chip another name"):
        replace(SPEC, variants={name: CHIP})


def test_variant_that_diverges_at_once_leaves_no_room_taken(tmp_path: Path, trained: Any) -> None:
    """Blocks that were set aside are given back, and the first checkpoint is there."""
    trained(type("Bad", (FakeTrainer,), {"bad_step": 2}))
    events: list[Event] = []
    run(SPEC, tmp_path, Options(events.append))
    assert [path.name for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [
        LAST, "run.json", "chip.toml", LAST,
    ]  # fmt: skip
