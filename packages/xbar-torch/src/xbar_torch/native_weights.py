"""The weights of a native network by the names that they have on crossbars.

Two things part the names. Wrappers (``torch.compile``, data parallel) put a word of their own in front of
the names inside them, on either side. Attention keeps its input projections in one native Parameter, on
crossbars each of them is a layer.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from xbar_torch.attention import native_projections
from xbar_torch.host import crossbars_of

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def native_weights(native: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of two dimensions or more of a native network, by their names without wrappers.

    Beside ``in_proj_weight`` of an attention stand its parts, views by the names ``q_proj.weight``,
    ``k_proj.weight`` and ``v_proj.weight``, whether they have one Parameter together or each its own.
    """
    found: dict[str, Tensor] = {}
    for prefix, module in _modules(native, "", set()):
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.ndim >= 2:
                found[_joined(prefix, name)] = parameter
        if isinstance(module, nn.MultiheadAttention) and "in_proj_weight" in module._parameters:
            for own, weight, _, _ in native_projections(module):
                found[_joined(prefix, f"{own}.weight")] = weight
    return found


def native_names(model: nn.Module) -> dict[str, str]:
    """Return, by the name of each state of a model, the name that its weight has in `native_weights`."""
    prefixes = {id(module): prefix for prefix, module in _modules(model, "", set())}
    return {
        name: _joined(prefixes[id(crossbar.owner)], f"weight{crossbar.suffix}")
        for name, crossbar in crossbars_of(model)
    }


def _modules(module: nn.Module, name: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Yield all modules, each once, by the names that they would have without wrappers."""
    if id(module) in seen:
        return
    seen.add(id(module))
    yield name, module
    for key, child in module._modules.items():
        if child is not None:
            wrapped = key == "_orig_mod" or (key == "module" and isinstance(module, _WRAPPERS))
            yield from _modules(child, name if wrapped else _joined(name, key), seen)


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
