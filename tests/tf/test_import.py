"""`import xbar_tf`: the backend that it needs, and what it leaves alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")


def test_importing_needs_no_torch_and_the_right_backend() -> None:
    """`import xbar_tf` leaves torch alone; another Keras backend is one error that names the fix."""
    code = """
import sys, keras, xbar_tf
assert "torch" not in sys.modules
for name in [name for name in sys.modules if name.startswith("xbar_tf")]:
    del sys.modules[name]
print("imported")
keras.backend.backend = lambda: "jax"
import xbar_tf
"""
    failed = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120
    )
    assert failed.returncode != 0
    assert failed.stdout.split() == ["imported"]
    assert "KERAS_BACKEND=tensorflow" in failed.stderr.splitlines()[-1]


def test_another_backend_is_refused() -> None:
    """Where Keras really runs on torch, `import xbar_tf` is one line with the fix."""
    pytest.importorskip("torch", reason="torch is not installed, so Keras cannot run on it")
    done = subprocess.run(
        [sys.executable, "-c", "import keras, xbar_tf"],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert (
        "ConfigError: keras.backend: 'torch'; xbar_tf runs on the TensorFlow" in done.stderr.splitlines()[-1]
    )
