"""The weight update: encoding, device law, noise; and the backward read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.config._codec import Tagged
from xbar_core.config.ranges import DynamicRange, Range, TrackedRange
from xbar_core.errors import ConfigError

Stage = Literal["after_lr", "before_lr"]
Pair = Literal["both", "carry", "one_sided"]
V_LIMIT = 100.0
"""Largest |v|: beyond it the first pulse already covers the whole range."""


@dataclass(frozen=True, kw_only=True)
class _Staged:
    stage: Stage = "after_lr"

    def __post_init__(self) -> None:
        check_choice("update.noise.stage", self.stage, ("after_lr", "before_lr"))


@dataclass(frozen=True, kw_only=True)
class NoNoise(_Staged):
    """Writes without noise.

    Parameters
    ----------
    stage : {"after_lr", "before_lr"}
        Whether the device sees the step with the learning rate (what a physical write does) or the
        gradient, multiplied by the rate afterwards (the order of the TxSim paper). It also sets what
        the non-linearity sees.
    """

    law: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class _Scaled(_Staged):
    gamma: float

    def __post_init__(self) -> None:
        super().__post_init__()
        value = check_number("update.noise.gamma", self.gamma, minimum=0.0, maximum=1e6)
        object.__setattr__(self, "gamma", value)


@dataclass(frozen=True, kw_only=True)
class TxsimNoise(_Scaled):
    """Normal write noise of standard deviation ``gamma |dG_ideal|`` (TxSim, section IV-C).

    Parameters
    ----------
    stage : {"after_lr", "before_lr"}
        As in `NoNoise`.
    gamma : float
        Noise factor, dimensionless.
    """

    law: ClassVar[str] = "txsim"


@dataclass(frozen=True, kw_only=True)
class SqrtNoise(_Scaled):
    """Normal write noise of standard deviation ``gamma sqrt(R |dG_ideal|)``, R = g_max - g_min.

    Parameters
    ----------
    stage : {"after_lr", "before_lr"}
        As in `NoNoise`.
    gamma : float
        Noise factor, dimensionless; ``sigma sqrt(levels)`` for a cycle-to-cycle sigma relative to R.
    """

    law: ClassVar[str] = "sqrt"


Noise = Annotated[
    NoNoise | TxsimNoise | SqrtNoise,
    Tagged("law", {"none": NoNoise, "txsim": TxsimNoise, "sqrt": SqrtNoise}),
]
"""Write noise; tagged by ``law``."""


@dataclass(frozen=True)
class MappingScale:
    """A weight step moves each device by ``R / (2 w_max)`` times the step, w_max of the mapping."""

    rule: ClassVar[str] = "mapping"


@dataclass(frozen=True)
class NativeScale:
    """Scales from the statistics of native training.

    Parameters
    ----------
    w_max : float or None
        Native weight maximum that takes the mapping's place in ``R / (2 w_max)``, units of the weight.
        None: every layer brings its own.
    dw_max : float or None
        Full scale of pulse codes, units of the weight. None: every layer brings its own.
    """

    rule: ClassVar[str] = "native"
    w_max: float | None = None
    dw_max: float | None = None

    def __post_init__(self) -> None:
        for name in ("w_max", "dw_max"):
            if getattr(self, name) is not None:
                field_name = f"update.scale.{name}"
                value = check_number(field_name, getattr(self, name), minimum=0.0, open_minimum=True)
                object.__setattr__(self, name, value)


Scale = Annotated[
    MappingScale | NativeScale,
    Tagged("rule", {"mapping": MappingScale, "native": NativeScale}),
]
"""How a weight step becomes a conductance step; tagged by ``rule``."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """Encoding ``ideal``: one write per device and step, from the batch gradient.

    Parameters
    ----------
    v_up, v_down : float
        Non-linearity of potentiation and depression, dimensionless; 0 is linear, negative allowed.
    pair : {"both", "carry", "one_sided"} or None
        What a clipped half of a pair does: it is lost, its partner takes it, or only potentiation is
        used with a refresh when full. None: ``carry`` with differential, ``both`` otherwise (`Chip.pair`).
    scale : MappingScale or NativeScale
        How a weight step becomes a conductance step.
    snap : {"off", "nearest", "stochastic"}
        Rounding of the updated device to its levels.
    gradient : {"quantised", "full"}
        The outer product uses x and dy as the DAC sent them, or as they were before.
    noise : NoNoise, TxsimNoise or SqrtNoise
        Write noise and its stage.
    """

    encoding: ClassVar[str] = "ideal"
    v_up: float = 0.0
    v_down: float = 0.0
    pair: Pair | None = None
    scale: Scale = field(default_factory=MappingScale)
    snap: Literal["off", "nearest", "stochastic"] = "off"
    gradient: Literal["quantised", "full"] = "quantised"
    noise: Noise = field(default_factory=NoNoise)

    def __post_init__(self) -> None:
        for name in ("v_up", "v_down"):
            value = check_number(f"update.{name}", getattr(self, name), minimum=-V_LIMIT, maximum=V_LIMIT)
            object.__setattr__(self, name, value)
        if self.pair is not None:
            check_choice("update.pair", self.pair, ("both", "carry", "one_sided"))
        check_choice("update.snap", self.snap, ("off", "nearest", "stochastic"))
        check_choice("update.gradient", self.gradient, ("quantised", "full"))

    @property
    def pulsed(self) -> bool:
        """Whether steps are written as rank-1 pulses; momentum and weight decay are then impossible."""
        return self.encoding != "ideal"


@dataclass(frozen=True, kw_only=True)
class DeterministicUpdate(Update):
    """Encoding ``deterministic``: rank-1 writes of time or amplitude codes, in sample order.

    Parameters
    ----------
    bits : int
        Bits of the codes of x and dy, sign included.
    samples_per_write : int or None
        Samples aggregated into one write; None is the whole batch.
    """

    encoding: ClassVar[str] = "deterministic"
    bits: int
    samples_per_write: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("update.bits", self.bits, minimum=2, maximum=32)
        if self.samples_per_write is not None:
            check_integer("update.samples_per_write", self.samples_per_write, minimum=1)


@dataclass(frozen=True, kw_only=True)
class StochasticUpdate(Update):
    """Encoding ``stochastic``: bit streams whose coincidences make the product.

    Parameters
    ----------
    stream_length : int
        Bits per stream (BL).
    samples_per_write : int or None
        Samples aggregated into one write; None is the whole batch.
    """

    encoding: ClassVar[str] = "stochastic"
    stream_length: int
    samples_per_write: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("update.stream_length", self.stream_length, minimum=1, maximum=1_000_000)
        if self.samples_per_write is not None:
            check_integer("update.samples_per_write", self.samples_per_write, minimum=1)


AnyUpdate = Annotated[
    Update,
    Tagged(
        "encoding",
        {"ideal": Update, "deterministic": DeterministicUpdate, "stochastic": StochasticUpdate},
        default="ideal",
    ),
]
"""How a step reaches the devices; tagged by ``encoding``."""


@dataclass(frozen=True)
class CrossbarBackward:
    """The transposed non-ideal read through DAC and ADC: training on the chip.

    Parameters
    ----------
    error_range : Range
        Full scale of the errors at the DAC; dynamic by default, for errors fall by decades.
    current_range : Range
        Full scale of the row currents at the ADC, ampere.
    """

    mode: ClassVar[str] = "crossbar"
    error_range: Range = field(default_factory=DynamicRange)
    current_range: Range = field(default_factory=TrackedRange)


@dataclass(frozen=True)
class ExactBackward:
    """The true derivative of the forward read: hardware-aware training and inverse design."""

    mode: ClassVar[str] = "exact"


Backward = Annotated[
    CrossbarBackward | ExactBackward,
    Tagged("mode", {"crossbar": CrossbarBackward, "exact": ExactBackward}, default="crossbar"),
]
"""The backward pass; tagged by ``mode``."""


@dataclass(frozen=True)
class Precision:
    """Fixed-point training: weights, activations and errors are words of `bits` bits.

    Parameters
    ----------
    bits : int
        Bits of a word, sign included.
    rounding : {"stochastic", "nearest"}
        How a value becomes a word.
    """

    bits: int
    rounding: Literal["stochastic", "nearest"] = "stochastic"

    def __post_init__(self) -> None:
        check_integer("precision.bits", self.bits, minimum=2, maximum=32)
        check_choice("precision.rounding", self.rounding, ("stochastic", "nearest"))


def check_pair(pair: str | None, mapping: str) -> None:
    """Raise where the pair rule needs a partner that the mapping has not."""
    if mapping == "offset" and pair in ("carry", "one_sided"):
        raise ConfigError(
            f"update.pair: {pair!r} with mapping.kind = 'offset'; one device has no partner: "
            "use pair = 'both', or mapping.kind = 'differential'"
        )
