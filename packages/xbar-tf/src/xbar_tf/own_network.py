"""The user's own network, by import path."""

from __future__ import annotations

import keras
import numpy as np

from xbar_core.errors import ConfigError, ShapeError
from xbar_core.lab.importing import call_own


def own_network(
    name: str, classes: int, image_shape: tuple[int, ...], sample: tuple[int, ...]
) -> keras.Model:
    """Return the network that the user's function makes, after two samples of zeros have gone through it.

    Parameters
    ----------
    name : str
        Import path, ``package.module:function``.
    classes : int
        Number of classes; the first argument of the function.
    image_shape : tuple of int
        Shape of one sample as the data set gives it; the second argument of the function.
    sample : tuple of int
        Shape of one sample as the network gets it: channels last.

    Raises
    ------
    ConfigError
        There is no such function, it fails, or it returns no model.
    ShapeError
        The network does not take such samples, or does not return a logit for each class.
    """
    network = call_own("network", name, classes, image_shape)
    if not isinstance(network, keras.Model):
        raise ConfigError(
            f"network: {name} returned a {type(network).__name__}; it must return a keras.Model"
        )
    try:
        logits = network(np.zeros((2, *sample), keras.config.floatx()), training=False)
    except Exception as error:  # the user's own code may fail in any way
        raise ShapeError(
            f"network: {name} does not take samples of shape {sample} (channels last): "
            f"{type(error).__name__}: {error}"
        ) from error
    shape = getattr(logits, "shape", None)
    if shape is None or tuple(shape) != (2, classes):
        got = type(logits).__name__ if shape is None else tuple(shape)
        raise ShapeError(
            f"network: {name} returns {got} for 2 samples; it must return logits (samples, classes), "
            f"here (2, {classes})"
        )
    return network
