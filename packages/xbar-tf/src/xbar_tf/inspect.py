"""What a chip does to a network: arrays, conductances, wires, converters and what each stage costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core._checks import check_integer
from xbar_core.engine import Clipped, Stage
from xbar_core.engine.inspect_parts import clipped_parts, distortion, evenly, stage_report_parts
from xbar_core.engine.patches import unfold
from xbar_core.errors import ConfigError
from xbar_core.lab.inspection import STAGES, Inspection, LayerInspection
from xbar_tf._bridge import Array, assign, host
from xbar_tf.calibration import native_key, native_path
from xbar_tf.conv import ConvolutionLayer
from xbar_tf.crossbar import Crossbar, Held
from xbar_tf.einsum_dense import XbarEinsumDense
from xbar_tf.functional import is_product
from xbar_tf.host import crossbars_of
from xbar_tf.reads import call_of, split

__all__ = ["STAGES", "Inspection", "LayerInspection", "inspect"]


def inspect(
    model: keras.Model, batch: Any, *, native: keras.Model | None = None, samples: int = 1024
) -> Inspection:
    """Run a batch through a model in evaluation and say what its chip does to every layer.

    Each layer is judged by itself, on the inputs that it meets on the chip.

    Parameters
    ----------
    model : Model
        Model with crossbar weights; ranges and counters are as before afterwards.
    batch : array or tuple
        What the model is called with.
    native : Model or None
        Native twin that holds the weights that the chip should stand for: errors of programming then
        count (stage ``weights``). None takes what the devices stand for.
    samples : int
        Input vectors of a layer that are used at most, spread evenly over the batch (a convolution has one
        for each output place, a recurrent weight one for each time step).

    Returns
    -------
    Inspection

    Raises
    ------
    ConfigError
        The model has no crossbar weights, or the native one has others.
    """
    check_integer("samples", samples, minimum=1)
    if not any(True for _ in crossbars_of(model)):
        raise ConfigError("model: has no crossbar weights; use convert(model, config) first")
    with untouched(model) as crossbars:
        wanted = {name: _wanted(crossbar, native) for name, crossbar in crossbars.items()}
        with inputs_of(crossbars) as seen:
            model(*batch, training=False) if isinstance(batch, tuple) else model(batch, training=False)
        layers = [
            _inspect(name, crossbar, wanted[name], vectors(crossbar, seen[name], samples))
            for name, crossbar in crossbars.items()
        ]
    return Inspection(tuple(layers))


@contextmanager
def untouched(model: keras.Model) -> Iterator[dict[str, Crossbar]]:
    """Run a network for a look: ranges and counters are as before afterwards.

    Matrices and references of the interpolation may be new: they depend on states and updates only.
    """
    crossbars = dict(crossbars_of(model))
    names = ("ranges", "counters")
    kept = {name: [host(c.variables[key]).copy() for key in names] for name, c in crossbars.items()}
    try:
        yield crossbars
    finally:
        for name, crossbar in crossbars.items():
            for key, value in zip(names, kept[name], strict=True):
                assign(crossbar.variables[key], value)
            crossbar.drop_pulses()


@contextmanager
def inputs_of(crossbars: Mapping[str, Crossbar]) -> Iterator[dict[str, list[Array]]]:
    """Collect the inputs of crossbar weights: what they check on their way into the analog path.

    Where a read is a plain product the input of the layer is taken, and of recurrent weights what is checked.
    """
    seen: dict[str, list[Array]] = {name: [] for name in crossbars}

    def watched(crossbar: Crossbar, values: list[Array]) -> Callable[..., None]:
        check = crossbar.require_finite

        def note(x: Array, what: str, held: Held) -> None:
            check(x, what, held)
            if what == "input":
                values.append(np.array(x))

        return note

    def called(layer: Any, values: list[Array]) -> Callable[..., Any]:
        call = layer.call

        def note(inputs: Any, *arguments: Any, **options: Any) -> Any:
            x = inputs
            if isinstance(layer, ConvolutionLayer):
                x = layer._channels_last(inputs)
            elif isinstance(layer, XbarEinsumDense):
                x = layer.product.vectors(tf.convert_to_tensor(inputs))
            values.append(np.array(host(tf.convert_to_tensor(x))))
            return call(inputs, *arguments, **options)

        return note

    patched: list[tuple[dict[str, Any], str]] = []
    try:
        for name, crossbar in crossbars.items():
            if not is_product(crossbar) or crossbar.suffix.startswith("_hh"):
                crossbar.__dict__["require_finite"] = watched(crossbar, seen[name])
                patched.append((crossbar.__dict__, "require_finite"))
            else:
                crossbar.owner.__dict__["call"] = called(crossbar.owner, seen[name])
                patched.append((crossbar.owner.__dict__, "call"))
        yield seen
    finally:
        for attributes, name in patched:
            attributes.pop(name, None)


def vectors(crossbar: Crossbar, seen: list[Array], samples: int) -> Array | None:
    """Return input vectors (samples, in of all array sets) of a layer, at most so many; None without any."""
    owner, inputs = crossbar.owner, crossbar.layout.inputs * crossbar.parts
    if isinstance(owner, ConvolutionLayer):
        seen = [x if x.ndim == 3 else unfold(x, owner.geometry(x.shape[1:-1])) for x in seen]
    rows = [x.reshape(-1, inputs) for x in seen if x.shape[-1] == inputs]
    if not rows:
        return None
    found = np.concatenate(rows).astype(crossbar.dtype, copy=False)
    return np.ascontiguousarray(found[evenly(len(found), samples)])


def _wanted(crossbar: Crossbar, native: keras.Model | None) -> Array:
    """Return the weights (in, out) that a state should stand for."""
    if native is None:
        return host(crossbar.weight()).copy()
    variables = {str(variable.path): variable for variable in native.variables}
    key = native_key(crossbar, variables)
    if key is not None:
        value, owner = np.asarray(host(variables[key])), crossbar.owner
        matrix = owner.to_matrix(value) if hasattr(owner, "to_matrix") else owner._ordered(value)
        if matrix.shape == tuple(crossbar.state.shape[1:]):
            return np.ascontiguousarray(matrix, crossbar.dtype)
    wanted = "/".join(native_path(crossbar))
    raise ConfigError(f"native: has no weight {wanted!r} that fits; hand in the network that was converted")


def _inspect(name: str, crossbar: Crossbar, wanted: Array, x: Array | None) -> LayerInspection:
    layouts, held = crossbar.layouts, crossbar.present()
    inputs = sum(layout.inputs for layout in layouts)
    outputs = sum(layout.outputs for layout in layouts)
    requests = crossbar.solved(held, training=False).requests
    counts, stages = (None, ()) if x is None else _read(crossbar, held, wanted, x)
    return LayerInspection(
        name,
        (inputs, outputs),
        sum(layout.arrays for layout in layouts),
        float(np.mean([layout.tiling.utilisation for layout in layouts])),
        crossbar.conductances().astype(np.float64).ravel(),
        distortion(requests),
        counts,
        stages,
    )


def count_clipped(crossbar: Crossbar, held: Held, x: Array) -> Clipped:
    """Return how many conversions of a forward read of x are beyond full scale, over all array sets."""
    return clipped_parts(
        crossbar.layouts,
        crossbar.solved(held, training=False).matrices,
        [crossbar.parts_of(held.buffers, part) for part in range(crossbar.parts)],
        crossbar.ranges,
        split(x, crossbar.parts),
        call_of(held, False, 0),
    )


def _read(crossbar: Crossbar, held: Held, wanted: Array, x: Array) -> tuple[Clipped, tuple[Stage, ...]]:
    """Return the saturated conversions and the stages of a forward read, over all array sets."""
    stages = stage_report_parts(
        crossbar.layouts,
        split(wanted, crossbar.parts),
        crossbar.states(held.state),
        [crossbar.buffers(part) for part in range(crossbar.parts)],
        split(x, crossbar.parts),
        ranges=crossbar.ranges,
        time=crossbar.time,
        call=call_of(held, False, 0),
    )
    return count_clipped(crossbar, held, x), stages
