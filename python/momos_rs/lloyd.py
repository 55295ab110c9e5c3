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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _core, defaults
from .blocks import Blocks, BlockSource, Floats, Sample, as_working
from .errors import InvalidArgumentError
from .resources import BlockPlan, Resources, new_indices, release

__all__ = ["LEAST_TRAINING_BLOCKS", "Lloyd", "Training", "assign"]

Indices = npt.NDArray[np.uint32]

LEAST_TRAINING_BLOCKS = 1 << 20
"""Motifs are refined on all blocks if there are no more than this: that takes a second."""


@dataclass(frozen=True)
class Training:
    """How motifs are refined.

    Attributes:
        iterations: Most iterations; with ``mini_batch``, the number of batches.
        tolerance: To stop after an iteration that lowers the distortion by a smaller share.
        blocks_per_motif: To refine on that many blocks per motif, drawn at random, if there are
            more than those and than :data:`LEAST_TRAINING_BLOCKS`; 0 for all blocks.
        mini_batch: Blocks of a batch, 0 to use all blocks in every iteration.
    """

    iterations: int = defaults.ITERATIONS
    tolerance: float = defaults.TOLERANCE
    blocks_per_motif: int = defaults.BLOCKS_PER_MOTIF
    mini_batch: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise InvalidArgumentError(f"iterations must be at least 0, not {self.iterations}")
        if not 0 <= self.tolerance < 1:
            raise InvalidArgumentError(
                f"the tolerance must be at least 0 and below 1, not {self.tolerance}"
            )
        if self.blocks_per_motif < 0:
            raise InvalidArgumentError(
                f"blocks per motif must be at least 0, not {self.blocks_per_motif}"
            )
        if self.mini_batch < 0:
            raise InvalidArgumentError(f"a mini-batch has at least 0 blocks, not {self.mini_batch}")

    def training_blocks(self, blocks: int, motifs: int) -> int:
        """On how many of the blocks motifs are refined."""
        if self.blocks_per_motif == 0 or self.mini_batch:
            return blocks
        return min(blocks, max(self.blocks_per_motif * motifs, LEAST_TRAINING_BLOCKS))


