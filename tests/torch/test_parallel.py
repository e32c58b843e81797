"""Data-parallel training: two processes on one chip agree with one process on the same global batch."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

from xbar_core.config import Chip, preset
from xbar_core.errors import ConfigError
from xbar_torch import zoo
from xbar_torch.convert import convert
from xbar_torch.optim import PulseSGD
from xbar_torch.recurrent import XbarLSTM
from xbar_torch.trainer_processes import Processes

Training = Callable[[str, Chip, int, int], dict[str, torch.Tensor]]
PROCESSES, GLOBAL_BATCH, STEPS = 2, 8, 3

CHIPS = {
    "noisy": preset("txsim-8bit").with_values({"device.read_noise": {"sigma": 0.02}}),
    "pulses": preset("txsim-8bit").with_values({"update.encoding": "stochastic", "update.stream_length": 15}),
    "exact": preset("txsim-8bit").with_values({"backward.mode": "exact"}),
}


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    shape = (1, 16, 16) if name == "lenet5" else (1, 4, 4)
    return zoo.build(name, classes=5, image_shape=shape).double()


def train(name: str, chip: Chip, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """Train on this process's share of every global batch; return weights, biases and losses."""
    model = convert(network(name), chip)
    trained = DistributedDataParallel(model) if processes > 1 else model
    optimizer = PulseSGD(model, lr=0.05, momentum=0.0 if chip.update.pulsed else 0.9)
    generator = torch.Generator().manual_seed(1)
    side = 16 if name == "lenet5" else 4
    share = GLOBAL_BATCH // processes
    losses = []
    for _ in range(STEPS):
        x = torch.randn(GLOBAL_BATCH, 1, side, side, generator=generator, dtype=torch.float64)
        target = torch.randint(0, 5, (GLOBAL_BATCH,), generator=generator)
        mine = slice(rank * share, (rank + 1) * share)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(trained(x[mine]), target[mine])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    result = {key: value.clone() for key, value in model.state_dict().items()}
    losses = torch.stack(losses)
    if processes > 1:
        dist.all_reduce(losses)
    return {**result, "losses": losses / processes}


def train_packed(_: str, chip: Chip, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """As `train`, for packed sequences of one length and several layers and directions."""
    torch.manual_seed(0)
    layer = XbarLSTM(3, 4, num_layers=2, bidirectional=True, config=chip, dtype=torch.float64)
    optimizer = PulseSGD(layer, lr=0.05)
    generator = torch.Generator().manual_seed(1)
    share = GLOBAL_BATCH // processes
    for _ in range(STEPS):
        x = torch.randn(5, GLOBAL_BATCH, 3, generator=generator, dtype=torch.float64)
        mine = x[:, rank * share : (rank + 1) * share]
        optimizer.zero_grad()
        layer(pack_padded_sequence(mine, torch.full((share,), 5)))[0].data.square().mean().backward()
        Processes(rank, processes).average_gradients(layer)
        optimizer.step()
    return {key: value.clone() for key, value in layer.state_dict().items()}


def lengths_differ(_: str, chip: Chip, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """Return for which shares of a packed batch the layer raises."""
    layer = XbarLSTM(3, 4, config=chip)
    raised = []
    for lengths in ([3 + rank, 2], [3] * (1 + rank), [3, 2 + rank]):
        x = pack_sequence([torch.randn(n, 3) for n in lengths])
        try:
            layer(x)[0].data.sum().backward()
        except ConfigError as error:
            raised.append("packed input: the processes have other numbers" in str(error))
        else:
            raised.append(False)
    return {"raised": torch.tensor(raised)}


def work(rank: int, port: int, trained: Training, name: str, chip: Chip, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    try:
        torch.save(trained(name, chip, rank, PROCESSES), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def of_processes(trained: Training, name: str, chip: Chip, folder: Path) -> list[dict[str, torch.Tensor]]:
    """Return what every process returns."""
    multiprocessing.spawn(work, (free_port(), trained, name, chip, str(folder)), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")


@pytest.mark.parametrize(
    ("trained", "name", "chip"),
    [
        (train, "lenet5", "noisy"),
        (train, "mlp", "pulses"),
        (train, "mlp", "exact"),
        (train_packed, "packed", "noisy"),
        (train_packed, "packed", "pulses"),
    ],
)
def test_two_processes_equal_one(trained, name, chip, tmp_path):
    """Ranges are all-reduced and noise is keyed by global step and sample: equal to 1e-9 in float64."""
    wanted = trained(name, CHIPS[chip], 0, 1)
    first, second = of_processes(trained, name, CHIPS[chip], tmp_path)
    for key, value in wanted.items():
        torch.testing.assert_close(first[key], second[key], rtol=0, atol=0, msg=lambda m, k=key: f"{k}: {m}")
        torch.testing.assert_close(first[key], value, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


def test_packed_shares_have_one_shape(tmp_path):
    """Every process raises where numbers of steps or of sequences differ: calls and draws would, too."""
    for each in of_processes(lengths_differ, "packed", CHIPS["noisy"], tmp_path):
        assert each["raised"].tolist() == [True, True, False]
