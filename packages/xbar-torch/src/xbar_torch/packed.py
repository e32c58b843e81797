"""The read of a packed batch of sequences: what a padded batch computes, without the places past an end.

The samples are the sequences and their time steps are places of one sample, as in a padded batch. Draws,
which belong to samples, and pulses, which are written sample by sample, follow from that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xbar_core.engine import Call, Layout, Matrices
from xbar_core.engine.pulses import Pulses
from xbar_core.random import Purpose, Stream
from xbar_torch.crossbar import Crossbar

Draws = NDArray[np.float64]


@dataclass(frozen=True)
class _Rows(Stream):
    """The draws of packed rows: those of their places in the padded batch.

    Parameters
    ----------
    sizes : tuple of int
        Sequences that have each step.
    """

    sizes: tuple[int, ...] = ()

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which places (steps, sequences) are rows; in this order they are packed."""
        mask: NDArray[np.bool_] = np.arange(self.sizes[0]) < np.array(self.sizes)[:, None]
        return mask

    def uniform_samples(
        self, purpose: Purpose, shape: tuple[int, ...], *, first: int, count: int, **call: int
    ) -> Draws:
        return self._packed(super().uniform_samples, purpose, shape, first=first, **call)

    def normal_samples(
        self, purpose: Purpose, shape: tuple[int, ...], *, first: int, count: int, **call: int
    ) -> Draws:
        return self._packed(super().normal_samples, purpose, shape, first=first, **call)

    def _packed(
        self, drawn: Callable[..., Draws], purpose: Purpose, shape: tuple[int, ...], **call: int
    ) -> Draws:
        steps, sequences = self.live.shape
        padded = drawn(purpose, (steps, *shape), count=sequences, **call)
        return padded.swapaxes(0, 1)[self.live]


class _RowLayout(Layout):
    """A layout whose draws are those of packed rows."""

    @classmethod
    def of(cls, layout: Layout, stream: _Rows) -> Layout:
        """Return a copy with another stream: what follows from the chip is not worked out anew."""
        made = cls.__new__(cls)
        made.__dict__.update(layout.__dict__, stream=stream)
        return made


class PackedRows(Crossbar):
    """A crossbar weight for one read of packed rows (cells, in); hand it to `functional.crossbar_linear`.

    Only the rows are read, and ranges learn from them alone. A row meets the draws that its place has in the
    batch padded to the longest sequence; pulses are kept as of that batch, with zeros past the ends.

    Parameters
    ----------
    crossbar : Crossbar
        The weight. This object shares its attributes but the layouts, and is dropped after the read.
    sizes : sequence of int
        Sequences that have each step, as `torch.nn.utils.rnn.PackedSequence.batch_sizes`.
    """

    __slots__ = ("_live", "_whole", "layouts")

    def __init__(self, crossbar: Crossbar, sizes: Sequence[int]) -> None:
        self.__dict__ = crossbar.__dict__
        self._whole = crossbar
        streams = [_Rows(layout.chip.seed, layout.name, tuple(sizes)) for layout in crossbar.layouts]
        self._live = streams[0].live
        self.layouts = tuple(map(_RowLayout.of, crossbar.layouts, streams))

    def matrices(self, backward: bool = False) -> list[Matrices]:
        """Return the matrices of the weight."""
        return self._whole.matrices(backward)

    def call(self, samples: int) -> Call:
        """Return the identity of the next call, whose samples are the sequences, not the rows."""
        return super().call(self._live.shape[1])

    def keep_pulses(self, pulses: Pulses) -> None:
        """Keep the pulses of rows as pulses of sequences."""
        x, dy = self._by_sequence(pulses.x), self._by_sequence(pulses.dy)
        super().keep_pulses(pulses._replace(x=x, dy=dy))

    def _by_sequence(self, rows: Tensor) -> Tensor:
        """Return rows (cells, 1, lines) as (sequences, steps, lines), zeros where a sequence is over."""
        padded = rows.new_zeros((*self._live.shape, rows.shape[-1]))
        padded[torch.as_tensor(self._live, device=rows.device)] = rows[:, 0]
        return padded.transpose(0, 1).contiguous()
