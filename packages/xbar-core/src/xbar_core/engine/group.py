"""Weights of a network whose matrices are computed together: one batched solve serves them all."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from xbar_core.engine.matrices import Matrices, Request, read_matrices


class Member(Protocol):
    """What a group asks of an adapter's handle of a weight."""

    group: Any

    def join(self, group: Any) -> None:
        """Leave the present group for another."""


M = TypeVar("M", bound=Member)


class Group(Generic[M]):
    """The handles that share a solve.

    Members are held weakly. A deep copy and an unpickled group are born empty, and the copied members
    join it: copies of a model are linked as the model was, and a copied layer does not drag the others.
    """

    def __init__(self) -> None:
        self._members: list[weakref.ref[M]] = []

    def __iter__(self) -> Iterator[M]:
        for member in self._members:
            found = member()
            if found is not None:
                yield found

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def add(self, member: M) -> None:
        """Take a member in."""
        self._members = [each for each in self._members if each() not in (None, member)]
        self._members.append(weakref.ref(member))


G = TypeVar("G", bound=Group[Any])


def linked(members: Sequence[Member], kind: type[G]) -> G:
    """Return the one group of all members, which they join unless they share one already."""
    groups = {id(member.group): member.group for member in members}
    if len(groups) == 1:
        (shared,) = groups.values()
        return shared  # type: ignore[no-any-return]
    group = kind()
    for member in members:
        member.join(group)
    return group


def read_together(requests: Sequence[Sequence[Request]]) -> list[list[Matrices]]:
    """Return the matrices of the requests of every member, computed in one call of `read_matrices`."""
    results = iter(read_matrices([request for each in requests for request in each]))
    return [[next(results) for _ in each] for each in requests]
