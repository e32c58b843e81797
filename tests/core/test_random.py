"""Draws depend on what they are for, and on nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from xbar_core import ConfigError
from xbar_core.random import Purpose, Stream

STREAM = Stream(seed=3, layer="fc1")
UNIFORM = [0.0027528267570438025, 0.663115388786779, 0.39585532096597786]
NORMAL = [0.48643247388774485, -1.6943464573065197, 0.7820405444428236]


@settings(max_examples=25)
@given(
    shape=st.sampled_from([(), (1,), (3,), (2, 3), (4, 4), (5, 7)]),
    first=st.integers(0, 10**12),
    count=st.integers(1, 6),
    step=st.integers(0, 10**9),
    normal=st.booleans(),
)
def test_samples_are_slices_of_one_stream(
    shape: tuple[int, ...], first: int, count: int, step: int, normal: bool
) -> None:
    """A batch drawn whole, in parts or sample by sample gives the same numbers."""
    draw = STREAM.normal_samples if normal else STREAM.uniform_samples
    whole = draw(Purpose.ADC_NOISE, shape, first=first, count=count, step=step)
    assert whole.shape == (count, *shape)
    for k in range(count):
        one = draw(Purpose.ADC_NOISE, shape, first=first + k, count=1, step=step)
        np.testing.assert_array_equal(one[0], whole[k])


def test_every_part_of_the_key_counts() -> None:
    """Another seed, layer, purpose, step or array gives other numbers; the same gives the same."""

    def draws(seed: int = 0, layer: int | str = 0, purpose: Purpose = Purpose.JUMP, **key: int) -> bytes:
        return Stream(seed, layer).normal(purpose, (8,), **key).tobytes()

    others = [
        draws(seed=1),
        draws(seed=2**64 - 1),
        draws(layer=1),
        draws(layer="0"),
        draws(purpose=Purpose.DRIFT),
        draws(step=1),
        draws(array=1),
        draws(step=1, array=1),
    ]
    assert len({draws(), *others}) == len(others) + 1
    assert draws() == draws(layer=np.int64(0)) == draws(seed=np.uint8(0))  # type: ignore[arg-type]


def test_order_of_calls_does_not_matter() -> None:
    """Draws made in reverse order are the same draws."""
    keys = [(purpose, step) for purpose in (Purpose.WRITE_NOISE, Purpose.READ_NOISE) for step in range(3)]
    forth = {key: STREAM.normal(key[0], (5,), step=key[1]) for key in keys}
    back = {key: STREAM.normal(key[0], (5,), step=key[1]) for key in reversed(keys)}
    for key in keys:
        np.testing.assert_array_equal(forth[key], back[key])


def test_another_process_draws_the_same() -> None:
    """No number depends on the process: Python's string hash, which does, is not used."""
    code = (
        "from xbar_core.random import Stream, Purpose;"
        "print(Stream(3, 'fc1').normal_samples(Purpose.JUMP, (3,), first=5, count=1).tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = STREAM.normal_samples(Purpose.JUMP, (3,), first=5, count=1)
    np.testing.assert_array_equal(np.frombuffer(bytes.fromhex(run.stdout.strip())), here[0])


def test_seeds_keep_their_meaning() -> None:
    """The numbers of a seed are pinned: a change here breaks every published result."""
    np.testing.assert_allclose(
        STREAM.uniform(Purpose.FAULTS, (3,)), UNIFORM, rtol=0, atol=0, err_msg="uniform"
    )
    normal = STREAM.normal_samples(Purpose.READ_NOISE, (3,), first=7, count=1, step=2)[0]
    np.testing.assert_allclose(normal, NORMAL, rtol=1e-14, err_msg="normal of a sample")


@pytest.mark.parametrize("samples", [False, True])
def test_distributions(samples: bool) -> None:
    """Draws are uniform and standard normal (Kolmogorov-Smirnov), and samples are uncorrelated."""
    size = 20_000
    if samples:
        uniform = STREAM.uniform_samples(Purpose.JUMP, (10,), first=0, count=size // 10)
        normal = STREAM.normal_samples(Purpose.JUMP, (10,), first=0, count=size // 10)
        correlation = np.corrcoef(normal[:-1].ravel(), normal[1:].ravel())[0, 1]
        assert abs(correlation) < 4.0 / size**0.5
        within = np.corrcoef(normal, rowvar=False) - np.eye(10)
        assert np.abs(within).max() < 5.0 / (size // 10) ** 0.5
    else:
        uniform = STREAM.uniform(Purpose.JUMP, (size,))
        normal = STREAM.normal(Purpose.JUMP, (size,))
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3


def test_purposes_are_apart() -> None:
    """No two purposes share a number."""
    assert len({int(p) for p in Purpose}) == len(Purpose.__members__)


@pytest.mark.parametrize("layer", [-1, 1.5, None])
def test_bad_layer(layer: object) -> None:
    """A layer is a number or a name."""
    with pytest.raises(ConfigError, match="layer"):
        Stream(0, layer)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, True])
def test_bad_seed(seed: object) -> None:
    """A seed that is no 64-bit number is refused by name."""
    with pytest.raises(ConfigError, match="seed"):
        Stream(seed)  # type: ignore[arg-type]
