"""Processes that work on one mosaic together.

A :class:`Team` of one does nothing but hand back what it is given, so whatever is written for
several processes is what a single one runs, too. :mod:`momos_rs.runtime.torch_team` makes teams of
more.

Work is divided into contiguous ranges in the order of the ranks, and what depends on an order (sums
of floats above all) goes through the ranks in that order, so that the outcome does not depend on
how many processes there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["SOLO", "Team", "shares"]

Item = TypeVar("Item")
Array = TypeVar("Array", bound="npt.NDArray[Any]")


def shares(sizes: Sequence[int], parts: int) -> list[tuple[int, int]]:
    """Divides items into contiguous ranges of about the same total size.

    Args:
        sizes: The size of each item.
        parts: Number of ranges.

    Returns:
        First item, and one past the last, of each range; the ranges follow one another and hold
        every item.
    """
    total = sum(sizes)
    edges = [0] * (parts + 1)
    before = 0
    for size in sizes:
        # Where the middle of the item falls decides.
        part = (2 * before + size) * parts // (2 * total) if total else 0
        edges[min(part, parts - 1) + 1] += 1
        before += size
    for part in range(parts):
        edges[part + 1] += edges[part]
    return list(pairwise(edges))


class Team:
    """A process on its own.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        local_size: Number of those on this machine, which share its memory.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    def share(self, sizes: Sequence[int]) -> tuple[int, int]:
        """The range of items that this process takes care of, by :func:`shares`."""
        return shares(sizes, self.size)[self.rank]

    def join(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order of the ranks, on every one of them."""
        return list(items)

    def concatenate(self, rows: Array) -> Array:
        """The rows of all processes, in the order of the ranks, on every one of them."""
        return rows

    def sum_counts(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Sums integers over all processes; every process gets the sums."""
        return counts

    def from_last(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """The arrays of the last process, on every one; all pass arrays of that shape and type."""
        return list(arrays)

    def from_first(self, item: Item) -> Item:
        """What the first process passes, on every one of them."""
        return item

    def receive(self, array: npt.NDArray[Any], source: int) -> None:
        """Fills an array with what another process sends by :meth:`send`."""
        raise NotImplementedError

    def send(self, array: npt.NDArray[Any], target: int) -> None:
        """Sends an array to another process, which waits for one of that shape and type."""
        raise NotImplementedError

    # ---- what follows from those

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    @property
    def is_last(self) -> bool:
        """Whether no process comes after this one."""
        return self.rank == self.size - 1

    def largest(self, value: float) -> float:
        """The largest of the processes' values, on every one of them."""
        return max(self.join([value]))

    def ordered_sum(self, values: Iterable[float]) -> float:
        """Sums the values of all processes one by one, in the order of the ranks."""
        total = 0.0
        for value in self.join(list(values)):
            total += value
        return total


SOLO = Team()
"""The team of a process on its own."""
