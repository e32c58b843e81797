"""A numba value that holds `LANES` numbers in vector registers.

Numba cannot promise LLVM that two arrays do not overlap, so short inner loops over right-hand
sides pay for an overlap check that costs more than their arithmetic. These five operations say
what is meant directly; everything else stays ordinary numba code.

Offsets count elements from the start of a C-contiguous array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Right-hand sides solved together, the contiguous inner axis of every buffer."""


class LanesType(types.Type):
    """Numba type of `LANES` floats of one dtype."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: LanesType) -> None:
        super().__init__(manager, numba_type, _vector_type(numba_type.dtype))


def _vector_type(dtype: types.Type) -> ir.VectorType:
    scalar = ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return ir.VectorType(scalar, LANES)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    vector = _vector_type(array_type.dtype).as_pointer()
    return builder.bitcast(builder.gep(data, [offset]), vector)


def _splat(builder: Any, dtype: types.Type, scalar: Any) -> Any:
    vector = _vector_type(dtype)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, mask)


def _call(builder: Any, operation: str, *values: Any) -> Any:
    """Call LLVM's vector intrinsic of that name."""
    vector = values[0].type
    bits = 32 if isinstance(vector.element, ir.FloatType) else 64
    signature = ir.FunctionType(vector, [vector] * len(values))
    name = f"llvm.{operation}.v{LANES}f{bits}"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), values)


@intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """Load `LANES` numbers of `array` from `offset`."""
    signature = LanesType(array.dtype)(array, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
        return builder.load(pointer, align=np.dtype(sig.args[0].dtype.name).itemsize)

    return signature, generate


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Store `LANES` numbers into `array` at `offset`."""
    signature = types.void(array, types.intp, value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, sig.args[0], args[0], args[1])
        builder.store(args[2], pointer, align=np.dtype(sig.args[0].dtype.name).itemsize)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def scale(typing: Any, factor: Any, value: Any) -> Any:
    """Return ``factor * value``, `factor` a scalar."""
    signature = value(value.dtype, value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fmul(_splat(builder, sig.return_type.dtype, args[0]), args[1])

    return signature, generate


@intrinsic
def fma(typing: Any, factor: Any, value: Any, addend: Any) -> Any:
    """Return ``factor * value + addend`` with one rounding, `factor` a scalar."""
    signature = value(value.dtype, value, value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        factor_lanes = _splat(builder, sig.return_type.dtype, args[0])
        return _call(builder, "fma", factor_lanes, args[1], args[2])

    return signature, generate


@intrinsic
def max_abs(typing: Any, largest: Any, value: Any) -> Any:
    """Return ``max(largest, |value|)``."""
    signature = largest(largest, largest)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        size = _call(builder, "fabs", args[1])
        return builder.select(builder.fcmp_ordered(">", size, args[0]), size, args[0])

    return signature, generate
