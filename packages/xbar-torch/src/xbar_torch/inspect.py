"""What a chip does to a network: arrays, conductances, wires, converters and what each stage costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xbar_core._arrays import to_numpy
from xbar_core._checks import check_integer
from xbar_core.engine import Clipped, Stage
from xbar_core.engine.inspect_parts import clipped_parts, distortion, evenly, stage_report_parts
from xbar_core.errors import ConfigError
from xbar_core.lab.inspection import STAGES, Inspection, LayerInspection
from xbar_torch._bridge import analog, modes_kept
from xbar_torch.conv import _XbarConv
from xbar_torch.crossbar import Crossbar
from xbar_torch.host import crossbars_of
from xbar_torch.native_weights import native_names, native_weights
from xbar_torch.patches import unfold

__all__ = ["STAGES", "Inspection", "LayerInspection", "inspect"]


def inspect(
    model: nn.Module, batch: Any, *, native: nn.Module | None = None, samples: int = 1024
) -> Inspection:
    """Run a batch through a model in evaluation and say what its chip does to every layer.

    Each layer is judged by itself, on the inputs that it meets on the chip.

    Parameters
    ----------
    model : Module
        Model with crossbar weights; modes, ranges and counters are as before afterwards.
    batch : Tensor or tuple
        What the model is called with.
    native : Module or None
        Native twin that holds the weights that the chip should stand for: errors of programming then
        count (stage ``weights``). None takes what the devices stand for.
    samples : int
        Input vectors of a layer that are used at most, spread evenly over the batch (a convolution has one
        for each output place, a recurrent weight one for each time step).

    Returns
    -------
    Inspection

    Raises
    ------
    ConfigError
        The model has no crossbar weights, or the native one has others.
    """
    check_integer("samples", samples, minimum=1)
    crossbars = dict(crossbars_of(model))
    if not crossbars:
        raise ConfigError("model: has no crossbar weights; use convert(model, config) first")
    wanted = _wanted(model, crossbars, native)
    evaluations = {name: crossbar.counters.evaluations for name, crossbar in crossbars.items()}
    try:
        with modes_kept(model):
            model.eval()
            with torch.no_grad(), _inputs_of(crossbars) as seen:
                model(*batch) if isinstance(batch, tuple | list) else model(batch)
            layers = [
                _inspect(name, crossbar, wanted[name], _vectors(crossbar, seen[name], samples))
                for name, crossbar in crossbars.items()
            ]
    finally:
        for name, crossbar in crossbars.items():
            crossbar.counters.evaluations = evaluations[name]
    return Inspection(tuple(layers))


def _wanted(model: nn.Module, crossbars: dict[str, Crossbar], native: nn.Module | None) -> dict[str, Tensor]:
    """Return the weights (in, out) that every state should stand for."""
    if native is None:
        return {name: crossbar.weight().detach() for name, crossbar in crossbars.items()}
    if not isinstance(native, nn.Module):
        raise ConfigError(
            f"native: a {type(native).__name__} is no torch.nn.Module; hand in the network that was converted"
        )
    names, weights, wanted = native_names(model), native_weights(native), {}
    for name, crossbar in crossbars.items():
        key, state = names[name], crossbar.state.detach()
        found = weights.get(key)
        if found is None or found.numel() != state[0].numel():
            raise ConfigError(
                f"native: has no weight {key!r} that fits; hand in the network that was converted"
            )
        wanted[name] = found.detach().reshape(found.shape[0], -1).T.to(state).contiguous()
    return wanted


@contextmanager
def _inputs_of(crossbars: dict[str, Crossbar]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what crossbar weights read."""
    seen: dict[str, list[Tensor]] = {name: [] for name in crossbars}
    try:
        for name, crossbar in crossbars.items():
            crossbar.seen = seen[name]
        yield seen
    finally:
        for crossbar in crossbars.values():
            crossbar.seen = None


def _vectors(crossbar: Crossbar, seen: list[Tensor], samples: int) -> Tensor | None:
    """Return input vectors (samples, in of all array sets) of a layer, at most so many; None without any."""
    owner, inputs = crossbar.owner, crossbar.layout.inputs * crossbar.parts
    if isinstance(owner, _XbarConv):
        seen = [
            unfold(x if x.ndim == len(owner.kernel_size) + 2 else x[None], owner._geometry).mT for x in seen
        ]
    rows = [x.reshape(-1, inputs) for x in seen if x.shape[-1] == inputs]
    if not rows:
        return None
    found = torch.cat(rows).to(crossbar.state.dtype)
    return found[torch.from_numpy(evenly(len(found), samples)).to(found.device)].contiguous()


def _inspect(name: str, crossbar: Crossbar, wanted: Tensor, x: Tensor | None) -> LayerInspection:
    layouts = crossbar.layouts
    inputs = sum(layout.inputs for layout in layouts)
    outputs = sum(layout.outputs for layout in layouts)
    with analog(crossbar.state.device):
        crossbar.matrices()
        lost = distortion(crossbar.asked)
        counts, stages = (None, ()) if x is None else _read(crossbar, wanted, x)
        held = crossbar.conductances()
    return LayerInspection(
        name,
        (inputs, outputs),
        sum(layout.arrays for layout in layouts),
        float(np.mean([layout.tiling.utilisation for layout in layouts])),
        to_numpy(held).astype(np.float64).ravel(),
        lost,
        counts,
        stages,
    )


def clipped_by(crossbar: Crossbar, x: Tensor) -> Clipped:
    """Return how many conversions of a forward read of x are beyond full scale, over all array sets."""
    return clipped_parts(
        crossbar.layouts,
        crossbar.matrices(),
        [crossbar.buffers(part) for part in range(crossbar.parts)],
        crossbar.ranges,
        _shares(x, crossbar),
        crossbar.call(x.shape[0]),
    )


def _read(crossbar: Crossbar, wanted: Tensor, x: Tensor) -> tuple[Clipped, tuple[Stage, ...]]:
    """Return the saturated conversions and the stages of a forward read, over all array sets."""
    stages = stage_report_parts(
        crossbar.layouts,
        _shares(wanted, crossbar),
        crossbar.states(crossbar.held().detach()),
        [crossbar.buffers(part) for part in range(crossbar.parts)],
        _shares(x, crossbar),
        ranges=crossbar.ranges,
        time=crossbar.time,
        call=crossbar.call(x.shape[0]),
    )
    return clipped_by(crossbar, x), stages


def _shares(values: Tensor, crossbar: Crossbar) -> list[Tensor]:
    """Return the columns of every array set."""
    return [part.contiguous() for part in values.chunk(crossbar.parts, -1)]
