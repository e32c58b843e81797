"""When a training is said to have stopped learning, and what is said of it, from made-up losses."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import pytest

from xbar_core.lab.trainer import LayerHealth, Step
from xbar_core.lab.watch import Watch, standing_still, suspect

LABELS = np.repeat(np.arange(10), 50)
BATCH = 100


def said(watch: Watch, steps: Iterable[tuple[float, float]]) -> dict[int, str]:
    """Return what is said after which of the steps (loss, accuracy), counted from 1."""
    lines = {
        k: watch.see(Step(loss, round(BATCH * accuracy)), BATCH)
        for k, (loss, accuracy) in enumerate(steps, 1)
    }
    return {k: line for k, line in lines.items() if line}


@pytest.mark.parametrize(("epoch", "first"), [(1, 50), (4, 50), (12, 60), (40, 200), (5000, 200)])
def test_time_of_the_first_word(epoch: int, first: int) -> None:
    """Five epochs of steps, from 50 to 200, of a loss that stays and an accuracy that is chance; once."""
    (when,) = said(Watch(LABELS, epoch), [(2.3, 0.1)] * 1000)
    assert when == first


def test_slow_start_is_no_sign_at_first() -> None:
    """A loss that stays while labels are better than chance, or falls while they are not: after 200 steps."""
    assert list(said(Watch(LABELS, 4), [(2.3, 0.2)] * 500)) == [200]
    assert list(said(Watch(LABELS, 4), [(2.3 - 2e-4 * k, 0.1) for k in range(500)])) == [200]


def test_explosion_at_first() -> None:
    """Losses of 9 that fall to chance and stay there are said after two windows of chance."""
    assert list(said(Watch(LABELS, 4), [(9.0, 0.1)] * 10 + [(2.31, 0.1)] * 500)) == [75]


def test_collapse_is_said_whenever_it_comes() -> None:
    """Learned to 0.5, lost again to 2.1 of 2.3 at first, with labels better than chance; once each time."""
    learned, lost = [(0.5, 0.9)] * 100, [(2.1, 0.3)] * 100
    lines = said(Watch(LABELS, 4), [(2.3, 0.1)] * 25 + learned + lost + learned + lost)
    assert list(lines) == [150, 350]
    assert "the loss 2.1 was 0.5 and is near its first values (2.3) again" in lines[150]
    assert "chance" not in lines[150]
    assert not said(Watch(LABELS, 4), [(2.3, 0.1)] * 25 + learned + [(1.5, 0.5)] * 100)


def test_watch_goes_on_from_its_dict() -> None:
    """Written as JSON and read at any step, it says the same."""
    steps = [(2.3, 0.1)] * 25 + [(0.5, 0.9)] * 40 + [(2.2, 0.1)] * 100
    whole = said(Watch(LABELS, 4), steps)
    assert list(whole) == [100]
    for stop in (0, 30, 60, 99, 120):
        before = Watch(LABELS, 4)
        found = said(before, steps[:stop])
        after = Watch(LABELS, 4)
        after.load(json.loads(json.dumps(before.to_dict())))
        found |= {stop + k: line for k, line in said(after, steps[stop:]).items()}
        assert found == whole


def test_doubts_come_before_the_word() -> None:
    """Weights are worth keeping before the step after which something is said, and before no other."""
    watch, doubts = Watch(LABELS, 4), []
    for k in range(1, 200):
        if watch.doubts:
            doubts.append(k)
        watch.see(Step(2.3, 10), BATCH)
    assert doubts == [50]


def test_layers_that_stand_still() -> None:
    """The first matrix that a step has not moved is named by its layer; vectors do not count."""
    names = ("conv1.weight", "conv1.bias", "fc/kernel", "head")
    before = {name: np.ones(3 if "bias" in name else (2, 3)) for name in names}
    moved = {name: array + 0.1 for name, array in before.items()}
    assert standing_still(before, moved) == ""
    found = standing_still(before, {**moved, "fc/kernel": before["fc/kernel"]})
    assert found == (
        "layer 'fc', gradient: a step does not move its weights; a layer's outputs are dead, or it is frozen"
    )
    found = standing_still(before, {**moved, **{name: before[name] for name in ("conv1.weight", "head")}})
    assert found.startswith("layer 'conv1', gradient: a step does not move its weights, nor those of 1 more;")
    assert standing_still(before, before).startswith("no layer's weights move")


def test_what_a_chip_harms_comes_first() -> None:
    """A layer that stands out on the chip is named rather than one that stands still."""
    assert suspect([], "layer 'a', gradient") == "layer 'a', gradient"
    assert suspect([LayerHealth("b", 0.0, 0.0, 0.0)], "layer 'a', gradient") == "layer 'a', gradient"
    assert "layer 'b', read" in suspect([LayerHealth("b", 0.0, 0.5, 0.0)], "layer 'a', gradient")
