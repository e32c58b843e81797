"""The resistive device: its range and everything that makes one device differ from the next."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.config._codec import Tagged, check_list, check_text
from xbar_core.config._csv import number, read_rows, resolve
from xbar_core.errors import ConfigError


def _check_sigmas(part: object, section: str, names: tuple[str, ...], maximum: float = 10.0) -> None:
    for name in names:
        value = check_number(f"{section}.{name}", getattr(part, name), minimum=0.0, maximum=maximum)
        object.__setattr__(part, name, value)


@dataclass(frozen=True)
class Variation:
    """Device-to-device variation, drawn once per chip and frozen.

    Parameters
    ----------
    kind : {"normal", "lognormal"}
        Distribution of the conductance factor: ``1 + sigma n``, or ``exp(sigma n)``.
    sigma : float
        Relative standard deviation of the conductance, applied at read.
    sigma_v : float
        Standard deviation of v_up and v_down (same unit as v: dimensionless).
    sigma_g_min, sigma_g_max : float
        Relative standard deviations of the two ends of the conductance range.
    """

    kind: Literal["normal", "lognormal"] = "normal"
    sigma: float = 0.0
    sigma_v: float = 0.0
    sigma_g_min: float = 0.0
    sigma_g_max: float = 0.0

    def __post_init__(self) -> None:
        check_choice("device.variation.kind", self.kind, ("normal", "lognormal"))
        _check_sigmas(self, "device.variation", ("sigma", "sigma_v", "sigma_g_min", "sigma_g_max"))


@dataclass(frozen=True)
class Faults:
    """Devices that ignore writes, drawn once per chip and frozen.

    Parameters
    ----------
    stuck_at_g_min, stuck_at_g_max, open : float
        Fractions of all devices; an open device has conductance 0. Together at most 1.
    """

    stuck_at_g_min: float = 0.0
    stuck_at_g_max: float = 0.0
    open: float = 0.0

    def __post_init__(self) -> None:
        _check_sigmas(self, "device.faults", ("stuck_at_g_min", "stuck_at_g_max", "open"), maximum=1.0)
        total = self.stuck_at_g_min + self.stuck_at_g_max + self.open
        if total > 1.0 + 1e-12:
            raise ConfigError(
                f"device.faults: the fractions add up to {total:g}; together they are at most 1: lower one"
            )


@dataclass(frozen=True)
class ReadNoise:
    """Fresh fluctuation of every read.

    Parameters
    ----------
    sigma : float
        Relative standard deviation of one device's conductance.
    kind : {"current", "per_batch"}
        Added to each column current with the exact summed variance, or conductances drawn once per
        call and solved.
    """

    sigma: float
    kind: Literal["current", "per_batch"] = "current"

    def __post_init__(self) -> None:
        _check_sigmas(self, "device.read_noise", ("sigma",))
        check_choice("device.read_noise.kind", self.kind, ("current", "per_batch"))


@dataclass(frozen=True)
class Drift:
    """Conductance drift ``g(t) = g(t0) (t / t0)^-nu``.

    Parameters
    ----------
    nu : float
        Mean drift exponent.
    nu_spread : float
        Standard deviation of the exponent from device to device (absolute).
    t0 : float
        Time of the reference read after programming, second.
    """

    nu: float
    nu_spread: float = 0.0
    t0: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "nu", check_number("device.drift.nu", self.nu, minimum=-1.0, maximum=1.0))
        _check_sigmas(self, "device.drift", ("nu_spread",), maximum=1.0)
        t0 = check_number("device.drift.t0", self.t0, minimum=0.0, maximum=1e12, open_minimum=True)
        object.__setattr__(self, "t0", t0)


@dataclass(frozen=True)
class ProgrammingError:
    """Scatter of the conductance reached by programming (never by an update).

    Parameters
    ----------
    sigma : float
        Standard deviation: of the target conductance if relative, siemens if absolute.
    kind : {"relative", "absolute"}
        What `sigma` is a fraction of, or that it is in siemens.
    """

    sigma: float
    kind: Literal["relative", "absolute"] = "relative"

    def __post_init__(self) -> None:
        _check_sigmas(self, "device.programming_error", ("sigma",))
        check_choice("device.programming_error.kind", self.kind, ("relative", "absolute"))


@dataclass(frozen=True)
class Device:
    """A device whose updates follow the exponential law of ``update.v_up`` and ``update.v_down``.

    Parameters
    ----------
    r_min, r_max : float
        Lowest and highest resistance, ohm; ``g_max = 1 / r_min`` and ``g_min = 1 / r_max``.
    levels : int or None
        Number of states the device can hold; None means a continuum.
    variation : Variation or None
        Device-to-device variation.
    faults : Faults or None
        Stuck and open devices.
    read_noise : ReadNoise or None
        Fluctuation of every read.
    drift : Drift or None
        Loss of conductance with time.
    programming_error : ProgrammingError or None
        Scatter after programming.
    """

    kind: ClassVar[str] = "analytic"
    r_min: float = 1e5
    r_max: float = 1e6
    levels: int | None = None
    variation: Variation | None = None
    faults: Faults | None = None
    read_noise: ReadNoise | None = None
    drift: Drift | None = None
    programming_error: ProgrammingError | None = None

    def __post_init__(self) -> None:
        for name in ("r_min", "r_max"):
            value = check_number(f"device.{name}", getattr(self, name), minimum=1e-3, maximum=1e15)
            object.__setattr__(self, name, value)
        if self.r_min >= self.r_max:
            raise ConfigError(
                f"device.r_min: {self.r_min:g} ohm is not below device.r_max = {self.r_max:g} ohm; "
                "r_min is the low-resistance (on) state: swap the two"
            )
        if self.levels is not None:
            check_integer("device.levels", self.levels, minimum=2)

    @property
    def g_min(self) -> float:
        """Lowest conductance, siemens."""
        return 1.0 / self.r_max

    @property
    def g_max(self) -> float:
        """Highest conductance, siemens."""
        return 1.0 / self.r_min

    @property
    def on_off(self) -> float:
        """Ratio of the highest to the lowest conductance."""
        return self.r_max / self.r_min


@dataclass(frozen=True)
class JumpTable:
    """Measured distributions of the conductance change of one pulse.

    Parameters
    ----------
    conductance : tuple of float
        Conductance before the pulse, siemens, rising; one per row of `dg`.
    cdf : tuple of float
        Cumulative probabilities, rising within 0 to 1; one per column of `dg`.
    dg : tuple of tuple of float
        ``dg[i][k]``: conductance change that is not exceeded with probability ``cdf[k]`` by a pulse at
        ``conductance[i]``, siemens; each row rises with k.
    source : str
        Where the table comes from, such as the name of the file it was read from.
    """

    conductance: tuple[float, ...]
    cdf: tuple[float, ...]
    dg: tuple[tuple[float, ...], ...]
    source: str = ""

    def __post_init__(self) -> None:
        check_text("source", self.source)
        for name, low, high in (("conductance", 0.0, 1e3), ("cdf", 0.0, 1.0)):
            axis = check_list(name, getattr(self, name), minimum=low, maximum=high)
            object.__setattr__(self, name, axis)
            fall = next((k for k in range(1, len(axis)) if axis[k] <= axis[k - 1]), None)
            if len(axis) < 2 or fall is not None:
                raise ConfigError(f"{name}: must hold at least two values that rise (see entry {fall or 0})")
        values = self._changes()
        object.__setattr__(self, "dg", tuple(tuple(row) for row in values.tolist()))
        if (np.diff(values, axis=1) < 0).any():
            raise ConfigError("dg: a row falls along the cdf axis; every row holds rising quantiles: sort it")

    def _changes(self) -> NDArray[np.float64]:
        """Return dg as a checked matrix, at once: published tables have a quarter of a million entries."""
        shape = (len(self.conductance), len(self.cdf))
        try:
            values = np.asarray(self.dg)
        except ValueError:
            values = np.empty(0)
        if values.shape != shape or values.dtype.kind not in "fiu":
            raise ConfigError(
                f"dg: needs {shape[0]} rows (one per conductance) of {shape[1]} numbers (one per cdf entry)"
            )
        bad = ~(np.abs(values) <= 1e3)
        if bad.any():
            i, k = (int(n) for n in np.argwhere(bad)[0])
            raise ConfigError(f"dg[{i}][{k}]: {values[i, k]} S is out of range; it must be finite and small")
        return values.astype(np.float64)

    @cached_property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Conductance, cdf and dg as arrays, made once; do not write to them."""
        return np.asarray(self.conductance), np.asarray(self.cdf), np.asarray(self.dg)


