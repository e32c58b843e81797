"""Matrices of a whole network at once: one batched solve serves all layers.

Every crossbar weight belongs to a group. The first stale one that is asked for its matrices has those of
all stale members computed in one call of `xbar_core.engine.read_matrices`. A layer that is built by hand
starts alone; `link` puts the layers of a model together (`convert` and `PulseSGD` do it).

What the other members hold is looked at there and then, not as an input of the graph. Their own calls compare
it with what they are given, so that a look at the wrong moment costs a solve, never a wrong result. A solve
of the interpolated circuit model also leaves a reference for later updates, which would outlive a wrong look:
members that interpolate are solved when they ask. Each of them is a solve of its own anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import keras

from xbar_core.engine.group import Group, linked, read_together

if TYPE_CHECKING:
    from xbar_tf.crossbar import Crossbar, Held


class MatrixGroup(Group["Crossbar"]):
    """Crossbar weights whose matrices are computed together.

    Attributes
    ----------
    lock : RLock
        Held while matrices are looked for and ranges learn: replicas of a model call from several threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()

    def refresh(self, asked: Crossbar, held: Held, step: int, training: bool) -> None:
        """Compute the matrices of the member that asks and of every other stale one in one call."""
        stale = [(asked, held, step)]
        for other in self:
            if other is not asked and not other.layout.interpolates:
                there = other.present()
                if not other.is_fresh(there, there.step(training)):
                    stale.append((other, there, there.step(training)))
        self.solve(stale)

    def solve(self, stale: Sequence[tuple[Crossbar, Held, int]]) -> None:
        """Compute the matrices of members in one call."""
        copies = [(member, member.copied(held), step) for member, held, step in stale]
        requests = [member.requests(held, step) for member, held, step in copies]
        for (member, held, step), each, found in zip(copies, requests, read_together(requests), strict=True):
            member.accept(held, step, each, found)


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
    return linked(members, MatrixGroup)
