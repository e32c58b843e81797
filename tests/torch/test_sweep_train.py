"""Sweeps that train: a point is the training that its recipe and chip describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xbar_core.cli import main
from xbar_core.errors import ConfigError
from xbar_core.lab.data import Batches, evaluation_batches
from xbar_core.lab.sweep import Plan, Store, Table, parse_field, run_points
from xbar_core.lab.sweep.training import check_training
from xbar_core.lab.trainer import trainer_factory
from xbar_torch.trainer import TorchTrainer

SMALL = ("network=mlp", "epochs=2", "batch=64", "limit=300")


def plan(*fields: str) -> Plan:
    return Plan(tuple(parse_field(text) for text in (*SMALL, *fields)))


def test_point_is_the_training_it_describes(tmp_path: Path) -> None:
    """A point's accuracies are those of the same trainer driven by hand."""
    (point,) = plan("preset=txsim-8bit", "seed=3", "circuit.kind=aam").points()
    store = Store(tmp_path)
    run_points([point], store, workers=0)
    setup = point.setup
    assert setup.recipe is not None
    data = setup.load_data()
    trainer = trainer_factory("torch")(setup.recipe, data, setup.chip)
    accuracies = []
    for epoch in range(2):
        for x, y in Batches(data, 64, 3).epoch(epoch):
            trainer.step(x, y, setup.recipe.rate_at(epoch))
        trainer.finish_epoch()
        accuracies.append(trainer.evaluate(evaluation_batches(data, 500)).accuracy)
    row = Table.collect([point], store).rows[0]
    assert row.series("accuracies") == accuracies
    assert row.metric("accuracy") == accuracies[-1]


def test_points_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Whatever ran before in the process, and however the global generator stands, a point is the same."""
    points = plan("seed=0:2", "preset=native,ideal").points()
    first, second = Store(tmp_path / "a"), Store(tmp_path / "b")
    run_points(points, first, workers=0)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    run_points(points[::-1], second, workers=0)
    for point in points:
        a, b = first.get(point.key), second.get(point.key)
        assert a is not None
        assert b is not None
        assert a.metrics["losses"] == b.metrics["losses"]


def test_diverged_training_is_a_result(tmp_path: Path) -> None:
    """A rate that drives the weights to infinity ends the point early, as a result and not as a failure."""
    (point,) = plan("preset=native", "rate=1e30").points()
    store = Store(tmp_path)
    assert run_points([point], store, workers=0).failed == 0
    row = Table.collect([point], store).rows[0]
    assert row.metric("diverged") == 1
    assert row.metric("accuracy") < 0.3


def test_training_whose_last_weights_are_not_finite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any weights from before it is a result, too: diverged, and nothing is labelled rightly."""
    step = TorchTrainer.step

    def last_one_breaks(trainer: TorchTrainer, *arguments: Any) -> Any:
        found = step(trainer, *arguments)
        with torch.no_grad():
            next(trainer.network.parameters()).fill_(torch.nan)
        return found

    monkeypatch.setattr(TorchTrainer, "step", last_one_breaks)
    fields = ("network=mlp", "epochs=2", "batch=300", "limit=300", "preset=native")
    (point,) = Plan(tuple(map(parse_field, fields))).points()
    store = Store(tmp_path)
    assert run_points([point], store, workers=0).failed == 0
    row = Table.collect([point], store).rows[0]
    assert (row.metric("diverged"), row.metric("accuracy")) == (1, 0)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("network=lenet6", "did you mean 'lenet5'"),
        ("dataset=digit", "did you mean 'digits'"),
        ("framework=torhc", "did you mean 'torch'"),
        ("batch=301", "larger than the data"),
    ],
)
def test_mistakes_are_found_before_anything_trains(field: str, message: str) -> None:
    """Networks, data sets, adapters and batches are tried once before the first point."""
    fields = {parse_field(text).name: parse_field(text) for text in (*SMALL, field)}
    points = Plan(tuple(fields.values())).points()
    with pytest.raises(ConfigError, match=message):
        check_training([point.setup for point in points])


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`xbar sweep` trains over two workers and shows accuracy against what varied."""
    monkeypatch.chdir(tmp_path)
    words = ["update.v_up+update.v_down=0.01,5", "circuit.kind=aam", "seed=0:2", *SMALL, "--out", "out"]
    code = main(["sweep", *words])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "4 computed" in said
    assert "accuracy" in said
    assert (tmp_path / "out" / "figure.png").stat().st_size > 5000
    assert main(["sweep", *words, "--metric", "acuracy"]) == 2
    assert "did you mean 'accuracy'" in capsys.readouterr().err
