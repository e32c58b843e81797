"""Put the layers of a network on crossbars, and read them back.

`convert` works in three steps, so that nothing is changed when one fails: `xbar_torch._plan` decides what
becomes of every module, the twins are built and programmed, then they take their places.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from xbar_core._checks import check_mapping, nearest
from xbar_core.config import Chip
from xbar_core.errors import ConfigError, ShapeError
from xbar_torch._bridge import resolve_chip
from xbar_torch._plan import Entry, on_crossbars, plan
from xbar_torch.crossbar import Crossbar
from xbar_torch.group import link
from xbar_torch.host import crossbars_of
from xbar_torch.linear import XbarLinear
from xbar_torch.report import ConversionReport, ModuleReport
from xbar_torch.tied import XbarTiedLinear

Config = str | Path | Chip
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def convert(
    model: nn.Module,
    config: Config = "ideal",
    overrides: Mapping[str, Config | None] | None = None,
    *,
    seed: int | None = None,
    unsigned: str | Iterable[str] = (),
    w_max: Mapping[str, float] | None = None,
    inplace: bool = False,
) -> nn.Module:
    """Return a network whose linear, convolution, recurrent and attention layers are on crossbars.

    The weights are programmed into a chip that `config` and `seed` determine: the name of a layer keys its
    random draws, so the same network and seed give the same chip. Biases, normalisation, pooling and
    activations stay digital. A weight that two linear layers share stays one weight, on one crossbar.

    Parameters
    ----------
    model : Module
        A native network, trained or not.
    config : str, Path or Chip
        Preset's name, chip file or chip, for every layer.
    overrides : mapping of str to str, Path, Chip or None
        Another chip, or None to keep a layer digital, for the modules that a pattern matches: names as in
        ``model.named_modules()`` with the wildcards of `fnmatch`. A pattern that matches a module holds for
        everything in it; of several that match, the last one counts. ``"<first>"`` and ``"<last>"`` are the
        first and last layer, in the order of registration, that can go on crossbars.
    seed : int or None
        Takes the place of the chips' seeds.
    unsigned : str or iterable of str
        Patterns of layers whose inputs cannot be negative (after a ReLU): their words have no sign bit.
    w_max : mapping of str to float, or None
        Ranges of weights by the name of the native parameter (``"fc1.weight"``), weight units; the others
        follow the chip's rule.
    inplace : bool
        Replace the layers in `model` itself, which is returned; biases are then the same Parameters. Lists,
        tuples and dicts among the attributes of its modules follow. A copy is converted unless this is set.
        (A model that is itself a layer is never changed.)

    Returns
    -------
    Module
        The converted network. `conversion_report` tells what became of every module, `to_native` goes back.

    Raises
    ------
    ConfigError, ShapeError
        The model is converted already, or nothing in it can be; an argument is of another type; a pattern
        matches nothing or names what cannot be converted; a
        weight is not finite; a weight is shared with a module that cannot share a crossbar; the chip cannot
        hold a layer. The model is unchanged.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> chip_net = convert(net, "txsim-8bit", overrides={"<last>": None})
    >>> print(chip_net)
    Sequential(
      (0): XbarLinear(in_features=8, out_features=16, bias=True, chip='txsim-8bit')
      (1): ReLU()
      (2): Linear(in_features=16, out_features=4, bias=True)
    )
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model: a {type(model).__name__} is no torch.nn.Module; give a network")
    default = resolve_chip(config, seed)
    chips = {
        pattern: None if choice is None else resolve_chip(choice, seed)
        for pattern, choice in check_mapping("overrides", overrides, "pattern to chip or None").items()
    }
    entries = plan(model, default, chips, unsigned)
    ranges = _ranges(entries, check_mapping("w_max", w_max, "native weight to range"))
    built = {id(entry.native): _build(entry, ranges) for entry in entries if entry.builds}
    for entry in entries:
        if entry.tied_to is not None:
            built[id(entry.native)] = _tie(entry, built[id(entry.tied_to)])
    report = ConversionReport(tuple(_described(entry, built) for entry in entries if entry.listed))
    result = _swap(model, built) if inplace else _copy(model, built, entries)
    for encoder in result.modules():
        if isinstance(encoder, nn.TransformerEncoder) and any(crossbars_of(encoder)):
            # Nested tensors would go around the layers, to a fused kernel that reads weights.
            encoder.__dict__["native_use_nested_tensor"] = encoder.use_nested_tensor
            encoder.__dict__["use_nested_tensor"] = False
    link(result)
    result.__dict__["conversion"] = report
    return result


