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
from xbar_torch._bridge import analog
from xbar_torch.conv import _XbarConv
from xbar_torch.crossbar import Crossbar
from xbar_torch.host import crossbars_of
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
    wanted = {name: _wanted(name, crossbar, native) for name, crossbar in crossbars.items()}
    modes = [(module, module.training) for module in model.modules()]
    evaluations = {name: crossbar.counters.evaluations for name, crossbar in crossbars.items()}
    try:
        model.eval()
        with torch.no_grad(), _inputs_of(crossbars) as seen:
            model(*batch) if isinstance(batch, tuple | list) else model(batch)
        layers = [
            _inspect(name, crossbar, wanted[name], _vectors(crossbar, seen[name], samples))
            for name, crossbar in crossbars.items()
        ]
    finally:
        for module, mode in modes:
            module.training = mode
        for name, crossbar in crossbars.items():
            crossbar.counters.evaluations = evaluations[name]
    return Inspection(tuple(layers))


def _wanted(name: str, crossbar: Crossbar, native: nn.Module | None) -> Tensor:
    """Return the weights (in, out) that a state should stand for."""
    if native is None:
        return crossbar.weight().detach()
    before, _, after = name.rpartition("state")
    key, state = f"{before}weight{after}", crossbar.state.detach()
    found = dict(native.named_parameters()).get(key)
    if found is None or found.numel() != state[0].numel():
        raise ConfigError(f"native: has no weight {key!r} that fits; hand in the network that was converted")
    return found.detach().reshape(found.shape[0], -1).T.to(state).contiguous()


@contextmanager
def _inputs_of(crossbars: dict[str, Crossbar]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the inputs that crossbar weights check on their way into the analog path."""
    seen: dict[str, list[Tensor]] = {name: [] for name in crossbars}

    def watch(crossbar: Crossbar, values: list[Tensor]) -> None:
        check = crossbar.require_finite

        def note(x: Tensor, what: str) -> None:
            check(x, what)
            values.append(x)

        crossbar.__dict__["require_finite"] = note

    try:
        for name, crossbar in crossbars.items():
            watch(crossbar, seen[name])
        yield seen
    finally:
        for crossbar in crossbars.values():
            del crossbar.__dict__["require_finite"]


def _vectors(crossbar: Crossbar, seen: list[Tensor], samples: int) -> Tensor | None:
    """Return input vectors (samples, in of all array sets) of a layer, at most so many; None without any."""
    owner, inputs = crossbar.owner, crossbar.layout.inputs * crossbar.parts
    if isinstance(owner, _XbarConv):
        seen = [
            unfold(x if x.ndim == len(owner.kernel_size) + 2 else x[None], owner._geometry).mT for x in seen
        ]
    elif crossbar.suffix.startswith("_ih"):
        seen = seen[:1]  # the initial states may follow
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
