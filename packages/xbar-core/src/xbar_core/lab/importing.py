"""The user's own networks and data sets, named by import path."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError, ConvergenceError, ShapeError


class OwnCodeError(RuntimeError):
    """The user's own code failed while it was at work; the text names it, its error and the line of it."""


def is_import_path(name: str) -> bool:
    """Tell whether `name` has the form ``package.module:function``."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def check_network_name(name: str, known: Collection[str]) -> None:
    """Raise ConfigError unless `name` is one of `known` or has the form ``package.module:function``."""
    if name not in known and not is_import_path(name):
        raise ConfigError(
            f"network: unknown name {name!r}{nearest(name, known)}; use one of {', '.join(known)}, or "
            "package.module:function"
        )


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
        The path has another form, its module cannot be imported or is Python's own (a run folder of
        somebody else could name ``os:system``), or it names nothing callable.
    """
    if not is_import_path(path):
        raise ConfigError(f"{field}: {path!r} is no import path; write package.module:function")
    module_name, _, name = path.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise ConfigError(
            f"{field}: {path!r} is in a module of Python itself; name a module of your own (one of the same "
            "name needs another)"
        )
    with _working_directory_importable():
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # the module's own code may fail in any way
            raise ConfigError(
                f"{field}: cannot import {module_name!r} ({type(error).__name__}: {error}); install the "
                "package or run in the folder that holds it"
            ) from error
    found = getattr(module, name, None)
    if not callable(found):
        what = "has no" if found is None else "holds no callable"
        raise ConfigError(f"{field}: module {module_name!r} {what} {name!r}{nearest(name, dir(module))}")
    return found  # type: ignore[no-any-return]


def call_own(field: str, path: str, *arguments: Any) -> Any:
    """Call the user's function at an import path and return what it returns.

    Parameters
    ----------
    field : str
        What the path was given for; begins the text of every error.
    path : str
        Import path and name, with a colon between.
    *arguments
        What the function is called with.

    Raises
    ------
    ConfigError
        The function cannot be found, or raises anything; the text names its error and the line of it.
    """
    function = import_callable(field, path)
    with _working_directory_importable():
        try:
            return function(*arguments)
        except (ConfigError, ShapeError):
            raise
        except (Exception, SystemExit) as error:  # the user's own code may fail in any way
            given = [repr(value) if isinstance(value, str) else str(value) for value in arguments]
            raise ConfigError(
                f"{field}: {path}({', '.join(given)}) failed: {type(error).__name__}: {error}"
                f"{_place(error, function.__module__)}"
            ) from error


@contextmanager
def own_code(field: str, path: str, doing: str) -> Iterator[None]:
    """Put what the user's own code raises while it is at work into one line.

    Parameters
    ----------
    field, path : str
        As for `call_own`; where `path` is no import path, nothing changes.
    doing : str
        What is being done; follows "failed in" in the text.

    Raises
    ------
    OwnCodeError
        Anything was raised but what xbar itself raises, a full disk or memory, and what is not finite.
    """
    try:
        yield
    except (ConfigError, ShapeError, ConvergenceError, FloatingPointError, OSError, MemoryError):
        raise
    except Exception as error:  # the user's own code may fail in any way
        if not is_import_path(path):
            raise
        raise OwnCodeError(
            f"{field}: {path} failed in {doing}: {type(error).__name__}: {error}"
            f"{_place(error, path.partition(':')[0])}"
        ) from error


def _place(error: BaseException, module: str) -> str:
    """Return the line of the user's module where it failed; nothing where it could not be called."""
    file = getattr(sys.modules.get(module), "__file__", None)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if file and f.filename == file]
    return f" ({os.path.basename(str(file))}, line {lines[-1]})" if lines else ""


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Let imports find modules in the working directory, as ``python -m`` does."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