def conversion_report(model: nn.Module) -> ConversionReport:
    """Return the report of the conversion that made a network.

    Raises
    ------
    ConfigError
        The network is not a result of `convert`.
    """
    report = model.__dict__.get("conversion")
    if not isinstance(report, ConversionReport):
        raise ConfigError("model: it was not made by convert, so there is no report; convert a native model")
    return report


def to_native(model: nn.Module) -> nn.Module:
    """Return a native copy of a network: the weights are those that the chip's devices stand for now.

    Raises
    ------
    ConfigError
        The network has no layer on crossbars.
    """
    memo: dict[int, Any] = {}
    found: list[nn.Module] = []
    _gather_twins(model, found)
    if not found:
        raise ConfigError("model: it has no layer on crossbars; it is native already")
    for twin in found:
        memo[id(twin)] = _native_of(twin, memo)
    for twin in found:
        if isinstance(twin, XbarTiedLinear):
            memo[id(twin)].weight = memo[id(twin.source)].weight
    native: nn.Module = copy.deepcopy(model, memo)
    native.__dict__.pop("conversion", None)
    for encoder in native.modules():
        if "native_use_nested_tensor" in encoder.__dict__:
            encoder.__dict__["use_nested_tensor"] = encoder.__dict__.pop("native_use_nested_tensor")
    return native


def _gather_twins(module: nn.Module, found: list[nn.Module]) -> None:
    if on_crossbars(module):
        for twin in (module.source, module) if isinstance(module, XbarTiedLinear) else (module,):
            if not any(twin is other for other in found):
                found.append(twin)
        return
    for child in module.children():
        _gather_twins(child, found)


def _native_of(twin: Any, memo: dict[int, Any]) -> nn.Module:
    native: nn.Module = twin.to_native()
    for name, parameter in twin._parameters.items():
        if parameter is not None and name in native._parameters:
            setattr(native, name, copy.deepcopy(parameter, memo))
    for suffix, crossbar in _handles(twin).items():
        native._parameters[f"weight{suffix}"].requires_grad_(crossbar.state.requires_grad)  # type: ignore[union-attr]
    _move_hooks(twin, native)
    return native


def _handles(module: nn.Module) -> dict[str, Crossbar]:
    handles: dict[str, Crossbar] = module.__dict__.get("crossbars", {})
    return handles


def _ranges(entries: list[Entry], w_max: dict[str, float]) -> dict[str, float]:
    known = [name for entry in entries if entry.builds for name in entry.weight_names]
    for name in w_max:
        if name not in known:
            raise ConfigError(
                f"w_max: {name!r} is no weight that goes on crossbars{nearest(name, known)}; "
                f"they are {', '.join(known) or 'none'}"
            )
    return w_max


def _build(entry: Entry, w_max: dict[str, float]) -> nn.Module:
    """Build and program the twin of a layer; parameters that stay digital are shared with it."""
    module, twin = entry.native, entry.twin
    given: Any = {
        own: w_max[name]
        for own, name in zip(entry.own_weight_names, entry.weight_names, strict=True)
        if name in w_max
    }
    if entry.own_weight_names == ("weight",):
        given = given.get("weight")
    try:
        built: nn.Module = twin.from_native(
            module, entry.chip, name=entry.key, signed_input=entry.signed_input, w_max=given
        )
    except (ConfigError, ShapeError) as error:
        raise type(error)(f"layer {entry.key!r}: {error}") from error
    for suffix, crossbar in _handles(built).items():
        frozen = module._parameters[f"weight{suffix}"]
        crossbar.state.requires_grad_(frozen is None or frozen.requires_grad)
    _move_hooks(module, built)
    return built


