"""The `xbar` command.

Each group of commands is one module with ``register(app)``; `_app.py` lists them. This file
imports nothing beyond the standard library, so that a missing extra ends in one clear line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_EXTRA = {"typer": "cli", "rich": "cli", "matplotlib": "plots"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `xbar` command and return its exit code.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments after the program's name; None takes them from the command line.

    Returns
    -------
    int
        0 done; 1 the solver missed its tolerance, or the machine failed; 2 bad input, nothing
        written; 130 interrupted.
    """
    try:
        from xbar_core.cli._app import run

        return run(argv)
    except KeyboardInterrupt:
        print("xbar: interrupted", file=sys.stderr)
        return 130
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        fix = f"pip install 'xbar-core[{_EXTRA[missing]}]'"
        print(f"xbar: this command needs {missing}, which is not installed; {fix}", file=sys.stderr)
        return 2
