"""Every example in the README files and in the documentation runs as it is printed.

A page is one test. Its blocks run in page order, in one namespace and one temporary folder, which
holds only a small array, conductance.npy and conductance.csv:

- ``python`` blocks are executed. If the next fence is ``text``, what was printed must equal it.
- ``console`` blocks: a line ``$ xbar ...`` runs the command line, which must exit with 0, or with N
  when the line ends in ``# exit code N``. Lines below it are the expected output. Other commands
  (``$ make``, ``$ pip``) are not run.
- ``sh`` blocks: a line ``xbar ...`` runs as in a console block, and must exit with 0.

Expected output is compared as doctest does: ``...`` stands for any text, runs of blanks are equal.
Examples in docstrings (``>>>``) are run as well, one test for each module that has any.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("README.md", "packages/*/README.md", "docs/**/*.md")
    for page in ROOT.glob(pattern)
    if "_build" not in page.parts
)
MODULES = sorted(
    file for file in ROOT.glob("packages/*/src/**/*.py") if ">>> " in file.read_text(encoding="utf-8")
)
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<kind>[\w{}-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
OPTIONAL = ("torch", "xbar_torch", "tensorflow", "xbar_tf")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    line: int
    body: str


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found = []
    for match in FENCE.finditer(text):
        indent = match["indent"]
        body = re.sub(f"^{indent}", "", match["body"], flags=re.MULTILINE) if indent else match["body"]
        found.append(Block(match["kind"], text.count("\n", 0, match.start()) + 2, body))
    return found


def commands(body: str) -> Iterator[tuple[str, int, str]]:
    """Yield the command, expected exit code and expected output of each prompt of a console block."""
    body = re.sub(r"\\\n\s*", " ", body)
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        head, _, expected = part.partition("\n")
        code = re.search(r"\s+# exit code (\d+)\s*$", head)
        yield (head[: code.start()] if code else head), int(code[1]) if code else 0, expected


def prompted(body: str) -> str:
    """Return the `xbar` lines of a shell block as a console block without output."""
    lines = re.sub(r"\\\n\s*", " ", body).splitlines()
    return "".join(f"$ {line}\n" for line in lines if line.startswith("xbar "))


def same(expected: str, got: str) -> bool:
    """Tell whether printed text is what the page shows."""
    return doctest.OutputChecker().check_output(expected.strip() + "\n", got.strip() + "\n", OPTIONS)


def run_python(page: Path, block: Block, expected: str | None, namespace: dict[str, object]) -> None:
    """Execute one python block and compare what it prints."""
    out = io.StringIO()
    # Newlines in front keep the page's line numbers in a traceback.
    code = compile("\n" * (block.line - 1) + block.body, str(page), "exec")
    with contextlib.redirect_stdout(out):
        exec(code, namespace)
    if expected is not None:
        assert same(expected, out.getvalue()), f"{page.name}:{block.line} printed\n{out.getvalue()}"


def run_console(page: Path, block: Block) -> None:
    """Run the `xbar` lines of one console block."""
    from xbar_core.cli import main

    for command, wanted, expected in commands(block.body):
        if not command.startswith("xbar "):
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main(shlex.split(command, comments=True)[1:])
        assert code == wanted, f"{page.name}:{block.line} `{command}` ended with {code}:\n{out.getvalue()}"
        if expected.strip():
            assert same(expected, out.getvalue()), f"{page.name}:{block.line} printed\n{out.getvalue()}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of a page run as they stand and print what the page says."""
    found = blocks(page.read_text(encoding="utf-8"))
    source = "\n".join(block.body for block in found if block.kind == "python")
    for name in OPTIONAL:
        used = re.search(rf"^\s*(import|from) {name}\b", source, re.MULTILINE)
        if used and not importlib.util.find_spec(name):
            pytest.skip(f"{page.name} uses {name}, which is not installed")
    conductance = 1.0 / np.random.default_rng(0).uniform(1e5, 1e6, (8, 6))
    np.save(tmp_path / "conductance.npy", conductance)
    np.savetxt(tmp_path / "conductance.csv", conductance, delimiter=",")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    namespace: dict[str, object] = {"__name__": "__main__"}
    for k, block in enumerate(found):
        if block.kind == "python":
            follows = found[k + 1] if k + 1 < len(found) else None
            expected = follows.body if follows is not None and follows.kind == "text" else None
            run_python(page, block, expected, namespace)
        elif block.kind == "console":
            run_console(page, block)
        elif block.kind in ("sh", "bash"):
            run_console(page, Block("console", block.line, prompted(block.body)))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_docstrings(file: Path) -> None:
    """The examples in the docstrings of a module print what they say."""
    package = file.relative_to(ROOT).parts[3]
    if package in OPTIONAL and not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed")
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts[3:]).removesuffix(".__init__")
    result = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert result.attempted > 0
    assert result.failed == 0, f"{name}: {result.failed} of {result.attempted} examples fail"


def test_pages_were_found() -> None:
    """The README is among the pages and has python and command line examples."""
    kinds = {block.kind for block in blocks((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert ROOT / "README.md" in PAGES
    assert {"python", "sh"} <= kinds


def test_failing_examples_are_found(tmp_path: Path) -> None:
    """The checks above fail on a wrong print, a wrong exit code and an exception."""
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n\n```console\n$ xbar no-such\n```\n")
    python, text, console = blocks(page.read_text())
    with pytest.raises(AssertionError, match=r"page.md:2 printed\n\s*2"):
        run_python(page, python, text.body, {})
    with pytest.raises(AssertionError, match=r"page.md:10 `xbar no-such` ended with 2"):
        run_console(page, console)
    with pytest.raises(ZeroDivisionError):
        run_python(page, Block("python", 2, "1 / 0\n"), None, {})


def test_prompts_are_read() -> None:
    """Continuation lines are joined, exit codes and expected output are taken off the command."""
    body = "$ xbar a \\\n    --b 1  # exit code 2\nxbar: ...\n$ make run\n"
    assert list(commands(body)) == [("xbar a  --b 1", 2, "xbar: ...\n"), ("make run", 0, "")]
