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

from momos_rs import _core, defaults
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.resources import BlockPlan, Resources, new_indices, release

from .block_stream import Blocks, BlockSource, Floats, Sample, as_working

__all__ = ["LEAST_TRAINING_BLOCKS", "Lloyd", "Training", "assign"]

Indices = npt.NDArray[np.uint32]

LEAST_TRAINING_BLOCKS = 1 << 20
"""Samples for refining motifs are no smaller than this: a search of so many takes a second."""


@dataclass(frozen=True)
class Training:
    """How motifs are refined.

    Attributes:
        iterations: Most iterations; with ``mini_batch``, the number of batches.
        tolerance: To stop after an iteration that lowers the distortion by a smaller share.
        blocks_per_motif: To refine on at most that many blocks per motif, drawn at random, if
            there are more than twice those (and :data:`LEAST_TRAINING_BLOCKS`); 0 for all blocks.
        mini_batch: Most blocks of a batch, 0 to use all blocks in every iteration.
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

    def sample_width(self, blocks: int, motifs: int) -> int:
        """Of how many blocks one is looked at in an iteration."""
        wanted = self.mini_batch or self.blocks_per_motif * motifs
        if wanted == 0:
            return 1
        if self.mini_batch == 0:
            wanted = max(wanted, LEAST_TRAINING_BLOCKS)
            if blocks <= 2 * wanted:
                return 1
        return max(-(-blocks // wanted), 1)


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

    def searches(self, motifs: int) -> int:
        """How many blocks will be assigned at the most, to refine that many motifs."""
        m, training = len(self.blocks), self.training
        width = training.sample_width(self.blocks.total, motifs)
        if training.mini_batch:
            return m + training.iterations * (m // width)
        return (m // width) * (training.iterations + 1) + (m if width > 1 else 0)

    def refine(self, motifs: Floats) -> tuple[Floats, list[float]]:
        """Refines motifs and finds the nearest of them for every block.

        Args:
            motifs: (k, s), where to begin.

        Returns:
            The motifs, and the distortion before the first and after every iteration: that of the
            blocks looked at, as a multiple of what all of them would add up to.
        """
        total, training = self.blocks.total, self.training
        width = training.sample_width(total, len(motifs))
        if training.mini_batch:
            motifs, distortions = self._by_batches(motifs, width)
        elif width == 1:
            return self._iterate(self.blocks, self.blocks.own, self.indices, total, motifs)
        else:
            motifs, distortions = self._by_sample(motifs, width)
        self.assign(motifs, after=self.searches(len(motifs)) - len(self.blocks))
        return motifs, distortions

    def assign(self, motifs: Floats, *, after: int = 0) -> Indices:
        """The nearest motif of every block, in place.

        Args:
            motifs: The motifs.
            after: Number of blocks assigned before, for the progress.
        """
        return assign(
            self.blocks,
            self._search(motifs, self.blocks.total),
            self.indices,
            threads=self.resources.threads,
            progress=self._counting(after),
        )

    def _search(self, motifs: Floats, blocks: int, kernel: str | None = None) -> _core.MotifSearch:
        return _core.MotifSearch(
            motifs,
            blocks=blocks,
            largest=self.largest,
            kernel=kernel,
            threads=self.resources.threads,
        )

    def _by_sample(self, motifs: Floats, width: int) -> tuple[Floats, list[float]]:
        count = -(-self.blocks.total // width)
        # Where it takes no more memory than a chunk of the blocks would, it is kept.
        fits = not self.plan.keep and len(self.blocks) // width <= self.plan.chunk
        sample = Sample(self.blocks, width, self.seed, keep=fits)
        indices = new_indices(len(sample), self.plan, self.resources.folder)
        motifs, distortions = self._iterate(sample, len(sample), indices, count, motifs)
        return motifs, [distortion * (self.blocks.total / count) for distortion in distortions]

    def _iterate(
        self, source: BlockSource, own: int, indices: Indices, total: int, motifs: Floats
    ) -> tuple[Floats, list[float]]:
        clusters = _core.Clusters(len(motifs), self.blocks.block_size, largest=self.largest)
        moved = None
        kernel = None
        done = 0
        distortions: list[float] = []
        for iteration in range(self.training.iterations + 1):
            search = self._search(motifs, total, kernel)
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
                    self._add(clusters, blocks[:counted], found[:counted])
                release(indices)
            # What was the fastest still is when motifs have moved a little.
            kernel = search.kernel
            del search
            self._pass_on(clusters, source, own, indices)
            if iteration == self.training.iterations:
                distortions.append(self._distortion(clusters, motifs))
                break
            means, moved, distortion = self._move(clusters, motifs)
            distortions.append(distortion)
            if not moved.any() or (iteration and self._has_settled(*distortions[-2:])):
                break
            motifs = means
        return motifs, distortions

    def _has_settled(self, before: float, after: float) -> bool:
        return before - after < self.training.tolerance * before

    def _counting(self, before: int) -> Callable[[int], object] | None:
        progress = self.progress
        return None if progress is None else lambda done: progress(before + done)

    def _add(self, clusters: _core.Clusters, blocks: Floats, indices: Indices) -> None:
        if len(blocks):
            clusters.add(blocks, indices, threads=self.resources.threads)

    def _pass_on(
        self, clusters: _core.Clusters, source: BlockSource, own: int, indices: Indices
    ) -> None:
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
                if start < own:
                    counted = blocks[: own - start]
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
                motifs, fixed=int(self.fixed_zero), threads=self.resources.threads
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
        for batch in range(self.training.iterations):
            sample = Sample(self.blocks, width, (self.seed + 1 + batch) % 2**64)
            indices = new_indices(len(sample), self.plan, self.resources.folder)
            search = self._search(motifs, size)
            for start, blocks in sample.chunks():
                found = search.nearest(
                    blocks, threads=self.resources.threads, progress=self._counting(done)
                )
                indices[start : start + len(blocks)] = found
                done += len(blocks)
                if team.is_first:
                    self._add(clusters, blocks, found)
                release(indices)
            del search
            self._pass_on(clusters, sample, len(sample), indices)
            before = 0.0
            if team.is_last:
                motifs, before = _towards_means(clusters, motifs, seen, int(self.fixed_zero))
            else:
                clusters.clear()
            motifs, distortion = team.from_last([motifs, np.array([before])])
            distortions.append(float(distortion[0]) * (total / size))
        return motifs, distortions


def _towards_means(
    clusters: _core.Clusters, motifs: Floats, seen: npt.NDArray[np.float64], fixed: int
) -> tuple[Floats, float]:
    """Every motif at the mean of all blocks it was given, of which ``seen`` were before, and the
    distortion of the new ones where it was."""
    counts = clusters.rows[:, -2:-1]
    means, _, distortion = clusters.move_motifs(motifs, fixed=fixed)
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
