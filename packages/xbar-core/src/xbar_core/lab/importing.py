"""The user's own networks and data sets, named by import path."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError


def is_import_path(name: str) -> bool:
    """Tell whether `name` has the form ``package.module:function``."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_callable(field: str, path: str) -> Callable[..., Any]:
    """Import ``package.module:function``, found as Python finds it or in the working directory.

    Parameters
    ----------
    field : str
        What the path was given for; begins the text of every error.
    path : str
        Import path and name, with a colon between.

    Raises
    ------
    ConfigError
        The path has another form, its module cannot be imported, or it names nothing callable.
    """
    if not is_import_path(path):
        raise ConfigError(f"{field}: {path!r} is no import path; write package.module:function")
    module_name, _, name = path.partition(":")
    with _working_directory_importable():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # the module's own code may fail in any way
            raise ConfigError(
                f"{field}: cannot import {module_name!r} ({type(error).__name__}: {error}); install the "
                "package or run in the folder that holds it"
            ) from error
    found = getattr(module, name, None)
    if not callable(found):
        what = "has no" if found is None else "holds no callable"
        raise ConfigError(f"{field}: module {module_name!r} {what} {name!r}{nearest(name, dir(module))}")
    return found  # type: ignore[no-any-return]


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Let imports find modules in the working directory, as ``python -m`` does."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
