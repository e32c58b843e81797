"""Decide what becomes of every module of a network, before anything is built or changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_core.lab.planning import Planned, choose, on_crossbars_already
from xbar_torch.attention import XbarMultiheadAttention
from xbar_torch.conv import XbarConv1d, XbarConv2d, XbarConv3d
from xbar_torch.host import CrossbarModule
from xbar_torch.linear import XbarLinear
from xbar_torch.recurrent import XbarGRU, XbarLSTM, XbarRNN
from xbar_torch.tied import XbarTiedLinear

_NORMALISATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def twins() -> dict[type[nn.Module], Any]:
    """Return the layers on crossbars by the native layers that they stand for."""
    return {
        nn.Linear: XbarLinear,
        nn.Conv1d: XbarConv1d,
        nn.Conv2d: XbarConv2d,
        nn.Conv3d: XbarConv3d,
        nn.RNN: XbarRNN,
        nn.LSTM: XbarLSTM,
        nn.GRU: XbarGRU,
        nn.MultiheadAttention: XbarMultiheadAttention,
    }


@dataclass
class Entry(Planned):
    """One module of the model and what becomes of it.

    Attributes
    ----------
    whole : bool
        Its submodules are part of it and have no entries.
    tied_to : Module or None
        The native module whose crossbar it shares.
    same_call : bool
        The other module does exactly the same, so that one layer serves in both places.
    """

    whole: bool = False
    tied_to: nn.Module | None = None
    same_call: bool = False
    own_weight_names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = [name for name, _ in self.native.named_parameters()] if self.twin is not None else []
        self.own_weight_names = tuple(name for name in names if "weight" in name)

    @property
    def key(self) -> str:
        """What keys the draws of the layer, and names it in messages."""
        return self.name or "model"

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Names of its crossbar weights in the model."""
        prefix = f"{self.name}." if self.name else ""
        return tuple(prefix + own for own in self.own_weight_names)

    @property
    def builds(self) -> bool:
        """Whether it gets crossbars of its own."""
        return self.on_chip and self.tied_to is None

    @property
    def listed(self) -> bool:
        """Whether a report lists it: containers without parameters of their own are not listed."""
        return self.on_chip or not self.native._modules or bool(self.native._parameters)


def on_crossbars(module: nn.Module) -> bool:
    """Return whether a module is a layer on crossbars."""
    return isinstance(module, (CrossbarModule, XbarTiedLinear, XbarMultiheadAttention))


def plan(
    model: nn.Module,
    chip: Chip,
    overrides: Mapping[str, Chip | None],
    unsigned: str | Iterable[str],
) -> list[Entry]:
    """Return what becomes of every module, in the order of the model.

    Parameters
    ----------
    model : Module
        The network.
    chip : Chip
        For all layers that no pattern matches.
    overrides : mapping of str to Chip or None
        By pattern, see `xbar_torch.convert`.
    unsigned : str or iterable of str
        Patterns of layers whose inputs cannot be negative.
    """
    known = twins()
    entries: dict[int, Entry] = {}
    for name, module in _walk(model, "", known):
        if on_crossbars(module):
            raise on_crossbars_already(name, module)
        if id(module) in entries:
            entries[id(module)].names.append(name)
            continue
        twin, note = _twin(module, known)
        whole = _base(module, known) is not None
        entries[id(module)] = Entry(module, [name], twin, None if twin is None else chip, note, whole=whole)
    listed = list(entries.values())
    choose(listed, overrides, unsigned, kind="module", names="names of model.named_modules()")
    _tie_weights(listed)
    return listed


def _walk(
    module: nn.Module, name: str, known: Mapping[type[nn.Module], Any]
) -> Iterator[tuple[str, nn.Module]]:
    yield name, module
    if on_crossbars(module) or _base(module, known) is not None:
        return
    for child_name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{name}.{child_name}" if name else child_name, known)


def _base(module: nn.Module, known: Mapping[type[nn.Module], Any]) -> type[nn.Module] | None:
    """Return the native layer that a module is, or None; a subclass with a forward of its own is not."""
    for base in known:
        if isinstance(module, base) and type(module).forward is base.forward:
            return base
    return None


def _twin(module: nn.Module, known: Mapping[type[nn.Module], Any]) -> tuple[Any, str]:
    """Return the layer on crossbars of a module, or None and the reason."""
    base = _base(module, known)
    if base is None:
        return None, _why_digital(module, known)
    if parametrize.is_parametrized(module):
        return None, "its weight is parametrized; remove_parametrizations first"
    if len(list(module.parameters())) < len(list(module.named_parameters(remove_duplicate=False))):
        return None, "two of its own parameters are one"
    weights = [(name, p) for name, p in module._parameters.items() if "weight" in name and p is not None]
    if not weights:
        return None, "its weight is computed by a hook; remove the reparametrization or pruning first"
    for name, weight in weights:
        if isinstance(weight, nn.UninitializedParameter):
            return None, "its shape is not known yet; run it once"
        if weight.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            return None, f"{name} has dtype {weight.dtype}; crossbars hold real floating-point weights"
    return known[base], ""


def _why_digital(module: nn.Module, known: Mapping[type[nn.Module], Any]) -> str:
    if not any(True for _ in module.parameters(recurse=False)):
        return "no weights"
    if isinstance(module, _NORMALISATION):
        return "normalisation is digital"
    for base in known:
        if isinstance(module, base):
            return f"a {base.__name__} with a forward of its own"
    if module._modules:
        return "parameters of a container"
    return "no crossbar twin for this type"


def _tie_weights(entries: list[Entry]) -> None:
    """Find weights that several modules share, and check that one crossbar can serve them."""
    users: dict[int, list[tuple[Entry, str]]] = {}
    for entry in entries:
        for name, parameter in entry.native.named_parameters(recurse=entry.whole):
            users.setdefault(id(parameter), []).append((entry, name))
    for entry in entries:
        if not entry.builds:
            continue
        for own in entry.own_weight_names:
            parameter = entry.native.get_parameter(own)
            for other, name in users[id(parameter)]:
                if other is not entry:
                    _tie(entry, own, other, name)


def _tie(first: Entry, own: str, other: Entry, name: str) -> None:
    """Tie `other` to `first`, whose crossbar both use."""
    a, b = first.native, other.native
    same_type = other.on_chip and first.twin is other.twin and own == name == "weight"
    if same_type and first.chip == other.chip and first.signed_input == other.signed_input:
        same_bias = a._parameters["bias"] is b._parameters["bias"]
        if same_bias and a.extra_repr() == b.extra_repr():
            other.tied_to, other.same_call = a, True
        elif first.twin is XbarLinear:
            other.tied_to = a
        if other.tied_to is not None:
            other.note = f"shares the crossbar of {first.key!r}"
            return
    why = (
        "which stays digital"
        if not other.on_chip
        else "which is on another chip"
        if first.chip != other.chip
        else "which reads it in another way"
    )
    raise ConfigError(
        f"{first.key}.{own}: the same Parameter is {other.key}.{name} ({type(b).__name__}), {why}; "
        f"one crossbar cannot serve both: keep the weight digital with overrides={{{first.name!r}: None}}"
        + (f" and {{{other.name!r}: None}}" if other.on_chip else "")
        + ", or untie it"
    )
