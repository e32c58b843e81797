"""Batches are the same for the same seed, however a run is interrupted or shared."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xbar_core import ConfigError, ShapeError
from xbar_core.lab.data import (
    Batches,
    DataSet,
    Flip,
    PadCrop,
    ahead,
    augmentation,
    default_augmentation,
    evaluation_batches,
    shard,
)

RNG = np.random.default_rng(7)
IMAGES = RNG.integers(0, 256, (23, 3, 8, 6), dtype=np.uint8)
LABELS = np.arange(23)
DATA = DataSet("x", IMAGES, LABELS, IMAGES[:5], LABELS[:5], 23)
CROP_FLIP = augmentation("crop-flip")


def all_of(batches: Batches, epoch: int, start: int = 0) -> list[tuple[Any, Any]]:
    return list(batches.epoch(epoch, start=start))


@settings(max_examples=25)
@given(size=st.integers(1, 23), epoch=st.integers(0, 10**6), seed=st.integers(0, 2**64 - 1))
def test_an_epoch_shows_every_sample_once(size: int, epoch: int, seed: int) -> None:
    """The labels of an epoch are a permutation, and samples stay with their labels."""
    batches = Batches(DATA, size, seed)
    steps = all_of(batches, epoch)
    labels = np.concatenate([y for _, y in steps])
    assert len(steps) == len(batches)
    assert sorted(labels) == list(range(23))
    assert np.array_equal(np.concatenate([x for x, _ in steps]), DATA.normalised(IMAGES[labels]))


def test_order_is_part_of_a_seeds_meaning() -> None:
    """Seed and epoch give this order for ever; another seed or epoch gives another."""
    batches = Batches(DATA, 4, seed=3)
    assert batches.order(2)[:6].tolist() == [15, 16, 10, 20, 5, 7]
    orders = {tuple(b.order(e)) for b in (batches, Batches(DATA, 4, seed=4)) for e in range(5)}
    assert len(orders) == 10


@given(start=st.integers(0, 6))
@settings(max_examples=10)
def test_a_run_resumes_at_any_step(start: int) -> None:
    """An epoch started at step k gives the batches that an uninterrupted one gives from k on."""
    batches = Batches(DATA, 4, seed=1, augmentation=CROP_FLIP)
    whole, rest = all_of(batches, 5)[start:], all_of(batches, 5, start)
    assert len(whole) == len(rest)
    for (x, y), (resumed_x, resumed_y) in zip(whole, rest, strict=True):
        assert np.array_equal(x, resumed_x)
        assert np.array_equal(y, resumed_y)


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_share_the_batch_of_one(ranks: int) -> None:
    """The parts of all processes, joined, are one process' batch, augmentation included."""
    alone = all_of(Batches(DATA, 5, seed=1, augmentation=CROP_FLIP), 0)
    parts = [
        all_of(Batches(DATA, 5, seed=1, augmentation=CROP_FLIP, rank=rank, ranks=ranks), 0)
        for rank in range(ranks)
    ]
    for step, (x, y) in enumerate(alone):
        assert np.array_equal(np.concatenate([part[step][0] for part in parts]), x)
        assert np.array_equal(np.concatenate([part[step][1] for part in parts]), y)


@given(count=st.integers(0, 1000), ranks=st.integers(1, 9))
def test_shards_follow_each_other(count: int, ranks: int) -> None:
    """Shards cover a batch without gap or overlap and differ by one sample at most."""
    parts = [shard(count, rank, ranks) for rank in range(ranks)]
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 24}, "batch: 24 is larger than the data; x has 23 training samples"),
        ({"size": 0}, "batch: 0 is out of range"),
        ({"size": 2, "ranks": 3}, "batch: 2 is out of range; it must be at least 3"),
        ({"size": 11, "ranks": 2}, "last batch of an epoch has 1 samples for 2 processes"),
        ({"size": 4, "rank": 1}, "rank: 1 is out of range"),
        ({"size": 4, "seed": -1}, "seed: -1 is out of range"),
    ],
)
def test_impossible_batches_are_refused(options: dict[str, int], text: str) -> None:
    """Before anything is trained, an impossible batch says what is wrong."""
    with pytest.raises(ConfigError, match=text):
        Batches(DATA, **options)


def test_evaluation_keeps_the_order() -> None:
    """Test samples come in order, all of them, normalised with the training statistics."""
    parts = list(evaluation_batches(DATA, 2))
    assert [len(y) for _, y in parts] == [2, 2, 1]
    assert np.array_equal(np.concatenate([x for x, _ in parts]), DATA.normalised(DATA.test_x))


def test_crops_are_windows_of_the_padded_image() -> None:
    """Each crop is one of the 81 windows of its own image, and many different ones occur."""
    out = PadCrop(4)(IMAGES, np.random.default_rng(0), 0, len(IMAGES))
    padded = np.pad(IMAGES, ((0, 0), (0, 0), (4, 4), (4, 4)))
    seen = set()
    for image, crop in zip(padded, out, strict=True):
        places = [
            (i, j) for i in range(9) for j in range(9) if np.array_equal(image[:, i : i + 8, j : j + 6], crop)
        ]
        assert places
        seen.add(places[0])
    assert len(seen) > 12


def test_flips_mirror_half_of_the_images() -> None:
    """Each image is itself or its mirror image, about half of each; the input is not changed."""
    before = IMAGES.copy()
    out = Flip()(IMAGES, np.random.default_rng(0), 0, len(IMAGES))
    same = (out == IMAGES).all(axis=(1, 2, 3))
    assert np.array_equal(out[~same], IMAGES[~same][..., ::-1])
    assert 5 <= same.sum() <= 18
    assert np.array_equal(IMAGES, before)


def test_augmentation_has_names() -> None:
    """Names and defaults are known; a wrong one is answered with the choice."""
    assert augmentation("none") == ()
    assert augmentation(default_augmentation("cifar10")) == (PadCrop(4), Flip())
    assert default_augmentation("mnist") == "none"
    with pytest.raises(ConfigError, match="did you mean 'crop-flip'"):
        augmentation("cropflip")
    with pytest.raises(ConfigError, match="pad: 0 is out of range"):
        PadCrop(0)
    with pytest.raises(ShapeError, match="no images"):
        Flip()(np.zeros((2, 3)), np.random.default_rng(0), 0, 2)


def test_a_thread_ahead_changes_nothing() -> None:
    """Batches made ahead are the batches."""
    batches = Batches(DATA, 4, augmentation=CROP_FLIP)
    for (x, y), (ahead_x, ahead_y) in zip(batches.epoch(0), ahead(batches.epoch(0)), strict=True):
        assert np.array_equal(x, ahead_x)
        assert np.array_equal(y, ahead_y)


def test_a_thread_ahead_passes_errors_on_and_ends() -> None:
    """An error comes out where its item would; a caller that stops early leaves no thread behind."""

    def failing() -> Iterator[int]:
        yield 1
        raise ShapeError("bad image")

    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(ShapeError, match="bad image"):
        next(items)
    endless = ahead(iter(int, 1), depth=1)
    assert next(endless) == 0
    assert any(thread.name == "batches" for thread in threading.enumerate())
    endless.close()
    assert not any(thread.name == "batches" for thread in threading.enumerate())
