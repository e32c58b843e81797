"""When the one-pass kernels serve: contiguous host memory, no more than a cubic curve.

Every function returns False or None where they do not, and the caller goes the array-API way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array, is_torch_array
from numpy.typing import NDArray

from xbar_core._arrays import namespace
from xbar_core.config.periphery import Adc, AnyNonlinearity
from xbar_core.periphery.dac import full_code, inverse
from xbar_core.periphery.nonlinearity import odd_coefficients
from xbar_core.slicing import Phases

_ROW = 1024  # elements that one thread takes at a time, about


def host_view(array: Any) -> NDArray[Any] | None:
    """Return a NumPy view of contiguous host memory of float32 or float64, or None."""
    if is_torch_array(array):
        if array.device.type != "cpu" or not array.is_contiguous():
            return None
        array = array.detach().numpy()
    if not is_numpy_array(array) or array.dtype.char not in "fd" or not array.flags.c_contiguous:
        return None
    view: NDArray[Any] = array
    return view


def _cubic(curve: AnyNonlinearity | None) -> tuple[float, float] | None:
    """Return (slope, cubic) of ``x (slope + cubic x^2)``, or None for another curve."""
    coefficients = odd_coefficients(curve)
    if coefficients is None or len(coefficients) > 2:
        return None
    return coefficients[0], coefficients[1] if len(coefficients) == 2 else 0.0


def send(
    numbers: Any, full_scale: Any, phases: Phases, curve: AnyNonlinearity | None
) -> tuple[Any, Any] | None:
    """Return (words, voltages) of a DAC that rounds and sends at once, or None.

    Parameters
    ----------
    numbers : array
        Activations or errors.
    full_scale : float or 0-d array
        Range of the DAC.
    phases : Phases
        One phase, finite bits.
    curve : nonlinearity or None
        Of the DAC.
    """
    shape, source = _cubic(curve), host_view(numbers)
    if phases.steps is None or shape is None or source is None:
        return None
    from xbar_core.engine import _kernels

    xp, kind = namespace(numbers), source.dtype.type
    words = xp.empty_like(numbers)
    volts = words if curve is None else xp.empty_like(numbers)
    _kernels.send_codes(
        _rows(source),
        kind(inverse(float(full_scale))),
        kind(-1.0 if phases.signed else 0.0),
        kind(1.0),
        kind(phases.steps),
        kind(1.0 / phases.steps),
        kind(shape[0]),
        kind(shape[1]),
        _rows(_view(words)),
        _rows(_view(volts)),
    )
    return words, volts


def add_converted(
    current: Any, full_scale: Any, config: Adc, signed: bool, share: Any, total: Any, *, fresh: bool = False
) -> bool:
    """Add the converted currents times `share` to `total`, in place; False where the kernels cannot.

    Parameters
    ----------
    current : array
        Of the shape of `total`, or with an axis of tiles after the first that is summed.
    full_scale, share : float or 0-d array
        Range of the ADC, and what a current of 1 is worth in `total`.
    config : Adc
        Bits and non-linearity.
    signed : bool
        Whether currents may be negative.
    total : array
        Contiguous; changed.
    fresh : bool
        What `total` holds does not matter.
    """
    shape, source, target = _cubic(config.nonlinearity), host_view(current), host_view(total)
    if shape is None or source is None or target is None or source.dtype != target.dtype:
        return False
    from xbar_core.engine import _kernels

    kind = source.dtype.type
    if source.ndim == target.ndim:
        target = _rows(target)
        source = source.reshape(target.shape[0], 1, target.shape[1])
    else:
        target = target.reshape(target.shape[0], -1)
        source = source.reshape(source.shape[0], source.shape[1], -1)
    ends = kind(inverse(float(full_scale))), kind(-1.0 if signed else 0.0), kind(1.0)
    worth, steps = float(share) * float(full_scale), full_code(config.bits, signed)
    if steps is None:
        _kernels.add_curve(source, *ends, kind(shape[0]), kind(shape[1]), kind(worth), fresh, target)
    else:
        _kernels.add_codes(
            source, *ends, kind(shape[0]), kind(shape[1]), kind(steps), kind(worth / steps), fresh, target
        )
    return True


def fold_converted(
    current: Any,
    full_scale: Any,
    config: Adc,
    signed: bool,
    share: Any,
    geometry: Sequence[tuple[int, int, int]],
    total: Any,
    *,
    fresh: bool,
) -> bool:
    """Fold converted currents times `share` into `total`, in place; False where the kernels cannot.

    Parameters
    ----------
    current : array (batch, channels, kernel rows, kernel cols, rows, cols)
        Row currents at every output position of a convolution.
    full_scale, config, signed, share, fresh
        As in `add_converted`.
    geometry : two of (stride, padding, dilation)
        Of the rows and of the columns.
    total : array (batch, channels, height, width)
        Contiguous; changed.
    """
    shape, source, target = _cubic(config.nonlinearity), host_view(current), host_view(total)
    if shape is None or source is None or target is None or source.dtype != target.dtype:
        return False
    from xbar_core.engine import _kernels

    kind, steps = source.dtype.type, full_code(config.bits, signed)
    worth = float(share) * float(full_scale) / (steps or 1)
    _kernels.fold_codes(
        source,
        kind(inverse(float(full_scale))),
        kind(-1.0 if signed else 0.0),
        kind(1.0),
        kind(shape[0]),
        kind(shape[1]),
        kind(steps or 0),
        kind(worth),
        fresh,
        np.asarray(geometry, dtype=np.int64),
        target,
    )
    return True


def _view(array: Any) -> NDArray[Any]:
    view: NDArray[Any] = array.detach().numpy() if is_torch_array(array) else array
    return view


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous array as rows that threads can share, whatever its shape."""
    last = array.shape[-1] if array.ndim else 1
    size = array.size
    if last >= _ROW // 4 and array.ndim > 1:
        return array.reshape(-1, last)
    for rows in (size // _ROW, 64, 16, 4):
        if rows > 1 and size % rows == 0:
            return array.reshape(rows, -1)
    return array.reshape(-1, last)
