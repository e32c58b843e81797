"""A trainer's inspection is that of its network, under the native names, and disturbs nothing."""

from __future__ import annotations

import numpy as np
import torch

from xbar_core.config import preset
from xbar_core.lab.data import Batches, load_data
from xbar_core.lab.trainer import Recipe
from xbar_torch.inspect import inspect
from xbar_torch.trainer import make_trainer

DATA = load_data("digits")
X, Y = next(Batches(DATA, 64).epoch(0))


def test_it_is_that_of_the_network() -> None:
    """Layers have native names; the numbers are those of `xbar_torch.inspect`; natively there are none."""
    trainer = make_trainer(Recipe("lstm"), DATA, preset("txsim-8bit"))
    found, plain = trainer.inspect(X), inspect(trainer.network, torch.from_numpy(X))
    assert [layer.name for layer in found.layers] == ["lstm.weight_ih_l0", "lstm.weight_hh_l0", "fc"]
    assert [layer.stages for layer in found.layers] == [layer.stages for layer in plain.layers]
    assert [layer.name for layer in found.layers] == [layer.name for layer in trainer.health(X)]
    assert make_trainer(Recipe("mlp"), DATA, None).inspect(X).layers == ()


def test_training_goes_on_as_if_nothing_had_been_looked_at() -> None:
    """Every number of the state after a step is the same, to the bit, with and without a look before."""
    states = []
    for look in (False, True):
        trainer = make_trainer(Recipe("mlp"), DATA, preset("txsim-8bit"))
        trainer.step(X, Y, 0.05)
        if look:
            trainer.inspect(X[:16])
        trainer.step(X, Y, 0.05)
        states.append(trainer.state())
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)
