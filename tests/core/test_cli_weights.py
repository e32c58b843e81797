"""The weight matrix of the demonstration: real data, and numbers that mean what the table says."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (pip install 'xbar-core[lab]')")

from xbar_core.cli import _weights


@pytest.fixture(scope="module")
def chips() -> dict[str, _weights.Row]:
    return {row.chip: row for row in _weights.rows(_weights.digits())}


def test_classifier_is_a_real_one() -> None:
    """The ridge regression recognises test images that it was not fitted to."""
    data = _weights.digits()
    weight, bias = _weights.classifier(data)
    x = data.test_x.reshape(len(data.test_x), -1) / 255.0
    assert _weights.accuracy(x @ weight + bias, data) > 0.9


def test_ideal_chip_changes_nothing(chips: dict[str, _weights.Row]) -> None:
    """Without non-idealities every stage is exact and the accuracy is the digital one."""
    data = _weights.digits()
    weight, bias = _weights.classifier(data)
    x = data.test_x.reshape(len(data.test_x), -1) / 255.0
    assert chips["ideal"].accuracy == _weights.accuracy(x @ weight + bias, data)
    assert all(stage.snr_db > 250 for stage in chips["ideal"].stages)


def test_stages_name_what_costs(chips: dict[str, _weights.Row]) -> None:
    """Wires cost most on the paper's chip; levels show where a device has few; accuracy survives."""
    named = {name: {s.name: s.snr_db for s in row.stages} for name, row in chips.items()}
    assert named["txsim"]["devices"] > 100 > 30 > named["txsim"]["wires"]
    assert named["taox-hfox"]["weights"] < 50
    assert np.isfinite(named["dwmtj"]["noise"])
    assert all(row.accuracy > 0.9 for row in chips.values())