def read_jump_table(table: dict[str, Any], folder: Path, path: str) -> dict[str, Any]:
    """Replace ``path`` by the content of a jump-table CSV file.

    A line of text may come first. Then a line of conductances (S), a line of cumulative
    probabilities, and for every probability a line with the conductance change (S) at every
    conductance: the layout of the published tables of cross-sim-data.
    """
    rest = dict(table)
    name = rest.pop("path")
    field = f"{path}.path"
    file = resolve(name, folder, field)
    lines = read_rows(file, field)
    if lines and any(character.isalpha() and character not in "eE" for character in lines[0][1][0]):
        lines = lines[1:]
    rows = [
        [number(cell, file, line, str(k + 1), field) for k, cell in enumerate(c for c in cells if c)]
        for line, cells in lines
    ]
    if len(rows) < 3:
        raise ConfigError(
            f"{field}: {str(file)!r} is not a jump table; it needs a line of conductances (S), a line of "
            "cumulative probabilities, then a line of conductance changes (S) per probability"
        )
    conductance, cdf, changes = rows[0], rows[1], rows[2:]
    widths = sorted({len(row) for row in changes})
    if len(changes) != len(cdf) or widths != [len(conductance)]:
        raise ConfigError(
            f"{field}: {str(file)!r} holds {len(changes)} lines of {widths} changes; expected "
            f"{len(cdf)} lines (one per probability) of {len(conductance)}: the file may be truncated"
        )
    dg = [list(column) for column in zip(*changes, strict=True)]
    return {"source": str(name), **rest, "conductance": conductance, "cdf": cdf, "dg": dg}


MeasuredJumps = Annotated[
    JumpTable,
    Tagged("kind", {"table": JumpTable}, default="table", read_file=read_jump_table),
]
"""A jump table, inline or ``{ path = "FILE.csv" }``."""


@dataclass(frozen=True)
class JumpTableDevice(Device):
    """A device whose pulses draw their conductance change from measured distributions.

    Parameters
    ----------
    up, down : JumpTable
        Tables of potentiating and depressing pulses; both are required. ``update.v_up``,
        ``update.v_down`` and ``update.noise`` stay at their defaults: the tables already hold
        non-linearity and noise.
    """

    kind: ClassVar[str] = "jump-table"
    up: MeasuredJumps | None = None
    down: MeasuredJumps | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("up", "down"):
            if getattr(self, name) is None:
                raise ConfigError(
                    f"device.{name}: missing; kind 'jump-table' needs a table for each direction: "
                    f'give {name} = {{ path = "FILE.csv" }}'
                )


AnyDevice = Annotated[
    Device,
    Tagged("kind", {"analytic": Device, "jump-table": JumpTableDevice}, default="analytic"),
]
"""The device models; tagged by ``kind``."""
