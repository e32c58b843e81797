"""What a chip learns from data before it trains: ranges of its converters, scales of its updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from xbar_core.config import Chip
from xbar_core.config.ranges import AnyRange, TrackedRange
from xbar_core.config.update import NativeScale
from xbar_core.engine.layout import Layout
from xbar_core.engine.ranges import Ranges
from xbar_core.errors import ConfigError
from xbar_core.periphery.ranges import RangeState


class LayerStatistics(NamedTuple):
    """Maxima of one weight over native training.

    Attributes
    ----------
    w_max : float
        Largest magnitude that a weight had, weight units.
    dw_max : float
        Largest magnitude of a weight's change in one step, learning rate included, weight units.
    """

    w_max: float
    dw_max: float


class Scale(NamedTuple):
    """Native maxima of one crossbar weight, weight units; None where the mapping's range is used."""

    w_max: float | None = None
    dw_max: float | None = None


def native_scale(chip: Chip, name: str, find: Callable[[], LayerStatistics] | None) -> Scale:
    """Return the scales of a weight: those of its chip, else those of native training.

    Parameters
    ----------
    chip : Chip
        The chip.
    name : str
        Of the weight, for the message.
    find : callable or None
        Returns the statistics of the weight; None where none were collected.
    """
    rule = chip.update.scale
    if not isinstance(rule, NativeScale):
        return Scale()
    if rule.w_max is not None and (rule.dw_max is not None or not chip.update.pulsed):
        return Scale(rule.w_max, rule.dw_max)
    if find is None:
        raise ConfigError(
            f"update.scale: rule = 'native' without values ({name}); give update.scale.w_max and dw_max, or "
            "PulseSGD(..., statistics=native_statistics(native_model, ...))"
        )
    found = find()
    return Scale(
        found.w_max if rule.w_max is None else rule.w_max,
        found.dw_max if rule.dw_max is None else rule.dw_max,
    )


def unlearned(layout: Layout, ranges: Ranges) -> Ranges:
    """Return the ranges with those that are tracked as they were before any data."""
    return _each(layout, ranges, lambda rule, held: RangeState() if isinstance(rule, TrackedRange) else held)


def frozen(layout: Layout, ranges: Ranges, epochs: int) -> tuple[Ranges, int]:
    """Return ranges and finished epochs with which later training leaves what was learned as it is.

    As many batches and epochs are counted as the rules ask for, for ranges that have learned anything.
    """

    def enough(rule: AnyRange, held: RangeState) -> RangeState:
        nonlocal epochs
        if not isinstance(rule, TrackedRange) or held.batches == 0:
            return held
        epochs = max(epochs, rule.epochs or 0)
        return held._replace(batches=max(held.batches, rule.batches or 0))

    return _each(layout, ranges, enough), epochs


def _each(layout: Layout, ranges: Ranges, change: Callable[[AnyRange, RangeState], RangeState]) -> Ranges:
    """Return the ranges, each changed by its rule."""
    found = {}
    for plan in (layout.forward, layout.backward):
        for name, rule in ((plan.input_range, plan.input_rule), (plan.current_range, plan.current_rule)):
            found[name] = change(rule, getattr(ranges, name))
    return Ranges(**found)
