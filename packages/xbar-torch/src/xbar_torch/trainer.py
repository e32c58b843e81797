"""The adapter's side of the training program: one network with its optimizer, natively or on a chip."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch import distributed as dist

from xbar_core.config import Chip
from xbar_core.errors import ConfigError
from xbar_core.lab.data import DataSet
from xbar_core.lab.inspection import Inspection
from xbar_core.lab.processes import place
from xbar_core.lab.recipe import Recipe, check_optimizer
from xbar_core.lab.trainer import Arrays, Batch, Footprint, LayerHealth, Scores, Step, check_arrays
from xbar_torch import trainer_health, trainer_state
from xbar_torch._bridge import is_finite
from xbar_torch.calibration import calibrate
from xbar_torch.convert import convert, to_native
from xbar_torch.host import crossbars_of, finish_epoch
from xbar_torch.inspect import inspect
from xbar_torch.optim import PulseSGD
from xbar_torch.trainer_processes import Processes
from xbar_torch.zoo import build

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def make_trainer(recipe: Recipe, data: DataSet, chip: Chip | None) -> TorchTrainer:
    """Return a trainer of the recipe's network, its first weights drawn from the recipe's seed.

    Raises
    ------
    ConfigError, ShapeError
        An unknown network or device, a network that does not fit the samples, a chip that cannot hold
        it, an optimizer that does not fit the chip.
    """
    device = _device(recipe.device)
    if place()[1] > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = build(recipe.network, data.classes, data.image_shape)
    return TorchTrainer(recipe, network.to(device, DTYPES[recipe.dtype]), chip)


class TorchTrainer:
    """Cross-entropy training of one network; see `xbar_core.lab.trainer.Trainer`.

    Parameters
    ----------
    recipe : Recipe
        How to train.
    network : Module
        A native network, on its device.
    chip : Chip or None
        Where its weights are put; None trains natively.

    Attributes
    ----------
    network : Module
        The network, on the chip if there is one.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, chip: Chip | None) -> None:
        self._recipe, self._chip = recipe, chip
        self._processes = Processes.present()
        self._steps = 0
        self.network = network if chip is None else convert(network, chip)
        self._optimizer = _optimizer(recipe, self.network, chip)
        parameter = next(self.network.parameters(), None)
        if parameter is None:
            raise ConfigError(f"network: {recipe.network!r} has no parameters, so there is nothing to train")
        self._place = parameter.device
        self._dtype = DTYPES[recipe.dtype]

    # Training.

    def step(self, x: NDArray[np.float32], y: NDArray[np.int64], rate: float) -> Step:
        """Train on one batch (this process' share of it) at a learning rate."""
        self.network.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        inputs, labels = self._tensors(x, y)
        with self._draws():
            outputs = self.network(inputs)
            loss = nn.functional.cross_entropy(outputs, labels)
            right = (outputs.detach().argmax(dim=1) == labels).sum()
            mean, correct = self._processes.totals(loss.detach(), right)
            if not np.isfinite(mean):
                raise FloatingPointError(f"the loss is {mean}")
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
        self._processes.average_gradients(self.network)
        self._clip()
        self._optimizer.step()
        self._processes.average_statistics(self.network)
        self._steps += 1
        return Step(mean, correct, self._saturated())

    def finish_epoch(self) -> None:
        """Take note that a training epoch is over."""
        finish_epoch(self.network)

    def _tensors(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        inputs = torch.from_numpy(x).to(self._place, self._dtype)
        return inputs, torch.from_numpy(y).to(self._place)

    @contextmanager
    def _draws(self) -> Iterator[None]:
        """Key torch's generator (dropout) by seed, process and step; give it back as it was."""
        words = np.random.SeedSequence([self._recipe.seed, self._processes.rank, self._steps])
        key = int(words.generate_state(1, np.uint64)[0] >> np.uint64(1))
        if self._place.type == "cuda":
            with torch.random.fork_rng(devices=[self._place]):
                torch.manual_seed(key)
                yield
            return
        before = torch.default_generator.get_state()
        torch.default_generator.manual_seed(key)
        try:
            yield
        finally:
            torch.default_generator.set_state(before)

    def _clip(self) -> None:
        if isinstance(self._optimizer, PulseSGD):
            if self._recipe.clip is not None:
                self._optimizer.clip_grad_norm_(self._recipe.clip)
            return
        for name, parameter in self.network.named_parameters():
            if parameter.grad is not None and not is_finite(parameter.grad):
                raise FloatingPointError(f"{name}: the gradient holds NaN or infinity")
        if self._recipe.clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip)

    def _saturated(self) -> int:
        if not isinstance(self._optimizer, PulseSGD):
            return 0
        return sum(count.saturated for count in self._optimizer.counts.values())

    # Evaluation.

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> Scores:
        """Label samples in evaluation mode; training goes on as if this had not happened."""
        self.network.eval()
        loss, right, samples = 0.0, 0, 0
        for x, y in batches:
            inputs, labels = self._tensors(x, y)
            outputs = self.network(inputs)
            loss += float(nn.functional.cross_entropy(outputs, labels, reduction="sum"))
            right += int((outputs.argmax(dim=1) == labels).sum())
            samples += len(y)
        return Scores(loss / max(samples, 1), right / max(samples, 1), samples)

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Find the ranges of the forward converters from training samples and freeze them."""
        if any(True for _ in crossbars_of(self.network)):
            calibrate(self.network, (self._tensors(*batch) for batch in batches))

    def age(self, seconds: float | None) -> None:
        """Read the devices this long after they were programmed."""
        for _, crossbar in crossbars_of(self.network):
            crossbar.time = seconds

    # States and weights.

    def state(self) -> Arrays:
        """Return everything that is needed to go on bit by bit."""
        counters = {"rng/steps": np.asarray(self._steps, np.int64)}
        return {**trainer_state.collect(self.network, self._optimizer), **counters}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take what `state` returned."""
        check_arrays("checkpoint", state, self.state(), optional=trainer_state.comes_later)
        trainer_state.check_moments(self.network, state)
        trainer_state.restore(self.network, self._optimizer, state)
        self._steps = int(state["rng/steps"])

    def weights(self) -> Arrays:
        """Return the weights that the chip stands for and all digital ones, by their native names."""
        native = self._native()
        return {name: trainer_state.to_array(value) for name, value in native.state_dict().items()}

    def program(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Write native weights into the chip, whose optimizer and ranges start anew."""
        check_arrays("weights", weights, self.weights(), dtypes=False)
        native = copy.deepcopy(self._native())
        native.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})
        self.network = native if self._chip is None else convert(native, self._chip)
        self._optimizer = _optimizer(self._recipe, self.network, self._chip)
        self._steps = 0

    def _native(self) -> nn.Module:
        return to_native(self.network) if any(crossbars_of(self.network)) else self.network

    # Looking.

    def health(self, x: NDArray[np.float32]) -> list[LayerHealth]:
        """Return what the chip does to each of its layers on one batch."""
        return trainer_health.layer_health(self.network, torch.from_numpy(x).to(self._place, self._dtype))

    def inspect(self, x: NDArray[np.float32]) -> Inspection:
        """Return what every stage of a read costs each layer on one batch."""
        if not any(True for _ in crossbars_of(self.network)):
            return Inspection(())
        found = inspect(self.network, torch.from_numpy(x).to(self._place, self._dtype))
        named = (replace(layer, name=trainer_health.native_name(layer.name)) for layer in found.layers)
        return Inspection(tuple(named))

    def footprint(self) -> list[Footprint]:
        """Return what every layer that has weights occupies."""
        return trainer_health.footprints(self.network)

    def diagnose(self, x: NDArray[np.float32], y: NDArray[np.int64]) -> str:
        """Return where NaN or infinity first appears in one batch."""
        return trainer_health.first_bad(self.network, *self._tensors(x, y))


def _optimizer(recipe: Recipe, network: nn.Module, chip: Chip | None) -> torch.optim.Optimizer:
    """Return the recipe's optimizer, checked against the chip."""
    rate, decay = recipe.rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        if chip is not None:
            return PulseSGD(network, rate, recipe.momentum, weight_decay=decay)
        return torch.optim.SGD(network.parameters(), rate, recipe.momentum, weight_decay=decay)
    check_optimizer(recipe, chip)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(network.parameters(), rate, weight_decay=decay)


def _device(name: str) -> torch.device:
    """Return a device that can be used, this process' own where there are several processes."""
    try:
        device = torch.device(name)
        if name == "cuda" and "LOCAL_RANK" in os.environ:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        float(torch.zeros(1, device=device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device: {name!r} cannot be used here ({reason}); use 'cpu'") from error
    return device
