"""What a chip's numbers imply: currents, wire drop, power, and the error of every circuit model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbar_core.circuit import (
    AAM,
    CircuitModel,
    Ideal,
    Interpolated,
    error_report,
    interpolation_apply,
    interpolation_begin,
    solve,
)
from xbar_core.config.schema import Chip
from xbar_core.errors import ConfigError

LARGEST = 512 * 512
MODELS: tuple[CircuitModel, ...] = (
    Ideal(),
    AAM(0),
    AAM(1),
    AAM(2),
    Interpolated(2, "distortion"),
    Interpolated(2, "anchored"),
)


@dataclass(frozen=True)
class ChipSummary:
    """Derived numbers of one array of a chip.

    Attributes
    ----------
    on_off : float
        g_max / g_min.
    full_scale : float
        Column current with every device at g_max and every row at v_read, without wires, ampere.
    full_drive : float
        The same with the chip's wires, in the best column, ampere.
    worst_drop : float
        Share of v_read that the wires take from the worst-placed device in that state.
    typical_drop : float
        Mean share that they take on an array of random conductances, every row at v_read.
    power : float
        Power of that read of random conductances, watt.
    model_error : tuple of (circuit model, float)
        ``max|dG_ni| / max|G_ni|`` of each model on the array of random conductances; the interpolated
        ones after every device moved by 2 % (one standard deviation) since the exact solution.
    """

    on_off: float
    full_scale: float
    full_drive: float
    worst_drop: float
    typical_drop: float
    power: float
    model_error: tuple[tuple[CircuitModel, float], ...]


def summarize(chip: Chip, *, change: float = 0.02) -> ChipSummary:
    """Return the derived numbers of one full array of a chip.

    The random array has conductances uniform between g_min and g_max, drawn from the chip's seed.

    Parameters
    ----------
    chip : Chip
        The chip; its wires are solved exactly whatever its circuit model.
    change : float
        Relative change of every device that the interpolated models bridge.

    Raises
    ------
    ConfigError
        The array has more than 512 x 512 cells: too many for a quick look.
    """
    rows, cols = chip.array.rows, chip.array.cols
    if rows * cols > LARGEST:
        raise ConfigError(
            f"array.rows: {rows} x {cols} cells are too many for a summary of at most "
            f"{LARGEST} cells: set array.rows and array.cols lower"
        )
    device, volts = chip.device, np.full(rows, chip.input.v_read)
    rng = np.random.Generator(np.random.Philox(chip.seed))
    typical = rng.uniform(device.g_min, device.g_max, (rows, cols))
    full = solve(np.full((rows, cols), device.g_max), chip.wires, volts)
    read = solve(typical, chip.wires, volts)
    moved = np.clip(typical * (1.0 + change * rng.standard_normal(typical.shape)), device.g_min, device.g_max)

    def error(model: CircuitModel) -> float:
        if not isinstance(model, Interpolated):
            return error_report(typical, chip.wires, model).error
        _, state = interpolation_begin(typical, chip.wires, model)
        kept = interpolation_apply(state, moved, chip.wires)
        return error_report(moved, chip.wires, model, approximate=kept).error

    v_read = chip.input.v_read
    return ChipSummary(
        on_off=device.on_off,
        full_scale=rows * device.g_max * v_read,
        full_drive=float(np.max(full.currents)),
        worst_drop=1.0 - float(np.min(full.voltages_row - full.voltages_col)) / v_read,
        typical_drop=1.0 - float(np.mean(read.voltages_row - read.voltages_col)) / v_read,
        power=float(read.power.total),
        model_error=tuple((model, error(model)) for model in MODELS),
    )
