"""Refining motifs by Lloyd's algorithm, over blocks that need not fit into memory.

Every iteration moves each motif to the mean of its blocks and searches again (Lloyd, "Least squares
quantization in PCM", 1982); the distortion never rises. A motif that represents no block stays
where it is: motifs are drawn from the blocks, so one is left empty only where others do as well.

Sums are taken in float64 in the order of the blocks, across chunks and processes, so the result is
that of ``_core.lloyd`` on all blocks at once, bit for bit. After the first iteration a block whose
motif did not move is compared only with motifs that did.

With a mini-batch, every iteration looks at some blocks only and moves each motif to the mean of all
blocks it was given so far (Sculley, "Web-scale k-means clustering", 2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.runtime.resources import BlockPlan, Resources, new_indices, release

from .block_stream import Blocks, BlockSource, Floats, Sample, as_working
from .methods import KMeans
from .relocation import MOST_SHARE, relocated, squared_distances
from .spread import SHARES, DrawnBlocks, Spread, Weigh, first_of_equal

__all__ = ["Assignment", "Lloyd", "LookedAt", "assign"]

Indices = npt.NDArray[np.uint32]

_FIRST_RELOCATION = 1 << 32
"""Draws for relocations are numbered from here, beyond the rounds of :mod:`.spread`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Assignment:
    """Blocks that are assigned to their nearest motifs.

    Attributes:
        blocks: The blocks of this process.
        indices: The motif of each block, which is found in place.
        largest: The largest magnitude of the blocks of all processes.
        plan: How to go through the blocks.
        resources: What may be used.
        progress: Called with the number of blocks assigned so far, over all iterations.
    """

    blocks: Blocks
    indices: Indices
    largest: float
    plan: BlockPlan
    resources: Resources
    progress: Callable[[int], object] | None = None

    def assign(self, motifs: Floats, *, after: int = 0) -> Indices:
        """The nearest motif of every block, in place.

        Args:
            motifs: The motifs.
            after: Number of blocks assigned before, for the progress.
        """
        return assign(
            self.blocks,
            self.search(motifs, self.blocks.total),
            self.indices,
            threads=self.resources.threads,
            progress=self.counting(after),
        )

    def search(self, motifs: Floats, blocks: int, kernel: str | None = None) -> _core.MotifSearch:
        """Motifs made ready for a search by that many blocks."""
        return _core.MotifSearch(
            motifs,
            blocks=blocks,
            largest=self.largest,
            kernel=kernel,
            threads=self.resources.threads,
        )

    def counting(self, before: int) -> Callable[[int], object] | None:
        """The progress of a search after that many blocks."""
        progress = self.progress
        return None if progress is None else lambda done: progress(before + done)


