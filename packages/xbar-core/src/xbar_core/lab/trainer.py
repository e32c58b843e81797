"""What a framework adapter must offer so that the training program can use it.

An adapter registers a factory under the entry-point group ``xbar.trainers``, by the framework's name:

    [project.entry-points."xbar.trainers"]
    torch = "xbar_torch.trainer:make_trainer"

and, under ``xbar.networks``, a function that returns the names of its networks, so that a wrong one is
found before data are read:

    [project.entry-points."xbar.networks"]
    torch = "xbar_torch.zoo:network_names"

The factory takes a `Recipe`, the data set and a chip (None trains natively) and returns a `Trainer`: one
network with its optimizer. The loop, the files and the command are `xbar_core.lab`'s; everything that
passes between the two is NumPy.

Rules that a trainer keeps
--------------------------
- First weights depend on ``recipe.seed`` only, so that variants of one recipe start alike.
- Every draw is keyed by counters that `state` holds, never by a global generator: two trainers in one
  process do not disturb each other.
- ``load(state())`` in a fresh trainer of the same recipe, data and chip goes on bit by bit as the first
  one would have (on the CPU, with the same number of threads).
- `evaluate`, `health`, `inspect`, `footprint` and `diagnose` change nothing that training depends on.
- What cannot work (a network that does not fit the images, a chip that cannot hold it, an optimizer that
  does not fit the chip) is a ConfigError or ShapeError of the factory, one line.
- Where `xbar_core.lab.processes.place` tells of several processes, `step` trains on all their batches
  together, or the factory refuses.
- A gradient or an input that is not finite ends a step with FloatingPointError; nothing was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from xbar_core._checks import nearest
from xbar_core.config import Chip
from xbar_core.engine import Layout
from xbar_core.errors import ConfigError
from xbar_core.lab.data import DataSet
from xbar_core.lab.importing import check_network_name, import_callable, is_import_path
from xbar_core.lab.inspection import Inspection
from xbar_core.lab.recipe import Recipe

__all__ = [
    "GROUP",
    "Arrays",
    "Batch",
    "Factory",
    "Footprint",
    "LayerHealth",
    "Recipe",
    "Scores",
    "Step",
    "Trainer",
    "check_arrays",
    "check_network",
    "trainer_factory",
]

GROUP, NETWORKS = "xbar.trainers", "xbar.networks"
Batch = tuple[NDArray[np.float32], NDArray[np.int64]]
Arrays = dict[str, NDArray[Any]]


class Step(NamedTuple):
    """What one step of the optimizer did.

    Attributes
    ----------
    loss : float
        Mean over the batch (of all processes together), before the step.
    right : int
        Samples of the batch that were labelled rightly before the step (of all processes together).
    saturated : int
        Writes that asked a device to go beyond its range.
    """

    loss: float
    right: int
    saturated: int = 0


class Scores(NamedTuple):
    """How well a network labels samples.

    Attributes
    ----------
    loss, accuracy : float
        Mean loss, and share of the samples that are labelled rightly.
    samples : int
        Number of samples.
    """

    loss: float
    accuracy: float
    samples: int


class LayerHealth(NamedTuple):
    """What the chip does to one layer.

    Attributes
    ----------
    name : str
        Its native name (``"conv1"``; ``"lstm.weight_hh_l0"`` where a module has several weights).
    saturated : float
        Share of its devices that are at an end of their range.
    clipped : float
        Share of its conversions, of inputs and of currents together, that exceed the full scale.
    distortion : float
        Change of its read matrix by wires and periphery, root mean square relative to the matrix.
    """

    name: str
    saturated: float
    clipped: float
    distortion: float


class Footprint(NamedTuple):
    """What one layer occupies.

    Attributes
    ----------
    name : str
        Its native name, as in `LayerHealth`.
    shape : tuple of int
        (inputs, outputs) of its matrix on crossbars; empty for a digital layer.
    arrays, devices : int
        Physical arrays, and devices that hold its weights; 0 for a digital layer.
    utilisation : float
        Share of the arrays' cells that hold a weight; 0 for a digital layer.
    weights : int
        Weights and other trained numbers.
    bytes : int
        Memory that the state of the layer takes (weights or devices, draws, buffers), without the
        optimizer's.
    """

    name: str
    shape: tuple[int, ...]
    arrays: int
    devices: int
    utilisation: float
    weights: int
    bytes: int

    @classmethod
    def on_crossbars(cls, name: str, layouts: Sequence[Layout], bytes: int) -> Footprint:
        """Return what a crossbar weight of these array sets occupies, whose state takes so many bytes."""
        cells = sum(len(x.tiling.tiles) * x.tiling.rows * x.tiling.cols for x in layouts)
        weights = sum(layout.inputs * layout.outputs for layout in layouts)
        return cls(
            name,
            (layouts[0].inputs, sum(layout.outputs for layout in layouts)),
            sum(layout.arrays for layout in layouts),
            sum(math.prod(layout.state_shape) for layout in layouts),
            weights / cells,
            weights,
            bytes,
        )

    def grown(self, weights: int, bytes: int) -> Footprint:
        """Return the footprint with digital numbers (a bias) and their memory."""
        return self._replace(weights=self.weights + weights, bytes=self.bytes + bytes)


class Trainer(Protocol):
    """One network, natively or on a chip, with its optimizer."""

    def step(self, x: NDArray[np.float32], y: NDArray[np.int64], rate: float) -> Step:
        """Train on one batch (this process' share of it) at a learning rate."""
        ...

    def finish_epoch(self) -> None:
        """Take note that a training epoch is over (ranges that are tracked over epochs)."""
        ...

    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        """Label samples in evaluation mode; training goes on as if this had not happened."""
        ...

    def state(self) -> Arrays:
        """Return everything that is needed to go on bit by bit.

        Device states, digital weights, buffers, ranges, counters, interpolation references, moments of
        the optimizer, generators: by flat names ``model/...``, ``optimizer/...``, ``rng/...``. The arrays
        are the caller's: later steps do not change them. In a data-parallel run every process holds
        the same.
        """
        ...

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` returned.

        Raises
        ------
        ConfigError
            A name is missing or unknown, or an array has another shape or dtype: the first one is
            named, and nothing is changed.
        """
        ...

    def weights(self) -> Arrays:
        """Return the weights that the chip stands for and all digital ones, by their native names."""
        ...

    def program(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Write native weights (as from `weights`) into the chip, whose optimizer and ranges start anew.

        Raises
        ------
        ConfigError
            A name or shape does not fit: the first one is named, and nothing is changed.
        """
        ...

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Find the ranges of the forward converters from training samples and freeze them.

        For a network that was programmed and will not be trained; it does nothing natively.
        """
        ...

    def age(self, seconds: float | None) -> None:
        """Read the devices this long after they were programmed; None is the drift's reference time."""
        ...

    def health(self, x: NDArray[np.float32]) -> list[LayerHealth]:
        """Return what the chip does to each of its layers on one batch; empty natively."""
        ...

    def inspect(self, x: NDArray[np.float32]) -> Inspection:
        """Return what every stage of a read costs each layer on one batch; without layers natively.

        Layers have the names of `health`. Training goes on as if this had not happened.
        """
        ...

    def footprint(self) -> list[Footprint]:
        """Return what every layer that has weights occupies, in the order of the network."""
        ...

    def diagnose(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> str:
        """Return where NaN or infinity first appears in one batch; an empty string if nowhere.

        The text names layer and stage, one of input, weights, states, read, output, loss, gradient:
        ``"layer 'fc1', output: 12 of 1280 values are NaN or infinite"``.
        """
        ...


Factory = Callable[[Recipe, DataSet, Chip | None], Trainer]


def trainer_factory(framework: str) -> Factory:
    """Return the factory that an installed adapter registered.

    Raises
    ------
    ConfigError
        No adapter of this name is installed; the text says how to install it.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if framework not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(
            f"framework: no adapter for {framework!r} is installed{nearest(framework, found)} (installed: "
            f"{known}); pip install packages/xbar-{framework}"
        )
    factory: Any = found[framework].load()
    made: Factory = factory
    return made


def check_network(framework: str, network: str) -> None:
    """Refuse what no adapter can build, before data are read.

    Raises
    ------
    ConfigError
        No such adapter is installed, it has no network of this name, or the user's own cannot be imported.
    """
    trainer_factory(framework)
    if is_import_path(network):
        import_callable("network", network)
        return
    for entry in entry_points(group=NETWORKS, name=framework):
        check_network_name(network, entry.load()())


def check_arrays(
    field: str,
    given: Mapping[str, NDArray[Any]],
    wanted: Mapping[str, NDArray[Any]],
    *,
    optional: Callable[[str], bool] = lambda name: False,
    dtypes: bool = True,
) -> None:
    """Raise ConfigError for the first array that is missing, unknown or of another shape or dtype.

    Parameters
    ----------
    field : str
        What the arrays are; begins the text.
    given, wanted : mapping of str to array
        What was handed in, and what fits.
    optional : callable
        Tells names that may be absent, or present without a counterpart in `wanted` (what appears only
        with the first step).
    dtypes : bool
        Whether dtypes must be the same.
    """
    for name, array in wanted.items():
        if name not in given:
            if optional(name):
                continue
            raise ConfigError(f"{field}: {name!r} is missing; it belongs to another network, chip or recipe")
        if given[name].shape != array.shape or (dtypes and given[name].dtype != array.dtype):
            raise ConfigError(
                f"{field}: {name!r} is {given[name].dtype} {given[name].shape}, here it is {array.dtype} "
                f"{array.shape}; it belongs to another network, chip or recipe"
            )
    for name in given:
        if name not in wanted and not optional(name):
            raise ConfigError(
                f"{field}: {name!r} is unknown here{nearest(name, wanted)}; it belongs to another network, "
                "chip or recipe"
            )
