"""What data tell of a network: ranges of its converters, and scales of its weights in native training."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core._checks import check_integer, nearest
from xbar_core.engine import Ranges
from xbar_core.engine.calibration import LayerStatistics, frozen, unlearned
from xbar_core.engine.call import Counters
from xbar_core.errors import ConfigError
from xbar_tf._bridge import assign, host
from xbar_tf.crossbar import Crossbar
from xbar_tf.host import CrossbarLayer, crossbars_of

Loss = Callable[[Any, Any], tf.Tensor]


def native_statistics(
    model: keras.Model,
    data: Iterable[Any],
    optimizer: keras.optimizers.Optimizer,
    loss: Loss,
    epochs: int = 1,
) -> dict[str, LayerStatistics]:
    """Train a native model and return the maxima of its weights and of their steps.

    They are what the TxSim paper calls Wmax and dWmax (section IV-C), for ``update.scale.rule = "native"``.

    Parameters
    ----------
    model : Model
        Native model, built; it is trained, so hand in a copy of one that you want to keep.
    data : iterable
        Yields (inputs, targets); iterated once in every epoch.
    optimizer : Optimizer
        Any optimizer of Keras.
    loss : callable
        ``loss(targets, outputs)``, a 0-d tensor (or one value for each sample).
    epochs : int
        Epochs to train.

    Returns
    -------
    dict of str to LayerStatistics
        By the weight's path, for every trainable weight of two dimensions or more.

    Raises
    ------
    ConfigError
        The model has crossbar weights, or there is no batch.
    FloatingPointError
        The loss is NaN or infinite.
    """
    if any(True for _ in crossbars_of(model)):
        raise ConfigError("model: has crossbar weights; statistics are those of a native model: to_native")
    check_integer("epochs", epochs, minimum=1)
    weights = {str(v.path): v for v in model.trainable_variables if len(v.shape) >= 2}
    w_max = {name: _largest(host(v)) for name, v in weights.items()}
    dw_max, steps = dict.fromkeys(weights, 0.0), 0
    for _ in range(epochs):
        for inputs, targets in data:
            before = {name: host(v).copy() for name, v in weights.items()}
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(loss(targets, model(inputs, training=True)))
            if not np.isfinite(host(value)):
                raise FloatingPointError(
                    f"step {steps}: the loss is {float(host(value))}; lower the learning rate"
                )
            optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
            steps += 1
            for name, v in weights.items():
                w_max[name] = max(w_max[name], _largest(host(v)))
                dw_max[name] = max(dw_max[name], _largest(host(v) - before[name]))
    if steps == 0:
        raise ConfigError("data: yields no batch; give (inputs, targets) pairs, anew in every epoch")
    return {name: LayerStatistics(w_max[name], dw_max[name]) for name in weights}


def _largest(values: Any) -> float:
    return float(np.abs(values).max())


def native_path(crossbar: Crossbar) -> tuple[str, str]:
    """Return the path of a crossbar weight's layer, and the name that its native twin gives the weight."""
    owner, suffix = crossbar.owner, crossbar.suffix
    name = getattr(owner, "kernel_name", "kernel")
    if suffix.startswith("_hh"):
        name = "recurrent_kernel"
    elif suffix and not suffix.startswith("_ih"):
        name = suffix.removeprefix("_")
    return str(owner.path), name


def native_key(crossbar: Crossbar, keys: Iterable[str]) -> str | None:
    """Return the path, of those of native weights, that is the crossbar weight's; None if there is none.

    A native layer's path may begin with the model's, and the weights of a native recurrent layer are those
    of the cell in it.
    """
    path, name = native_path(crossbar)
    layer = re.escape(path.rpartition("/")[2])
    found = [key for key in keys if re.search(rf"(^|/){layer}/([^/]+/)?{re.escape(name)}$", key)]
    return max(found, key=lambda key: key.startswith(f"{path}/"), default=None)


