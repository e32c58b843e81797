"""The array libraries, other than NumPy, on which array-API code must give NumPy's results."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


class Convert:
    """Turn NumPy arrays into arrays of one library, imported at the first use."""

    def __init__(self, library: str) -> None:
        self.name = library

    def __call__(self, array: NDArray[Any]) -> Any:
        return importlib.import_module(self.name).asarray(np.asarray(array))


def _parameter(library: str) -> Any:
    missing = pytest.mark.skipif(
        find_spec(library) is None, reason=f"{library} is not installed (make setup installs it)"
    )
    return pytest.param(Convert(library), id=library, marks=missing)


CONVERTERS = [_parameter("array_api_strict"), _parameter("torch")]
"""For ``@pytest.mark.parametrize("convert", CONVERTERS)``; a library that is missing shows as a skip."""
