"""Matrices of a whole network at once: one batched solve serves all layers.

Every crossbar weight belongs to a group. The first stale one that is asked for its matrices has those of
all stale members computed in one call of `xbar_core.engine.read_matrices`. A layer that is built by hand
starts alone; `link` puts the layers of a model together (`convert` and `PulseSGD` do it).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from xbar_core.engine import read_matrices

if TYPE_CHECKING:
    from xbar_torch.crossbar import Crossbar


class MatrixGroup:
    """Crossbar weights whose matrices are computed together.

    Members are held weakly. A deep copy and an unpickled group are born empty, and the copied members
    join it: copies of a model are linked as the model was, and a copied layer does not drag the others.
    """

    def __init__(self) -> None:
        self._members: list[weakref.ref[Crossbar]] = []

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

    def refresh(self, asked: Crossbar) -> None:
        """Compute the matrices of the member that asks and of every other stale one in one call."""
        stale = [asked, *(c for c in self if c is not asked and c.prepare(c.owner.training))]
        requests = [member.requests() for member in stale]
        results = iter(read_matrices([request for each in requests for request in each]))
        for member, each in zip(stale, requests, strict=True):
            member.accept(each, [next(results) for _ in each])


def link(crossbars: nn.Module | Iterable[Crossbar]) -> MatrixGroup:
    """Put crossbar weights into one group, so that one solve serves them all.

    Parameters
    ----------
    crossbars : Module or iterable of Crossbar
        A model, or handles from `crossbars_of`.

    Returns
    -------
    MatrixGroup
        The group they are in now; nothing happens to crossbars that share one already.
    """
    from xbar_torch.host import crossbars_of

    members = [c for _, c in crossbars_of(crossbars)] if isinstance(crossbars, nn.Module) else list(crossbars)
    groups = {id(member.group) for member in members}
    if len(groups) == 1:
        return members[0].group
    group = MatrixGroup()
    for member in members:
        member.join(group)
    return group
