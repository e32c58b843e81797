"""Ranges of the converters: what a full-scale code stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.config._codec import Tagged
from xbar_core.errors import ConfigError


@dataclass(frozen=True)
class DynamicRange:
    """The largest magnitude of the call at hand; a result then depends on its batch mates."""

    rule: ClassVar[str] = "dynamic"


@dataclass(frozen=True)
class TrackedRange:
    """A statistic of the magnitudes, averaged over the first calls of training, then frozen.

    Parameters
    ----------
    statistic : {"max", "percentile"}
        What is taken of each batch.
    percentile : float or None
        Percent, above 0 and at most 100; given exactly when `statistic` is ``percentile``.
    batches : int or None
        Number of training batches averaged. Without `batches` and `epochs` it is 1000.
    epochs : int or None
        Number of training epochs averaged, instead of `batches`.
    """

    rule: ClassVar[str] = "tracked"
    statistic: Literal["max", "percentile"] = "max"
    percentile: float | None = None
    batches: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        check_choice("statistic", self.statistic, ("max", "percentile"))
        if (self.statistic == "percentile") != (self.percentile is not None):
            raise ConfigError(
                f"percentile: {self.percentile!r} does not fit statistic {self.statistic!r}; "
                'give percentile with statistic = "percentile", and only with it'
            )
        if self.percentile is not None:
            value = check_number("percentile", self.percentile, minimum=0.0, maximum=100.0, open_minimum=True)
            object.__setattr__(self, "percentile", value)
        if self.batches is not None and self.epochs is not None:
            raise ConfigError(
                f"epochs: {self.epochs!r} given beside batches = {self.batches!r}; give one of the two"
            )
        if self.batches is None and self.epochs is None:
            object.__setattr__(self, "batches", 1000)
        for name in ("batches", "epochs"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum=1)


@dataclass(frozen=True)
class FixedRange:
    """A constant full scale.

    Parameters
    ----------
    value : float
        Full scale above 0: units of the activation or error for a DAC, ampere for an ADC.
    """

    rule: ClassVar[str] = "fixed"
    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", check_number("value", self.value, minimum=0.0, open_minimum=True))


AnyRange = DynamicRange | TrackedRange | FixedRange
Range = Annotated[
    AnyRange,
    Tagged("rule", {"dynamic": DynamicRange, "tracked": TrackedRange, "fixed": FixedRange}),
]
"""How a converter finds its full scale; tagged by ``rule``."""
