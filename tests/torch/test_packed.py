"""Packed sequences on crossbars: the samples are the sequences, their time steps are places of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from xbar_core.config import Chip, preset
from xbar_torch import PulseSGD, XbarGRU, XbarLSTM
from xbar_torch.functional import crossbar_linear
from xbar_torch.host import crossbars_of
from xbar_torch.packed import PackedRows

NOISE = {"device.read_noise": {"sigma": 0.05}, "adc.noise": 0.3}
PULSES = {"update.encoding": "stochastic", "update.stream_length": 15, "update.samples_per_write": 1}
CHIPS = {
    "noise": preset("txsim-8bit").with_values(NOISE),
    "pulses": preset("txsim-8bit").with_values({**NOISE, **PULSES}),
    "exact": preset("txsim-8bit").with_values({**NOISE, "backward.mode": "exact"}),
    "rounded": preset("txsim-16bit"),
}


def trained(kind: Any, chip: Chip, packed: bool) -> tuple[Any, Tensor]:
    """Train on three batches of four sequences of five steps; return the layer and its last outputs."""
    torch.manual_seed(0)
    layer = kind(3, 4, num_layers=2, bidirectional=True, batch_first=True, dtype=torch.float64, config=chip)
    optimizer = PulseSGD(layer, lr=0.05)
    for _ in range(3):
        x = torch.randn(4, 5, 3, dtype=torch.float64)
        optimizer.zero_grad()
        given = pack_padded_sequence(x, torch.full((4,), 5), batch_first=True) if packed else x
        output = layer(given)[0]
        y = pad_packed_sequence(output, batch_first=True)[0] if packed else output
        y.square().sum().backward()
        optimizer.step()
    return layer, y.detach()


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("kind", [XbarLSTM, XbarGRU])
def test_sequences_of_one_length_train_as_a_padded_batch(kind: Any, chip: str) -> None:
    """Draws of reads, converters, rounding and pulses are those of the padded batch: equal to rounding."""
    (packed, of_packed), (padded, of_padded) = (trained(kind, CHIPS[chip], each) for each in (True, False))
    torch.testing.assert_close(of_packed, of_padded, rtol=1e-12, atol=1e-12)
    wanted = padded.state_dict()
    for name, value in packed.state_dict().items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-9, atol=1e-12)


def test_a_row_meets_the_draws_of_its_place() -> None:
    """Of sequences of several lengths every row is read as in the padded batch."""
    fixed = {"input.range": {"rule": "fixed", "value": 4.0}, "adc.range": {"rule": "fixed", "value": 4e-5}}
    layer = XbarLSTM(3, 4, config=CHIPS["noise"].with_values(fixed), dtype=torch.float64).eval()
    crossbar, x = layer.crossbars["_ih_l0"], torch.randn(3, 5, 3, dtype=torch.float64)
    sizes = [3, 2, 2, 1, 1]
    packed = pack_padded_sequence(x, torch.tensor([5, 3, 1]), batch_first=True)
    assert packed.batch_sizes.tolist() == sizes
    rows = PackedRows(crossbar, sizes)
    assert rows.call(len(packed.data)) == crossbar.call(3)
    found = crossbar_linear(packed.data, rows)
    crossbar.counters.evaluations -= 1
    padded = pack_padded_sequence(crossbar_linear(x, crossbar), torch.tensor([5, 3, 1]), batch_first=True)
    torch.testing.assert_close(found, padded.data, rtol=1e-12, atol=1e-12)


def test_pulses_are_kept_by_sequence() -> None:
    """Input weights keep (sequences, steps): zeros where one is over, in the order of time."""
    layer = XbarLSTM(3, 4, config=CHIPS["pulses"], dtype=torch.float64)
    x = [torch.full((n, 3), float(n), dtype=torch.float64) for n in (2, 5, 1)]
    x = [each * torch.arange(1, len(each) + 1)[:, None] for each in x]
    layer(pack_sequence(x, enforce_sorted=False))[0].data.sum().backward()
    for name, crossbar in crossbars_of(layer):
        assert max(each.x.shape[0] for each in crossbar.pulses) == 3, name
    (kept,) = layer.crossbars["_ih_l0"].pulses
    assert (kept.x.shape, kept.dy.shape) == ((3, 5, 3), (3, 5, 16))
    live = torch.arange(5) < torch.tensor([5, 2, 1])[:, None]
    assert not kept.x[~live].any()
    assert not kept.dy[~live].any()
    rising = torch.tensor([[5, 10, 15, 20, 25], [2, 4, 0, 0, 0], [1, 0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(kept.x[..., 0], rising, rtol=0, atol=0.2)
