"""Matrices of a whole network at once: one batched solve serves all layers.

Every crossbar weight belongs to a group. The first stale one that is asked for its matrices has those of
all stale members computed in one call of `xbar_core.engine.read_matrices`. A layer that is built by hand
starts alone; `link` puts the layers of a model together (`convert` and `PulseSGD` do it).

What the other members hold is looked at there and then, not as an input of the graph. Their own calls compare
it with what they are given, so that a look at the wrong moment costs a solve, never a wrong result.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras

from xbar_core.engine import read_matrices

if TYPE_CHECKING:
    from xbar_tf.crossbar import Crossbar, Held


class MatrixGroup:
    """Crossbar weights whose matrices are computed together; members are held weakly.

    Attributes
    ----------
    lock : RLock
        Held while matrices are looked for and ranges learn: replicas of a model call from several threads.
    """

    def __init__(self) -> None:
        self._members: list[weakref.ref[Crossbar]] = []
        self.lock = threading.RLock()

    def __iter__(self) -> Iterator[Crossbar]:
        for member in self._members:
            crossbar = member()
            if crossbar is not None:
                yield crossbar

    def __deepcopy__(self, memo: dict[int, Any]) -> MatrixGroup:
        return MatrixGroup()

    def __reduce__(self) -> tuple[type[MatrixGroup], tuple[()]]:
        return MatrixGroup, ()

    def add(self, crossbar: Crossbar) -> None:
        """Take a crossbar weight in."""
        self._members = [member for member in self._members if member() not in (None, crossbar)]
        self._members.append(weakref.ref(crossbar))

    def refresh(self, asked: Crossbar, held: Held, step: int, training: bool) -> None:
        """Compute the matrices of the member that asks and of every other stale one in one call."""
        stale = [(asked, held, step)]
        for other in self:
            if other is not asked:
                there = other.present()
                if not other.is_fresh(there, there.step(training)):
                    stale.append((other, there, there.step(training)))
        self.solve(stale)

    def solve(self, stale: Sequence[tuple[Crossbar, Held, int]]) -> None:
        """Compute the matrices of members in one call."""
        copies = [(member, member.copied(held), step) for member, held, step in stale]
        requests = [member.requests(held, step) for member, held, step in copies]
        results = iter(read_matrices([request for each in requests for request in each]))
        for (member, held, step), each in zip(copies, requests, strict=True):
            member.accept(held, step, each, [next(results) for _ in each])


def link(crossbars: keras.Model | Iterable[Crossbar]) -> MatrixGroup:
    """Put crossbar weights into one group, so that one solve serves them all.

    Parameters
    ----------
    crossbars : Model or iterable of Crossbar
        A built model, or handles from `crossbars_of`.

    Returns
    -------
    MatrixGroup
        The group they are in now; nothing happens to crossbars that share one already.
    """
    from xbar_tf.host import crossbars_of

    if isinstance(crossbars, keras.layers.Layer):
        members = [crossbar for _, crossbar in crossbars_of(crossbars)]
    else:
        members = list(crossbars)
    groups = {id(member.group) for member in members}
    if len(groups) == 1:
        return members[0].group
    group = MatrixGroup()
    for member in members:
        member.join(group)
    return group
