"""What a chip does to a network: arrays, conductances, wires, converters and what each stage costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xbar_core._checks import check_integer
from xbar_core.engine import Clipped, Layout, Request, Stage, clipped, stage_report
from xbar_core.engine.circuits import solve_arrays
from xbar_core.engine.matrices import physical_arrays, tile_blocks
from xbar_core.errors import ConfigError
from xbar_core.lab.inspection import STAGES, Inspection, LayerInspection
from xbar_torch._bridge import analog
from xbar_torch.conv import _XbarConv
from xbar_torch.crossbar import Crossbar
from xbar_torch.host import crossbars_of
from xbar_torch.patches import unfold

__all__ = ["STAGES", "Inspection", "LayerInspection", "inspect"]

Values = NDArray[np.float64]


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
    at = torch.linspace(0, len(found) - 1, min(samples, len(found)), dtype=torch.float64)
    return found[at.round().long().to(found.device)].contiguous()


def _inspect(name: str, crossbar: Crossbar, wanted: Tensor, x: Tensor | None) -> LayerInspection:
    layouts = crossbar.layouts
    inputs = sum(layout.inputs for layout in layouts)
    outputs = sum(layout.outputs for layout in layouts)
    with analog(crossbar.state.device):
        crossbar.matrices()
        distortion = [_distortion(request) for request in crossbar.asked]
        counts, stages = (None, ()) if x is None else _read(crossbar, wanted, x)
        held = crossbar.conductances()
    return LayerInspection(
        name,
        (inputs, outputs),
        sum(layout.arrays for layout in layouts),
        float(np.mean([layout.tiling.utilisation for layout in layouts])),
        _host(held).ravel(),
        np.concatenate(distortion),
        counts,
        stages,
    )


def _distortion(request: Request) -> Values:
    """Return what the circuit takes away of every conducting cell that holds a weight."""
    layout: Layout = request.layout
    arrays = physical_arrays(request)
    ((solved, _),) = solve_arrays([request.job(arrays, "forward")])
    found = []
    pairs = zip(tile_blocks(layout, arrays, "forward"), tile_blocks(layout, solved, "forward"), strict=True)
    for (tile, ideal), (_, actual) in pairs:
        cols = tile.shape[1]
        g, g_ni = (_host(block[..., :cols]).ravel() for block in (ideal, actual))
        found.append(1.0 - g_ni[g > 0] / g[g > 0])
    return np.concatenate(found)


def _read(crossbar: Crossbar, wanted: Tensor, x: Tensor) -> tuple[Clipped, tuple[Stage, ...]]:
    """Return the saturated conversions and the stages of a forward read, over all array sets."""
    call = crossbar.call(x.shape[0])
    counts, signal = np.zeros(4, np.int64), 0.0
    noise, added = np.zeros(len(STAGES)), np.zeros(len(STAGES))
    for part, (layout, state, each) in enumerate(
        zip(
            crossbar.layouts,
            crossbar.states(crossbar.state.detach()),
            x.chunk(crossbar.parts, -1),
            strict=True,
        )
    ):
        buffers, weight = crossbar.buffers(part), wanted[:, crossbar.columns(part)].contiguous()
        matrices, numbers = crossbar.matrices()[part], each.contiguous()
        counts += clipped(layout, layout.forward, matrices, buffers, crossbar.ranges, numbers, call)
        report = stage_report(
            layout, weight, state, buffers, numbers, ranges=crossbar.ranges, time=crossbar.time, call=call
        )
        power = float((numbers @ weight).double().square().sum())
        signal += power
        noise += [power * 10.0 ** (-stage.snr_db / 10.0) if power else 0.0 for stage in report]
        added += [power * stage.error**2 for stage in report]
    stages = []
    for name, remaining, more in zip(STAGES, noise, added, strict=True):
        ratio = 10.0 * np.log10(signal / remaining) if signal and remaining else float("inf")
        stages.append(Stage(name, float(ratio), float(np.sqrt(more / signal)) if signal else 0.0))
    return Clipped(*(int(count) for count in counts)), tuple(stages)


def _host(values: Any) -> Values:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return array.astype(np.float64)
