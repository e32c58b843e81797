"""What a chip does to a network in training, what it occupies, and where numbers stop being finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from xbar_core.engine.inspect_parts import relative_distortion, saturated_share
from xbar_core.lab.trainer import Footprint, LayerHealth
from xbar_torch._bridge import analog, is_finite, modes_kept
from xbar_torch.crossbar import Crossbar
from xbar_torch.host import CrossbarModule, crossbars_of
from xbar_torch.inspect import _inputs_of, _vectors, clipped_by

_VECTORS = 256  # input vectors of a layer that health looks at


def native_name(state: str) -> str:
    """Return a layer's native name from its state's: ``conv1`` for ``conv1.state``."""
    prefix, _, last = state.rpartition(".")
    if last == "state":
        return prefix or "model"
    return ".".join(part for part in (prefix, last.replace("state", "weight", 1)) if part)


@contextmanager
def untouched(network: nn.Module) -> Iterator[dict[str, Crossbar]]:
    """Run a network for a look: modes, ranges and counters are as before afterwards.

    Matrices and references of the interpolation may be new: they depend on states and updates only.
    """
    crossbars = dict(crossbars_of(network))
    kept = {name: (c.ranges, replace(c.counters)) for name, c in crossbars.items()}
    try:
        with modes_kept(network):
            network.eval()
            yield crossbars
    finally:
        for name, crossbar in crossbars.items():
            crossbar.ranges, crossbar.counters = kept[name]
            crossbar.pulses.clear()


@torch.no_grad()
def layer_health(network: nn.Module, x: Tensor) -> list[LayerHealth]:
    """Return what the chip does to each of its layers on one batch."""
    with untouched(network) as crossbars:
        with _inputs_of(crossbars) as seen:
            network(x)
        return [_health(name, crossbar, seen[name]) for name, crossbar in crossbars.items()]


def _health(name: str, crossbar: Crossbar, seen: list[Tensor]) -> LayerHealth:
    with analog(crossbar.state.device):
        vectors = _vectors(crossbar, seen, _VECTORS)
        found = None if vectors is None else clipped_by(crossbar, vectors)
        crossbar.matrices()
        state, weight = crossbar.held().detach(), crossbar.weight().detach()
        return LayerHealth(
            native_name(name),
            saturated_share(crossbar.layout, state, weight, float(crossbar.w_max)),
            0.0 if found is None else found.share,
            relative_distortion(crossbar.asked),
        )


def footprints(network: nn.Module) -> list[Footprint]:
    """Return what every layer that has weights occupies, in the order of the network."""
    found = []
    for name, module in network.named_modules():
        crossbars = module.crossbars if isinstance(module, CrossbarModule) else {}
        digital = dict(module.named_parameters(recurse=False))
        buffers = dict(module.named_buffers(recurse=False))
        for suffix, crossbar in crossbars.items():
            own = [digital.pop(f"state{suffix}")]
            own += [buffers.pop(f"{key}{suffix}") for key in module.engine_buffers(suffix)]
            prefix = f"{name}." if name else ""
            known = native_name(f"{prefix}state{suffix}")
            found.append(Footprint.on_crossbars(known, crossbar.layouts, _bytes(own)))
        rest = [*digital.values(), *buffers.values()]
        if not rest:
            continue
        weights = sum(parameter.numel() for parameter in digital.values())
        if crossbars:  # a bias goes with the layer's first matrix
            found[-len(crossbars)] = found[-len(crossbars)].grown(weights, _bytes(rest))
        else:
            found.append(Footprint(name or "model", (), 0, 0, 0.0, weights, _bytes(rest)))
    return found


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def first_bad(network: nn.Module, x: Tensor, y: Tensor) -> str:
    """Return where NaN or infinity first appears in one batch; an empty string if nowhere."""
    found = _bad("the network", "input", x)
    for name, tensor in () if found else [*network.named_parameters(), *network.named_buffers()]:
        layer, _, last = name.rpartition(".")
        found = found or _bad(_named(layer), "states" if last.startswith("state") else "weights", tensor)
    if found:
        return found
    with untouched(network) as crossbars:
        gradients: list[str] = []
        with torch.enable_grad(), _watched(network, gradients) as outputs:
            try:
                loss = nn.functional.cross_entropy(network(x), y)
            except FloatingPointError as error:
                return outputs[0] if outputs else str(error)
            if outputs:
                return _read(crossbars, outputs[0])
            if not is_finite(loss.detach()):
                return f"the network, loss: it is {float(loss.detach())}"
            parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
            try:
                bars = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            except FloatingPointError as error:
                return gradients[0] if gradients else str(error)
        for (name, _), bar in zip(parameters.items(), bars, strict=True):
            if bar is not None and not gradients:
                gradients += filter(None, [_bad(_named(name.rpartition(".")[0]), "gradient", bar)])
    return gradients[0] if gradients else ""


@contextmanager
def _watched(network: nn.Module, gradients: list[str]) -> Iterator[list[str]]:
    """Note where outputs, and on the way back their gradients, first stop being finite."""
    outputs: list[str] = []

    def watch(layer: str) -> Callable[..., None]:
        def note(bar: Tensor) -> None:
            gradients.extend(filter(None, [_bad(layer, "gradient", bar)]))

        def hook(module: nn.Module, given: Any, result: Any) -> None:
            for value in result if isinstance(result, tuple) else (result,):
                if isinstance(value, Tensor) and value.is_floating_point():
                    outputs.extend(filter(None, [_bad(layer, "output", value)]))
                    if value.requires_grad:
                        value.register_hook(note)  # type: ignore[no-untyped-call,unused-ignore]

        return hook

    leaves = [(name, m) for name, m in network.named_modules() if not any(True for _ in m.children())]
    handles = [module.register_forward_hook(watch(_named(name))) for name, module in leaves]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _read(crossbars: dict[str, Crossbar], found: str) -> str:
    """Return `found`, or the read of its layer where its matrices are not finite already."""
    for name, crossbar in crossbars.items():
        layer = _named(name.rpartition(".")[0])
        if found.startswith(f"{layer},"):
            for matrices in crossbar.matrices():
                return _bad(layer, "read", matrices.forward) or found
    return found


def _named(layer: str) -> str:
    return f"layer {layer!r}" if layer else "the network"


def _bad(layer: str, stage: str, values: Tensor) -> str:
    if not values.is_floating_point() or is_finite(values.detach()):
        return ""
    count = int((~torch.isfinite(values.detach())).sum())
    return f"{layer}, {stage}: {count} of {values.numel()} values are NaN or infinite"