def _tie(entry: Entry, source: nn.Module) -> nn.Module:
    if entry.same_call:
        return source
    assert isinstance(source, XbarLinear)
    tied = XbarTiedLinear(source, entry.native._parameters["bias"]).train(entry.native.training)
    _move_hooks(entry.native, tied)
    return tied


def _move_hooks(source: nn.Module, target: nn.Module) -> None:
    for name in _HOOKS:
        target.__dict__[name].update(source.__dict__[name])


def _swap(model: nn.Module, built: dict[int, nn.Module]) -> nn.Module:
    memo: dict[int, tuple[Any, Any]] = {}
    for parent in list(model.modules()):
        for key, value in list(parent.__dict__.items()):
            parent.__dict__[key] = _swapped(value, built, memo)
    return built.get(id(model), model)


def _swapped(value: Any, built: dict[int, nn.Module], memo: dict[int, tuple[Any, Any]]) -> Any:
    """Return a module's attribute with twins in the places of layers; lists and dicts change in place.

    `memo` holds, by identity, every container that was met and what stands for it; that it holds the old
    one, too, keeps identities from being given away anew.
    """
    if isinstance(value, nn.Module):
        return built.get(id(value), value)
    if not isinstance(value, list | tuple | dict):
        return value
    if id(value) in memo:
        return memo[id(value)][1]
    memo[id(value)] = value, value
    items = list(value.items() if isinstance(value, dict) else enumerate(value))
    now = [(key, item, _swapped(item, built, memo)) for key, item in items]
    if isinstance(value, tuple):
        if all(before is after for _, before, after in now):
            return value
        made = [after for _, _, after in now]
        new = value._make(made) if hasattr(value, "_make") else type(value)(made)
        memo[id(value)] = value, new
        return new
    for key, before, after in now:
        if after is not before:
            value[key] = after
    return value


def _copy(model: nn.Module, built: dict[int, nn.Module], entries: list[Entry]) -> nn.Module:
    """Return a deep copy in which every reference to a layer is one to its twin."""
    memo: dict[int, Any] = {}
    shared = {id(parameter) for parameter in model.parameters()}
    for twin in built.values():
        for part in twin.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None and id(parameter) in shared:
                    part._parameters[name] = copy.deepcopy(parameter, memo)
    memo.update({id(entry.native): built[id(entry.native)] for entry in entries if id(entry.native) in built})
    result: nn.Module = copy.deepcopy(model, memo)
    return result


def _described(entry: Entry, built: dict[int, nn.Module]) -> ModuleReport:
    native = type(entry.native).__name__
    twin = built.get(id(entry.native))
    if twin is None:
        known = (
            p for p in entry.native.parameters(entry.whole) if not isinstance(p, nn.UninitializedParameter)
        )
        own = sum(parameter.numel() for parameter in known)
        return ModuleReport(entry.name, native, None, None, own, 0, 0.0, entry.note)
    became, chip = type(twin).__name__, entry.chip.name
    if entry.tied_to is not None:
        return ModuleReport(entry.name, native, became, chip, 0, 0, 0.0, entry.note)
    layouts = [layout for _, crossbar in crossbars_of(twin) for layout in crossbar.layouts]
    weights = sum(layout.inputs * layout.outputs for layout in layouts)
    arrays = sum(layout.arrays for layout in layouts)
    cells = sum(len(x.tiling.tiles) * x.tiling.rows * x.tiling.cols for x in layouts)
    return ModuleReport(entry.name, native, became, chip, weights, arrays, weights / cells, entry.note)
