"""The task ``circuit``: what a circuit model gets wrong on random arrays."""

from __future__ import annotations

import time

import numpy as np

from xbar_core import FCM, Interpolated, effective_conductance, interpolation_apply, interpolation_begin
from xbar_core._checks import check_choice, check_integer, check_number
from xbar_core.circuit.report import compare_matrices
from xbar_core.errors import ConfigError
from xbar_core.lab.sweep.setup import Setup
from xbar_core.random import Purpose, Stream


def circuit(
    setup: Setup, *, arrays: int = 4, draw: str = "resistance", change: float = 0.02
) -> dict[str, float]:
    """Compare the chip's circuit model with the exact circuit on random arrays of the chip's size.

    Parameters
    ----------
    setup : Setup
        Its chip gives array, wires, circuit model, resistances, and the seed of the arrays.
    arrays : int
        Arrays to draw.
    draw : {"resistance", "conductance"}
        Which one is uniform between its ends.
    change : float
        For interpolated models: relative standard deviation by which every device moves after the
        exact matrix was kept.

    Returns
    -------
    dict
        ``error``: largest error of an entry / largest entry, mean over the arrays; ``error_max`` its
        maximum; ``elementwise_max``, ``elementwise_mean``: relative error of single cells;
        ``distortion``: what the wires do, max|G_ni - G| / max G; ``seconds``: of one matrix.
    """
    chip = setup.chip
    if chip is None:
        raise ConfigError("preset: 'native' has no circuit; name a chip")
    check_integer("task.arrays", arrays, minimum=1)
    check_choice("task.draw", draw, ("resistance", "conductance"))
    check_number("task.change", change, minimum=0.0, maximum=0.3)
    # A device of its own kind may give its range as conductances; both have g_min and g_max.
    device = chip.device
    g_min, g_max = 1 / device.r_max, 1 / device.r_min
    reports, distortions, times = [], [], []
    for index in range(arrays):
        generator = Stream(chip.seed, "sweep").generator(Purpose.WEIGHTS, array=index)
        uniform = generator.random((chip.array.rows, chip.array.cols))
        if draw == "resistance":
            conductance = 1 / (device.r_min + (device.r_max - device.r_min) * uniform)
        else:
            conductance = g_min + (g_max - g_min) * uniform
        if isinstance(chip.circuit, Interpolated):
            _, state = interpolation_begin(conductance, chip.wires, chip.circuit)
            conductance = conductance * np.clip(
                1 + change * generator.standard_normal(conductance.shape), 0.1, 1.9
            )
            start = time.perf_counter()
            found = interpolation_apply(state, conductance, chip.wires)
        else:
            start = time.perf_counter()
            found = effective_conductance(conductance, chip.wires, chip.circuit)
        times.append(time.perf_counter() - start)
        exact = effective_conductance(conductance, chip.wires, FCM())
        reports.append(compare_matrices(exact, found))
        distortions.append(float(np.abs(exact - conductance).max() / conductance.max()))
    errors = [report.error for report in reports]
    return {
        "error": float(np.mean(errors)),
        "error_max": float(np.max(errors)),
        "elementwise_max": float(np.max([report.elementwise_max for report in reports])),
        "elementwise_mean": float(np.mean([report.elementwise_mean for report in reports])),
        "distortion": float(np.mean(distortions)),
        "seconds": float(np.median(times)),
    }
