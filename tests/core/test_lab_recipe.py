"""How a network is trained: rates of every epoch, and values that are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from xbar_core.errors import ConfigError
from xbar_core.lab.recipe import Recipe

RECIPE = Recipe("fake", epochs=4)


@pytest.mark.parametrize(
    ("recipe", "wanted"),
    [
        (Recipe(epochs=4, rate=0.4, schedule="constant"), [0.4] * 4),
        (Recipe(epochs=4, rate=0.4, schedule="cosine"), [0.4, 0.34142136, 0.2, 0.05857864]),
        (Recipe(epochs=4, rate=0.4, schedule="step"), [0.4, 0.4, 0.04, 0.004]),
        (Recipe(epochs=5, rate=0.4, schedule="constant", warmup=3), [0.1, 0.2, 0.3, 0.4, 0.4]),
        (Recipe(epochs=5, rate=0.4, schedule="cosine", warmup=1), [0.2, 0.4, 0.34142136, 0.2, 0.05857864]),
    ],
)
def test_rates(recipe: Recipe, wanted: list[float]) -> None:
    """The rate of every epoch, computed by hand."""
    np.testing.assert_allclose([recipe.rate_at(k) for k in range(recipe.epochs)], wanted, rtol=1e-7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("rate", 0.0),
        ("momentum", 1.0),
        ("optimizer", "sdg"),
        ("schedule", "cosin"),
        ("warmup", 4),
        ("clip", 0.0),
        ("augment", "flip"),
        ("weight_decay", -1.0),
        ("weight_decay", 1e39),
        ("clip", 1e39),
        ("momentum", 1e39),
        ("dtype", "float16"),
        ("batch", 1.5),
        ("seed", -1),
    ],
)
def test_recipe_checks_its_values(field: str, value: Any) -> None:
    """A value out of range names its field."""
    with pytest.raises(ConfigError, match=field):
        replace(RECIPE, **{field: value})
