"""Packages of the extras ``lab`` and ``sweep``, loaded when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any

from xbar_core.errors import ConfigError


def optional(module: str, package: str, purpose: str, *, extra: str = "lab") -> Any:
    """Return an imported module, or say in one line how to install it.

    Parameters
    ----------
    module : str
        Import path, such as ``"sklearn.datasets"``.
    package : str
        Name to install it by, such as ``"scikit-learn"``.
    purpose : str
        What it is needed for; begins the error's text.
    extra : str
        The extra of xbar-core that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{purpose}: needs {package}, which cannot be imported ({error}); "
            f"pip install 'xbar-core[{extra}]'"
        ) from error
