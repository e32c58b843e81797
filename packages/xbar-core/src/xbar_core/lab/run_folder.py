"""The folder of a run: what lies where, made once, read by everything that comes after.

run.json            settings, command, versions, machine, fingerprint of the data
metrics.csv         a line for each epoch of each variant
curves.png          accuracy and loss against epochs
<variant>/          for each chip, and for native training
    chip.toml       its chip
    last.safetensors, previous.safetensors, best.safetensors
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from xbar_core.errors import ConfigError
from xbar_core.lab.checkpoint import BEST, Checkpoint, CheckpointError, Slots, read_checkpoint
from xbar_core.lab.run_names import CURVES, METRICS, RUN
from xbar_core.lab.run_spec import FORMAT, RunSpec, surroundings
from xbar_core.lab.tensorboard import EVENTS, FOLDER
from xbar_core.lab.whole_file import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHIP = "chip.toml"


class RunFolder:
    """A folder that holds a run; use `create` or `open`.

    Attributes
    ----------
    path : Path
        The folder.
    spec : RunSpec
        What the run is.
    facts : dict
        Everything in ``run.json``.
    """

    def __init__(self, path: Path, spec: RunSpec, facts: Mapping[str, Any]) -> None:
        self.path, self.spec, self.facts = path, spec, dict(facts)

    @classmethod
    def create(
        cls, path: Path, spec: RunSpec, *, command: Sequence[str] = (), more: Mapping[str, Any] | None = None
    ) -> RunFolder:
        """Make the folder of a new run; the files of an earlier run in it are removed.

        Raises
        ------
        ConfigError
            The folder cannot be made or written.
        """
        facts = {"format": FORMAT, **spec.to_dict(), **surroundings(command), **(more or {})}
        made = cls(path, spec, facts)
        try:
            with locked(path):
                _remove_run(path, {*spec.variants, *_variants_in(path)})
            for name, chip in spec.variants.items():
                (path / name).mkdir(parents=True, exist_ok=True)
                if chip is not None:
                    write_whole(path / name / CHIP, chip.to_toml())
            # Last: a folder with this file can be resumed.
            write_whole(path / RUN, json.dumps(facts, indent=2) + "\n")
        except OSError as error:
            raise ConfigError(
                f"out: {str(path)!r} cannot be written ({error.strerror or error}); choose another folder"
            ) from error
        return made

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the run that a folder holds.

        Raises
        ------
        ConfigError
            It holds none, or its ``run.json`` is damaged or of a later version.
        """
        file = path / RUN
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            if facts["format"] > FORMAT:
                raise ConfigError(
                    f"{file}: has format {facts['format']}, this program knows {FORMAT}; update xbar-core"
                )
            for name in ("processes", "versions"):
                facts[name]
            for part, names in (("data", ("train", "test", "crc32")), ("machine", ("threads",))):
                for name in names:
                    facts[part][name]
            return cls(path, RunSpec.from_dict(facts), facts)
        except FileNotFoundError:
            where = "does not exist" if not path.exists() else f"has no {RUN}"
            raise ConfigError(
                f"run: {str(path)!r} {where}; name a folder that xbar train has written"
            ) from None
        except OSError as error:
            raise ConfigError(f"run: {str(file)!r} cannot be read ({error.strerror or error})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"run: {str(file)!r} is damaged ({type(error).__name__}: {error})") from error

    def slots(self, variant: str) -> Slots:
        """Return the checkpoints of a variant."""
        return Slots(self.path / variant)

    def checkpoint(self, variant: str, which: str = "best") -> Checkpoint:
        """Return a checkpoint of a variant.

        Parameters
        ----------
        variant : str
            Name of the chip, or ``native``.
        which : {"best", "last"}
            That of the epoch with the highest accuracy on test samples, or the newest whole one.

        Raises
        ------
        ConfigError
            There is no such variant, or no whole checkpoint yet.
        """
        self.spec.chip(variant)
        if which == "best":
            return read_checkpoint(self.path / variant / BEST)
        found, wrong = self.slots(variant).read()
        if found is None:
            raise CheckpointError(
                wrong[0] if wrong else f"{self.path / variant}: has no checkpoint yet; train first"
            )
        return found

    def write_metrics(self, text: str) -> None:
        """Write ``metrics.csv`` anew."""
        write_whole(self.path / METRICS, text)

    def write_curves(self, figure: Figure) -> None:
        """Write ``curves.png`` anew."""
        part = self.path / f".{CURVES}.part"
        try:
            figure.savefig(part, format="png")
            part.replace(self.path / CURVES)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the run in a folder, if there is one, against other processes; a killed one lets it go.

    Raises
    ------
    ConfigError
        Another process holds it.
    """
    with contextlib.ExitStack() as stack:
        if fcntl is not None and (path / RUN).exists():
            file = stack.enter_context((path / RUN).open("rb"))
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"run: {str(path)!r} is being trained by another process; wait for it, or stop it first"
                ) from None
            except OSError:
                pass  # a file system without locks
        yield


def _remove_run(path: Path, variants: Iterable[str]) -> None:
    """Remove the files of an earlier run: first the one that makes it a run."""
    for name in (RUN, METRICS, CURVES):
        (path / name).unlink(missing_ok=True)
    for name in variants:
        Slots(path / name).clear()
        for file in (path / name / CHIP, path / FOLDER / name / EVENTS):
            file.unlink(missing_ok=True)


def _variants_in(path: Path) -> list[str]:
    """Return the variants of a run that is about to be replaced."""
    try:
        return list(RunFolder.open(path).spec.variants)
    except ConfigError:
        return []
