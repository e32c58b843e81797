"""A network of the user's own is found by import path, tried out, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xbar_core import ConfigError, ShapeError
from xbar_torch.zoo import build

OWN = """
import torch
from torch import nn

def build(classes, image_shape):
    from own_parts_for_test import width
    channels, height, wide = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.LazyLinear(classes)
    )

def small(classes, image_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(9, classes))

def images(classes, image_shape):
    return nn.Conv2d(image_shape[0], classes, 3)

def pair(classes, image_shape):
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    return Pair()

def number(classes, image_shape):
    return 3

def careless(classes, image_shape):
    raise KeyError("depth")

def other(depth):
    return nn.Linear(depth, depth)
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets_for_test.py").write_text(OWN)
    (tmp_path / "own_parts_for_test.py").write_text("width = 4\n")
    monkeypatch.chdir(tmp_path)


def test_it_is_called_with_classes_and_image_shape() -> None:
    """The function makes the network; modules beside it are found even when imported late."""
    network = build("own_nets_for_test:build", 7, (2, 6, 5))
    assert network(torch.zeros(3, 2, 6, 5)).shape == (3, 7)


def test_trying_it_out_leaves_no_trace() -> None:
    """Modes and running statistics are as the function left them."""
    network = build("own_nets_for_test:build", 7, (2, 6, 5))
    assert all(module.training for module in network.modules())
    assert int(network[1].num_batches_tracked) == 0


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        (
            "small",
            ShapeError,
            r"does not take samples of shape \(1, 6, 5\): RuntimeError: mat1 and mat2",
        ),
        ("images", ShapeError, r"images returns \(2, 7, 4, 3\) for 2 samples; .*, here \(2, 7\)"),
        ("pair", ShapeError, "pair returns tuple for 2 samples"),
        ("number", ConfigError, "number returned a int; it must return a torch.nn.Module"),
        ("careless", ConfigError, r"failed: KeyError: 'depth' \(own_nets_for_test.py, line 28\)"),
        (
            "other",
            ConfigError,
            r"other\(7, \(1, 6, 5\)\) failed: TypeError: .*takes 1 positional",
        ),
        ("buld", ConfigError, "has no 'buld', did you mean 'build'"),
    ],
)
def test_what_is_no_classifier_is_refused(name: str, kind: type[ValueError], text: str) -> None:
    """What fails, takes other samples or returns no logits is named, with the line where it failed."""
    with pytest.raises(kind, match=f"^network: .*{text}"):
        build(f"own_nets_for_test:{name}", 7, (1, 6, 5))


def test_missing_module_is_named() -> None:
    """A module that cannot be imported says what to do."""
    with pytest.raises(ConfigError, match="cannot import 'own_nowhere'.*run in the folder that holds it"):
        build("own_nowhere:build", 7, (1, 6, 5))
