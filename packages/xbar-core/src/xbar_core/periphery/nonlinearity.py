r"""Integral non-linearity of a converter: the curve between its ideal and its real transfer.

Arguments and values are in units of full scale. Two kinds of curve:

- odd polynomial ``f(x) = x + sum_k c_k (x^(2k+1) - x)``: -1, 0 and 1 stay where they are;
- measured points, joined by monotone cubics (PCHIP: F. N. Fritsch and J. Butland, "A method for
  constructing local monotone piecewise cubic interpolants", SIAM J. Sci. Stat. Comput. 5, 300, 1984;
  end slopes as in C. Moler, "Numerical Computing with MATLAB", section 3.6), flat beyond the last one.

A signed converter is odd: points of the positive side serve both. Points that reach below zero are
taken as measured, on either side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xbar_core._arrays import array_like, namespace
from xbar_core.config.periphery import AnyNonlinearity, MeasuredCurve, OddPolynomial

Floats = NDArray[np.float64]


def odd_coefficients(curve: AnyNonlinearity | None) -> tuple[float, ...] | None:
    """Return ``(a_0, a_1, ...)`` of ``f(x) = x (a_0 + a_1 x^2 + ...)``; None for measured points.

    The form for fused kernels; ``(1.0,)`` where there is no curve.
    """
    if isinstance(curve, MeasuredCurve):
        return None
    terms = () if curve is None else curve.coefficients
    return (1.0 - sum(terms), *terms)


def distort(x: Any, curve: AnyNonlinearity | None) -> Any:
    """Return f(x).

    Parameters
    ----------
    x : array
        Ratios of full scale, within -1 to 1 (0 to 1 for a unipolar converter).
    curve : OddPolynomial, MeasuredCurve or None
        None returns `x` itself.

    Returns
    -------
    array
        Same shape and dtype.
    """
    if curve is None:
        return x
    if isinstance(curve, OddPolynomial):
        coefficients = odd_coefficients(curve)
        assert coefficients is not None
        factor = _even_polynomial(x, coefficients)
        factor *= x
        return factor
    _, (c0, c1, c2, c3), offset = _pieces(x, curve)
    return c0 + offset * (c1 + offset * (c2 + offset * c3))


def slope(x: Any, curve: AnyNonlinearity | None) -> Any:
    """Return f'(x); as `distort`."""
    xp = namespace(x)
    if curve is None:
        return xp.ones_like(x)
    if isinstance(curve, OddPolynomial):
        coefficients = odd_coefficients(curve)
        assert coefficients is not None
        return _even_polynomial(x, tuple((2 * k + 1) * a for k, a in enumerate(coefficients)))
    inside, (_, c1, c2, c3), offset = _pieces(x, curve)
    return xp.where(inside, c1 + offset * (2.0 * c2 + (3.0 * offset) * c3), xp.zeros_like(x))


def _even_polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    """Return ``a_0 + a_1 x^2 + a_2 x^4 + ...`` by Horner's rule, in a new array."""
    if len(coefficients) == 1:
        return namespace(x).ones_like(x) * coefficients[0]
    square = x * x
    total = square * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total += coefficient
        total *= square
    total += coefficients[0]
    return total


def _pieces(x: Any, curve: MeasuredCurve) -> tuple[Any, tuple[Any, ...], Any]:
    """Return (x is inside the table, the four coefficients at each x, x minus its left knot)."""
    xp = namespace(x)
    knots, coefficients = monotone_cubics(*_mirrored(curve))
    last = float(knots[-1])
    held = xp.clip(x, float(knots[0]), last)
    flat = xp.reshape(held, (-1,))
    index = xp.searchsorted(array_like(knots[1:-1], x), flat, side="right")
    offset = held - xp.reshape(xp.take(array_like(knots[:-1], x), index, axis=0), x.shape)
    taken = tuple(xp.reshape(xp.take(array_like(c, x), index, axis=0), x.shape) for c in coefficients)
    return (x >= float(knots[0])) & (x <= last), taken, offset


def _mirrored(curve: MeasuredCurve) -> tuple[Floats, Floats]:
    """Return the points, with those of the positive side mirrored unless the table reaches below 0."""
    x, y = np.asarray(curve.x), np.asarray(curve.y)
    if x[0] < 0.0:
        return x, y
    x, y = x[x > 0.0], y[x > 0.0]
    return np.concatenate([-x[::-1], [0.0], x]), np.concatenate([-y[::-1], [0.0], y])


def monotone_cubics(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return knots (n,) and coefficients (4, n-1) of the monotone cubic through rising points.

    On piece i the value is ``sum_k coefficients[k, i] (x - knots[i])^k``.
    """
    step = np.diff(x)
    secant = np.diff(y) / step
    if len(x) == 2:
        return x, np.stack([y[:1], secant, 0.0 * secant, 0.0 * secant])
    slopes = np.empty_like(x)
    left, right = 2.0 * step[1:] + step[:-1], step[1:] + 2.0 * step[:-1]
    slopes[1:-1] = (left + right) / (left / secant[:-1] + right / secant[1:])
    slopes[0] = _end_slope(step[0], step[1], secant[0], secant[1])
    slopes[-1] = _end_slope(step[-1], step[-2], secant[-1], secant[-2])
    c2 = (3.0 * secant - 2.0 * slopes[:-1] - slopes[1:]) / step
    c3 = (slopes[:-1] + slopes[1:] - 2.0 * secant) / step**2
    return x, np.stack([y[:-1], slopes[:-1], c2, c3])


def _end_slope(step: float, next_step: float, secant: float, next_secant: float) -> float:
    """Return the three-point slope at an end, not below 0 (rising points keep it below two secants)."""
    return float(max(((2.0 * step + next_step) * secant - step * next_secant) / (step + next_step), 0.0))
