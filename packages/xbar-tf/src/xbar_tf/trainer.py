"""The adapter's side of the training program: one Keras network with its optimizer, natively or on a chip."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from xbar_core import errors
from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_core.lab.data import DataSet
from xbar_core.lab.inspection import Inspection
from xbar_core.lab.recipe import Recipe, check_optimizer
from xbar_core.lab.trainer import Arrays, Batch, Footprint, LayerHealth, Scores, Step, check_arrays
from xbar_tf import trainer_health, trainer_state
from xbar_tf._bridge import assign
from xbar_tf.calibration import calibrate
from xbar_tf.convert import convert, to_native
from xbar_tf.host import crossbars_of, finish_epoch
from xbar_tf.inspect import inspect
from xbar_tf.optimizers import PulseSGD
from xbar_tf.zoo import build


def make_trainer(recipe: Recipe, data: DataSet, chip: Chip | None) -> KerasTrainer:
    """Return a trainer of the recipe's network, its first weights drawn from the recipe's seed.

    Raises
    ------
    ConfigError, ShapeError
        An unknown network or device, a network that does not fit the samples, a chip that cannot hold
        it, an optimizer that does not fit the chip, more processes than one.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise ConfigError(
            f"WORLD_SIZE: {processes} processes; xbar_tf trains in one: start one, or use --framework torch"
        )
    with tf.device(_device(recipe.device)), _settings(recipe):
        network = build(recipe.network, data.classes, data.image_shape, seed=recipe.seed)
        return KerasTrainer(recipe, network, chip, _sample(data.image_shape))


