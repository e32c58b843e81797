"""Figures of arrays and chips (needs matplotlib: ``pip install 'xbar-core[plots]'``).

Every function returns a `matplotlib.figure.Figure` and touches no global state: save it with
``figure.savefig("name.png")``, or return it from a notebook cell to see it.
"""

from __future__ import annotations

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise ImportError(
        "xbar_core.plots needs matplotlib; install it with pip install 'xbar-core[plots]'", name="matplotlib"
    ) from error

from xbar_core.plots.maps import distortion_map, error_map, error_maps
from xbar_core.plots.solution import power_figure, voltage_figure

__all__ = ["distortion_map", "error_map", "error_maps", "power_figure", "voltage_figure"]