@dataclass(frozen=True, eq=False)
class Lloyd:
    """Blocks whose motifs are to be refined.

    Attributes:
        blocks: The blocks of this process.
        indices: The motif of each block, which is found in place.
        largest: The largest magnitude of the blocks of all processes.
        training: How to go about it.
        plan: How to go through the blocks.
        resources: What may be used.
        seed: Seed of the draw of blocks to look at.
        fixed_zero: Whether motif 0 stays where it is.
        progress: Called with the number of blocks assigned so far, over all iterations.
    """

    blocks: Blocks
    indices: Indices
    largest: float
    training: Training
    plan: BlockPlan
    resources: Resources
    seed: int
    fixed_zero: bool
    progress: Callable[[int], object] | None = None

    @property
    def searches(self) -> int:
        """How many blocks will be assigned at the most."""
        m, training = len(self.blocks), self.training
        if training.mini_batch:
            return m + training.iterations * min(training.mini_batch, m)
        return m * (training.iterations + 1)

    def refine(self, motifs: Floats) -> tuple[Floats, list[float]]:
        """Refines motifs and finds the nearest of them for every block.

        Args:
            motifs: (k, s), where to begin.

        Returns:
            The motifs, and the distortion before the first and after every iteration: that of the
            blocks looked at, as a multiple of what all of them would add up to.
        """
        total, training = self.blocks.total, self.training
        if training.mini_batch:
            motifs, distortions = self._by_batches(motifs)
            self.assign(motifs)
            return motifs, distortions
        count = training.training_blocks(total, len(motifs))
        if count == total:
            return self._iterate(self.blocks, self.blocks.own, self.indices, total, motifs)
        # Drawn like the motifs, so that the blocks that are motifs are among them.
        chosen = _core.select_blocks(total, count, self.seed)
        sample = Sample(self.blocks, chosen, keep=self._sample_fits(count))
        indices = new_indices(len(sample), self.plan, self.resources.folder)
        motifs, distortions = self._iterate(sample, len(sample), indices, count, motifs)
        self.assign(motifs)
        return motifs, [distortion * (total / count) for distortion in distortions]

    def assign(self, motifs: Floats) -> Indices:
        """The nearest motif of every block, in place."""
        search = self._search(motifs, self.blocks.total)
        return assign(
            self.blocks,
            search,
            self.indices,
            threads=self.resources.threads,
            progress=self.progress,
        )

    def _search(self, motifs: Floats, blocks: int) -> _core.MotifSearch:
        return _core.MotifSearch(
            motifs, blocks=blocks, largest=self.largest, threads=self.resources.threads
        )

    def _sample_fits(self, count: int) -> bool:
        """Whether a sample takes no more memory than a chunk of the blocks would."""
        return not self.plan.keep and count // self.resources.team.size <= self.plan.chunk

    def _iterate(
        self, source: BlockSource, own: int, indices: Indices, total: int, motifs: Floats
    ) -> tuple[Floats, list[float]]:
        clusters = _core.Clusters(len(motifs), self.blocks.block_size, largest=self.largest)
        moved = None
        done = 0
        distortions: list[float] = []
        for iteration in range(self.training.iterations + 1):
            if iteration:
                motifs, moved = self._move(clusters, motifs)
                if not moved.any():
                    break
            search = self._search(motifs, total)
            clusters.clear()
            for start, blocks in source.chunks():
                found = search.nearest(
                    blocks,
                    previous=None if moved is None else indices[start : start + len(blocks)],
                    moved=moved,
                    threads=self.resources.threads,
                    progress=self._counting(done),
                )
                indices[start : start + len(blocks)] = found
                done += len(blocks)
                if self.resources.team.is_first:
                    counted = max(own - start, 0)
                    self._add(clusters, blocks[:counted], motifs, found[:counted])
                release(indices)
            del search
            self._pass_on(clusters, source, own, motifs, indices)
            (distortion,) = self.resources.team.from_last([np.array([clusters.distortion()])])
            distortions.append(float(distortion[0]))
            if iteration and self._has_settled(*distortions[-2:]):
                break
        return motifs, distortions

    def _has_settled(self, before: float, after: float) -> bool:
        return before - after < self.training.tolerance * before

    def _counting(self, before: int) -> Callable[[int], object] | None:
        progress = self.progress
        return None if progress is None else lambda done: progress(before + done)

    def _add(
        self, clusters: _core.Clusters, blocks: Floats, motifs: Floats, indices: Indices
    ) -> None:
        if len(blocks):
            clusters.add(blocks, motifs, indices, threads=self.resources.threads)

    def _pass_on(
        self,
        clusters: _core.Clusters,
        source: BlockSource,
        own: int,
        motifs: Floats,
        indices: Indices,
    ) -> None:
        """Adds the blocks of this process to the sums of those before it, and hands them on.

        The first process has added its own already, while it searched.
        """
        team = self.resources.team
        if not team.is_first:
            rows = np.empty((len(motifs), self.blocks.block_size + 2))
            team.receive(rows, team.rank - 1)
            clusters.rows = rows
            del rows
            for start, blocks in source.chunks():
                if start < own:
                    counted = blocks[: own - start]
                    self._add(clusters, counted, motifs, indices[start : start + len(counted)])
                release(indices)
        if not team.is_last:
            team.send(clusters.rows, team.rank + 1)

    def _move(
        self, clusters: _core.Clusters, motifs: Floats
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        team = self.resources.team
        if team.is_last:
            motifs, moved = clusters.move_motifs(
                motifs, fixed=int(self.fixed_zero), threads=self.resources.threads
            )
        else:
            moved = np.zeros(len(motifs), np.bool_)
        motifs, moved = team.from_last([motifs, moved])
        return motifs, moved

    def _by_batches(self, motifs: Floats) -> tuple[Floats, list[float]]:
        total, team = self.blocks.total, self.resources.team
        size = min(self.training.mini_batch, total)
        clusters = _core.Clusters(len(motifs), self.blocks.block_size, largest=self.largest)
        seen = np.zeros((len(motifs), 1))
        distortions = []
        for batch in range(self.training.iterations):
            chosen = _core.select_blocks(total, size, (self.seed + 1 + batch) % 2**64)
            sample = Sample(self.blocks, chosen, keep=False)
            indices = np.zeros(len(sample), np.uint32)
            clusters.clear()
            search = self._search(motifs, size)
            for start, blocks in sample.chunks():
                found = search.nearest(blocks, threads=self.resources.threads)
                indices[start : start + len(blocks)] = found
                if team.is_first:
                    self._add(clusters, blocks, motifs, found)
            del search
            self._pass_on(clusters, sample, len(sample), motifs, indices)
            distortion = np.array([clusters.distortion()])
            if team.is_last:
                motifs = _towards_means(clusters, motifs, seen, int(self.fixed_zero))
            motifs, distortion = team.from_last([motifs, distortion])
            distortions.append(float(distortion[0]) * (total / size))
        return motifs, distortions


def _towards_means(
    clusters: _core.Clusters, motifs: Floats, seen: npt.NDArray[np.float64], fixed: int
) -> Floats:
    """Every motif at the mean of all blocks it was given, of which ``seen`` were before."""
    means, _ = clusters.move_motifs(motifs, fixed=fixed)
    counts = clusters.rows[:, -2:-1]
    seen += counts
    rate = np.divide(counts, seen, out=np.zeros_like(seen), where=seen > 0)
    moved = motifs + (means.astype(np.float64) - motifs) * rate
    return as_working(moved, motifs)


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
