"""The base of every layer with crossbar weights: registration, checkpoints, moving, copying.

See `xbar_torch.crossbar` for the contract that recurrent layers, convolutions, conversion and
optimizers are built on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from xbar_core.config import Chip
from xbar_core.engine import Ranges, Reference
from xbar_core.engine.array_sets import layouts_of
from xbar_core.engine.call import Counters
from xbar_torch._bridge import ANALOG, analog_dtype
from xbar_torch.crossbar import Crossbar
from xbar_torch.native import NativeTwin

_EXTRA = ("ranges", "counters")
_REFERENCES = ("reference", "reference_backward")


class CrossbarModule(NativeTwin):
    """A module with one or several crossbar weights.

    Attributes
    ----------
    crossbars : dict of str to Crossbar
        Handles by suffix.
    data_parallel : bool
        Whether the module agrees with its peers where a process group exists.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossbars: dict[str, Crossbar] = {}
        self.data_parallel = True
        self._engine_buffers: dict[str, tuple[str, ...]] = {}

    def _prepare(self) -> None:
        CrossbarModule.__init__(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("weight") and name.removeprefix("weight") in self.__dict__.get("crossbars", {}):
            raise AttributeError(f"{name} is read-only: it is what the devices hold; use load_native")
        super().__setattr__(name, value)

    def add_crossbar(
        self,
        suffix: str,
        weight: Tensor,
        chip: Chip,
        name: int | str = 0,
        *,
        parts: int = 1,
        signed_input: bool = True,
        w_max: float | None = None,
    ) -> Crossbar:
        """Register and program a crossbar weight.

        Parameters
        ----------
        suffix : str
            Ending of the names ``state``, ``w_max``, ... in this module.
        weight : Tensor (in, out)
            Weights to program; its dtype and device become those of the states.
        chip : Chip
            The chip.
        name : int or str
            Keys the draws of this weight; different in every weight of a network.
        parts : int
            Number of array sets that the columns are split into, evenly.
        signed_input : bool
            False where the inputs cannot be negative.
        w_max : float or None
            Range of the weights; None leaves it to the chip's rule.
        """
        inputs, outputs = weight.shape
        layouts = layouts_of(chip, inputs, outputs, name, signed_input, parts)
        crossbar = Crossbar(self, suffix, layouts)
        crossbar.program(weight.to(analog_dtype(weight.dtype)).contiguous(), w_max)
        crossbar.digital = _coarse(weight.dtype)
        self.crossbars[suffix] = crossbar
        return crossbar

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter, marked where it holds states (see `is_device_state`)."""
        super().register_parameter(name, param)
        _mark(name, param)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._mark_states()  # copies bear no marks

    def store(self, suffix: str, state: Tensor, buffers: dict[str, Tensor]) -> None:
        """Register what programming returned, or overwrite it in place where it is registered."""
        name = f"state{suffix}"
        if name in self._parameters:
            with torch.no_grad():
                cast(nn.Parameter, self._parameters[name]).copy_(state)
        else:
            self.register_parameter(name, nn.Parameter(state))
        for key, value in buffers.items():
            self.register_buffer(f"{key}{suffix}", value)
        self._engine_buffers[suffix] = tuple(buffers)

    def engine_buffers(self, suffix: str) -> tuple[str, ...]:
        """Return the engine's names of the buffers of a crossbar weight."""
        return self._engine_buffers[suffix]

    @property
    def chip(self) -> Chip:
        """The chip that the module is on."""
        return next(iter(self.crossbars.values())).chip

    def conductances(self) -> Tensor | dict[str, Tensor]:
        """Return the conductances (devices, in, out), siemens; by suffix where there are several weights."""
        found = {suffix: crossbar.conductances() for suffix, crossbar in self.crossbars.items()}
        return found[""] if list(found) == [""] else found

    # Moving: the analog path stays float32 or float64, and digital words stay float64.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CrossbarModule:
        before: dict[str, Tensor] = {}
        for suffix, crossbar in self.crossbars.items():
            state = crossbar.state.detach()
            crossbar.digital = _coarse(fn(state.new_empty(0, dtype=crossbar.digital)).dtype)
            for key in ("state", *self._engine_buffers[suffix]):
                held = getattr(self, f"{key}{suffix}")
                if held.is_floating_point():
                    before[f"{key}{suffix}"] = held.detach()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        words = {f"words{suffix}" for suffix in self.crossbars}
        for name, kept in before.items():
            now = getattr(self, name)
            if now.dtype not in ANALOG or (name in words and now.dtype != kept.dtype):
                now.data = kept.to(device=now.device)
        self._mark_states()
        return self

    def _mark_states(self) -> None:
        """Mark the Parameters again where they may have been made anew."""
        for name, parameter in self._parameters.items():
            _mark(name, parameter)

    # Checkpoints: ranges, counters and interpolation references beside parameters and buffers.

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for suffix, crossbar in self.crossbars.items():
            crossbar.settle()
            destination[f"{prefix}ranges{suffix}"] = torch.from_numpy(crossbar.ranges.to_array())
            destination[f"{prefix}counters{suffix}"] = torch.from_numpy(crossbar.counters.to_array())
            for direction, name in enumerate(_REFERENCES):
                held = [pair[direction] for pair in crossbar.references]
                if held[0] is not None:
                    parts = [torch.stack([r.factor, r.offset]) for r in held if r is not None]
                    destination[f"{prefix}{name}{suffix}"] = torch.stack(parts)
                    destination[f"{prefix}{name}_update{suffix}"] = torch.tensor(held[0].update)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        report = (local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        hooks, self._load_state_dict_pre_hooks = self._load_state_dict_pre_hooks, OrderedDict()
        try:
            for hook in hooks.values():  # they may rename and reshape what an older file holds
                hook(state_dict, prefix, *report)
            self._load_checked(state_dict, prefix, *report)
        finally:
            self._load_state_dict_pre_hooks = hooks

    def _load_checked(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load everything, or nothing where a shape differs; no pre-hooks are left to run."""
        extra: dict[str, Tensor] = {}
        names = [*_EXTRA, *_REFERENCES, *(f"{name}_update" for name in _REFERENCES)]
        for suffix in self.crossbars:
            for name in names:
                key = f"{prefix}{name}{suffix}"
                if key in state_dict:
                    extra[f"{name}{suffix}"] = state_dict.pop(key)
                elif name in _EXTRA and strict:
                    missing_keys.append(key)
        before = len(error_msgs)
        for name, held in {**self._parameters, **self._buffers}.items():
            found = getattr(state_dict.get(prefix + name), "shape", None)
            if held is None or found is None or found == held.shape or (held.ndim == 0 and found == (1,)):
                continue
            error_msgs.append(
                f"size mismatch for {prefix}{name}: the checkpoint's shape is {tuple(found)}, the model's "
                f"{tuple(held.shape)}; no tensor of this layer is loaded: build the model as it was saved, "
                "with the same sizes and chip"
            )
        if len(error_msgs) > before:
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if len(error_msgs) > before:
            return
        for suffix, crossbar in self.crossbars.items():
            _take(crossbar, {name: extra.get(f"{name}{suffix}") for name in names})


def _mark(name: str, parameter: nn.Parameter | None) -> None:
    if parameter is not None and name.startswith("state"):
        parameter.__dict__["device_state"] = True


def is_device_state(parameter: Tensor) -> bool:
    """Return whether a parameter holds device states, of whichever model."""
    return "device_state" in parameter.__dict__


def _coarse(dtype: torch.dtype) -> torch.dtype | None:
    """Return a dtype that states cannot have, None where they can."""
    return None if dtype in ANALOG else dtype


def _take(crossbar: Crossbar, extra: dict[str, Tensor | None]) -> None:
    """Give a crossbar weight what a checkpoint holds beside its parameters and buffers."""
    ranges, counters = extra["ranges"], extra["counters"]
    if ranges is not None:
        crossbar.ranges = Ranges.from_array(ranges.detach().cpu().numpy())
    if counters is not None:
        crossbar.counters = Counters.from_array(counters.tolist())
    pairs: list[list[Reference | None]] = [[None, None] for _ in range(crossbar.parts)]
    for direction, name in enumerate(_REFERENCES):
        held, at = extra[name], extra[f"{name}_update"]
        if held is None or at is None:
            continue
        held = held.to(crossbar.state.detach())
        for part in range(crossbar.parts):
            factor, offset = held[part].clone()
            pairs[part][direction] = Reference(factor, offset, int(at))
    crossbar.references = [(forward, backward) for forward, backward in pairs]
    crossbar.forget()


def crossbars_of(model: nn.Module) -> Iterator[tuple[str, Crossbar]]:
    """Yield ``(name of the state, crossbar)`` of all crossbar weights of a model, each once."""
    for prefix, module in model.named_modules():
        if isinstance(module, CrossbarModule):
            for suffix, crossbar in module.crossbars.items():
                yield (f"{prefix}." if prefix else "") + f"state{suffix}", crossbar


def finish_epoch(model: nn.Module) -> None:
    """Tell the crossbar weights of a model that a training epoch is over (ranges tracked over epochs)."""
    for _, crossbar in crossbars_of(model):
        crossbar.counters.epochs += 1
