"""Studies: the figures of the TxSim paper computed again, with a verdict on each of its claims.

A `Study` is a list of points for the engine of sweeps, a figure and findings. Each has a file of its own.
"""

from __future__ import annotations

from xbar_core.lab.studies.catalogue import find_study, study_names
from xbar_core.lab.studies.frame import Finding, Report, Scale, Study, run_study
from xbar_core.lab.studies.page import check_page, write_pages

__all__ = [
    "check_page",
    "Finding",
    "Report",
    "Scale",
    "Study",
    "find_study",
    "run_study",
    "study_names",
    "write_pages",
]
