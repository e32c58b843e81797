"""Stochastic gradient descent that writes its steps into devices, as a Keras optimizer.

Learning rate, momentum, weight decay and clipping act on dL/dw, in weight units, so that the same numbers do
on an ideal chip what they do in digital training. The step then goes through the device update model of the
chip (`xbar_core.engine.update`, or rank-1 pulses where the chip's encoding is ``deterministic`` or
``stochastic``). Biases and all other weights take plain SGD.

Other optimizers of Keras move the states as if they were ordinary numbers (hardware-aware training, with
the chip's ``backward.mode = "exact"``); a constraint of the states puts them back into [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from xbar_core._checks import check_choice, check_number
from xbar_core._threads import run_all
from xbar_core.engine.calibration import LayerStatistics, Scale, native_scale
from xbar_core.engine.update import WriteCounts
from xbar_core.errors import ConfigError
from xbar_tf._bridge import Array, host_call, is_finite
from xbar_tf.calibration import statistics_of
from xbar_tf.crossbar import Crossbar
from xbar_tf.group import link
from xbar_tf.pulses import accumulate_pulses, write_pulses

RULES = ("keras", "torch")


@keras.saving.register_keras_serializable(package="xbar_tf")
class PulseSGD(keras.optimizers.Optimizer):
    """SGD with momentum and weight decay whose steps on crossbar weights are device writes.

    Parameters
    ----------
    learning_rate : float, LearningRateSchedule or callable
        In weight units, as of `keras.optimizers.SGD`.
    momentum : float
        In [0, 1).
    nesterov : bool
        As in `keras.optimizers.SGD`.
    rule : {"keras", "torch"}
        What momentum does to a rate that changes and to the decay. "keras": steps keep the rate that they
        were taken at, and the decay stays apart (`keras.optimizers.SGD`). "torch": the present rate counts
        for the whole momentum, which the decay is part of (`torch.optim.SGD`, `xbar_torch.PulseSGD`).
        Without momentum, and at one rate without decay, they are the same.
    statistics : mapping of str to LayerStatistics or None
        From `native_statistics`, for chips with ``update.scale.rule = "native"`` that name no values.
    **kwargs
        As of `keras.optimizers.SGD`: weight_decay, clipnorm, clipvalue, global_clipnorm, loss_scale_factor,
        gradient_accumulation_steps, name. Averages of weights (use_ema) cannot be written into devices.

    Attributes
    ----------
    counts : dict of str to WriteCounts
        What happened in the last step, by path of the state.

    Raises
    ------
    ConfigError
        A value out of range; momentum, weight decay or clipvalue with pulses; statistics that lack a weight.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from xbar_tf import PulseSGD, XbarDense
    >>> model = keras.Sequential([keras.Input((4,)), XbarDense(2, config="txsim-8bit")])
    >>> model.compile(PulseSGD(0.05, momentum=0.9), "mse")
    >>> history = model.fit(np.ones((8, 4)), np.zeros((8, 2)), verbose=0)
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *,
        rule: str = "keras",
        statistics: Mapping[str, LayerStatistics] | None = None,
        **kwargs: Any,
    ) -> None:
        check_number("momentum", momentum, minimum=0.0)
        if momentum >= 1.0:
            raise ConfigError(f"momentum: {momentum!r} never forgets a gradient; it must be below 1")
        if nesterov and momentum == 0.0:
            raise ConfigError("nesterov: True wants momentum above 0")
        check_choice("rule", rule, RULES)
        if kwargs.get("use_ema"):
            raise ConfigError("use_ema: True; averages cannot be put into devices: leave it False")
        if kwargs.get("weight_decay") is not None:
            check_number("weight_decay", kwargs["weight_decay"], minimum=0.0)
        if isinstance(learning_rate, int | float):
            learning_rate = float(check_number("learning_rate", float(learning_rate), minimum=0.0))
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.momentum, self.nesterov, self.rule = float(momentum), nesterov, rule
        given = {key: LayerStatistics(*value) for key, value in (statistics or {}).items()}
        # Not by assignment: these are no part of what Keras tracks and saves.
        self.__dict__.update(_statistics=given, _crossbars={}, _scales={}, counts={})

    # Variables.

    def build(self, variables: Sequence[Any]) -> None:
        """Make the moments, and look for crossbar weights among the variables."""
        if self.built:
            return
        crossbars = {
            self._var_key(variable): variable.crossbar
            for variable in variables
            if hasattr(variable, "crossbar")
        }
        self._check(list(crossbars.values()))
        scales = {key: _native_scale(crossbar, self._statistics) for key, crossbar in crossbars.items()}
        self.__dict__.update(_crossbars=crossbars, _scales=scales)
        super().build(variables)
        if crossbars:
            link(crossbars.values())
        self.momentums, self._last_rate = [], None
        if self.momentum != 0.0:
            self.momentums = self.add_optimizer_variables(variables, "momentum")
            if self.rule == "keras":
                aggregation = "only_first_replica"
                self._last_rate = self.add_variable((), "zeros", "float64", aggregation, name="last_rate")

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """Return a variable like another, in the shape of the weights where that holds states."""
        crossbar = getattr(reference_variable, "crossbar", None)
        if crossbar is None:
            return super().add_variable_from_reference(reference_variable, name, initializer)
        owner = str(reference_variable.path).replace("/", "_")
        shape = tuple(crossbar.state.shape[1:])
        with self._distribution_strategy.extended.colocate_vars_with(reference_variable.value):
            return self.add_variable(shape, initializer, crossbar.dtype, name=f"{owner}_{name}")

    def _check(self, crossbars: Sequence[Crossbar]) -> None:
        """Raise unless the chips can do what is asked for."""
        for crossbar in crossbars:
            encoding = crossbar.chip.update.encoding
            if not crossbar.chip.update.pulsed:
                continue
            for field in ("momentum", "weight_decay", "clipvalue"):
                if getattr(self, field):
                    raise ConfigError(
                        f"{field}: {getattr(self, field)!r} with update.encoding = {encoding!r} "
                        f"({crossbar.state.path}); pulses are products of one step's x and dy: leave {field} "
                        "out, or use update.encoding = 'ideal'"
                    )
            if self._distribution_strategy.num_replicas_in_sync > 1:
                raise ConfigError(
                    f"update.encoding: {encoding!r} ({crossbar.state.path}) with several replicas, whose "
                    "pulses are not gathered: use one replica, or update.encoding = 'ideal'"
                )

    # A step.

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        """Turn dL/ds into dL/dw first: clipping, accumulation and momentum are in weight units."""
        found = []
        for bar, variable in zip(grads, trainable_variables, strict=True):
            crossbar = self._crossbars.get(self._var_key(variable))
            gradient = tf.convert_to_tensor(bar) if crossbar is None else crossbar.weight_gradient(bar)
            if self.gradient_accumulation_steps and crossbar is not None and crossbar.chip.update.pulsed:
                gradient = accumulate_pulses(crossbar, gradient)
            found.append(gradient)
        super()._backend_apply_gradients(found, trainable_variables)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Leave the decay to the step: states do not decay."""

    def _distributed_tf_update_step(
        self, distribution: Any, grads_and_vars: Sequence[tuple[Any, Any]], learning_rate: Any
    ) -> None:
        grads, variables = zip(*grads_and_vars, strict=True)
        keys = [self._var_key(variable) for variable in variables]

        def step(anchor: Any, grads: Sequence[tf.Tensor], rate: Any) -> None:
            self._step(keys, grads, rate)

        distribution.extended.update(variables[0], step, args=(list(grads), learning_rate), group=False)

    # Functions of NumPy arrays that are made on the way run as they are written.
    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator, unused-ignore]
    def _step(self, keys: Sequence[str], grads: Sequence[tf.Tensor], rate: Any) -> None:
        """Move all variables: first the devices, in one call on the host, which looks at all gradients."""
        exact = tf.cast(rate, "float64")
        later: list[tuple[Any, tf.Tensor]] = []  # moments: assigned once all gradients are known to be finite
        faded = self._faded(exact, later)
        variables = [self._trainable_variables[self._trainable_variables_indices[key]] for key in keys]
        steps = [self._velocity(v, g, faded, later) for v, g in zip(variables, grads, strict=True)]
        written = self._write(keys, variables, steps, exact)
        with tf.control_dependencies(written):
            for variable, value in later:
                self.assign(variable, value)
            for key, variable, step in zip(keys, variables, steps, strict=True):
                if key not in self._crossbars:
                    self.assign_sub(variable, tf.cast(exact, step.dtype) * step)

    def _faded(self, rate: tf.Tensor, later: list[tuple[Any, tf.Tensor]]) -> tf.Tensor | float:
        """Return what is left of a momentum: its steps keep the rates that they were taken at."""
        momentum = self._number(self.momentum)
        if self._last_rate is None:
            return momentum
        last = tf.convert_to_tensor(self._last_rate.value)
        ratio = tf.where(rate > 0.0, last / tf.where(rate > 0.0, rate, 1.0), 1.0)
        later.append((self._last_rate, tf.where(rate > 0.0, rate, last)))
        return momentum * ratio

    def _number(self, value: float) -> float:
        """Return a number as the rule's framework takes it: Keras casts its own from float32."""
        return float(np.float32(value)) if self.rule == "keras" else value

    def _velocity(
        self, variable: Any, gradient: tf.Tensor, faded: Any, later: list[tuple[Any, tf.Tensor]]
    ) -> tf.Tensor:
        """Return what the rate is multiplied by, in weight units."""
        index = self._get_variable_index(variable)
        decay = None
        if self.weight_decay and self._use_weight_decay(variable):
            crossbar = self._crossbars.get(self._var_key(variable))
            weight = tf.convert_to_tensor(variable.value) if crossbar is None else crossbar.weight()
            decay = tf.constant(self._number(self.weight_decay), gradient.dtype) * weight
            if self.rule == "torch":
                gradient, decay = gradient + decay, None
        step = gradient
        if self.momentum != 0.0:
            held = self.momentums[index]
            if not tf.is_tensor(faded):
                faded = tf.constant(faded, gradient.dtype)  # a cast would round it to float32
            velocity = tf.cast(faded, gradient.dtype) * tf.convert_to_tensor(held.value) + gradient
            later.append((held, velocity))
            step = velocity
            if self.nesterov:
                step = gradient + tf.constant(self._number(self.momentum), gradient.dtype) * velocity
        return step if decay is None else step + decay

    def _write(
        self, keys: Sequence[str], variables: Sequence[Any], steps: Sequence[tf.Tensor], rate: tf.Tensor
    ) -> list[tf.Tensor]:
        """Write the steps of all crossbar weights; return what comes after all of it."""
        crossbars = [(self._crossbars[key], self._scales[key]) for key in keys if key in self._crossbars]
        digital = [str(v.path) for key, v in zip(keys, variables, strict=True) if key not in self._crossbars]
        moved = [step for key, step in zip(keys, steps, strict=True) if key in self._crossbars]
        plain = [step for key, step in zip(keys, steps, strict=True) if key not in self._crossbars]
        inputs, specs, ends = [rate, *moved, *plain], [], []
        widths = []
        for crossbar, _ in crossbars:
            tensors = crossbar.all_tensors()
            inputs += tensors
            widths.append(len(tensors))
            specs += crossbar.write_specs()
            ends.append(len(specs))

        def write(rate: Array, *arrays: Array) -> list[Array]:
            steps, arrays = arrays[: len(moved)], arrays[len(moved) :]
            for name, step in zip(digital, arrays, strict=False):
                if not is_finite(step):
                    raise FloatingPointError(
                        f"{name}: the gradient holds NaN or infinity; lower the learning rate"
                    )
            held, start = [], len(digital)
            for width in widths:
                held.append(arrays[start : start + width])
                start += width
            results: list[list[Array]] = [[]] * len(crossbars)

            def write_one(k: int) -> None:
                results[k] = _written(*crossbars[k], steps[k], float(rate), held[k])

            run_all([partial(write_one, k) for k in range(len(crossbars))])
            self.counts.update(
                {
                    str(crossbar.state.path): WriteCounts(int(found[-2]), int(found[-1]))
                    for (crossbar, _), found in zip(crossbars, results, strict=True)
                }
            )
            return [array for found in results for array in found] or [np.zeros((), np.int64)]

        found = host_call(write, inputs, specs or [tf.TensorSpec((), "int64")])
        start = 0
        for (crossbar, _), end in zip(crossbars, ends, strict=True):
            crossbar.take(found[start:end])
            start = end
        return [found[-1]]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make the same optimizer."""
        config: dict[str, Any] = super().get_config()
        for name in ("use_ema", "ema_momentum", "ema_overwrite_frequency"):
            config.pop(name)
        statistics = {key: list(value) for key, value in self._statistics.items()} or None
        mine = {"momentum": self.momentum, "nesterov": self.nesterov, "rule": self.rule}
        return {**config, **mine, "statistics": statistics}


def _written(
    crossbar: Crossbar, scale: Scale, step: Array, rate: float, arrays: Sequence[Array]
) -> list[Array]:
    """Return what a step makes of a crossbar weight, as `Crossbar.write_specs` names it."""
    if not crossbar.chip.update.pulsed:
        return crossbar.written(-step, rate, scale.w_max, arrays)
    held = crossbar.held_for_write(arrays)
    crossbar.require_finite(step, "weight step", held)
    return crossbar.joined(write_pulses(crossbar, step, held, rate, scale.w_max, scale.dw_max))


def _native_scale(crossbar: Crossbar, statistics: Mapping[str, LayerStatistics]) -> Scale:
    """Return the scales of a weight: those of its chip, else those of native training."""
    find = partial(statistics_of, crossbar, statistics) if statistics else None
    return native_scale(crossbar.chip, str(crossbar.state.path), find)
