"""A network that has been trained, found by its run folder or its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xbar_core._checks import check_choice, nearest
from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_core.lab.checkpoint import Checkpoint, CheckpointError, read_checkpoint
from xbar_core.lab.data import DataSet
from xbar_core.lab.run_folder import RunFolder
from xbar_core.lab.run_names import RUN
from xbar_core.lab.run_spec import RunSpec, fingerprint
from xbar_core.lab.trainer import Factory, Trainer, trainer_factory

CHECKPOINTS = ("last", "best")


@dataclass(frozen=True)
class Trained:
    """One variant of a run as a checkpoint holds it.

    Attributes
    ----------
    run : Path
        Its run folder.
    variant : str
        Name of the chip, or ``native``.
    spec : RunSpec
        How it was trained, on the device and with the data folder that it is looked at with now.
    checkpoint : Checkpoint
        States and position.
    samples : mapping
        What `xbar_core.lab.run_spec.fingerprint` said of the samples that it was trained with.
    notes : tuple of str
        What the reader must know, such as that a damaged checkpoint was passed over.
    """

    run: Path
    variant: str
    spec: RunSpec
    checkpoint: Checkpoint
    samples: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def chip(self) -> Chip | None:
        """The chip that it was trained on; None for native training."""
        return self.spec.variants[self.variant]

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return int(self.checkpoint.facts["position"]["epoch"])

    @property
    def factory(self) -> Factory:
        """What makes trainers of its framework."""
        return trainer_factory(self.spec.framework)

    def own_chip(self, else_: str) -> Chip:
        """Return the chip that it was trained on.

        Parameters
        ----------
        else_ : str
            Without a chip, what to do; ends the error's text.

        Raises
        ------
        ConfigError
            It was trained natively.
        """
        if self.chip is None:
            others = ", ".join(name for name, chip in self.spec.variants.items() if chip) or "none"
            raise ConfigError(
                f"variant: {self.variant!r} was trained without a chip: {else_}, or name another variant "
                f"with --variant ({others})"
            )
        return self.chip

    def load_data(self, report: Callable[[str], None] = lambda text: None) -> DataSet:
        """Return the samples of the run; `report` is told of downloads.

        Raises
        ------
        ConfigError
            They are missing, or others than it was trained with.
        """
        data = self.spec.load_data(report)
        for name, found in fingerprint(data).items():
            if self.samples[name] != found:
                raise ConfigError(
                    f"data: {data.name} has changed since the training ({name}: {self.samples[name]} then, "
                    f"{found} now); give the folder with the same files (--data)"
                )
        return data

    def trainer(self, data: DataSet) -> Trainer:
        """Return a trainer that holds the trained state.

        Parameters
        ----------
        data : DataSet
            The run's samples, from `load_data`.
        """
        made = self.factory(self.spec.recipe, data, self.chip)
        made.load(self.checkpoint.state)
        return made


def find_trained(
    path: Path,
    variant: str | None = None,
    *,
    checkpoint: str = "last",
    data_folder: str | None = None,
    device: str | None = None,
) -> Trained:
    """Return a trained network.

    Parameters
    ----------
    path : Path
        A run folder, a variant's folder in it, or a checkpoint file in that.
    variant : str or None
        Which variant of a run folder; None is the last one, the chip in question of ``xbar train``.
    checkpoint : {"last", "best"}
        Which checkpoint, where `path` is a folder: the newest whole one, or that of the epoch that labelled
        most test samples rightly (whose accuracy on them is then too good by that choice).
    data_folder, device : str or None
        In place of those of the run.

    Raises
    ------
    ConfigError
        There is no run, no such variant, or no whole checkpoint; one line that says which.
    """
    check_choice("checkpoint", checkpoint, CHECKPOINTS)
    folder, own = _locate(path)
    if own is not None and variant not in (None, own):
        raise ConfigError(f"variant: {variant!r}, but {str(path)!r} is of {own!r}; name one of them")
    chosen = own or variant or list(folder.spec.variants)[-1]
    folder.spec.chip(chosen)
    notes: list[str] = []
    if path.is_file():
        held = read_checkpoint(path)
    elif checkpoint == "best":
        held = folder.checkpoint(chosen, "best")
    else:
        found, wrong = folder.slots(chosen).read()
        if found is None:
            text = f"{folder.path / chosen}: has no checkpoint yet; train it first"
            raise CheckpointError(wrong[0] if wrong else text)
        held = found
        notes += [f"{text}; the one before it is used" for text in wrong]
    spec = folder.spec.with_data(data_folder)
    if device is not None:
        spec = replace(spec, recipe=replace(spec.recipe, device=device))
    return Trained(folder.path, chosen, spec, held, folder.facts["data"], tuple(notes))


def _locate(path: Path) -> tuple[RunFolder, str | None]:
    """Return the run that a path belongs to, and the variant where the path says which."""
    if path.is_file():
        if not (path.parent.parent / RUN).is_file():
            raise ConfigError(
                f"run: {str(path)!r} does not lie in a run folder; a checkpoint is read with the {RUN} above "
                "it: leave it where xbar train has put it"
            )
        return RunFolder.open(path.parent.parent), path.parent.name
    if path.is_dir() and not (path / RUN).is_file() and (path.parent / RUN).is_file():
        return RunFolder.open(path.parent), path.resolve().name
    if not path.exists() and path.parent.is_dir():
        near = nearest(path.name, (other.name for other in path.parent.iterdir()))
        if near:
            raise ConfigError(f"run: {str(path)!r} does not exist{near}")
    return RunFolder.open(path), None
