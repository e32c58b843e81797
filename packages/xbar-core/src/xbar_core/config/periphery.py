"""Converters at the edges of the array: input DAC, output ADC, and their non-linearity."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.config._codec import Tagged, check_list, check_text
from xbar_core.config._csv import read_columns, resolve
from xbar_core.config.ranges import FixedRange, Range, TrackedRange
from xbar_core.errors import ConfigError


@dataclass(frozen=True)
class OddPolynomial:
    """Integral non-linearity ``y = x + sum_k c_k (x^(2k+1) - x)`` in units of full scale.

    Parameters
    ----------
    coefficients : tuple of float
        c_1, c_2, ...; the end points -1, 0, 1 stay fixed and y must rise everywhere.
    """

    kind: ClassVar[str] = "polynomial"
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        values = check_list("coefficients", self.coefficients, minimum=-10.0, maximum=10.0)
        object.__setattr__(self, "coefficients", values)
        # dy/dx is a polynomial in t = x^2; its lowest value on [0, 1] is at an end or where it turns.
        powers = [1.0 - sum(values), *((2 * k + 3) * c for k, c in enumerate(values))]
        slope = np.polynomial.Polynomial(np.array(powers))
        roots = np.asarray(slope.deriv().roots(), dtype=np.complex128)
        turns = roots.real[(abs(roots.imag) < 1e-9) & (roots.real > 0.0) & (roots.real < 1.0)]
        lowest = min(float(slope(t)) for t in (0.0, 1.0, *turns.tolist()))
        if lowest <= 0.0:
            raise ConfigError(
                f"coefficients: {list(values)} make the curve fall (slope {lowest:.3g}); "
                "a converter is monotonic: use smaller coefficients"
            )


@dataclass(frozen=True)
class MeasuredCurve:
    """A measured transfer curve, interpolated monotonically between its points.

    Parameters
    ----------
    x, y : tuple of float
        Input and output in units of full scale, both rising; at least two points, within -1 to 1, up to
        x = 1. Points from 0 up are mirrored for negative inputs.
    source : str
        Where the points come from, such as the name of the file they were read from.
    """

    kind: ClassVar[str] = "table"
    x: tuple[float, ...]
    y: tuple[float, ...]
    source: str = ""

    def __post_init__(self) -> None:
        check_text("source", self.source)
        for name in ("x", "y"):
            points = check_list(name, getattr(self, name), minimum=-1.0, maximum=1.0)
            object.__setattr__(self, name, points)
            fall = next((k for k in range(1, len(points)) if points[k] <= points[k - 1]), None)
            if fall is not None:
                raise ConfigError(
                    f"{name}[{fall}]: {points[fall]!r} does not rise above {points[fall - 1]!r}; "
                    "sort the points and drop doubles"
                )
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise ConfigError(
                f"y: {len(self.y)} values for {len(self.x)} of x; give equally many, at least two"
            )
        if self.x[-1] < 1.0:
            raise ConfigError(
                f"x: the last point is {self.x[-1]!r}; measured points must reach full scale (x = 1): "
                "add the end point"
            )
        first = next(k for k, x in enumerate(self.x) if x > 0.0)
        if self.x[0] >= 0.0 and self.y[first] <= 0.0:
            raise ConfigError(
                f"y[{first}]: {self.y[first]!r} at x = {self.x[first]!r}; a curve that is mirrored for "
                "negative inputs must be above 0 there: measure from -1 to 1, or remove the offset"
            )


def read_curve(table: dict[str, Any], folder: Path, path: str) -> dict[str, Any]:
    """Replace ``path`` by the points of that CSV file (columns ``x`` and ``y``)."""
    rest = dict(table)
    name = rest.pop("path")
    columns = read_columns(resolve(name, folder, f"{path}.path"), ("x", "y"), f"{path}.path")
    return {"source": str(name), **rest, "x": columns["x"].tolist(), "y": columns["y"].tolist()}


AnyNonlinearity = OddPolynomial | MeasuredCurve
Nonlinearity = Annotated[
    AnyNonlinearity,
    Tagged(
        "kind",
        {"polynomial": OddPolynomial, "table": MeasuredCurve},
        shorthand="polynomial",
        read_file=read_curve,
    ),
]
"""Integral non-linearity of a converter; tagged by ``kind``, a bare list is a polynomial."""


def check_bits(name: str, value: int | None, *, minimum: int = 1) -> None:
    """Raise unless `value` is None (unlimited) or a number of bits up to 32."""
    if value is not None:
        check_integer(name, value, minimum=minimum, maximum=32)


@dataclass(frozen=True)
class Input:
    """Activations and errors to row voltages.

    Parameters
    ----------
    bits : int or None
        Bits of the word; None rounds nothing. Unsigned words have ``2**bits`` codes, signed ones
        ``2**bits - 1``.
    dac_bits : int or None
        Bits of the DAC: the word is sent in ``ceil(m / dac_bits)`` phases, m = bits for unsigned and
        bits - 1 for signed words. None sends the word at once.
    signed : {"bipolar", "two_phase"}
        Negative inputs as negative voltages, or in a second read that is subtracted.
    v_read : float
        Full-scale read voltage, volt.
    range : Range
        Full scale of the activations (the errors' own is ``backward.error_range``).
    nonlinearity : Nonlinearity or None
        Integral non-linearity of the DAC, in units of full scale.
    """

    bits: int | None = None
    dac_bits: int | None = None
    signed: Literal["bipolar", "two_phase"] = "bipolar"
    v_read: float = 1.0
    range: Range = field(default_factory=TrackedRange)
    nonlinearity: Nonlinearity | None = None

    def __post_init__(self) -> None:
        check_bits("input.bits", self.bits)
        check_bits("input.dac_bits", self.dac_bits)
        if self.dac_bits is not None and (self.bits is None or self.dac_bits > self.bits):
            raise ConfigError(
                f"input.dac_bits: {self.dac_bits} with input.bits = {self.bits}; "
                "a word has at least as many bits as its DAC: set input.bits, or leave dac_bits out"
            )
        check_choice("input.signed", self.signed, ("bipolar", "two_phase"))
        v_read = check_number("input.v_read", self.v_read, minimum=0.0, maximum=1e3, open_minimum=True)
        object.__setattr__(self, "v_read", v_read)
        _coerce_nonlinearity(self, "input")

    @property
    def converts(self) -> bool:
        """Whether a range matters: without bits, curve and fixed range the DAC is the identity."""
        return self.bits is not None or self.nonlinearity is not None or isinstance(self.range, FixedRange)


@dataclass(frozen=True)
class Adc:
    """Column currents to codes.

    Parameters
    ----------
    bits : int or None
        Bits of a code; None rounds nothing.
    range : Range
        Full-scale current of the forward read (``backward.current_range`` is the backward one), ampere.
    subtract : {"analog", "digital"}
        The two sides of a pair are subtracted before the ADC, or each is converted and then subtracted.
    gain_error : float
        Relative standard deviation of the gain from column to column, frozen with the chip.
    offset_error : float
        Standard deviation of the offset from column to column, ampere, frozen with the chip.
    noise : float
        Thermal noise at the ADC input, ampere rms, fresh in every conversion.
    nonlinearity : Nonlinearity or None
        Integral non-linearity, in units of full scale.
    """

    bits: int | None = None
    range: Range = field(default_factory=TrackedRange)
    subtract: Literal["analog", "digital"] = "analog"
    gain_error: float = 0.0
    offset_error: float = 0.0
    noise: float = 0.0
    nonlinearity: Nonlinearity | None = None

    def __post_init__(self) -> None:
        check_bits("adc.bits", self.bits)
        check_choice("adc.subtract", self.subtract, ("analog", "digital"))
        if self.bits == 1 and self.subtract == "analog":
            raise ConfigError(
                "adc.bits: 1 with adc.subtract = 'analog'; a signed 1-bit code has only the value 0: "
                "use at least 2 bits, or subtract = 'digital'"
            )
        for name in ("gain_error", "offset_error", "noise"):
            value = check_number(f"adc.{name}", getattr(self, name), minimum=0.0, maximum=1.0)
            object.__setattr__(self, name, value)
        _coerce_nonlinearity(self, "adc")

    @property
    def converts(self) -> bool:
        """Whether a range matters: without bits, curve and fixed range codes are the currents themselves."""
        return self.bits is not None or self.nonlinearity is not None or isinstance(self.range, FixedRange)


def _coerce_nonlinearity(part: Input | Adc, name: str) -> None:
    """Let a list of coefficients stand for the polynomial; an empty one for none."""
    value: object = part.nonlinearity
    if isinstance(value, tuple | list):
        try:
            value = OddPolynomial(tuple(value)) if value else None
        except ConfigError as error:
            raise ConfigError(f"{name}.nonlinearity.{error}") from error
    elif isinstance(value, OddPolynomial) and not value.coefficients:
        value = None
    object.__setattr__(part, "nonlinearity", value)
