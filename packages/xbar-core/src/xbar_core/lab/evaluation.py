"""A trained network on chip after chip, from the day they were programmed to years later.

The chips have one description and differ in everything that is drawn once for each: variation, faults,
drift exponents, errors of programming and of converters. All ages of a chip are ages of the same
devices: it is programmed once, its converters are calibrated then, and only time passes.
"""

from __future__ import annotations

import contextlib
import csv
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from xbar_core._checks import check_integer
from xbar_core.config import Chip
from xbar_core.config.mapping import FixedWeight
from xbar_core.lab.ages import age_text
from xbar_core.lab.data import Batches, DataSet, evaluation_batches
from xbar_core.lab.trainer import Factory, Recipe, Scores, Trainer
from xbar_core.lab.training import EVALUATED, watched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONFIDENCE = 0.95

_CALIBRATION = 1024  # training samples that set the converters of a fresh chip


class Reading(NamedTuple):
    """One chip at one age.

    Attributes
    ----------
    chip : int
        Number of the chip, from 0 up.
    seed : int
        Its seed.
    age : float
        Seconds since it was programmed.
    accuracy, loss : float
        On the test samples.
    """

    chip: int
    seed: int
    age: float
    accuracy: float
    loss: float


class AgeSummary(NamedTuple):
    """All chips at one age.

    Attributes
    ----------
    age : float
        Seconds since programming.
    chips : int
        Number of chips.
    mean : float
        Mean accuracy.
    low, high : float
        Ends of the 95 % confidence interval of the mean over all chips that could be made; with one chip,
        of its accuracy over all samples that could be drawn.
    worst, best : float
        Accuracy of the worst and of the best chip.
    """

    age: float
    chips: int
    mean: float
    low: float
    high: float
    worst: float
    best: float


@dataclass(frozen=True)
class Evaluation:
    """What chips of one description make of a trained network.

    Attributes
    ----------
    chip : Chip
        Their description.
    readings : tuple of Reading
        Chip by chip, and of each chip by rising age.
    samples : int
        Test samples.
    digital : float or None
        Accuracy of the same weights without a chip; None where it was not asked for.
    notes : tuple of str
        What the reader of the numbers must know.
    """

    chip: Chip
    readings: tuple[Reading, ...]
    samples: int
    digital: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def drifts(self) -> bool:
        """Whether the devices change with time; if not, one age stands for all."""
        return _drifts(self.chip)

    def summary(self) -> list[AgeSummary]:
        """Return mean, confidence interval, worst and best chip for each age, by rising age."""
        found = []
        for age in sorted({reading.age for reading in self.readings}):
            accuracy = np.array([r.accuracy for r in self.readings if r.age == age])
            low, high = interval(accuracy, self.samples)
            ends = float(accuracy.min()), float(accuracy.max())
            found.append(AgeSummary(age, len(accuracy), float(accuracy.mean()), low, high, *ends))
        return found

    def write_csv(self, path: Path) -> None:
        """Write a line for each reading: chip, seed, age in seconds, accuracy, loss, samples."""
        with path.open("w", newline="") as file:
            log = csv.writer(file)
            log.writerow(("chip", "seed", "age_s", "accuracy", "loss", "samples"))
            log.writerows((*reading, self.samples) for reading in self.readings)

    def figure(self) -> Figure:
        """Return a figure of accuracy against age: every chip, their mean, its confidence interval."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        ages = self.summary()
        for number in sorted({reading.chip for reading in self.readings}):
            own = [reading for reading in self.readings if reading.chip == number]
            line = [100 * r.accuracy for r in own]
            axes.plot([r.age for r in own], line, ".-", color="0.75", lw=0.8, zorder=1)
        mean = np.array([100 * each.mean for each in ages])
        bars = [mean - [100 * e.low for e in ages], [100 * e.high for e in ages] - mean]
        axes.errorbar(
            [e.age for e in ages], mean, bars, fmt="o-", color="#0072B2", capsize=4, zorder=3,
            label=f"mean of {ages[0].chips} chip(s), 95 % confidence",
        )  # fmt: skip
        if self.digital is not None:
            axes.axhline(100 * self.digital, color="k", ls="--", lw=1, label="the same weights, digital")
        if len(ages) > 1:
            axes.set_xscale("log")
        axes.set_xticks([e.age for e in ages], [age_text(e.age) if self.drifts else "any" for e in ages])
        axes.minorticks_off()
        axes.set(xlabel="time since programming", ylabel="test accuracy [%]", title=self.chip.name)
        axes.grid(alpha=0.3)
        axes.legend()
        return figure


def interval(accuracy: NDArray[np.float64], samples: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a mean accuracy.

    Parameters
    ----------
    accuracy : array (chips,)
        Accuracy of each chip on the same test samples.
    samples : int
        Number of these samples.

    Notes
    -----
    Several chips: Student's t over the chips, within 0 and 1. One chip: Wilson's interval over the samples.
    """
    chips, mean = len(accuracy), float(accuracy.mean())
    if chips > 1:
        quantile = float(special.stdtrit(chips - 1, 0.5 + CONFIDENCE / 2))
        half = quantile * float(accuracy.std(ddof=1)) / chips**0.5
        return max(mean - half, 0.0), min(mean + half, 1.0)
    z2 = float(special.ndtri(0.5 + CONFIDENCE / 2)) ** 2
    centre = (mean + z2 / (2 * samples)) / (1 + z2 / samples)
    half = np.sqrt(z2 * (mean * (1 - mean) / samples + z2 / (4 * samples**2))) / (1 + z2 / samples)
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def deployed(chip: Chip) -> Chip:
    """Return the chip as it is programmed for a network that will not be trained any more.

    The range of a layer is then its largest weight (headroom 1) instead of four times it, unless the
    chip's file fixes a number.
    """
    if isinstance(chip.mapping.w_max, FixedWeight):
        return chip
    return chip.with_values({"mapping.w_max.rule": "max_abs", "mapping.w_max.headroom": 1.0})


def differences(chip: Chip) -> tuple[str, ...]:
    """Return the keys of a chip's description that make one chip, or one read, differ from the next."""
    device, adc = chip.device, chip.adc
    found = {
        "device.variation": device.variation is not None and device.variation.sigma > 0.0,
        "device.faults": device.faults is not None
        and device.faults.stuck_at_g_min + device.faults.stuck_at_g_max + device.faults.open > 0.0,
        "device.programming_error": device.programming_error is not None
        and device.programming_error.sigma > 0.0,
        "device.drift.nu_spread": device.drift is not None and device.drift.nu_spread > 0.0,
        "device.read_noise": device.read_noise is not None and device.read_noise.sigma > 0.0,
        "adc.gain_error": adc.gain_error > 0.0,
        "adc.offset_error": adc.offset_error > 0.0,
        "adc.noise": adc.noise > 0.0,
        "precision.rounding": chip.precision is not None and chip.precision.rounding == "stochastic",
    }
    return tuple(key for key, differs in found.items() if differs)


def watched_on(chip: Chip, network: str, doing: str) -> contextlib.AbstractContextManager[None]:
    """Say in one line that a trained network failed or is not finite on a chip, and what helps.

    Parameters
    ----------
    chip : Chip
        Its chip.
    network : str
        Its name, or the import path of the user's own.
    doing : str
        What is being done with it there.

    Raises
    ------
    OwnCodeError, Diverged
        As `xbar_core.lab.training.watched`.
    """
    broken = "the trained network is not finite on this chip"
    advice = "train again at a lower learning rate, or use another checkpoint"
    return watched(network, f"{doing} on {chip.name}", broken, advice)


def evaluate_chips(
    factory: Factory,
    recipe: Recipe,
    data: DataSet,
    chip: Chip,
    weights: Mapping[str, NDArray[Any]],
    *,
    chips: int,
    ages: Sequence[float] = (),
    report: Callable[[Reading], None] = lambda reading: None,
) -> Evaluation:
    """Program a trained network into new chips and label the test samples with each, at every age.

    Parameters
    ----------
    factory : callable
        From `xbar_core.lab.trainer.trainer_factory`.
    recipe : Recipe
        How the network was trained; says which network it is.
    data : DataSet
        Its test samples are labelled; a thousand training samples calibrate the converters.
    chip : Chip
        Description of the chips; see `deployed`. Chip k has the seed ``chip.seed + 1 + k``.
    weights : mapping of str to array
        Native weights, as from `Trainer.weights`.
    chips : int
        Number of chips.
    ages : sequence of float
        Seconds since programming; none is the reference time of the drift.
    report : callable
        Called after each reading.

    Returns
    -------
    Evaluation
        Where nothing differs from chip to chip one stands for all, and where nothing drifts one age: the
        notes say so.

    Raises
    ------
    Diverged
        Weights, or what a chip makes of them, are not finite.
    OwnCodeError
        The user's own network raised something.
    """
    check_integer("chips", chips, minimum=1)
    notes, (times, drifts) = [], _times(chip, ages)
    if chips > 1 and not differences(chip):
        notes.append(
            f"{chip.name} has neither variation nor faults nor noise: all its chips are alike and one was "
            "evaluated; for example --set device.variation.sigma=0.1 makes them differ"
        )
        chips = 1
    if not drifts and ages:
        notes.append(_no_drift(chip))
    # Nothing is trained here: an optimizer that the chip could not train with is no obstacle.
    recipe = replace(recipe, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip=None)
    readings: list[Reading] = []
    with watched_on(chip, recipe.network, "the evaluation"):
        for name, weight in weights.items():
            if weight.dtype.kind == "f" and not np.isfinite(weight).all():
                raise FloatingPointError(f"{name!r} holds NaN or infinity")
        native = factory(recipe, data, None)
        native.program(weights)
        for number in range(chips):
            seed = chip.seed + 1 + number
            trainer = factory(recipe, data, chip.with_("seed", seed))
            trainer.program(weights)
            trainer.calibrate(_calibration(data, recipe))
            for time, scores in _over_time(trainer, data, times if drifts else times[:1], drifts):
                readings.append(Reading(number, seed, time, scores.accuracy, scores.loss))
                report(readings[-1])
            del trainer
            gc.collect()  # modules refer to each other in rings: large ones must not wait for the collector
        digital = native.evaluate(evaluation_batches(data, EVALUATED)).accuracy
    notes.append(_samples_note(digital, len(data.test_x)))
    return Evaluation(chip, tuple(readings), len(data.test_x), digital, tuple(notes))


def evaluate_trained(
    trainer: Trainer,
    recipe: Recipe,
    data: DataSet,
    chip: Chip,
    *,
    ages: Sequence[float] = (),
    report: Callable[[Reading], None] = lambda reading: None,
) -> Evaluation:
    """Label the test samples with the very chip that was trained, at every age.

    Parameters
    ----------
    trainer : Trainer
        Holds the trained state.
    chip : Chip
        Its chip.
    recipe, data, ages, report
        As in `evaluate_chips`.

    Raises
    ------
    Diverged
        What the chip makes of the samples is not finite.
    OwnCodeError
        The user's own network raised something.
    """
    times, drifts = _times(chip, ages)
    readings: list[Reading] = []
    with watched_on(chip, recipe.network, "the evaluation"):
        for time, scores in _over_time(trainer, data, times if drifts else times[:1], drifts):
            readings.append(Reading(0, chip.seed, time, scores.accuracy, scores.loss))
            report(readings[-1])
    notes = [] if drifts or not ages else [_no_drift(chip)]
    notes.append(_samples_note(readings[0].accuracy, len(data.test_x)))
    return Evaluation(chip, tuple(readings), len(data.test_x), None, tuple(notes))


def _times(chip: Chip, ages: Sequence[float]) -> tuple[tuple[float, ...], bool]:
    """Return the ages, rising, and whether devices change with them."""
    drift = chip.device.drift
    start = drift.t0 if drift is not None else 1.0
    return tuple(sorted(set(ages))) or (start,), _drifts(chip)


def _drifts(chip: Chip) -> bool:
    drift = chip.device.drift
    return drift is not None and (drift.nu != 0.0 or drift.nu_spread > 0.0)


def _over_time(
    trainer: Trainer, data: DataSet, ages: Sequence[float], drifts: bool
) -> Iterator[tuple[float, Scores]]:
    """Yield the scores of the same devices at each age."""
    for seconds in ages:
        trainer.age(seconds if drifts else None)
        scores = trainer.evaluate(evaluation_batches(data, EVALUATED))
        if not np.isfinite(scores.loss):
            raise FloatingPointError(f"the loss of the test samples is {scores.loss}")
        yield seconds, scores
    trainer.age(None)


def _calibration(data: DataSet, recipe: Recipe) -> Iterator[Any]:
    size = min(recipe.batch, len(data.train_x))
    return islice(Batches(data, size, recipe.seed).epoch(0), -(-_CALIBRATION // size))


def _no_drift(chip: Chip) -> str:
    return (
        f"{chip.name} does not drift: its accuracy is the same at every age; for example --set "
        "device.drift.nu=0.05 --set device.drift.nu_spread=0.02 makes it drift"
    )


def _samples_note(accuracy: float, samples: int) -> str:
    low, high = interval(np.array([accuracy]), samples)
    return (
        f"the {samples} test samples are the same for all chips and ages; another draw of as many would "
        f"move an accuracy of {accuracy:.1%} within {low:.1%} to {high:.1%} (95 %)"
    )
