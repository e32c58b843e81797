"""What a chip learns from data before it trains: ranges of its converters, scales of its updates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from xbar_core._checks import check_integer
from xbar_core.engine import Ranges
from xbar_core.engine.calibration import LayerStatistics, frozen, unlearned
from xbar_core.errors import ConfigError
from xbar_torch._bridge import modes_kept
from xbar_torch.host import CrossbarModule, crossbars_of
from xbar_torch.native_weights import native_weights
from xbar_torch.recurrent import _XbarRecurrent


def native_statistics(
    model: nn.Module,
    loader: Iterable[Any],
    optimizer: Optimizer,
    loss: Callable[[Tensor, Any], Tensor],
    epochs: int = 1,
) -> dict[str, LayerStatistics]:
    """Train a native model and return the maxima of its weights and of their steps.

    They are what the TxSim paper calls Wmax and dWmax (section IV-C), for ``update.scale.rule = "native"``.

    Parameters
    ----------
    model : Module
        Native model; it is trained, so hand in a copy of one that you want to keep. One in evaluation is put
        in training; parts in evaluation of one in training (frozen normalisation) stay so.
    loader : iterable
        Yields (inputs, targets); iterated once in every epoch.
    optimizer : Optimizer
        Any optimizer of the model's parameters.
    loss : callable
        ``loss(outputs, targets)``, a 0-d tensor.
    epochs : int
        Epochs to train.

    Returns
    -------
    dict of str to LayerStatistics
        By parameter name, for every parameter of two dimensions or more, and for the parts of an
        attention's ``in_proj_weight`` (see `xbar_torch.native_weights`).

    Raises
    ------
    ConfigError
        The model has crossbar weights, an epoch has no batch, or the optimizer changes no weight.
    FloatingPointError
        The loss is NaN or infinite.
    """
    if any(True for _ in crossbars_of(model)):
        raise ConfigError("model: has crossbar weights; statistics are those of a native model: to_native")
    check_integer("epochs", epochs, minimum=1)
    zero = torch.zeros(())
    largest = {name: [_largest(p), zero.to(p.device)] for name, p in native_weights(model).items()}
    steps = 0
    with modes_kept(model):
        if not model.training:
            model.train()
        for epoch in range(epochs):
            first = steps
            for inputs, targets in loader:
                before = {name: p.detach().clone() for name, p in native_weights(model).items()}
                optimizer.zero_grad()
                value = loss(model(inputs), targets)
                if not bool(torch.isfinite(value)):
                    raise FloatingPointError(
                        f"step {steps}: the loss is {value.item()}; lower the learning rate"
                    )
                value.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                steps += 1
                for name, p in native_weights(model).items():
                    w_max, dw_max = largest[name]
                    change = _largest(p.detach() - before[name])
                    largest[name] = [torch.maximum(w_max, _largest(p)), torch.maximum(dw_max, change)]
            if steps == first:
                raise ConfigError(
                    f"loader: yields no batch in epoch {epoch}; give (inputs, targets) pairs, anew in every "
                    "epoch (a list or a DataLoader, no generator)"
                )
    found = {name: LayerStatistics(float(w), float(dw)) for name, (w, dw) in largest.items()}
    if found and all(each.dw_max == 0.0 for each in found.values()):
        raise ConfigError("optimizer: it changed no weight of the model; make it of model.parameters()")
    return found


def _largest(values: Tensor) -> Tensor:
    return values.detach().abs().amax()


def calibrate(
    model: nn.Module,
    loader: Iterable[Any],
    loss: Callable[[Tensor, Any], Tensor] | None = None,
    *,
    freeze: bool = True,
) -> dict[str, Ranges]:
    """Find the tracked ranges of all converters of a model from data, anew.

    Nothing else changes: weights, gradients, running statistics of normalisation and counters stay as they
    are, and layers that behave differently in training (dropout, normalisation) behave as in evaluation.

    Parameters
    ----------
    model : Module
        Model with crossbar weights.
    loader : iterable
        Yields inputs, or tuples that begin with them; with `loss`, (inputs, targets).
    loss : callable or None
        ``loss(outputs, targets)``, a 0-d tensor: the backward read is calibrated, too. None leaves its
        ranges to the first training steps.
    freeze : bool
        Whether later training leaves the found ranges as they are; False lets the first batches go on with
        the average, as if those of the loader had been part of them.

    Returns
    -------
    dict of str to Ranges
        What was found, by name of the state.

    Raises
    ------
    ConfigError
        The model has no crossbar weights, or the loader has no batch; nothing is changed.
    """
    crossbars = dict(crossbars_of(model))
    if not crossbars:
        raise ConfigError("model: has no crossbar weights; use convert(model, config) first")
    kept = {name: (c.ranges, replace(c.counters)) for name, c in crossbars.items()}
    dropouts = {each: each.dropout for each in model.modules() if isinstance(each, _XbarRecurrent)}
    try:
        with modes_kept(model):
            for module in model.modules():
                module.training = isinstance(module, CrossbarModule)
            for layer in dropouts:
                layer.dropout = 0.0
            for crossbar in crossbars.values():
                crossbar.ranges = unlearned(crossbar.layout, crossbar.ranges)
            batches = 0
            for batch in loader:
                _observe(model, batch, loss)
                batches += 1
            if batches == 0:
                raise ConfigError("loader: yields no batch; give at least one")
    except BaseException:
        for name, crossbar in crossbars.items():
            crossbar.ranges = kept[name][0]
        raise
    finally:
        for name, crossbar in crossbars.items():
            crossbar.counters = kept[name][1]
            crossbar.pulses.clear()
        for layer, dropout in dropouts.items():
            layer.dropout = dropout
    if freeze:
        for crossbar in crossbars.values():
            found, epochs = frozen(crossbar.layout, crossbar.ranges, crossbar.counters.epochs)
            crossbar.ranges, crossbar.counters.epochs = found, epochs
    return {name: crossbar.ranges for name, crossbar in crossbars.items()}


def _observe(model: nn.Module, batch: Any, loss: Callable[[Tensor, Any], Tensor] | None) -> None:
    inputs = batch[0] if isinstance(batch, tuple | list) else batch
    if loss is None:
        with torch.no_grad():
            model(inputs)
        return
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise ConfigError("loader: yields no targets, which loss needs; yield (inputs, targets)")
    with torch.enable_grad():
        parameters = [p for p in model.parameters() if p.requires_grad]
        torch.autograd.grad(loss(model(inputs), batch[1]), parameters, allow_unused=True)
