"""Between TensorFlow and the engine: the traps of the framework, each in one function.

- The engine works on NumPy arrays. An eager tensor is looked at where it is; inside ``tf.function`` the same
  function runs as ``tf.numpy_function``, whose results have no shape until they are given one.
- XLA cannot compile such calls: layers say ``supports_jit = False``, and ``compile(jit_compile=True)`` then
  goes on without it, with Keras' own warning.
- Keras casts the inputs of a layer to its compute dtype: under a mixed policy the analog path would run in
  half precision. Layers on crossbars take their inputs as they come and keep float32 or float64.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager import record

from xbar_core.config import Chip, load_chip
from xbar_core.errors import ConfigError

Array = NDArray[Any]
Host = Callable[..., Sequence[Any]]
ANALOG = ("float32", "float64")
"""Dtypes of the analog path."""
_ALIGNMENT = 64  # bytes


def require_backend() -> None:
    """Raise one clear line where Keras runs on another backend."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ConfigError(
            f"keras.backend: {backend!r}; xbar_tf runs on the TensorFlow backend: set the environment "
            'variable KERAS_BACKEND=tensorflow before keras is imported, or "backend": "tensorflow" in '
            "keras.json"
        )


def resolve_chip(config: str | Path | Mapping[str, Any] | Chip, seed: int | None = None) -> Chip:
    """Return a chip from a preset's name, chip file, dict or chip, with another seed if one is given."""
    if isinstance(config, Chip):
        chip = config
    elif isinstance(config, Mapping):
        chip = Chip.from_dict(config)
    else:
        chip = load_chip(config)
    return chip if seed is None else dataclasses.replace(chip, seed=seed)


def analog_dtype(dtype: str) -> str:
    """Return the dtype that the analog path takes where variables have `dtype`."""
    return dtype if dtype in ANALOG else "float32"


def is_finite(values: Array) -> bool:
    """Return whether all values are finite: one pass over memory, a second one only in doubt."""
    if math.isfinite(float(np.sum(values))):
        return True
    return bool(np.isfinite(values).all())


class _Memory:
    """A tensor's memory as NumPy takes it; the engine changes nothing that it is handed."""

    def __init__(self, tensor: tf.Tensor) -> None:
        self.tensor = tensor
        interface = dict(np.asarray(memoryview(tensor)).__array_interface__)
        # Numba compiles read-only arrays apart.
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface


def host(value: Any) -> Array:
    """Return an eager tensor, a variable (its first replica) or an array as NumPy sees its memory."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, keras.Variable):
        value = value.value
    if isinstance(value, tf.Variable):
        # Unnoticed by tapes: what a function reads aside is no variable of its derivative.
        part = getattr(value, "values", (value,))[0]
        value = tf.raw_ops.ReadVariableOp(resource=part.handle, dtype=part.dtype)
    return np.asarray(_Memory(value))


def assign(variable: keras.Variable, value: Any) -> None:
    """Give a Keras weight a value now, in every replica, from whichever thread."""
    held, given = variable.value, np.asarray(value, variable.dtype)
    if given.shape != tuple(variable.shape):
        raise ValueError(f"{variable.path}: an array of shape {given.shape} is not of {variable.shape}")
    for part in getattr(held, "values", (held,)):
        # The variable's own method costs several times as much, at every call that learns a range.
        tf.raw_ops.AssignVariableOp(resource=part.handle, value=given)


def advance(variable: keras.Variable, by: tf.Tensor) -> None:
    """Add to a Keras weight, now or as a node of the graph.

    While Keras only looks for the shapes of a network, no variable stands behind a weight.
    """
    held = variable.value
    if hasattr(held, "assign_add"):
        held.assign_add(by)
    else:
        variable.assign(held + by)


def host_call(
    function: Host,
    inputs: Sequence[Any],
    outputs: Sequence[tf.TensorSpec],
    kept: Sequence[tf.TensorSpec] = (),
    *,
    stateful: bool = True,
) -> list[Any]:
    """Run a function of NumPy arrays, now or as a node of the graph.

    Parameters
    ----------
    function : callable
        Takes the inputs as arrays and returns as many arrays as `outputs` and `kept` name.
    inputs : sequence of Tensor or array
        What it takes.
    outputs : sequence of TensorSpec
        Results that TensorFlow goes on with.
    kept : sequence of TensorSpec
        Results that only another `host_call` takes: eagerly they stay arrays.
    stateful : bool
        False lets the graph leave the call out where nobody takes its results.

    Returns
    -------
    list of Tensor (`kept`, eagerly: of array)
    """
    if tf.executing_eagerly():
        results = function(*map(host, inputs))
        made = [tf.convert_to_tensor(r, spec.dtype) for r, spec in zip(results, outputs, strict=False)]
        return [*made, *results[len(outputs) :]]
    specs = (*outputs, *kept)
    dtypes = [spec.dtype for spec in specs]

    def arrays(*values: Any) -> list[Any]:
        results = function(*(np.asarray(value) for value in values))
        return [_aligned(np.asarray(r, d.as_numpy_dtype)) for r, d in zip(results, dtypes, strict=True)]

    results = tf.numpy_function(arrays, list(inputs), dtypes, stateful=stateful)
    for result, spec in zip(results, specs, strict=True):
        result.set_shape(spec.shape)
    return list(results)


def _aligned(values: Array) -> Array:
    """Return an array whose memory begins where TensorFlow takes it as it is.

    Others it copies, and the order in which it adds the gradients of a weight that is read several times
    depends on which of them are copies: the sum would differ by rounding from run to run.
    """
    if values.ctypes.data % _ALIGNMENT == 0:
        return values
    space = np.empty(values.nbytes + _ALIGNMENT, np.uint8)
    start = -space.ctypes.data % _ALIGNMENT
    moved: Array = space[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    moved[...] = values
    return moved


def wants_gradient(x: tf.Tensor) -> bool:
    """Return whether a gradient of an eager tensor may be asked for; in a graph that is never known."""
    return not tf.executing_eagerly() or bool(record.should_record_backprop([x]))


def to_analog(x: Any, dtype: str) -> tf.Tensor:
    """Return an input in the dtype of the states, as a native layer casts its inputs."""
    x = tf.convert_to_tensor(x)
    return x if x.dtype == dtype else tf.cast(x, dtype)
