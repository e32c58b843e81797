"""The base of every layer with crossbar weights: Keras weights for all that is saved, and the handles.

See `xbar_tf.crossbar` for the contract that layers, conversion and optimizers are built on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core._checks import check_by_name
from xbar_core.config import Chip
from xbar_core.engine import Layout, Programmed, Ranges, reprogram
from xbar_core.engine.array_sets import layouts_of, packed, program_parts
from xbar_core.errors import ConfigError, ShapeError
from xbar_tf._bridge import Array, analog_dtype, assign, host, require_backend, resolve_chip
from xbar_tf.crossbar import COUNTERS, Crossbar

Config = str | Path | Mapping[str, Any] | Chip
OURS = ("config", "key", "signed_input", "w_max")
"""Arguments that only layers on crossbars have."""


class CrossbarLayer(keras.layers.Layer):
    """A layer with one or several crossbar weights.

    Parameters
    ----------
    config : str, Path, mapping or Chip
        Preset's name, chip file, chip as a dict, or chip.
    seed : int or None
        Takes the place of the chip's seed.
    key : int, str or None
        Keys the draws of the layer; None takes the layer's name. The same key, seed and chip are the same
        devices, in `xbar_torch` as well (``name`` there).
    signed_input : bool
        False where inputs cannot be negative (after a ReLU): their words then have no sign bit.
    w_max : float, mapping or None
        Range of the weights, weight units, by the native name of the weight, which may be left out where
        there is only one; by suffix in a class without `weight_names`. None leaves it to the chip.
    **kwargs
        As of `keras.layers.Layer`.

    Attributes
    ----------
    crossbars : dict of str to Crossbar
        Handles by suffix; empty until the layer is built.
    key_of_file : bool
        Whether a weights file says what keys the draws, because nobody else did.
    """

    def __init__(
        self,
        *,
        config: Config = "ideal",
        seed: int | None = None,
        key: int | str | None = None,
        signed_input: bool = True,
        w_max: float | Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        require_backend()
        super().__init__(**kwargs)
        # Keras would cast inputs to half precision under a mixed policy, and cannot compile NumPy.
        self.autocast = False
        self.supports_jit = False
        self.chip = resolve_chip(config, seed)
        self.key, self.signed_input = key, signed_input
        names = self.weight_names()
        self._given_w_max: Any = check_by_name("w_max", w_max, names, "weight") if names else w_max
        self.key_of_file = key is None
        # Not by assignment: Keras would track it, and lock it once the layer is built.
        self.__dict__["crossbars"] = {}

    @classmethod
    def weight_names(cls) -> tuple[str, ...]:
        """Return the names of the weights that go on crossbars, as the native layer calls them."""
        return ()

    def channels_of(self, input_shape: Sequence[int | None], axis: int = -1) -> int:
        """Return the number of channels of inputs, after checking that it is known."""
        channels = input_shape[axis]
        if channels is None:
            raise ShapeError(f"{self.name}: the channels of inputs {input_shape} are not known; name them")
        return channels

    @property
    def analog_dtype(self) -> str:
        """Dtype of states and reads: that of the variables, float32 under half precision."""
        return analog_dtype(self.variable_dtype)

    def initial(self, initializer: Callable[..., Any], shape: tuple[int, ...]) -> Array:
        """Return what an initializer draws for a weight of a native layer, in the analog dtype."""
        with tf.init_scope():
            return host(initializer(shape, dtype=self.analog_dtype)).copy()

    def add_crossbar(
        self,
        suffix: str,
        weight: Array,
        *,
        parts: int = 1,
        signed_input: bool | None = None,
        regularizer: Callable[[tf.Tensor], tf.Tensor] | None = None,
    ) -> Crossbar:
        """Make the Keras weights of a crossbar weight and program it.

        Parameters
        ----------
        suffix : str
            Ending of the names ``state``, ``w_max``, ... in this layer; it also follows the key.
        weight : array (in, out)
            Weights to program, in the analog dtype.
        parts : int
            Number of array sets that the columns are split into, evenly.
        signed_input : bool or None
            None takes the layer's.
        regularizer : callable or None
            Of the kernel in the native layout; added to the losses by `kernel_losses`.
        """
        inputs, outputs = weight.shape
        signed = self.signed_input if signed_input is None else signed_input
        layouts = layouts_of(self.chip, inputs, outputs, self._keyed(suffix), signed, parts)
        weight = np.ascontiguousarray(weight)
        values = _values(program_parts(layouts, weight, self._w_max(suffix)))
        values["ranges"] = Ranges().to_array()
        values["counters"] = np.array([name == "programmings" for name in COUNTERS], np.int64)
        if layouts[0].interpolates:
            values["references"] = np.zeros((parts, 2, 2, _cells(layouts[0])), weight.dtype)
            values["reference_updates"] = np.array([-1, -1], np.int64)
        variables = {
            key: self._keep(f"{key}{suffix}", value, key, regularizer) for key, value in values.items()
        }
        crossbar = Crossbar(self, suffix, layouts, variables)
        variables["state"].crossbar = crossbar
        self.crossbars[suffix] = crossbar
        return crossbar

    def _keep(self, name: str, value: Array, key: str, regularizer: Any) -> keras.Variable:
        trainable = key == "state"
        variable = self.add_weight(
            name=name,
            shape=value.shape,
            dtype=value.dtype.name,
            initializer=lambda shape, dtype: tf.constant(value, dtype),
            trainable=trainable,
            autocast=False,
            aggregation="only_first_replica" if key == "counters" else "none",
            constraint=_within if trainable else None,
            regularizer=regularizer if trainable else None,
        )
        setattr(self, name, variable)
        return variable

    def _w_max(self, suffix: str) -> float | None:
        if isinstance(self._given_w_max, Mapping):
            found = self._given_w_max.get(suffix)
            return None if found is None else float(found)
        return None if self._given_w_max is None else float(self._given_w_max)

    # Programming and reading back.

    def program(self, suffix: str, weight: Array, w_max: float | None = None) -> None:
        """Program weights (in, out); devices keep the differences that they were made with."""
        crossbar = self.crossbars[suffix]
        held = [crossbar.buffers(part) for part in range(crossbar.parts)]
        weight = np.ascontiguousarray(weight, crossbar.dtype)
        _store(
            crossbar, program_parts(crossbar.layouts, weight, w_max, held, crossbar.counter("programmings"))
        )

    def reprogram(self, w_max: float | None = None) -> None:
        """Read the weights back digitally and program them anew with fresh ranges."""
        for suffix, crossbar in self.crossbars.items():
            if crossbar.parts > 1:
                self.program(suffix, host(crossbar.weight()), w_max)
                continue
            count, (state,) = crossbar.counter("programmings"), crossbar.states(host(crossbar.state))
            _store(
                crossbar, [reprogram(crossbar.layout, state, crossbar.buffers(), w_max=w_max, count=count)]
            )

    def conductances(self) -> Array | dict[str, Array]:
        """Return the conductances (devices, in, out), siemens; by suffix where there are several weights."""
        found = {suffix: crossbar.conductances() for suffix, crossbar in self.crossbars.items()}
        return found[""] if list(found) == [""] else found

    def _keyed(self, suffix: str) -> int | str:
        """Return what keys the draws of a crossbar weight."""
        key: int | str = self.name if self.key is None else self.key
        return f"{key}{suffix}" if suffix else key

    # Files: what a load brings is compared with what is kept, so nothing is to be told to the handles.

    def save_own_variables(self, store: Any) -> None:
        """Save the weights, and what keys the draws."""
        for crossbar in self.crossbars.values():
            crossbar.settled(crossbar.present())
        super().save_own_variables(store)
        store["key"] = np.frombuffer(json.dumps(self._keyed("")).encode(), np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """Load the weights; a layer whose key is only the name that Keras gave it takes that of the file.

        In a model of the user's own class Keras numbers layers over the whole process, anew in every object.
        """
        values = {name: store[name] for name in store.keys()}  # noqa: SIM118 (no mapping)
        key = values.pop("key", None)
        super().load_own_variables(values)
        if key is None or not self.key_of_file:
            return
        found = json.loads(np.asarray(key).tobytes())
        if found != self._keyed(""):
            self.key = found
            for suffix, crossbar in self.crossbars.items():
                crossbar.rename(self._keyed(suffix))

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made from, the whole chip included."""
        config: dict[str, Any] = super().get_config()
        w_max = dict(self._given_w_max) if isinstance(self._given_w_max, Mapping) else self._given_w_max
        mine = {"key": self.key, "signed_input": self.signed_input, "w_max": w_max}
        return {**config, "config": self.chip.to_dict(), **mine}


