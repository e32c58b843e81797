"""The user's own network, by import path."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab.importing import call_own
from xbar_torch._bridge import modes_kept


def own_network(name: str, classes: int, shape: tuple[int, ...]) -> nn.Module:
    """Return the network that the user's function makes, after two samples of zeros have gone through it.

    Parameters
    ----------
    name : str
        Import path, ``package.module:function``.
    classes : int
        Number of classes; the first argument of the function.
    shape : tuple of int
        Shape of one sample; the second argument of the function.

    Raises
    ------
    ConfigError
        There is no such function, it fails, or it returns no module.
    ShapeError
        The network does not take such samples, or does not return a logit for each class.
    """
    network = call_own("network", name, classes, shape)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"network: {name} returned a {type(network).__name__}; it must return a torch.nn.Module"
        )
    try:
        with torch.no_grad(), modes_kept(network):
            logits = network.eval()(torch.zeros(2, *shape))
    except Exception as error:  # the user's own code may fail in any way
        raise ShapeError(
            f"network: {name} does not take samples of shape {shape}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ShapeError(
            f"network: {name} returns {got} for 2 samples; it must return logits (samples, classes), "
            f"here (2, {classes})"
        )
    return network
