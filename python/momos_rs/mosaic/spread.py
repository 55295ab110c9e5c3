"""Motifs drawn from the blocks in rounds, the likelier the farther from those there are.

Drawn uniformly, motifs gather where most blocks are, and Lloyd's algorithm never takes one to the
tails. So only a first share is drawn uniformly. Every later round draws blocks without replacement
with probabilities in proportion to their squared distance to the motifs so far: k-means|| (Bahmani
et al., "Scalable k-means++", 2012) with exact distances and as many blocks a round as are wanted.
In a round a block is compared with the motifs of the round before only.

Draws depend on the seed, the round and the number of a block in the order of all blocks (see
``_core.WeightedDraw``), so the outcome does not depend on chunks, threads or processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.runtime.resources import Resources, release

from .block_stream import BlockSource, Floats

__all__ = ["BYTES_PER_BLOCK", "SHARES", "DrawnBlocks", "Spread", "Weigh", "first_of_equal"]

SHARES = 5
"""Parts in which motifs are drawn, the first of them uniformly. Twice as many lower the error by
another percent, and take as much time as two more iterations, which lower it by more."""

BYTES_PER_BLOCK = 16
"""What distances take for each block in memory."""

Indices: TypeAlias = "npt.NDArray[np.uint32]"
Weigh: TypeAlias = "Callable[[int, Floats, Floats], npt.NDArray[np.float64]]"
"""What blocks weigh in a draw, given the number of the first, the blocks, and their motifs."""

_MOST_EXTRA_ROUNDS = 3
"""Rounds that make up for blocks that were drawn twice."""


class DrawnBlocks:
    """Blocks drawn in proportion to weights, in all processes together.

    Args:
        wanted: Most blocks to draw.
        seed: Seed of the draw.
        number: What tells draws of a seed apart.
        source: The blocks.
        resources: What may be used.
    """

    def __init__(
        self, wanted: int, seed: int, number: int, source: BlockSource, resources: Resources
    ) -> None:
        self._wanted = wanted
        self._draw = _core.WeightedDraw(wanted, seed, number)
        self._source = source
        self._resources = resources

    def add(self, start: int, weights: npt.NDArray[np.float64]) -> None:
        """Weighs blocks.

        Args:
            start: The first of them, counted from the first of this process.
            weights: (n,) float64; of 0, if they must not be drawn.
        """
        counted = weights[: max(self._source.own - start, 0)]
        self._draw.add(self._source.first + start, counted, threads=self._resources.threads)

    def numbers(self) -> npt.NDArray[np.uint64]:
        """What was drawn: ascending numbers in the order of all blocks, the same everywhere."""
        keys, numbers = self._draw.drawn
        team = self._resources.team
        if team.size > 1:
            keys, numbers = team.concatenate(keys), team.concatenate(numbers)
            first = np.lexsort((numbers, keys))[: self._wanted]
            numbers = numbers[first]
        return np.sort(numbers)

    def rows(self) -> Floats:
        """The blocks drawn, in the order of all blocks."""
        return self._resources.team.concatenate(self._source.take(self.numbers()))


def first_of_equal(
    rows: Floats, values: npt.NDArray[np.float64]
) -> tuple[Floats, npt.NDArray[np.float64]]:
    """Of rows (n, s) that are equal only the first, and the values (n,) of those that are left."""
    known = _core.DistinctBlocks(rows.shape[1], len(rows), wide=rows.itemsize == 8)
    numbers = known.add(rows)
    assert numbers is not None
    _, first = np.unique(numbers, return_index=True)
    return known.rows, values[np.sort(first)]


def _different_rows(table: Floats, rows: Floats) -> Floats:
    """Those of the rows that are neither in the table nor equal to an earlier one."""
    known = _core.DistinctBlocks(table.shape[1], len(table) + len(rows), wide=table.itemsize == 8)
    known.add(table)
    before = len(known.rows)
    numbers = known.add(rows)
    assert numbers is not None
    _, first = np.unique(numbers, return_index=True)
    first = np.sort(first)
    chosen: Floats = rows[first[numbers[first] >= before]]
    return chosen


@dataclass(frozen=True, eq=False, kw_only=True)
class Spread:
    """Motifs that are drawn in rounds.

    Attributes:
        source: The blocks to draw from.
        indices: The motif of each, which is found in place.
        total: Number of blocks of all processes.
        largest: The largest magnitude of the blocks of all processes.
        seed: Seed of the draws.
        resources: What may be used.
        weigh: What blocks weigh in a draw; their squared distances by default.
        progress: Called with the number of blocks assigned so far.
    """

    source: BlockSource
    indices: Indices
    total: int
    largest: float
    seed: int
    resources: Resources
    weigh: Weigh | None = None
    progress: Callable[[int], object] | None = None

    def grow(self, motifs: Floats, k: int) -> tuple[Floats, int]:
        """Draws the motifs that are missing.

        Args:
            motifs: (n, s) different motifs to begin with, n at least 1.
            k: Number of motifs wanted. There are fewer in the end if no block is left that differs
                from all of them.

        Returns:
            The motifs, and how many of them the indices have been compared with: those that follow
            are to be compared by :meth:`assign_added`.
        """
        known = done = 0
        # Blocks drawn uniformly may be equal.
        motifs = np.concatenate([motifs[:1], _different_rows(motifs[:1], motifs[1:])])
        for number in range(1, SHARES + _MOST_EXTRA_ROUNDS):
            missing = k - len(motifs)
            wanted = -(-missing // max(SHARES - number, 1))
            if wanted <= 0:
                break
            draw = DrawnBlocks(wanted, self.seed, number, self.source, self.resources)
            self.assign_added(motifs, known, done, draw)
            done += len(self.source)
            known = len(motifs)
            added = _different_rows(motifs, draw.rows())
            if not len(added):
                break
            motifs = np.concatenate([motifs, added])
        return motifs, known

    def assign_added(
        self, motifs: Floats, known: int, done: int = 0, draw: DrawnBlocks | None = None
    ) -> None:
        """Compares all blocks with the motifs that were added.

        Args:
            motifs: (n, s) all motifs.
            known: How many of them the indices have been compared with.
            done: Number of blocks assigned before, for the progress.
            draw: What to tell the weights of the blocks.
        """
        threads = self.resources.threads
        search = _core.MotifSearch.of_added(
            motifs, known, blocks=self.total, largest=self.largest, threads=threads
        )
        for start, blocks in self.source.chunks():
            part = slice(start, start + len(blocks))
            found, distances = search.nearest_with_added(
                blocks,
                previous=self.indices[part] if known else None,
                threads=threads,
                progress=self._counting(done + start),
            )
            self.indices[part] = found
            release(self.indices)
            if draw is not None:
                if self.weigh is not None:
                    weights = self.weigh(self.source.first + start, blocks, motifs[found])
                    # A block that is a motif must not be one again.
                    distances = np.where(distances > 0, weights, 0.0)
                draw.add(start, distances)

    def _counting(self, before: int) -> Callable[[int], object] | None:
        progress = self.progress
        return None if progress is None else lambda done: progress(before + done)
