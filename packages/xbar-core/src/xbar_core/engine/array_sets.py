"""One weight on several array sets side by side: the groups of a convolution, or one set alone.

What follows from the layouts: names, shares of columns and buffers, one range of the weights for all sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xbar_core import mapping
from xbar_core._arrays import namespace
from xbar_core.config import Chip
from xbar_core.config.mapping import MaxAbs
from xbar_core.engine.layout import Layout
from xbar_core.engine.program import Programmed, program
from xbar_core.engine.update import Updated, update
from xbar_core.random import Purpose, Stream

T = TypeVar("T")


class ArraySets:
    """What the layouts say of a weight; the base of an adapter's handle of a weight.

    Attributes
    ----------
    layouts : tuple of Layout
        One for every array set: as many columns each, from left to right.
    """

    layouts: tuple[Layout, ...]

    @property
    def chip(self) -> Chip:
        """The chip."""
        return self.layouts[0].chip

    @property
    def layout(self) -> Layout:
        """The layout, of the first array set where there are several."""
        return self.layouts[0]

    @property
    def name(self) -> int | str:
        """Key of the draws: that of the layer, and the weight's suffix."""
        return self.layouts[0].name

    @property
    def parts(self) -> int:
        """Number of array sets."""
        return len(self.layouts)

    @property
    def crossbar_mode(self) -> bool:
        """Whether the backward pass is that of the chip; else it is the derivative."""
        return self.chip.backward.mode == "crossbar"

    def columns(self, part: int) -> slice:
        """Return the columns of an array set."""
        outputs = self.layout.outputs
        return slice(part * outputs, (part + 1) * outputs)

    def parts_of(self, buffers: Mapping[str, T], part: int) -> dict[str, T]:
        """Return the engine's buffers of an array set, of those of all (see `packed`)."""
        if self.parts == 1:
            return dict(buffers)
        return {name: value if name == "w_max" else _item(value, part) for name, value in buffers.items()}

    def not_finite(self, what: str, calls: int, updates: int) -> FloatingPointError:
        """Return the error that says where NaN or infinity was met, after so many calls and updates."""
        return FloatingPointError(
            f"layer {self.name!r}, training call {calls}, update {updates}: "
            f"the {what} holds NaN or infinity; lower the learning rate, or look at what comes before it"
        )


def _item(value: Any, part: int) -> Any:
    return value[part, ...]


def is_product(sets: ArraySets) -> bool:
    """Return whether forward and backward read are plain products with one matrix and its transpose."""
    layout = sets.layout
    ahead, back = layout.forward, layout.backward
    if not ahead.linear or ahead.converts_input or sets.chip.update.pulsed:
        return False
    return not sets.crossbar_mode or (back.linear and not back.converts_input and layout.reciprocal)


