"""Stochastic gradient descent that writes its steps into devices.

Learning rate, momentum and weight decay act on dL/dw, in weight units, so that the same numbers do on an
ideal chip what they do in digital training. The step then goes through the device update model of the chip
(`xbar_core.engine.update`, or rank-1 pulses where the chip's encoding is ``deterministic`` or
``stochastic``). Biases and all other parameters take torch's own SGD.

Other optimizers of torch move the states as if they were ordinary numbers (hardware-aware training, with
the chip's ``backward.mode = "exact"``); the next training forward puts states back into [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer
from torch.optim.sgd import sgd

from xbar_core._checks import check_number, nearest
from xbar_core.engine.calibration import LayerStatistics, Scale, native_scale
from xbar_core.engine.pulses import Pulses
from xbar_core.engine.update import WriteCounts
from xbar_core.errors import ConfigError
from xbar_torch._bridge import analog, is_finite
from xbar_torch.crossbar import Crossbar
from xbar_torch.group import link
from xbar_torch.host import crossbars_of, is_device_state
from xbar_torch.native_weights import native_names
from xbar_torch.pulses import step_pulses, write_pulses

_SCHEDULED = ("initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum")
_GROUP_KEYS = ("params", "param_names", "name", *_SCHEDULED)
"""What a group may hold beside the numbers of SGD: names, and what torch's schedulers keep there."""


