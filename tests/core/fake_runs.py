"""Runs of `FakeTrainer`s on made-up data, for tests of what a run keeps and how it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from core.fake_trainer import FakeTrainer, fake_data
from matplotlib.figure import Figure

from xbar_core.config import preset
from xbar_core.lab import keeper
from xbar_core.lab import run as run_module
from xbar_core.lab.checkpoint import LAST, read_checkpoint
from xbar_core.lab.comparison import Epoch, from_csv
from xbar_core.lab.recipe import Recipe
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.run_spec import RunSpec

RECIPE = Recipe("fake", epochs=4, batch=16, rate=0.1, seed=3)
SPEC = RunSpec(RECIPE, "corners", {"native": None, "txsim": preset("txsim")})
STEPS = 6  # in an epoch
DATA = fake_data()


def train_fakes(
    monkeypatch: pytest.MonkeyPatch, kind: type[FakeTrainer] = FakeTrainer, *, curves: bool = False
) -> type[FakeTrainer]:
    """Have runs train a new class of `kind` on `DATA`, alone; curves are blank unless asked for."""
    made = type("Fake", (kind,), {})
    monkeypatch.setattr(run_module, "trainer_factory", lambda name: made)
    monkeypatch.setattr(RunSpec, "load_data", lambda spec: DATA)
    if not curves:
        monkeypatch.setattr(keeper, "curves", lambda comparison: Figure(figsize=(1, 1)))
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return made


def results(folder: Path) -> tuple[dict[str, dict[str, bytes]], list[Epoch]]:
    """Return the last state of every variant, and the log without its seconds."""
    spec = RunFolder.open(folder).spec
    states = {name: read_checkpoint(folder / name / LAST).state for name in spec.variants}
    log = [replace(epoch, seconds=0.0) for epoch in from_csv((folder / "metrics.csv").read_text())]
    return {name: {key: a.tobytes() for key, a in state.items()} for name, state in states.items()}, log


class Stopper:
    """Asks a run to stop after so many steps, as Ctrl-C does."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0
