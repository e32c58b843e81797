"""Which combinations of values a sweep visits: grid, random or Latin hypercube."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from xbar_core._checks import check_choice, check_integer
from xbar_core.errors import ConfigError
from xbar_core.lab.sweep.fields import Field, Span

Design = Literal["grid", "random", "latin"]
DESIGNS: tuple[Design, ...] = ("grid", "random", "latin")
_MOST = 1_000_000


def assignments(
    fields: Sequence[Field], design: str = "grid", *, samples: int | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Return the points of a design as values by path.

    Parameters
    ----------
    fields : sequence of Field
        What varies. Seeds are never sampled: every setting is repeated for each of them.
    design : {"grid", "random", "latin"}
        All combinations; independent draws; or a Latin hypercube, where every field visits each of
        `samples` equal parts of its range once (lists and whole numbers as evenly as they divide).
    samples : int or None
        Settings to draw, before repeats; obligatory unless a grid, impossible with one.
    seed : int
        Seed of the draws.

    Raises
    ------
    ConfigError
        A path given twice, a grid over a span, samples that do not go with the design.

    References
    ----------
    M. D. McKay, R. J. Beckman and W. J. Conover, Technometrics 21(2), 1979 (Latin hypercube).
    """
    check_choice("design", design, DESIGNS)
    paths = [path for field in fields for path in field.paths]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"{path}: is given twice; keep one list of values")
    varied = [field for field in fields if not field.repeats]
    repeats = [field for field in fields if field.repeats]
    if design == "grid":
        if samples is not None:
            raise ConfigError(f"samples: {samples} with design = 'grid'; a grid visits all: leave it out")
        settings = _grid(varied)
    else:
        if samples is None:
            raise ConfigError(f"samples: missing with design = {design!r}; say how many settings to draw")
        count = check_integer("samples", samples, minimum=1, maximum=_MOST)
        shares = _shares(design, count, len(varied), check_integer("seed", seed, minimum=0))
        settings = [
            _merged([(field, _at(field.values, share)) for field, share in zip(varied, row, strict=True)])
            for row in shares.tolist()
        ]
    return [setting | repeat for setting, repeat in itertools.product(settings, _grid(repeats))]


def _grid(fields: Sequence[Field]) -> list[dict[str, Any]]:
    lists: list[tuple[Any, ...]] = []
    for field in fields:
        if isinstance(field.values, Span):
            kind = "log" if field.values.log else "lin"
            raise ConfigError(
                f"{field.name}: a span without a number of values in a grid; write "
                f"{kind}({field.values.low:g}, {field.values.high:g}, 5), or use design = 'random' or 'latin'"
            )
        lists.append(field.values)
    if np.prod([len(values) for values in lists], dtype=float) > _MOST:
        raise ConfigError(f"fields: more than {_MOST} combinations; use design = 'random' or 'latin'")
    return [_merged(zip(fields, row, strict=True)) for row in itertools.product(*lists)]


def _merged(pairs: Any) -> dict[str, Any]:
    return {path: value for field, value in pairs for path in field.paths}


def _shares(design: str, samples: int, dimensions: int, seed: int) -> NDArray[np.float64]:
    """Return where in its range each field is, (samples, dimensions) in [0, 1)."""
    generator = np.random.Generator(np.random.Philox(seed))
    if dimensions == 0:
        return np.zeros((samples, 0))
    if design == "random":
        return generator.random((samples, dimensions))
    return np.asarray(qmc.LatinHypercube(dimensions, rng=generator).random(samples))


def _at(values: tuple[Any, ...] | Span, share: float) -> Any:
    return values.at(share) if isinstance(values, Span) else values[int(share * len(values))]