@dataclass(frozen=True, eq=False)
class LookedAt:
    """Blocks on which motifs are refined: all, or a sample.

    Attributes:
        source: Those of this process.
        indices: The motif of each, which is found in place.
        total: Number of those of all processes.
    """

    source: BlockSource
    indices: Indices
    total: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Lloyd(Assignment):
    """Blocks whose motifs are refined.

    Attributes:
        method: How.
    """

    method: KMeans

    def searches(self, motifs: int) -> int:
        """Maximum number of blocks that are assigned to refine that many motifs."""
        m, method = len(self.blocks), self.method
        width = method.sample_width(self.blocks.total, motifs)
        rounds = SHARES - 1 if method.init == "spread" else 0
        if method.mini_batch:
            drawn_from = m // method.training_width(self.blocks.total, motifs)
            return m + method.iterations * (m // width) + rounds * drawn_from
        return (m // width) * (method.iterations + 1 + rounds) + (m if width > 1 else 0)

    def refine(self, motifs: Floats, k: int) -> tuple[Floats, list[float]]:
        """Draws the motifs that are missing, refines all, and finds the nearest for every block.

        Args:
            motifs: (n, s), where to begin; fewer than k only if the method is to spread them.
            k: Number of motifs wanted.

        Returns:
            The motifs, and the distortion before the first and after every iteration: that of the
            blocks looked at, as a multiple of what all of them would add up to.
        """
        total, method = self.blocks.total, self.method
        width = method.sample_width(total, k)
        if method.mini_batch:
            motifs, _, _ = self._grown(motifs, k, method.training_width(total, k))
            motifs, distortions = self._by_batches(motifs, width)
        else:
            motifs, known, drawn_from = self._grown(motifs, k, width)
            motifs, distortions = self._iterate(drawn_from, motifs, known)
            if width == 1:
                return motifs, distortions
            share = total / drawn_from.total
            distortions = [distortion * share for distortion in distortions]
        self.assign(motifs, after=self.searches(k) - len(self.blocks))
        return motifs, distortions

    def spread(self, looked_at: LookedAt, weigh: Weigh | None = None) -> Spread:
        """Draws of motifs from blocks, which weigh their squared distances by default."""
        return Spread(
            source=looked_at.source,
            indices=looked_at.indices,
            total=looked_at.total,
            largest=self.largest,
            seed=self.method.seed,
            resources=self.resources,
            weigh=weigh,
            progress=self.progress,
        )

    def _grown(self, motifs: Floats, k: int, width: int) -> tuple[Floats, int, LookedAt]:
        """All k motifs, how many of them the indices know, and one of so many blocks."""
        looked_at = LookedAt(self.blocks, self.indices, self.blocks.total)
        if width > 1:
            # Where it takes no more memory than a chunk of the blocks would, it is kept.
            fits = not self.plan.keep and len(self.blocks) // width <= self.plan.chunk
            sample = Sample(self.blocks, width, self.method.seed, keep=fits)
            indices = new_indices(len(sample), self.plan, self.resources.folder)
            looked_at = LookedAt(sample, indices, -(-self.blocks.total // width))
        if self.method.init == "random":
            return motifs, 0, looked_at
        motifs, known = self.spread(looked_at).grow(motifs, k)
        return motifs, known, looked_at

    def _iterate(
        self, looked_at: LookedAt, motifs: Floats, known: int
    ) -> tuple[Floats, list[float]]:
        """Lloyd's iterations from motifs of which the indices know the first ones."""
        source, indices = looked_at.source, looked_at.indices
        iterations = self.method.iterations
        clusters = _core.Clusters(len(motifs), self.blocks.block_size, largest=self.largest)
        search = None
        moved = None
        done = (SHARES - 1) * len(source) if self.method.init == "spread" else 0
        distortions: list[float] = []
        relocates = self.method.init == "spread"
        for iteration in range(iterations + 1):
            # Motifs in new places take two iterations to be of use.
            relocates &= iteration < iterations - 2
            draw = self._draw(looked_at, iteration, len(motifs)) if relocates else None
            search = self._next_search(search, motifs, known, looked_at.total)
            for start, blocks in source.chunks():
                part = slice(start, start + len(blocks))
                if moved is None and known:
                    found, _ = search.nearest_with_added(
                        blocks,
                        previous=indices[part],
                        threads=self.resources.threads,
                        progress=self.counting(done),
                    )
                else:
                    found = search.nearest(
                        blocks,
                        previous=None if moved is None else indices[part],
                        moved=moved,
                        threads=self.resources.threads,
                        progress=self.counting(done),
                    )
                indices[part] = found
                done += len(blocks)
                if self.resources.team.is_first:
                    counted = max(source.own - start, 0)
                    self._add(clusters, blocks[:counted], found[:counted])
                if draw is not None:
                    draw.add(start, search.distances(blocks, found, threads=self.resources.threads))
                release(indices)
            self._pass_on(clusters, source, indices)
            if iteration == iterations:
                distortions.append(self._distortion(clusters, motifs))
                break
            counts = np.zeros(len(motifs))
            if draw is not None and self.resources.team.is_last:
                counts = clusters.rows[:, -2].copy()
            means, moved, distortion = self._move(clusters, motifs)
            distortions.append(distortion)
            if not moved.any():
                break
            if iteration and self._has_settled(*distortions[-2:]):
                if not relocates:
                    break
                relocates = False
                draw = None
            if draw is not None:
                (counts,) = self.resources.team.from_last([counts])
                self._relocate(looked_at, draw, motifs, means, moved, counts)
            motifs = means
        return motifs, distortions

    def _next_search(
        self, before: _core.MotifSearch | None, motifs: Floats, known: int, total: int
    ) -> _core.MotifSearch:
        if before is None and known:
            return _core.MotifSearch.of_added(
                motifs, known, blocks=total, largest=self.largest, threads=self.resources.threads
            )
        # What was the fastest still is when motifs have moved a little.
        kernel = None if before is None or known else before.kernel
        return self.search(motifs, total, kernel)

    def _draw(self, looked_at: LookedAt, iteration: int, motifs: int) -> DrawnBlocks:
        """Where motifs may be moved after an iteration."""
        return DrawnBlocks(
            math.ceil(MOST_SHARE * motifs),
            self.method.seed,
            _FIRST_RELOCATION + iteration,
            looked_at.source,
            self.resources,
        )

    def _relocate(
        self,
        looked_at: LookedAt,
        draw: DrawnBlocks,
        motifs: Floats,
        means: Floats,
        moved: npt.NDArray[np.bool_],
        counts: npt.NDArray[np.float64],
    ) -> None:
        """Moves motifs of little use to blocks drawn, in place."""
        source, team = looked_at.source, self.resources.team
        numbers = draw.numbers()
        own = source.take(numbers)
        low = np.searchsorted(numbers, source.first)
        places = (numbers[low : low + len(own)] - np.uint64(source.first)).astype(np.int64)
        distances = team.concatenate(squared_distances(own, motifs[looked_at.indices[places]]))
        rows = team.concatenate(own)
        order = np.lexsort((numbers, -distances))
        rows, distances = first_of_equal(rows[order], distances[order])
        chosen = relocated(
            means,
            counts,
            rows,
            distances,
            fixed=int(self.method.force_zero),
            threads=self.resources.threads,
        )
        means[chosen] = rows[: len(chosen)]
        moved[chosen] = True

    def _has_settled(self, before: float, after: float) -> bool:
        return before - after < self.method.tolerance * before

    def _add(self, clusters: _core.Clusters, blocks: Floats, indices: Indices) -> None:
        if len(blocks):
            clusters.add(blocks, indices, threads=self.resources.threads)

    def _pass_on(self, clusters: _core.Clusters, source: BlockSource, indices: Indices) -> None:
        """Adds the blocks of this process to the sums of those before it, and hands them on.

        The first process has added its own already, while it searched.
        """
        team = self.resources.team
        if not team.is_first:
            rows = clusters.rows  # a copy, to be overwritten
            team.receive(rows, team.rank - 1)
            clusters.rows = rows
            del rows
            for start, blocks in source.chunks():
                if start < source.own:
                    counted = blocks[: source.own - start]
                    self._add(clusters, counted, indices[start : start + len(counted)])
                release(indices)
        if not team.is_last:
            team.send(clusters.rows, team.rank + 1)

    def _distortion(self, clusters: _core.Clusters, motifs: Floats) -> float:
        """That of the blocks of all processes, which the last one knows the sums of."""
        team, threads = self.resources.team, self.resources.threads
        own = clusters.distortion(motifs, threads=threads) if team.is_last else 0.0
        (distortion,) = team.from_last([np.array([own])])
        return float(distortion[0])

    def _move(
        self, clusters: _core.Clusters, motifs: Floats
    ) -> tuple[Floats, npt.NDArray[np.bool_], float]:
        """Where motifs move, which of them do, and the distortion before that."""
        team = self.resources.team
        if team.is_last:
            means, moved, before = clusters.move_motifs(
                motifs, fixed=int(self.method.force_zero), threads=self.resources.threads
            )
        else:
            clusters.clear()
            means, moved, before = motifs, np.zeros(len(motifs), np.bool_), 0.0
        means, moved, distortion = team.from_last([means, moved, np.array([before])])
        return means, moved, float(distortion[0])

    def _by_batches(self, motifs: Floats, width: int) -> tuple[Floats, list[float]]:
        total, team = self.blocks.total, self.resources.team
        size = -(-total // width)
        done = 0
        clusters = _core.Clusters(len(motifs), self.blocks.block_size, largest=self.largest)
        seen = np.zeros((len(motifs), 1))
        distortions = []
        for batch in range(self.method.iterations):
            sample = Sample(self.blocks, width, (self.method.seed + 1 + batch) % 2**64)
            indices = new_indices(len(sample), self.plan, self.resources.folder)
            search = self.search(motifs, size)
            for start, blocks in sample.chunks():
                found = search.nearest(
                    blocks, threads=self.resources.threads, progress=self.counting(done)
                )
                indices[start : start + len(blocks)] = found
                done += len(blocks)
                if team.is_first:
                    self._add(clusters, blocks, found)
                release(indices)
            del search
            self._pass_on(clusters, sample, indices)
            before = 0.0
            if team.is_last:
                motifs, before = _towards_means(
                    clusters,
                    motifs,
                    seen,
                    int(self.method.force_zero),
                    self.resources.threads,
                )
            else:
                clusters.clear()
            motifs, distortion = team.from_last([motifs, np.array([before])])
            distortions.append(float(distortion[0]) * (total / size))
        return motifs, distortions


def _towards_means(
    clusters: _core.Clusters,
    motifs: Floats,
    seen: npt.NDArray[np.float64],
    fixed: int,
    threads: int | None,
) -> tuple[Floats, float]:
    """Every motif at the mean of all blocks it was given, of which ``seen`` were before, and the
    distortion of the new ones where it was."""
    counts = clusters.rows[:, -2:-1]
    means, _, distortion = clusters.move_motifs(motifs, fixed=fixed, threads=threads)
    seen += counts
    rate = np.divide(counts, seen, out=np.zeros_like(seen), where=seen > 0)
    moved = motifs + (means.astype(np.float64) - motifs) * rate
    return as_working(moved, motifs), distortion


def assign(
    blocks: Blocks,
    search: _core.MotifSearch,
    indices: Indices,
    *,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Indices:
    """The nearest motif of every block.

    Args:
        blocks: The blocks.
        search: The motifs, made ready.
        indices: (m,) where to put them.
        threads: Number of threads; all cores by default.
        progress: Called with the number of blocks assigned so far.

    Returns:
        ``indices``.
    """
    for start, chunk in blocks.chunks():

        def report(done: int, before: int = start) -> None:
            if progress:
                progress(before + done)

        found = search.nearest(chunk, threads=threads, progress=report)
        indices[start : start + len(chunk)] = found
        release(indices)
    return indices