def layouts_of(
    chip: Chip, inputs: int, outputs: int, name: int | str, signed_input: bool, parts: int = 1
) -> tuple[Layout, ...]:
    """Return the layouts of a weight (inputs, outputs) whose columns are split evenly into `parts` sets.

    Their names, which key the draws, are ``name`` for a set alone and else ``name/0``, ``name/1``, ...
    """
    return tuple(
        Layout(chip, inputs, outputs // parts, name if parts == 1 else f"{name}/{part}", signed_input)
        for part in range(parts)
    )


def program_parts(
    layouts: Sequence[Layout],
    weight: Any,
    w_max: float | None = None,
    buffers: Iterable[Mapping[str, Any]] | None = None,
    count: int = 0,
) -> list[Programmed]:
    """Program every array set with its share of the columns, all in one range.

    Parameters
    ----------
    layouts : sequence of Layout
        One for every array set.
    weight : array (in, out)
        Weights of all of them.
    w_max, count
        As in `program`.
    buffers : iterable of mapping or None
        What devices keep of an earlier programming, for every array set.
    """
    rule, parts = layouts[0].chip.mapping.w_max, len(layouts)
    if w_max is None and parts > 1 and isinstance(rule, MaxAbs):
        w_max = mapping.choose_w_max(weight, "max_abs", rule.headroom)
    kept = [None] * parts if buffers is None else buffers
    outputs, xp = layouts[0].outputs, namespace(weight)
    results = []
    for part, (layout, held) in enumerate(zip(layouts, kept, strict=True)):
        block = weight
        if parts > 1:
            # A copy is contiguous, as kernels want it.
            block = xp.asarray(weight[:, part * outputs : (part + 1) * outputs], copy=True)
        results.append(program(layout, block, w_max=w_max, buffers=held, count=count))
    return results


def packed(results: Sequence[Programmed]) -> tuple[Any, dict[str, Any]]:
    """Return the states side by side and the buffers stacked along a first axis; ``w_max`` is one for all."""
    first = results[0]
    if len(results) == 1:
        return first.state, dict(first.buffers)
    xp = namespace(first.state)
    stacked = {
        name: value if name == "w_max" else xp.stack([result.buffers[name] for result in results])
        for name, value in first.buffers.items()
    }
    return xp.concat([result.state for result in results], axis=-1), stacked


@dataclass(frozen=True)
class _Streams(Stream):
    """The draws of array sets, side by side."""

    sets: tuple[Stream, ...] = ()

    def uniform(
        self, purpose: Purpose, shape: tuple[int, ...], *, step: int = 0, array: int = 0
    ) -> NDArray[np.float64]:
        own = (*shape[:-1], shape[-1] // len(self.sets))
        return np.concatenate([s.uniform(purpose, own, step=step, array=array) for s in self.sets], axis=-1)

    def normal(
        self, purpose: Purpose, shape: tuple[int, ...], *, step: int = 0, array: int = 0
    ) -> NDArray[np.float64]:
        own = (*shape[:-1], shape[-1] // len(self.sets))
        return np.concatenate([s.normal(purpose, own, step=step, array=array) for s in self.sets], axis=-1)


@dataclass(frozen=True)
class _Together(Layout):
    """Array sets as one, for what happens to every device by itself."""

    sets: tuple[Layout, ...] = ()

    @cached_property
    def stream(self) -> Stream:
        return _Streams(self.chip.seed, self.name, tuple(layout.stream for layout in self.sets))


def update_parts(
    layouts: Sequence[Layout],
    state: Any,
    buffers: Mapping[str, Any],
    step: Any,
    *,
    rate: float = 1.0,
    count: int = 0,
    w_max: float | None = None,
) -> Updated:
    """Write one step into the devices of all array sets at once, as `update` writes it into each.

    Parameters
    ----------
    layouts : sequence of Layout
        One for every array set.
    state : array (devices, in, out)
        States of all of them, side by side.
    buffers : mapping of str to array
        Those of all of them, as `packed` returns them.
    step, rate, count, w_max
        As in `update`, the step being that of all of them.

    Returns
    -------
    Updated
        States and words as `state` and `buffers` hold them; counts of all devices.
    """
    parts, first = len(layouts), layouts[0]
    if parts == 1:
        return update(first, state, buffers, step, rate=rate, count=count, w_max=w_max)
    own = {field.name: getattr(first, field.name) for field in fields(Layout)}
    whole = _Together(**{**own, "outputs": parts * first.outputs}, sets=tuple(layouts))
    wanted = ("words", "faults", "spread_v", "spread_g_min", "spread_g_max")
    beside = {name: _beside(buffers[name]) for name in wanted if name in buffers}
    held = {"w_max": buffers["w_max"], **beside}
    result = update(whole, state, held, step, rate=rate, count=count, w_max=w_max)
    if result.words is None:
        return result
    words = result.words
    xp = namespace(words)
    split = xp.reshape(words, (*words.shape[:-1], parts, first.outputs))
    return result._replace(words=xp.moveaxis(split, -2, 0))


def _beside(stacked: Any) -> Any:
    """Return arrays (parts, ..., out) as (..., parts x out)."""
    xp = namespace(stacked)
    moved = xp.moveaxis(stacked, 0, -2)
    return xp.reshape(moved, (*moved.shape[:-2], -1))
