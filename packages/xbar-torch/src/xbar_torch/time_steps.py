"""Many calls of one crossbar weight in a time loop, as one read of the chip."""

from __future__ import annotations

from types import TracebackType

from xbar_core.engine import Matrices, Ranges
from xbar_torch._bridge import analog
from xbar_torch.crossbar import Crossbar


class TimeSteps(Crossbar):
    """A crossbar weight for the length of one sequence; hand it to `functional.crossbar_linear`.

    The matrices are computed before the first step and are the same in every step, conductances that are
    drawn for each batch included. Every step is a call of its own, so its noise is its own. What the
    forward converters learn of the sequence is one observation, the largest of its steps: a range that is
    averaged over the first batches is not filled by the steps of a few. (In the backward read every
    step counts.)

    Parameters
    ----------
    crossbar : Crossbar
        The weight. This object shares its attributes, and is dropped after the sequence.
    backward : bool
        Whether a gradient of the hidden state will be asked for.

    Examples
    --------
    ::

        with TimeSteps(crossbar, backward=True) as steps:
            for t in range(length):
                h = torch.tanh(x[:, t] + crossbar_linear(h, steps))
    """

    __slots__ = ("_learned",)

    def __init__(self, crossbar: Crossbar, backward: bool) -> None:
        self.__dict__ = crossbar.__dict__
        self._learned: list[Ranges] = []
        with analog(crossbar.state.device):
            super().matrices(backward)

    def __enter__(self) -> TimeSteps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._learned:
            self.ranges = Ranges(
                *(
                    max(states, key=lambda s: (s.batches, s.value))
                    for states in zip(*self._learned, strict=True)
                )
            )

    def matrices(self, backward: bool = False) -> list[Matrices]:
        """Return the matrices of the sequence."""
        return self._matrices

    def finish_call(self, ranges: Ranges, training: bool) -> None:
        """Count a step and set aside what its ranges have learned."""
        self._learned.append(ranges)
        super().finish_call(self.ranges, training)