def statistics_of(crossbar: Crossbar, statistics: Mapping[str, LayerStatistics]) -> LayerStatistics:
    """Return the statistics of the native twin of a crossbar weight."""
    key = native_key(crossbar, statistics)
    if key is None:
        wanted = "/".join(native_path(crossbar))
        raise ConfigError(f"statistics: none for {wanted!r}{nearest(wanted, statistics)}; collect them anew")
    return statistics[key]


def calibrate(
    model: keras.Model, data: Iterable[Any], loss: Loss | None = None, *, freeze: bool = True
) -> dict[str, Ranges]:
    """Find the tracked ranges of all converters of a model from data, anew.

    Nothing else changes: weights, gradients, running statistics of normalisation and counters stay as they
    are, and layers that behave differently in training (dropout, normalisation) behave as in evaluation.

    Parameters
    ----------
    model : Model
        Model with crossbar weights.
    data : iterable
        Yields batches: inputs, or tuples that begin with them; with `loss`, (inputs, targets). A
        ``tf.data.Dataset`` is one.
    loss : callable or None
        ``loss(targets, outputs)``: the backward read is calibrated, too. None leaves its ranges to the first
        training steps.
    freeze : bool
        Whether later training leaves the found ranges as they are; False lets the first batches go on with
        the average, as if those of the data had been part of them.

    Returns
    -------
    dict of str to Ranges
        What was found, by path of the state.

    Raises
    ------
    ConfigError
        The model has no crossbar weights, or there is no batch; nothing is changed.
    """
    crossbars = dict(crossbars_of(model))
    if not crossbars:
        raise ConfigError("model: has no crossbar weights; use convert(model, config) first")
    kept = {name: (c.ranges, host(c.variables["counters"]).copy()) for name, c in crossbars.items()}
    try:
        for crossbar in crossbars.values():
            _set(crossbar, unlearned(crossbar.layout, crossbar.ranges))
        batches = 0
        with learning(model):
            for batch in data:
                _observe(model, batch, loss)
                batches += 1
        if batches == 0:
            raise ConfigError("data: yields no batch; give at least one")
    except BaseException:
        for name, crossbar in crossbars.items():
            _set(crossbar, kept[name][0])
        raise
    finally:
        for name, crossbar in crossbars.items():
            assign(crossbar.variables["counters"], kept[name][1])
            crossbar.drop_pulses()
    if freeze:
        for crossbar in crossbars.values():
            _freeze(crossbar)
    return {name: crossbar.ranges for name, crossbar in crossbars.items()}


@contextmanager
def learning(model: keras.Model) -> Iterator[None]:
    """Have the layers on crossbars called as in training while the model is called as in evaluation."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, CrossbarLayer)]
    rates = ("dropout", "recurrent_dropout")
    dropped = [{name: vars(layer)[name] for name in rates if name in vars(layer)} for layer in layers]
    try:
        for layer, names in zip(layers, dropped, strict=True):
            layer.__dict__.update(call=_training(layer.call), **dict.fromkeys(names, 0.0))
        yield
    finally:
        for layer, names in zip(layers, dropped, strict=True):
            layer.__dict__.pop("call", None)
            layer.__dict__.update(names)


def _training(call: Callable[..., Any]) -> Callable[..., Any]:
    def training(*arguments: Any, **options: Any) -> Any:
        return call(*arguments, **{**options, "training": True})

    return training


def _observe(model: keras.Model, batch: Any, loss: Loss | None) -> None:
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    if loss is None:
        model(inputs, training=False)
        return
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise ConfigError("data: yields no targets, which loss needs; yield (inputs, targets)")
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(loss(batch[1], model(inputs, training=False)))
    tape.gradient(value, [v.value for v in model.trainable_variables])


def _set(crossbar: Crossbar, ranges: Ranges) -> None:
    assign(crossbar.variables["ranges"], ranges.to_array())


def _freeze(crossbar: Crossbar) -> None:
    counters = Counters.from_array(host(crossbar.variables["counters"]))
    ranges, counters.epochs = frozen(crossbar.layout, crossbar.ranges, counters.epochs)
    _set(crossbar, ranges)
    assign(crossbar.variables["counters"], counters.to_array())