def native_config(layer: keras.layers.Layer) -> dict[str, Any]:
    """Return the arguments of the native layer that a layer on crossbars stands for."""
    return {name: value for name, value in layer.get_config().items() if name not in OURS}


def _values(results: list[Programmed]) -> dict[str, Array]:
    """Return what Keras weights are to hold of what was programmed, by name."""
    state, buffers = packed(results)
    return {"state": state, **{name: np.asarray(value) for name, value in buffers.items()}}


def _store(crossbar: Crossbar, results: list[Programmed]) -> None:
    for name, value in _values(results).items():
        assign(crossbar.variables[name], value)
    if crossbar.layout.interpolates:
        assign(crossbar.variables["reference_updates"], np.array([-1, -1], np.int64))
    crossbar.count("programmings")
    crossbar.forget()


def _cells(layout: Layout) -> int:
    """Return the number of cells of all physical arrays, reference columns included."""
    array = layout.chip.array
    extra = 1 if layout.code.kind == "offset" else 0
    shapes = [tile.shape for tile in layout.tiling.tiles]
    if array.unused == "g_min":
        cells = len(shapes) * array.rows * array.cols
    else:
        cells = sum(rows * (cols + extra) for rows, cols in shapes)
    return layout.code.devices * cells


def _within(state: tf.Tensor) -> tf.Tensor:
    """Put states back into [0, 1]: the constraint of optimizers that take them for ordinary numbers."""
    return tf.clip_by_value(tf.convert_to_tensor(state), 0.0, 1.0)


def reject_kernel_constraint(constraint: Any) -> None:
    """Raise where a constraint of weights is asked for: devices cannot be moved without a write."""
    if constraint is not None:
        raise ConfigError(
            f"kernel_constraint: {constraint!r}; weights are what devices hold, and moving them takes a "
            "write: leave it None, and bound the weights by the chip's mapping.w_max or by a regularizer"
        )


def crossbars_of(model: keras.layers.Layer) -> Iterator[tuple[str, Crossbar]]:
    """Yield ``(path of the state, crossbar)`` of all crossbar weights of a model, each once."""
    for layer in model._flatten_layers():
        if isinstance(layer, CrossbarLayer):
            for crossbar in layer.crossbars.values():
                yield str(crossbar.state.path), crossbar


def finish_epoch(model: keras.layers.Layer) -> None:
    """Tell the crossbar weights of a model that a training epoch is over (ranges tracked over epochs)."""
    for _, crossbar in crossbars_of(model):
        crossbar.count("epochs")
