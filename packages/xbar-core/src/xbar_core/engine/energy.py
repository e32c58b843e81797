"""Energy of a read, from the currents of the solved circuit."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xbar_core._arrays import to_numpy
from xbar_core._checks import check_number
from xbar_core.circuit import Wires, solve
from xbar_core.circuit.base import Direction, Ideal
from xbar_core.engine.encode import Encoded
from xbar_core.engine.matrices import Request, physical_arrays

PARTS = ("devices", "wires", "source", "sense")


class ReadEnergy(NamedTuple):
    """Energy of one read of a batch, joule.

    Attributes
    ----------
    arrays : float64 array (row tiles, column tiles, devices, 4)
        Of every array; the last axis is (devices, wires, source, sense).
    layer : float64 array (4,)
        Of the layer.
    samples : int
        Vectors that were read; divide by it for the energy of one.
    """

    arrays: NDArray[np.float64]
    layer: NDArray[np.float64]
    samples: int

    @property
    def total(self) -> float:
        """Energy of the layer, joule."""
        return float(self.layer.sum())


def read_energy(
    request: Request, encoded: Encoded, *, duration: float, direction: Direction = "forward"
) -> ReadEnergy:
    """Return where the energy of a read goes: every array solved for every vector and phase.

    Parameters
    ----------
    request : Request
        Layer, states and time.
    encoded : Encoded
        Voltages (batch, ..., lines), from `encode`; keep the batch small, each vector is solved.
    duration : float
        Length of one voltage pulse, second.
    direction : {"forward", "backward"}
        Which read.

    Notes
    -----
    The circuit is solved exactly whatever model the chip trains with; a chip with ``circuit.kind =
    "ideal"`` has perfect wires. Converters and digital logic are not counted.
    """
    duration = check_number("duration", duration, minimum=0.0, open_minimum=True)
    layout = request.layout
    chip = layout.chip
    wires = Wires() if isinstance(chip.circuit, Ideal) else chip.wires
    groups = {shape: to_numpy(arrays) for shape, arrays in physical_arrays(request).items()}
    volts = [
        chip.input.v_read * to_numpy(v).astype(np.float64).reshape(-1, v.shape[-1]) for v in encoded.voltages
    ]
    tiling = layout.tiling
    result = np.zeros((len(tiling.row_bounds), len(tiling.col_bounds), layout.code.devices, 4))
    counters = dict.fromkeys(groups, 0)
    full = chip.array.unused == "g_min"
    for tile in tiling.tiles:
        extra = 1 if layout.code.kind == "offset" else 0
        shape = (chip.array.rows, chip.array.cols) if full else (tile.shape[0], tile.shape[1] + extra)
        devices = groups[shape][counters[shape]]
        counters[shape] += 1
        for phase in volts:
            if direction == "forward":
                drive = np.zeros((phase.shape[0], shape[0]))
                drive[:, shape[0] - tile.shape[0] :] = phase[:, slice(*tile.inputs)]
            else:
                drive = np.zeros((phase.shape[0], shape[1]))
                drive[:, : tile.shape[1]] = phase[:, slice(*tile.outputs)]
            for k, conductance in enumerate(devices):
                result[tile.row, tile.col, k] += _power(conductance, wires, drive, direction)
    result *= duration
    return ReadEnergy(result, result.sum(axis=(0, 1, 2)), volts[0].shape[0])


def _power(
    conductance: NDArray[Any], wires: Wires, drive: NDArray[np.float64], direction: Direction
) -> NDArray[np.float64]:
    """Return the power (4,) summed over a batch of drives, watt."""
    if direction == "backward":
        # Seen from the sense end the array is turned: its columns are the rows, driven at their last cell.
        conductance = conductance.T[::-1, ::-1]
        drive = drive[:, ::-1]
        wires = Wires(wires.r_col, wires.r_row, wires.r_source, wires.r_sense)
    power = solve(np.ascontiguousarray(conductance), wires, np.ascontiguousarray(drive)).power
    return np.asarray([np.sum(getattr(power, part)) for part in PARTS])
