"""How weights become device conductances."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.config._codec import Tagged
from xbar_core.errors import ConfigError


@dataclass(frozen=True)
class MaxAbs:
    """``w_max = headroom x max|w|`` of the layer at programming.

    Parameters
    ----------
    headroom : float
        Factor of at least 1; 4 leaves room for training, 1 suits a network that is not trained further.
    """

    rule: ClassVar[str] = "max_abs"
    headroom: float = 4.0

    def __post_init__(self) -> None:
        value = check_number("mapping.w_max.headroom", self.headroom, minimum=1.0, maximum=1e6)
        object.__setattr__(self, "headroom", value)


@dataclass(frozen=True)
class FixedWeight:
    """The same w_max for every layer.

    Parameters
    ----------
    value : float
        Weight that a full conductance range stands for, in units of the weight.
    """

    rule: ClassVar[str] = "fixed"
    value: float

    def __post_init__(self) -> None:
        value = check_number("mapping.w_max.value", self.value, minimum=0.0, open_minimum=True)
        object.__setattr__(self, "value", value)


@dataclass(frozen=True)
class NativeWeight:
    """w_max of every layer from the statistics of native training, handed over at programming."""

    rule: ClassVar[str] = "native"


WeightRange = Annotated[
    MaxAbs | FixedWeight | NativeWeight,
    Tagged("rule", {"max_abs": MaxAbs, "fixed": FixedWeight, "native": NativeWeight}),
]
"""How w_max of a layer is found; tagged by ``rule``."""


@dataclass(frozen=True)
class Mapping:
    """Weights on devices.

    Parameters
    ----------
    kind : {"balanced", "differential", "offset"}
        A pair around g_mid; a pair with one side at g_min; one device and a reference column at g_mid.
    weight_bits : int or None
        Bits of a programmed weight; None programs a continuum.
    cell_bits : int or None
        Bits per device: a weight takes ``ceil(weight_bits / cell_bits)`` devices. None keeps it on one.
    w_max : MaxAbs, FixedWeight or NativeWeight
        Weight of a full conductance range.
    """

    kind: Literal["balanced", "differential", "offset"] = "balanced"
    weight_bits: int | None = None
    cell_bits: int | None = None
    w_max: WeightRange = field(default_factory=MaxAbs)

    def __post_init__(self) -> None:
        check_choice("mapping.kind", self.kind, ("balanced", "differential", "offset"))
        for name in ("weight_bits", "cell_bits"):
            if getattr(self, name) is not None:
                check_integer(f"mapping.{name}", getattr(self, name), minimum=1, maximum=32)
        if self.cell_bits is not None and (self.weight_bits is None or self.cell_bits > self.weight_bits):
            raise ConfigError(
                f"mapping.cell_bits: {self.cell_bits} with mapping.weight_bits = {self.weight_bits}; "
                "a cell holds at most the whole weight: raise weight_bits, or leave cell_bits out"
            )
        if self.kind != "differential" and self.weight_bits == 1:
            raise ConfigError(
                f"mapping.weight_bits: 1 with mapping.kind = {self.kind!r} has the single level "
                "2**1 - 1 = 1; use at least 2 bits, or kind = 'differential'"
            )

    @property
    def device_bits(self) -> int | None:
        """Bits that one device holds; None means a continuum."""
        return self.weight_bits if self.cell_bits is None else self.cell_bits

    @property
    def device_levels(self) -> int | None:
        """Levels asked of one device; None: a continuum.

        ``2**bits`` for the digits of a sliced word and for differential; ``2**bits - 1`` for an unsliced
        balanced or offset weight, so that w = 0 is a level.
        """
        bits = self.device_bits
        if bits is None:
            return None
        return (1 << bits) - (0 if self.kind == "differential" or self.slices > 1 else 1)

    @property
    def slices(self) -> int:
        """Devices per weight and side of a pair."""
        if self.cell_bits is None or self.weight_bits is None:
            return 1
        return -(-self.weight_bits // self.cell_bits)
