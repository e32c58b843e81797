"""Matrices of a whole network at once: one batched solve serves all layers.

Every crossbar weight belongs to a group. The first stale one that is asked for its matrices has those of
all stale members computed in one call of `xbar_core.engine.read_matrices`. A layer that is built by hand
starts alone; `link` puts the layers of a model together (`convert` and `PulseSGD` do it).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from xbar_core.engine.group import Group, linked, read_together

if TYPE_CHECKING:
    from xbar_torch.crossbar import Crossbar


class MatrixGroup(Group["Crossbar"]):
    """Crossbar weights whose matrices are computed together."""

    def refresh(self, asked: Crossbar) -> None:
        """Compute the matrices of the member that asks and of every other stale one in one call."""
        stale = [asked, *(c for c in self if c is not asked and c.prepare(c.owner.training))]
        requests = [member.requests() for member in stale]
        for member, each, found in zip(stale, requests, read_together(requests), strict=True):
            member.accept(each, found)


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
    return linked(members, MatrixGroup)
