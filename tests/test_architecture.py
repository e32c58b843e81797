"""The house rules that no other tool checks, on whatever is in packages/."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = sorted(p.parent for p in ROOT.glob("packages/*/src/*/__init__.py"))
FILES = sorted(file for package in PACKAGES for file in package.rglob("*.py"))
FOREIGN = {
    "torch",
    "tensorflow",
    "keras",
    "jax",
    "matplotlib",
    "typer",
    "click",
    "rich",
    "pytest",
    "hypothesis",
}
NUMBA = {"njit", "jit", "vectorize", "guvectorize"}
MAX_LINES = 450


def name_of(path: Path) -> str:
    return str(path.relative_to(path.parents[1] if path in PACKAGES else ROOT / "packages"))


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def is_public(node: ast.AST) -> bool:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(node, kinds) and not node.name.startswith("_")


def test_import_loads_no_framework() -> None:
    """`import xbar_core` loads no deep-learning framework, no plots, no command line, no test tool."""
    loaded = python("import sys, xbar_core; print(*{m.split('.')[0] for m in sys.modules})")
    assert "xbar_core" in loaded.split()
    assert not FOREIGN & set(loaded.split())


def test_torch_adapter_loads_no_tensorflow() -> None:
    """`import xbar_torch` loads neither TensorFlow nor Keras; the reverse stands in tests/tf."""
    pytest.importorskip("torch", reason="torch is not installed")
    loaded = set(python("import sys, xbar_torch; print(*{m.split('.')[0] for m in sys.modules})").split())
    assert "torch" in loaded
    assert not {"tensorflow", "keras", "xbar_tf"} & loaded


def test_import_takes_under_a_second() -> None:
    """`import xbar_core` takes under one second; processor time, best of three, so load does not matter."""
    code = "import time; t = time.process_time(); import xbar_core; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(3)) < 1.0


def test_import_compiles_nothing(tmp_path: Path) -> None:
    """`import xbar_core` compiles no numba kernel, even with an empty cache."""
    code = (
        "from numba.core import event\n"
        "with event.install_recorder('numba:compile') as recorder:\n"
        "    import xbar_core\n"
        "print(len(recorder.buffer))"
    )
    assert python(code, NUMBA_CACHE_DIR=str(tmp_path)) == "0"


def test_import_leaves_the_global_generator_alone() -> None:
    """Neither the import nor a solve touches NumPy's global random state."""
    code = (
        "import numpy as np\n"
        "before = np.random.get_state()[1].tolist()\n"
        "import xbar_core as xc\n"
        "xc.effective_conductance(np.full((3, 2), 1e-5), xc.Wires(r_row=1.0))\n"
        "print(np.random.get_state()[1].tolist() == before)"
    )
    assert python(code) == "True"


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_package_is_typed(package: Path) -> None:
    """Every package ships py.typed, so that users' type checkers see its types."""
    assert (package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_packages_know_only_the_core(package: Path) -> None:
    """The core imports no other package of the project, an adapter only the core."""
    names = {p.name for p in PACKAGES}
    allowed = {package.name, "xbar_core"}
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            roots = {module.split(".")[0] for module in modules}
            assert not roots & (names - allowed), f"{file}:{getattr(node, 'lineno', 0)} imports {roots}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_file_is_short(file: Path) -> None:
    """No file of the library is longer than 450 lines: one file, one concept."""
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_public_names_have_docstrings(file: Path) -> None:
    """Every module says what it is; so does every public class, method and function."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    if tree.body:
        assert ast.get_docstring(tree), "the module has no docstring"
    owners = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and is_public(node))]
    for owner in owners:
        for node in filter(is_public, owner.body):
            assert ast.get_docstring(node), f"{node.name} (line {node.lineno}) has no docstring"


@pytest.mark.parametrize("file", [f for f in FILES if "cli" not in {*f.parts, f.stem}], ids=name_of)
def test_library_does_not_print(file: Path) -> None:
    """Only the command line writes to the terminal."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"print on line {node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_kernels_are_cached(file: Path) -> None:
    """Every numba decorator asks for the on-disk cache, so that only the first run compiles."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    # Options may be spelt out or come from one dictionary of the module, **OPTIONS.
    shared = {
        ast.unparse(target): ast.unparse(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            bare = {getattr(d, "id", getattr(d, "attr", "")) for d in node.decorator_list}
            assert not bare & NUMBA, f"{node.name} (line {node.lineno}) is compiled without cache=True"
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in NUMBA:
            cached = any(
                ast.unparse(option.value) == "True"
                if option.arg == "cache"
                else option.arg is None and "'cache': True" in shared.get(ast.unparse(option.value), "")
                for option in node.keywords
            )
            assert cached, f"line {node.lineno}: no cache=True"


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_architecture_page_names_every_part(package: Path) -> None:
    """docs/architecture.md says what each package owns, and each module and folder of the core."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert f"`{package.name}`" in page
    if package.name == "xbar_core":
        folders = [p.parent for p in package.glob("*/__init__.py")]
        modules = [p for p in (*package.glob("*.py"), *package.glob("circuit/*.py")) if p.stem != "__init__"]
        for part in (*folders, *modules):
            path = part.relative_to(package).as_posix() + ("/" if part in folders else "")
            assert f"`{path}`" in page or f"`{part.name}`" in page, f"docs/architecture.md: no {path}"
