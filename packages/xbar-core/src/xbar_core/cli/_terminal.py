"""What people see: tables, numbers with units, progress only where there is a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

_PREFIXES = (
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "u"),
    (1e-9, "n"),
    (1e-12, "p"),
)


def engineering(value: float, unit: str) -> str:
    """Return `value` with three digits and an SI prefix, in plain ASCII."""
    size = abs(value)
    for factor, prefix in _PREFIXES:
        if size >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def table(
    title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]], note: str = ""
) -> None:
    """Print a table on stdout.

    Parameters
    ----------
    title : str
        What the table shows.
    columns : sequence of (heading, "left" or "right")
    rows : sequence of rows of texts
    note : str
        Printed under the table.
    """
    grid = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
    for heading, side in columns:
        grid.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    Console(highlight=False, markup=False).print(grid)


def say(text: str) -> None:
    """Print one line on stdout, as it is."""
    Console(highlight=False, markup=False, soft_wrap=True).print(text)


@contextlib.contextmanager
def working(text: str) -> Iterator[None]:
    """Show a spinner on stderr while the block runs, if stderr is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield
