"""A run: every variant of a network trained one after the other, kept in a folder, to be gone on with.

`run` starts one, `resume` goes on with one that was stopped in any way. `Training` alone, without a folder,
is what a program uses that keeps its results itself.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from xbar_core.errors import ConfigError
from xbar_core.lab.comparison import Comparison
from xbar_core.lab.data import Batches, DataSet, augmentation
from xbar_core.lab.importing import OwnCodeError
from xbar_core.lab.keeper import Options, RunKeeper
from xbar_core.lab.last_batch import check_last_batch
from xbar_core.lab.processes import place
from xbar_core.lab.run_folder import RunFolder, locked
from xbar_core.lab.run_spec import RunSpec, fingerprint, surroundings
from xbar_core.lab.tensorboard import FOLDER
from xbar_core.lab.trainer import trainer_factory
from xbar_core.lab.training import Diverged, Interrupted, Note, Training

__all__ = [
    "Diverged",
    "Interrupted",
    "Options",
    "OwnCodeError",
    "RunResult",
    "Training",
    "checked_batches",
    "resume",
    "run",
]


@dataclass
class RunResult:
    """What a run found.

    Attributes
    ----------
    comparison : Comparison
        The log.
    diverged : dict of str to str
        Variants that turned to NaN, and where that began.
    """

    comparison: Comparison
    diverged: dict[str, str] = field(default_factory=dict)


def run(
    spec: RunSpec,
    path: Path,
    options: Options | None = None,
    *,
    command: Sequence[str] = (),
    data: DataSet | None = None,
) -> RunResult:
    """Start a run in a folder and train every variant to its end.

    Under ``torchrun`` each process calls this; the first one writes.

    Parameters
    ----------
    spec : RunSpec
        What to train.
    path : Path
        The folder; files of an earlier run in it are replaced.
    options : Options or None
        How to report and keep; None is their defaults.
    command : sequence of str
        What was typed, for ``run.json``.
    data : DataSet or None
        The samples, where the caller has loaded them already.

    Raises
    ------
    ConfigError, ShapeError
        Something cannot work; nothing was written.
    Interrupted
        `Options.stop` said so; `resume` goes on.
    OwnCodeError
        The user's own network raised something in training.
    OSError
        A checkpoint could not be written at the end.
    """
    samples = spec.load_data() if data is None else data
    _check(spec, samples)
    facts = {"data": fingerprint(samples), "processes": place()[1]}
    if place()[0]:
        folder = RunFolder(path, spec, facts)
    else:
        folder = RunFolder.create(path, spec, command=command, more=facts)
    with _held(path):
        return _train(folder, samples, options or Options(), fresh=True)


def resume(
    path: Path,
    options: Options | None = None,
    *,
    data_folder: str | None = None,
) -> RunResult:
    """Go on with a run from its newest whole checkpoints.

    On the CPU, with the same versions and number of threads, everything comes out bit by bit as it would
    have without the stop.

    Parameters
    ----------
    path : Path
        Folder of the run.
    options : Options or None
        How to report and keep; None is their defaults. Event files are written where the run has some.
    data_folder : str or None
        Where data sets are, if no longer where they were.

    Raises
    ------
    ConfigError, ShapeError
        The folder holds no run, the data are others, or a checkpoint does not fit.
    """
    options, folder = options or Options(), RunFolder.open(path)
    options = replace(options, tensorboard=options.tensorboard or (path / FOLDER).is_dir())
    folder.spec = folder.spec.with_data(data_folder)
    samples = folder.spec.load_data()
    for name, found in fingerprint(samples).items():
        if folder.facts["data"][name] != found:
            raise ConfigError(
                f"data: {samples.name} has changed since the run began ({name}: {folder.facts['data'][name]} "
                f"then, {found} now); give the folder with the same files (--data)"
            )
    processes = place()[1]
    if folder.facts["processes"] != processes:
        raise ConfigError(
            f"processes: {processes}, but the run began with {folder.facts['processes']}; start as many"
        )
    _check(folder.spec, samples)
    for text in filter(None, [samples.note, *_differences(folder)]):
        options.report(Note("", text))
    with _held(path):
        return _train(folder, samples, options, fresh=False)


def checked_batches(spec: RunSpec, data: DataSet) -> Batches:
    """Return this process' batches, the first one tried.

    Raises
    ------
    ConfigError, ShapeError
        The batch does not fit the data or the processes, or the augmentation not the samples.
    """
    recipe, (rank, ranks) = spec.recipe, place()
    batches = Batches(data, recipe.batch, recipe.seed, augmentation(recipe.augment), rank, ranks)
    for size in (recipe.batch, len(data.train_x) % recipe.batch):
        if size % ranks:
            raise ConfigError(
                f"batch: {recipe.batch} makes a batch of {size} of {len(data.train_x)} samples, which "
                f"{ranks} processes cannot share evenly; choose another size or --limit"
            )
    next(batches.epoch(0))
    return batches


def _check(spec: RunSpec, data: DataSet) -> None:
    """Build every variant once, so that what cannot work ends here, an odd last batch included."""
    batches, factory = checked_batches(spec, data), trainer_factory(spec.framework)
    for chip in spec.variants.values():
        check_last_batch(factory(spec.recipe, data, chip), spec.recipe, batches)
        gc.collect()  # modules refer to each other in rings: large ones must not wait for the collector


def _held(path: Path) -> contextlib.AbstractContextManager[None]:
    """Hold the run against other programs; the first of several processes does it for all."""
    return contextlib.nullcontext() if place()[0] else locked(path)


def _differences(folder: RunFolder) -> list[str]:
    """Return what has changed since the run began that may change its last bits."""
    now = surroundings(())
    threads = folder.facts["machine"]["threads"], now["machine"]["threads"]
    found = [] if threads[0] == threads[1] else [f"{threads[1]} threads instead of {threads[0]}"]
    then, present = folder.facts["machine"].get("threads_set", {}), now["machine"]["threads_set"]
    for name in sorted({*then, *present}):
        if then.get(name) != present.get(name):
            found.append(f"{name}={present.get(name, 'unset')} instead of {then.get(name, 'unset')}")
    for name, version in folder.facts["versions"].items():
        here = now["versions"].get(name, "none")
        if here != version:
            found.append(f"{name} {here} instead of {version}")
    text = ", ".join(found)
    return [f"resumed with {text}: results may differ from an uninterrupted run's"] if found else []


def _train(folder: RunFolder, data: DataSet, options: Options, *, fresh: bool) -> RunResult:
    result = RunResult(Comparison(data.name, folder.spec.recipe))
    options = Options() if place()[0] else options
    batches = checked_batches(folder.spec, data)
    for name in folder.spec.variants:
        _train_variant(name, folder, batches, options, result, fresh=fresh)
        gc.collect()  # as in `_check`
    return result


def _train_variant(
    name: str, folder: RunFolder, batches: Batches, options: Options, result: RunResult, *, fresh: bool
) -> None:
    """Train one variant from where it stands to its end, and add what it finds to `result`."""
    spec, data, first = folder.spec, batches.data, place()[0] == 0
    keeper = RunKeeper(folder, folder.slots(name), result.comparison, options)
    trainer = trainer_factory(spec.framework)(spec.recipe, data, spec.variants[name])
    training = Training(name, trainer, data, spec.recipe, batches, report=options.report, stop=options.stop)
    if not fresh:
        keeper.load(training, trainer, first=first)
    result.comparison.epochs += training.log
    if training.finished:
        if first:  # the program may have ended before these two
            keeper.finish(training)
        if name == list(spec.variants)[-1]:
            keeper.settle()
        return
    try:
        training.run(keeper if first else None)
    except Diverged as error:
        result.diverged[name] = str(error)
        options.report(Note(name, str(error)))
        if first:
            keeper.give_up()
    else:
        if first:  # it may still be writing when the others get here
            keeper.finish(training)
    finally:
        keeper.settle()
