"""Studies by name."""

from __future__ import annotations

from xbar_core._checks import nearest
from xbar_core.errors import ConfigError
from xbar_core.lab.studies.devices import DEVICES
from xbar_core.lab.studies.fig5b import FIG5B
from xbar_core.lab.studies.fig6 import FIG6
from xbar_core.lab.studies.fig7 import FIG7
from xbar_core.lab.studies.fig8 import FIG8
from xbar_core.lab.studies.fig9 import FIG9
from xbar_core.lab.studies.fig10 import FIG10
from xbar_core.lab.studies.fig11 import FIG11
from xbar_core.lab.studies.fig12 import FIG12
from xbar_core.lab.studies.frame import Study
from xbar_core.lab.studies.table1 import TABLE1

_STUDIES = (TABLE1, FIG5B, FIG6, FIG7, FIG8, FIG9, FIG10, FIG11, FIG12, DEVICES)


def study_names() -> tuple[str, ...]:
    """Return the names of all studies, in the order of the paper."""
    return tuple(study.name for study in _STUDIES)


def find_study(name: str) -> Study:
    """Return a study by name.

    Raises
    ------
    ConfigError
        No study has this name; the text gives the nearest one.
    """
    for study in _STUDIES:
        if study.name == name:
            return study
    known = study_names()
    raise ConfigError(f"study: unknown name {name!r}{nearest(name, known)}; use one of {', '.join(known)}")
