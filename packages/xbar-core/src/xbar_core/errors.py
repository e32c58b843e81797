"""The three ways a call can fail, each with a text that names the mend."""

from __future__ import annotations


class ConfigError(ValueError):
    """A value breaks its rule; the text names the field, the value, the rule and the fix."""


class ShapeError(ValueError):
    """An array has the wrong number of axes, length or dtype for its field."""


class ConvergenceError(RuntimeError):
    """An iterative solve missed its tolerance.

    Attributes
    ----------
    iterations : int
        Sweeps done before giving up; 0 after direct elimination.
    residual : float
        What missed the tolerance: the error bound reached, relative to the largest entry of the
        matrix; from `solve`, the residual that `Solution` describes.
    """

    def __init__(self, message: str, *, iterations: int, residual: float) -> None:
        super().__init__(message)
        self.iterations = iterations
        self.residual = residual
