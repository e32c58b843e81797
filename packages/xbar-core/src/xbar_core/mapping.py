r"""Weights on devices: how a number becomes the states of one, two or many memory cells.

A device of conductance g has the normalised state ``s = (g - g_min) / (g_max - g_min)`` in
[0, 1]. A weight w of a layer with range w_max is stored, with c = w / w_max clipped to [-1, 1], as

==============  =================  =================  =============================
kind            s of side 0        s of side 1        decoded weight
==============  =================  =================  =============================
balanced        (1 + c) / 2        (1 - c) / 2        w_max (s_0 - s_1)
differential    max(c, 0)          max(-c, 0)         w_max (s_0 - s_1)
offset          (1 + c) / 2        reference column   2 w_max (s_0 - s_ref)
==============  =================  =================  =============================

With `weight_bits` = b the code is an integer: k = rint(c K) with K = 2**b - 1 for differential and
K = 2**(b-1) - 1 for the other two, so that w = 0 is a level. Bit slicing writes the word of each side
in digits of base 2**cell_bits, least significant first, one device for each digit.

States have the shape (devices, in, out): device index = slice * sides + side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from xbar_core._arrays import namespace
from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.errors import ConfigError

Kind = Literal["balanced", "differential", "offset"]
KINDS: tuple[str, ...] = ("balanced", "differential", "offset")


@dataclass(frozen=True)
class WeightCode:
    """How one weight is written in devices.

    Parameters
    ----------
    kind : {"balanced", "differential", "offset"}
        The mapping; see the module's table.
    weight_bits : int or None
        Bits of a weight, 1 to 48 (at least 2 unless differential); None is unlimited.
    cell_bits : int or None
        Bits of one device. Fewer than `weight_bits` slices the word; None means one device.
    levels : int or None
        The device's own number of levels, at least 2 (3 unless differential or sliced); None is unlimited.

    Raises
    ------
    ConfigError
        A value is out of range, a cell has more bits than the weight, or the device has fewer levels
        than one cell needs.
    """

    kind: Kind = "balanced"
    weight_bits: int | None = None
    cell_bits: int | None = None
    levels: int | None = None

    def __post_init__(self) -> None:
        check_choice("mapping.kind", self.kind, KINDS)
        least = 1 if self.kind == "differential" else 2
        if self.weight_bits is not None:
            check_integer("mapping.weight_bits", self.weight_bits, minimum=least, maximum=48)
        if self.cell_bits is not None:
            if self.weight_bits is None:
                raise ConfigError("mapping.cell_bits: given without mapping.weight_bits; give both")
            check_integer("mapping.cell_bits", self.cell_bits, minimum=1, maximum=self.weight_bits)
        if self.levels is not None:
            digits = self.kind == "differential" or self.slices > 1
            check_integer("device.levels", self.levels, minimum=2 if digits else 3)
            if self.cell_levels is not None and self.levels < self.cell_levels:
                raise ConfigError(
                    f"device.levels: {self.levels} is fewer than the {self.cell_levels} levels that one cell "
                    "needs; lower mapping.cell_bits (or mapping.weight_bits)"
                )

    @property
    def sides(self) -> int:
        """Devices that carry one digit: 2 for the pairs, 1 for offset."""
        return 1 if self.kind == "offset" else 2

    @cached_property
    def slices(self) -> int:
        """Number of digits of a word."""
        if self.weight_bits is None or self.cell_bits is None:
            return 1
        return -(-self.weight_bits // self.cell_bits)

    @property
    def devices(self) -> int:
        """Devices of one weight: slices x sides."""
        return self.slices * self.sides

    @cached_property
    def full_code(self) -> int | None:
        """Largest code of one side's word, or None when unlimited."""
        if self.weight_bits is None:
            return None
        return int(2**self.weight_bits) - (1 if self.kind == "differential" else 2)

    @cached_property
    def cell_levels(self) -> int | None:
        """Levels that one device must tell apart, or None when unlimited."""
        if self.slices > 1:
            assert self.cell_bits is not None
            return int(2**self.cell_bits)
        return None if self.full_code is None else self.full_code + 1

    @cached_property
    def word_levels(self) -> int | None:
        """Levels of one side's word: the code's, else the device's (odd where w = 0 sits in the middle)."""
        if self.full_code is not None:
            return self.full_code + 1
        if self.levels is None or self.kind == "differential":
            return self.levels
        return self.levels - (self.levels + 1) % 2

    @cached_property
    def significance(self) -> tuple[float, ...]:
        """Share q_i of digit i: the word of a side is ``sum_i q_i s_i``."""
        if self.slices == 1:
            return (1.0,)
        assert self.cell_bits is not None
        assert self.full_code is not None
        base = 2**self.cell_bits
        return tuple(base**i * (base - 1) / self.full_code for i in range(self.slices))

    @cached_property
    def zero(self) -> tuple[float, ...]:
        """State of each digit of the word of w = 0: what an offset reference column holds."""
        if self.kind == "differential":
            return (0.0,) * self.slices
        if self.slices == 1:
            return (0.5,)
        assert self.cell_bits is not None
        assert self.full_code is not None
        base, code = 2**self.cell_bits, self.full_code // 2
        return tuple((code // base**i) % base / (base - 1) for i in range(self.slices))

    @cached_property
    def gains(self) -> tuple[float, ...]:
        """d(w / w_max) / ds of each device, in the order of the state's first axis."""
        if self.kind == "offset":
            return tuple(2.0 * q for q in self.significance)
        return tuple(sign * q for q in self.significance for sign in (1.0, -1.0))


def choose_w_max(weight: Any, rule: str, value: float) -> float:
    """Return the range of a layer.

    Parameters
    ----------
    weight : array (in, out)
        Weights to be stored.
    rule : {"max_abs", "fixed"}
        ``max_abs``: `value` (the headroom) times the largest weight; ``fixed``: `value` itself.
    value : float
        Headroom or range, above 0.

    Returns
    -------
    float
        w_max in weight units; 1 x `value` for an all-zero matrix under ``max_abs``.
    """
    check_choice("mapping.w_max.rule", rule, ("max_abs", "fixed"))
    value = check_number("mapping.w_max", value, minimum=0.0, open_minimum=True)
    if rule == "fixed":
        return value
    xp = namespace(weight)
    largest = float(xp.max(xp.abs(weight)))
    return value * largest if largest > 0.0 else value


def words_of(code: WeightCode, weight: Any, w_max: float, *, snap: bool = True) -> Any:
    """Return the words of both sides, in [0, 1], before slicing.

    Parameters
    ----------
    code : WeightCode
        The mapping.
    weight : array (in, out)
        Weights; beyond +-w_max they saturate.
    w_max : float
        Range of the layer, weight units.
    snap : bool
        Round to the code's levels (half to even).

    Returns
    -------
    array (sides, in, out)
    """
    xp = namespace(weight)
    ratio = xp.clip(weight / w_max, -1.0, 1.0)
    if snap and code.word_levels is not None:
        steps = code.word_levels - 1
        largest = steps if code.kind == "differential" else steps / 2
        ratio = xp.round(ratio * largest) / largest
    if code.kind == "differential":
        zero = xp.zeros_like(ratio)
        return xp.stack([xp.maximum(ratio, zero), xp.maximum(-ratio, zero)])
    half = 0.5 * ratio
    return xp.stack([0.5 + half]) if code.kind == "offset" else xp.stack([0.5 + half, 0.5 - half])


def encode(code: WeightCode, weight: Any, w_max: float, *, snap: bool = True) -> Any:
    """Return the device states that store a weight matrix.

    Parameters
    ----------
    code : WeightCode
        The mapping.
    weight : array (in, out)
        Weights; beyond +-w_max they saturate.
    w_max : float
        Range of the layer, weight units.
    snap : bool
        Round to the code's levels; slicing always does.

    Returns
    -------
    array (devices, in, out)
        Normalised states in [0, 1], of the dtype of `weight`.
    """
    if code.slices == 1:
        return words_of(code, weight, w_max, snap=snap)
    xp = namespace(weight)
    words = words_of(code, xp.astype(weight, xp.float64), w_max)
    return slice_words(code, words, weight.dtype)


def slice_words(code: WeightCode, words: Any, dtype: Any) -> Any:
    """Return the digits of the words of both sides as device states.

    Parameters
    ----------
    code : WeightCode
        A mapping of at least one slice.
    words : float64 array (sides, in, out)
        Words in [0, 1], rounded here to the code's levels.
    dtype : dtype
        Of the states returned.

    Returns
    -------
    array (devices, in, out)
    """
    assert code.full_code is not None
    assert code.cell_bits is not None
    xp = namespace(words)
    base = float(2**code.cell_bits)
    rest = xp.round(words * float(code.full_code))
    digits = []
    for _ in range(code.slices):
        higher = xp.floor(rest / base)
        digits.append(rest - base * higher)
        rest = higher
    states = xp.concat(digits) / (base - 1.0)
    return xp.astype(states, dtype)


def join_words(code: WeightCode, state: Any) -> Any:
    """Return the word of each side, ``sum_i q_i s_i``, shape (sides, in, out), from device states."""
    if code.slices == 1:
        return state
    total = code.significance[0] * state[: code.sides, ...]
    for i in range(1, code.slices):
        total = total + code.significance[i] * state[i * code.sides : (i + 1) * code.sides, ...]
    return total


def decode(code: WeightCode, state: Any, w_max: float) -> Any:
    """Return the weights (in, out) that device states (devices, in, out) stand for."""
    words = join_words(code, state)
    if code.kind == "offset":
        return w_max * (2.0 * words[0, ...] - 1.0)
    return w_max * (words[0, ...] - words[1, ...])


def state_gradient(code: WeightCode, weight_bar: Any, w_max: float) -> Any:
    """Return dL/ds, shape (devices, in, out), from dL/dw, shape (in, out): the ideal mapping's share."""
    xp = namespace(weight_bar)
    return xp.stack([(gain * w_max) * weight_bar for gain in code.gains])


def weight_gradient(code: WeightCode, state_bar: Any, w_max: Any) -> Any:
    """Return dL/dw (in, out) from dL/ds (devices, in, out): the inverse of `state_gradient`.

    ``dL/dw = sum_k a_k dL/ds_k / (w_max sum_k a_k^2)``, a_k = dw / (w_max ds_k): linear, so that clipping and
    scaling of dL/ds pass through. Operators only: any tensor will do.
    """
    first, *others = code.gains
    if not others:
        return state_bar[0] * (1.0 / (first * w_max))
    total = state_bar[0] if first == 1.0 else first * state_bar[0]
    for device, gain in enumerate(others, 1):
        total = total - state_bar[device] if gain == -1.0 else total + gain * state_bar[device]
    return total * (1.0 / (sum(gain * gain for gain in code.gains) * w_max))


def snap_states(levels: int, state: Any, uniform: Any = None) -> Any:
    """Return states on the nearest of `levels` levels, or on a random neighbour of unchanged mean.

    Parameters
    ----------
    levels : int
        Levels between 0 and 1, both included.
    state : array
        States in [0, 1].
    uniform : array or None
        Uniform draws in [0, 1) of the same shape: stochastic rounding. None rounds half to even.
    """
    xp = namespace(state)
    steps = float(levels - 1)
    scaled = state * steps
    if uniform is None:
        return xp.round(scaled) / steps
    # In float32 the sum may round up to the level above the last one.
    return xp.clip(xp.floor(scaled + uniform), 0.0, steps) / steps


def conductance_of(state: Any, g_min: float, g_max: float) -> Any:
    """Return conductances in siemens, ``g_min + (g_max - g_min) s``; g_min and g_max land exactly."""
    return g_min * (1.0 - state) + g_max * state


def reference_conductance(code: WeightCode, g_min: float, g_max: float) -> list[float]:
    """Return the conductance of the offset reference column of each slice, siemens."""
    return [g_min * (1.0 - s) + g_max * s for s in code.zero]
