"""Many calls of one crossbar weight in a time loop, as one read of the chip."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xbar_core.engine import Call, Encoded, Matrices, Ranges, Residual
from xbar_torch._bridge import analog, applied
from xbar_torch.crossbar import Crossbar


class TimeSteps(Crossbar):
    """A crossbar weight for the length of one sequence; hand it to `functional.crossbar_linear`.

    The matrices are computed before the first step and are the same in every step, conductances that are
    drawn for each batch included. Every step is a call of its own, so its noise is its own. What the
    forward converters learn of the sequence is one observation, the largest of its steps: a range that is
    averaged over the first batches is not filled by the steps of a few. (In the backward read every
    step counts.) In ``crossbar`` mode the outer products of all steps are one, after the last.

    Parameters
    ----------
    crossbar : Crossbar
        The weight. This object shares its attributes, and is dropped after the sequence.
    backward : bool
        Whether a gradient of the hidden state will be asked for.
    sequences : int
        Samples of the batch; of packed ones fewer have a late step.

    Examples
    --------
    ::

        with TimeSteps(crossbar, backward=True, sequences=len(x)) as steps:
            for t in range(length):
                h = torch.tanh(x[:, t] + crossbar_linear(h, steps))
    """

    __slots__ = ("_learned", "_outer", "_sequences", "_target")

    def __init__(self, crossbar: Crossbar, backward: bool, sequences: int) -> None:
        self.__dict__ = crossbar.__dict__
        self._sequences = sequences
        self._learned: list[Ranges] = []
        self._outer: list[tuple[Tensor, Tensor]] = []
        self._target: Tensor = crossbar.state
        if crossbar.crossbar_mode:
            self._target = applied(_Sequence, crossbar.state, crossbar, self._outer)
        with analog(crossbar.state.device):
            crossbar.matrices(backward)

    @property
    def target(self) -> Tensor:
        """What the gradient of a step flows to: in ``crossbar`` mode one number that joins the steps."""
        return self._target

    def call_gradient(self, residual: Residual, sent: Encoded, dy: Tensor) -> Tensor:
        """Set the factors of a step's outer product aside."""
        if self.chip.update.gradient == "full":
            self._outer.append((residual.inputs, dy))
        else:
            self._outer.append((residual.inputs, sent.value * (residual.full_scale * sent.full_scale)))
        return dy.new_zeros(())

    def __enter__(self) -> TimeSteps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._learned:
            self.ranges = Ranges.largest(self._learned)

    def matrices(self, backward: bool = False) -> list[Matrices]:
        """Return the matrices of the sequence."""
        return self._matrices

    def call(self, samples: int) -> Call:
        """Return the identity of the next step, whose first sample is that of the whole batch."""
        return super().call(self._sequences)

    def finish_call(self, ranges: Ranges, training: bool) -> None:
        """Count a step and set aside what its ranges have learned."""
        self._learned.append(ranges)
        super().finish_call(self.ranges, training)


class _Sequence(torch.autograd.Function):
    """Joins the steps of a sequence: its gradient is asked for when all of theirs are known.

    It holds what the steps set aside, not the `TimeSteps`, which holds its result: no cycle keeps memory.
    """

    @staticmethod
    def forward(ctx: Any, state: Tensor, crossbar: Crossbar, outer: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.crossbar, ctx.outer = crossbar, outer
        return state.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor, None, None]:
        crossbar: Crossbar = ctx.crossbar
        with analog(bar.device):
            x, dy = (torch.cat(factors) for factors in zip(*ctx.outer, strict=True))
            ctx.outer.clear()
            return crossbar.state_gradient(x.mT @ dy), None, None
