"""The command line's one entry: registers every group of commands, turns failures into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import xbar_core
from xbar_core.cli import chip, circuit, demo, evaluate, inspect, reproduce, sweep, train
from xbar_core.errors import ConfigError, ConvergenceError, ShapeError
from xbar_core.lab.importing import OwnCodeError
from xbar_core.lab.training import Diverged, Interrupted

GROUPS = (circuit, chip, demo, train, sweep, reproduce, evaluate, inspect)
"""Modules that add commands: each has ``register(app)``."""

# Typer carries its own copy of click since 0.26; the common base is found by name in both cases.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"xbar-core {xbar_core.__version__}")
        raise typer.Exit


def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Simulate resistive crossbar arrays: exact circuits, approximate models, SPICE netlists."""


def build() -> typer.Typer:
    """Return the application with the commands of every group."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    app.callback()(_main)
    for group in GROUPS:
        group.register(app)
    return app


def run(argv: Sequence[str] | None) -> int:
    """Run one command line; see `xbar_core.cli.main` for the exit codes."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        # Not standalone: usage errors and interrupts reach the lines below instead of a boxed panel.
        command = typer.main.get_command(build())
        code = command.main(arguments, prog_name="xbar", standalone_mode=False, obj=arguments)
        sys.stdout.flush()
        if code == 130:
            return _fail("interrupted", 130)
        return code if isinstance(code, int) else 0
    except (ConfigError, ShapeError) as error:
        return _fail(str(error), 2)
    except (ConvergenceError, Diverged, OwnCodeError) as error:
        return _fail(str(error), 1)
    except FloatingPointError as error:
        advice = "train again at a lower learning rate, or use another checkpoint"
        return _fail(f"something is not finite: {error}; {advice}", 1)
    except Interrupted as error:
        return _fail(str(error), 130)
    except _UsageError as error:
        return _usage(error, arguments)
    except typer.Abort:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of a pipe went away (`xbar ... | head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except MemoryError:
        return _fail("the array needs more memory than this machine has; split it into smaller arrays", 1)
    except OSError as error:
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)


def _usage(error: Any, arguments: list[str]) -> int:
    """Print a wrong command line's reason and where its help is."""
    message = error.format_message()
    if not message:  # no command given: the help has been printed
        return 2
    option = getattr(getattr(error, "param", None), "opts", ())
    for name, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if name in option and value:  # click's message does not always repeat the value
            message = f"{message.rstrip('.')}, but it is {value!r}"
    known = getattr(error, "ctx", None)
    command = known.command_path if known is not None else "xbar"
    return _fail(f"{message.rstrip('.')}; see '{command} --help'", 2)


def _fail(message: str, code: int) -> int:
    """Print one line on stderr and return the exit code."""
    print(f"xbar: {' '.join(message.split())}", file=sys.stderr)
    return code
