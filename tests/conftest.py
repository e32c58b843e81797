"""What every test shares: thread counts, hypothesis profiles and the data folder."""

from __future__ import annotations

import os
from pathlib import Path

# Before NumPy or numba load. One BLAS thread: SuperLU on small systems is slower by far with more.
# Numba keeps at least two threads, so that parallel and serial results can be compared anywhere.
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, (os.cpu_count() or 1) // _workers)))
os.environ.setdefault("MPLBACKEND", "agg")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# Compilation makes first examples slow, so no deadline; in CI every run draws the same examples.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real data sets: $XBAR_DATA, else ./data; the test is skipped where there is none."""
    folder = Path(os.environ.get("XBAR_DATA") or Path(__file__).parent.parent / "data")
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set XBAR_DATA to the folder that holds mnist/")
    return folder