class PulseSGD(Optimizer):
    """SGD with momentum and weight decay whose steps on crossbar weights are device writes.

    Parameters
    ----------
    params : Module or iterable
        A model, or its parameters, or dicts of parameter groups as for any torch optimizer; `model` is
        then needed beside them.
    lr : float
        Learning rate, at least 0, in weight units.
    momentum, dampening, weight_decay : float
        As in `torch.optim.SGD`, in weight units.
    nesterov : bool
        As in `torch.optim.SGD`.
    model : Module or None
        The model that the parameters belong to: tells which of them are device states.
    statistics : mapping of str to LayerStatistics or None
        From `native_statistics`, for chips with ``update.scale.rule = "native"`` that name no values.

    Attributes
    ----------
    counts : dict of str to WriteCounts
        What happened in the last step, by name of the state.

    Raises
    ------
    ConfigError
        A value out of range; an unknown key of a group; a device state of another model; momentum or weight
        decay with pulses; statistics that lack a weight.

    Examples
    --------
    >>> from xbar_torch import PulseSGD, XbarLinear
    >>> layer = XbarLinear(4, 2, config="txsim-8bit")
    >>> optimizer = PulseSGD(layer, lr=0.05, momentum=0.9)
    >>> layer(torch.ones(3, 4)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.counts["state"].saturated
    0
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        model: nn.Module | None = None,
        statistics: Mapping[str, LayerStatistics] | None = None,
    ) -> None:
        if isinstance(params, nn.Module):
            model, params = params, params.parameters()
        if model is None:
            raise ConfigError(
                "model: not given beside parameters, so crossbar weights cannot be told from others; "
                "use PulseSGD(model, ...) or PulseSGD(parameters, ..., model=model)"
            )
        self._bind(model)
        names = native_names(model)
        self._scales = {
            name: _native_scale(crossbar, name, names[name], statistics)
            for name, crossbar in self._crossbars.values()
        }
        link(crossbar for _, crossbar in self._crossbars.values())
        self.counts: dict[str, WriteCounts] = {}
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def _bind(self, model: nn.Module) -> None:
        """Find the crossbar weights among the parameters of a model."""
        self._model = model
        self._crossbars: dict[int, tuple[str, Crossbar]] = {}
        for name, crossbar in crossbars_of(model):
            self._crossbars.setdefault(id(crossbar.state), (name, crossbar))
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}

    def __getstate__(self) -> dict[str, Any]:
        held = {name: self.__dict__[name] for name in ("_model", "_scales", "counts")}
        return {**super().__getstate__(), **held}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_model" in state:  # a copy or a pickled optimizer, not load_state_dict
            self._bind(self._model)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with its own rate, momentum and weight decay if it names any."""
        known = (*self.defaults, *_GROUP_KEYS)
        for key in param_group:
            if key not in known:
                raise ConfigError(
                    f"{key}: unknown key of a parameter group{nearest(key, known)}; "
                    f"known keys: {', '.join(('params', *self.defaults))}"
                )
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except ConfigError:
            self.param_groups.pop()
            raise

    def _check(self, group: dict[str, Any]) -> None:
        """Raise unless a group's numbers are in range and the chips can do what they ask for."""
        for name in ("lr", "momentum", "weight_decay"):
            check_number(name, _plain(group[name]), minimum=0.0)
        check_number("dampening", _plain(group["dampening"]))
        if group["nesterov"] and (group["momentum"] <= 0.0 or group["dampening"] != 0.0):
            raise ConfigError("nesterov: True wants momentum above 0 and dampening 0")
        for parameter in group["params"]:
            name, crossbar = self._crossbars.get(id(parameter), ("", None))
            if crossbar is None and is_device_state(parameter):
                raise ConfigError(
                    f"params: a device state of shape {tuple(parameter.shape)} is none of the model's, and "
                    "SGD would treat it as a number; give model= the network that it belongs to"
                )
            if crossbar is None or not crossbar.chip.update.pulsed:
                continue
            for field in ("momentum", "weight_decay"):
                if group[field] != 0.0:
                    raise ConfigError(
                        f"{field}: {group[field]!r} with update.encoding = "
                        f"{crossbar.chip.update.encoding!r} ({name}); pulses are products of one step's x "
                        f"and dy: use {field} = 0, or update.encoding = 'ideal'"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override,unused-ignore]
        """Write one step.

        Parameters
        ----------
        closure : callable or None
            Computes the loss and its gradients anew.

        Returns
        -------
        The closure's result, or None.

        Raises
        ------
        FloatingPointError, ConfigError
            A gradient holds NaN or infinity, or is not that of the pulses; nothing was written.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._check(group)
            for parameter in group["params"]:
                self._require_finite(parameter)
        pulses = self._step_pulses()
        self.counts = {}
        for group in self.param_groups:
            digital = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if id(parameter) in self._crossbars:
                    name, crossbar = self._crossbars[id(parameter)]
                    self.counts[name] = self._write(crossbar, group, name, pulses.get(id(parameter)))
                else:
                    digital.append(parameter)
            self._step_digital(digital, group)
        return loss

    def _require_finite(self, parameter: Tensor) -> None:
        if parameter.grad is None:
            return
        if id(parameter) in self._crossbars:
            self._crossbars[id(parameter)][1].require_finite(parameter.grad, "weight gradient")
        elif not is_finite(parameter.grad):
            name = self._names.get(id(parameter), "a parameter outside the model")
            update = max((c.counters.updates for _, c in self._crossbars.values()), default=0)
            raise FloatingPointError(
                f"{name}, update {update}: the gradient holds NaN or infinity; lower the learning rate"
            )

    def _step_pulses(self) -> dict[int, list[Pulses]]:
        """Return the pulses of all weights that are written by pulses, before any is written."""
        held = (p for group in self.param_groups for p in group["params"] if p.grad is not None)
        pulsed = {
            id(p): self._crossbars[id(p)][1]
            for p in held
            if id(p) in self._crossbars and self._crossbars[id(p)][1].chip.update.pulsed
        }
        return {key: step_pulses(crossbar) for key, crossbar in pulsed.items()}

    def _write(
        self, crossbar: Crossbar, group: dict[str, Any], name: str, pulses: list[Pulses] | None
    ) -> WriteCounts:
        rate = float(group["lr"])
        scale = self._scales[name]
        with analog(crossbar.state.device):
            if pulses is not None:
                return WriteCounts(*write_pulses(crossbar, pulses, rate, scale.w_max, scale.dw_max))
            velocity = self._velocity(crossbar, group)
            return WriteCounts(*crossbar.write(velocity.neg(), rate, scale.w_max))

    def _velocity(self, crossbar: Crossbar, group: dict[str, Any]) -> Tensor:
        """Return what plain SGD multiplies by the rate, weight units; the order of `torch.optim.SGD`."""
        gradient = cast(Tensor, crossbar.weight_gradient())
        if group["weight_decay"] != 0.0:
            gradient = gradient.add(crossbar.weight().detach(), alpha=group["weight_decay"])
        momentum = group["momentum"]
        if momentum == 0.0:
            return gradient
        state = self.state[crossbar.state]
        held = state.get("momentum_buffer")
        if held is None:
            held = state["momentum_buffer"] = gradient.clone()
        else:
            held.mul_(momentum).add_(gradient, alpha=1.0 - group["dampening"])
        return gradient.add(held, alpha=momentum) if group["nesterov"] else cast(Tensor, held)

    def _step_digital(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        buffers = [self.state[p].get("momentum_buffer") for p in parameters]
        sgd(
            parameters,
            [cast(Tensor, p.grad) for p in parameters],
            buffers,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=False,
        )
        if group["momentum"] != 0.0:
            for parameter, held in zip(parameters, buffers, strict=True):
                self.state[parameter]["momentum_buffer"] = held

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear all gradients, and the inputs and errors kept for pulses."""
        super().zero_grad(set_to_none)
        for _, crossbar in self._crossbars.values():
            crossbar.pulses.clear()

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float, norm_type: float = 2.0) -> Tensor:
        """Scale all gradients so that their norm, in weight units, is at most `max_norm`.

        `torch.nn.utils.clip_grad_norm_` measures dL/ds, which is w_max (for a pair sqrt(2) w_max) times
        dL/dw; this measures dL/dw, so that an ideal chip does what digital training does.

        Parameters
        ----------
        max_norm : float
            Largest norm, weight units.
        norm_type : float
            Order of the norm; may be infinite.

        Returns
        -------
        Tensor
            The norm before, 0-d.
        """
        check_number("max_norm", max_norm, minimum=0.0)
        held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not held:
            return torch.tensor(0.0)
        norms = [torch.linalg.vector_norm(self._gradient(p), norm_type) for p in held]
        total = torch.linalg.vector_norm(torch.stack([n.to(norms[0]) for n in norms]), norm_type)
        factor = torch.clamp(max_norm / (total + 1e-6), max=1.0)
        for parameter in held:
            gradient = cast(Tensor, parameter.grad)
            gradient.mul_(factor.to(gradient))
        return cast(Tensor, total)

    @torch.no_grad()
    def clip_grad_value_(self, clip_value: float) -> None:
        """Clamp every entry of the gradients to [-clip_value, clip_value], in weight units.

        Pulses cannot follow: chips with pulse encodings want `clip_grad_norm_`.

        Parameters
        ----------
        clip_value : float
            Largest magnitude, weight units.
        """
        check_number("clip_value", clip_value, minimum=0.0)
        for parameter in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            clipped = self._gradient(parameter).clamp(-clip_value, clip_value)
            if id(parameter) in self._crossbars:
                clipped = self._crossbars[id(parameter)][1].state_gradient(clipped)
            cast(Tensor, parameter.grad).copy_(clipped)

    def _gradient(self, parameter: Tensor) -> Tensor:
        """Return a gradient in weight units."""
        _, crossbar = self._crossbars.get(id(parameter), ("", None))
        return cast(Tensor, parameter.grad if crossbar is None else crossbar.weight_gradient())


def _plain(value: Any) -> Any:
    """Return a number that may be a tensor, as a learning rate of torch may, as a number."""
    return value.item() if isinstance(value, Tensor) else value


def _native_scale(
    crossbar: Crossbar, name: str, native: str, statistics: Mapping[str, LayerStatistics] | None
) -> Scale:
    """Return the scales of a weight: those of its chip, else those of native training."""

    def find() -> LayerStatistics:
        if statistics is None or native not in statistics:
            near = nearest(native, statistics or {})
            raise ConfigError(f"statistics: none for {native!r}{near}; collect them anew")
        return statistics[native]

    return native_scale(crossbar.chip, name, None if statistics is None else find)
