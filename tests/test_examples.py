"""Every example in the README files and in the documentation runs as it is printed.

The python blocks of a page run top to bottom in one namespace, then its ``xbar`` lines, in an empty
folder that holds only a small array, conductance.npy and conductance.csv.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for pattern in ("README.md", "packages/*/README.md", "docs/**/*.md")
    for page in ROOT.glob(pattern)
    if "_build" not in page.parts
)
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)


def blocks(page: Path, *languages: str) -> list[str]:
    """Fenced code of the languages, each padded so that a traceback shows the page's line."""
    text = page.read_text(encoding="utf-8")
    found = [m for m in FENCE.finditer(text) if m["language"] in languages]
    return ["\n" * text.count("\n", 0, m.start("code")) + m["code"] for m in found]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every line of the page's shell blocks that calls `xbar`."""
    joined = "\n".join(blocks(page, "sh", "bash", "console")).replace("\\\n", " ")
    lines = [line.strip().removeprefix("$ ") for line in joined.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("xbar ")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    conductance = 1.0 / np.random.default_rng(0).uniform(1e5, 1e6, (8, 6))
    np.save(tmp_path / "conductance.npy", conductance)
    np.savetxt(tmp_path / "conductance.csv", conductance, delimiter=",")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python") or commands(p)], ids=name_of)
def test_examples_run(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No example of the page raises, and every `xbar` line of it exits with 0."""
    code = blocks(page, "python")
    if any("import torch" in block for block in code):
        pytest.importorskip("torch", reason="torch is not installed (make setup installs it)")
    names: dict[str, object] = {"__name__": "__main__"}
    for block in code:
        exec(compile(block, str(page), "exec"), names)
    if commands(page):
        cli = pytest.importorskip("xbar_core.cli", reason="the extra xbar-core[cli] is not installed")
        for arguments in commands(page):
            assert cli.main(arguments) == 0, f"xbar {shlex.join(arguments)}: {capsys.readouterr().err}"


def test_pages_were_found() -> None:
    """The README is among the pages and has python and command line examples."""
    assert blocks(ROOT / "README.md", "python")
    assert commands(ROOT / "README.md")