class KerasTrainer:
    """Cross-entropy training of one network; see `xbar_core.lab.trainer.Trainer`.

    Images come as data sets give them (channels first) and are handed on channels last.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    network : Model
        A native network, built.
    chip : Chip or None
        Where its weights are put; None trains natively.
    sample : tuple of int
        Shape of a sample as the network gets it (a subclass of ``keras.Model`` does not tell it).

    Attributes
    ----------
    network : Model
        The network, on the chip if there is one.
    """

    def __init__(
        self, recipe: Recipe, network: keras.Model, chip: Chip | None, sample: tuple[int, ...]
    ) -> None:
        self._recipe, self._chip, self._sample = recipe, chip, sample
        self._device = _device(recipe.device)
        if not network.trainable_variables:
            raise ConfigError(f"network: {recipe.network!r} has no weights, so there is nothing to train")
        self._start(network)

    def _start(self, native: keras.Model) -> None:
        """Put a native network on the chip and make a fresh optimizer."""
        self.network = native if self._chip is None else convert(native, self._chip)
        self._rate = tf.Variable(0.0, dtype="float64", trainable=False)
        self._optimizer = _optimizer(self._recipe, self._chip, lambda: self._rate)
        self._optimizer.build(self.network.trainable_variables)
        sample = tf.TensorSpec((None, *self._sample), self._recipe.dtype)
        signature = [sample, tf.TensorSpec((None,), "int64")]
        self._train = tf.function(self._trained, input_signature=signature)
        self._label = tf.function(self._labelled, input_signature=signature)

    # Training.

    def step(self, x: NDArray[np.float32], y: NDArray[np.int64], rate: float) -> Step:
        """Train on one batch at a learning rate."""
        self._rate.assign(rate)
        with self._working():
            loss, right = self._train(*self._tensors(x, y))
        return Step(float(loss), int(right), self._saturated())

    def _trained(self, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        network, variables = self.network, self.network.trainable_variables
        with tf.GradientTape() as tape:
            logits = network(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
            if network.losses:
                loss += tf.cast(tf.add_n(network.losses), loss.dtype)
        gradients = tape.gradient(loss, variables)
        checks = [tf.debugging.check_numerics(loss, "the loss")]
        if not isinstance(self._optimizer, PulseSGD):
            gradients = self._decayed(gradients, variables)
            checks += [
                tf.debugging.check_numerics(gradient, f"{variable.path}: the gradient")
                for gradient, variable in zip(gradients, variables, strict=True)
                if gradient is not None
            ]
        with tf.control_dependencies(checks):
            gradients = [None if each is None else tf.identity(each) for each in gradients]
        self._optimizer.apply(gradients, variables)
        return loss, _right(logits, y)

    def _decayed(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        """Return gradients with the weight decay of ``adam``; that of ``adamw`` is the optimizer's."""
        decay = self._recipe.weight_decay
        if self._recipe.optimizer != "adam" or decay == 0.0:
            return gradients
        return [
            None if gradient is None else gradient + tf.cast(decay, gradient.dtype) * variable.value
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    def finish_epoch(self) -> None:
        """Take note that a training epoch is over."""
        finish_epoch(self.network)

    def _saturated(self) -> int:
        if not isinstance(self._optimizer, PulseSGD):
            return 0
        return sum(count.saturated for count in self._optimizer.counts.values())

    def _tensors(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[tf.Tensor, tf.Tensor]:
        return self._inputs(x), tf.convert_to_tensor(y, "int64")

    def _inputs(self, x: NDArray[np.float32]) -> tf.Tensor:
        last = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if x.ndim == 4 else x
        return tf.convert_to_tensor(last.astype(self._recipe.dtype, copy=False))

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Run on the recipe's device, and raise what a node of a graph raised."""
        try:
            with tf.device(self._device), _settings(self._recipe):
                yield
        except tf.errors.OpError as error:
            raise _plain(error) from error

    # Evaluation.

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        """Label samples in evaluation mode; training goes on as if this had not happened."""
        loss, right, samples = 0.0, 0, 0
        for x, y in batches:
            with self._working():
                summed, correct = self._label(*self._tensors(x, y))
            loss += float(summed)
            right += int(correct)
            samples += len(y)
        return Scores(loss / max(samples, 1), right / max(samples, 1), samples)

    def _labelled(self, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.network(x, training=False)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        return tf.reduce_sum(tf.cast(losses, "float64")), _right(logits, y)

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Find the ranges of the forward converters from training samples and freeze them."""
        if self._on_chip():
            with self._working():
                calibrate(self.network, (self._inputs(x) for x, _ in batches))

    def age(self, seconds: float | None) -> None:
        """Read the devices this long after they were programmed."""
        for _, crossbar in crossbars_of(self.network):
            crossbar.time = seconds

    def _on_chip(self) -> bool:
        return any(True for _ in crossbars_of(self.network))

    # States and weights.

    def state(self) -> Arrays:
        """Return everything that is needed to go on bit by bit."""
        return trainer_state.collect(self.network, self._optimizer)

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` returned."""
        check_arrays("checkpoint", state, self.state())
        trainer_state.restore(self.network, self._optimizer, state)

    def weights(self) -> Arrays:
        """Return the weights that the chip stands for and all digital ones, by their native names."""
        with self._working():
            variables = trainer_state.named_variables(self._native(), seeds=False)
            return {name: trainer_state.to_array(variable) for name, variable in variables.items()}

    def program(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Write native weights into the chip, whose optimizer and ranges start anew."""
        check_arrays("weights", weights, self.weights(), dtypes=False)
        with self._working():
            native = self._native()
            for name, variable in trainer_state.named_variables(native, seeds=False).items():
                assign(variable, weights[name])
            self._start(native)

    def _native(self) -> keras.Model:
        return to_native(self.network) if self._on_chip() else self.network

    # Looking.

    def health(self, x: NDArray[np.float32]) -> list[LayerHealth]:
        """Return what the chip does to each of its layers on one batch."""
        with self._working():
            return trainer_health.layer_health(self.network, self._inputs(x))

    def inspect(self, x: NDArray[np.float32]) -> Inspection:
        """Return what every stage of a read costs each layer on one batch."""
        if not self._on_chip():
            return Inspection(())
        with self._working():
            found = inspect(self.network, self._inputs(x))
        names = [trainer_health.native_name(crossbar) for _, crossbar in crossbars_of(self.network)]
        pairs = zip(found.layers, names, strict=True)
        return Inspection(tuple(replace(layer, name=name) for layer, name in pairs))

    def footprint(self) -> list[Footprint]:
        """Return what every layer that has weights occupies."""
        return trainer_health.footprints(self.network)

    def diagnose(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> str:
        """Return where NaN or infinity first appears in one batch."""
        with self._working():
            return trainer_health.first_bad(self.network, *self._tensors(x, y))


def _sample(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a sample with its channels last."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def _right(logits: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(tf.argmax(logits, axis=-1) == y, "int64"))


def _optimizer(recipe: Recipe, chip: Chip | None, rate: Callable[[], Any]) -> keras.optimizers.Optimizer:
    """Return the recipe's optimizer, checked against the chip."""
    decay, clip = recipe.weight_decay, recipe.clip
    common: dict[str, Any] = {"global_clipnorm": clip, "name": "optimizer"}
    if recipe.optimizer == "sgd":
        return PulseSGD(rate, recipe.momentum, rule="torch", weight_decay=decay or None, **common)
    check_optimizer(recipe, chip)
    # As torch takes it, and as recipes mean it.
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(rate, epsilon=1e-8, **common)
    return keras.optimizers.AdamW(rate, weight_decay=decay, epsilon=1e-8, **common)


@contextmanager
def _settings(recipe: Recipe) -> Iterator[None]:
    """Have Keras compute in the recipe's dtype and draw seeds from the recipe's; as before afterwards."""
    floatx, policy, generator = keras.config.floatx(), keras.config.dtype_policy(), random.getstate()
    try:
        keras.config.set_floatx(recipe.dtype)
        keras.config.set_dtype_policy(recipe.dtype)
        random.seed(recipe.seed)
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
        random.setstate(generator)


def _device(name: str) -> str:
    """Return TensorFlow's name of a device that is there."""
    kind, _, index = name.partition(":")
    known = {"cpu": "CPU", "cuda": "GPU", "gpu": "GPU"}
    number = int(index) if index.isdigit() else 0
    if (
        kind not in known
        or (index and not index.isdigit())
        or number >= len(tf.config.list_logical_devices(known[kind]))
    ):
        raise ConfigError(f"device: {name!r} cannot be used here; use 'cpu'")
    return f"/{known[kind]}:{number}"


def _plain(error: Exception) -> Exception:
    """Return what a function of the graph raised, as if it had been called."""
    text = str(error)
    kinds = "FloatingPointError|ConfigError|ShapeError|ConvergenceError"
    found = re.search(rf"({kinds}): (.*)", text)
    if found is not None:
        kind: Any = FloatingPointError if found[1] == "FloatingPointError" else getattr(errors, found[1])
        made: Exception = kind(found[2])
        return made
    numbers = re.search(r"(\S.*?) : Tensor had (.*?) values", text)
    if numbers is not None:
        return FloatingPointError(f"{numbers[1]} holds {numbers[2]}; lower the learning rate")
    return error
