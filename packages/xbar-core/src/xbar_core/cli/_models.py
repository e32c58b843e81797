"""Circuit models by name, as written on the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xbar_core import AAM, FCM, Ideal, Interpolated
from xbar_core._checks import nearest
from xbar_core.circuit import CircuitModel
from xbar_core.errors import ConfigError

_MODELS: dict[str, tuple[Callable[..., Any], tuple[tuple[str, type], ...]]] = {
    "ideal": (Ideal, ()),
    "aam": (AAM, (("order", int),)),
    "fcm": (FCM, (("rtol", float),)),
    "interpolated": (Interpolated, (("period", int), ("reuse", str))),
}
FORMS = "ideal, aam[:ORDER], fcm[:RTOL], interpolated:PERIOD[:REUSE]"


def parse_model(text: str) -> CircuitModel:
    """Return the circuit model that `text` names, for example ``fcm``, ``fcm:1e-6`` or ``aam:2``."""
    name, *values = text.split(":")
    if name not in _MODELS:
        raise ConfigError(f"model: unknown name {name!r}{nearest(name, _MODELS)}; use one of {FORMS}")
    build, fields = _MODELS[name]
    if len(values) > len(fields):
        raise ConfigError(f"model: {text!r} has more values than {name!r} takes; write {FORMS}")
    given: dict[str, Any] = {}
    for (field, kind), value in zip(fields, values, strict=False):
        try:
            given[field] = kind(value)
        except ValueError:
            word = "whole number" if kind is int else "number"
            raise ConfigError(
                f"model: {field} {value!r} of {name!r} is not a {word}; write {FORMS}"
            ) from None
    if name == "interpolated" and "period" not in given:
        raise ConfigError(
            f"model: {text!r} names no period; write interpolated:PERIOD, for example interpolated:10"
        )
    model: CircuitModel = build(**given)
    return model


def model_name(model: CircuitModel) -> str:
    """Return the model's name for tables and titles."""
    match model:
        case Ideal():
            return "ideal"
        case AAM():
            return f"AAM order {model.order}"
        case FCM():
            return "FCM (exact)"
        case Interpolated():
            return f"interpolated {model.reuse}"
