"""K-means that weighs errors by their importance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.checkpoint.model import Base
from momos_rs.runtime.resources import BlockPlan, release

from .block_stream import Blocks, Floats, as_working
from .lloyd import Lloyd, LookedAt
from .methods import Sensitivity
from .mosaic import Motifs

__all__ = ["BYTES_PER_VALUE", "BlockWeights", "weighted_lloyd"]

BYTES_PER_VALUE = 40
"""Bytes that each value in memory takes besides: its weight, and what is computed from both."""


class BlockWeights:
    """The weight of every entry of every block; about 0 for padding.

    Args:
        bases: The tensors of the mosaic.
        sensitivities: For each, one weight or as many as it has elements.
        block_size: Values per block, s.
    """

    def __init__(
        self, bases: Sequence[Base], sensitivities: Sequence[Sensitivity], block_size: int
    ) -> None:
        values = [np.asarray(each, np.float32).reshape(-1) for each in sensitivities]
        self._blocks = Blocks(
            [_base_of(each, base.numel) for each, base in zip(values, bases, strict=True)],
            block_size,
            wide=False,
            plan=BlockPlan(chunk=1, keep=False, indices_in_memory=True),
        )
        self._largest = max((float(each.max(initial=0.0)) for each in values), default=0.0)

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """The weights of the blocks from one number up to another, (stop - start, s)."""
        weights = self._blocks.read(start, stop)
        scaled = weights / self._largest if self._largest > 0 else weights
        # An entry without any weight still belongs somewhere.
        return (scaled + 1e-6).astype(np.float32, copy=False)

    def distortions(self, start: int, blocks: Floats, motifs: Floats) -> npt.NDArray[np.float64]:
        """The weighted squared distances (n,) of blocks (n, s), from a number on, to motifs (n, s);
        columns are added one after the other."""
        each = self.read(start, start + len(blocks))
        total = np.zeros(len(blocks))
        for column in range(blocks.shape[1]):
            difference = blocks[:, column].astype(np.float64) - motifs[:, column]
            total += difference * difference * each[:, column]
        return total


def _base_of(values: npt.NDArray[np.float32], numel: int) -> Base:
    def part(start: int, stop: int) -> npt.NDArray[np.uint8]:
        some = values[start:stop] if values.size == numel else np.full(stop - start, values[0])
        return np.ascontiguousarray(some, "<f4").view(np.uint8)

    return Base("F32", numel, lambda: part(0, numel), read_part=part)


def weighted_lloyd(
    lloyd: Lloyd, weights: BlockWeights, motifs: Motifs, k: int
) -> tuple[Motifs, list[float]]:
    """Lloyd's algorithm with every motif at the weighted mean of its blocks.

    Blocks go to the motif at the smallest distance, as without weights; the motifs move towards
    the entries that matter. The iteration of the smallest weighted distortion is kept. All blocks
    are looked at in every iteration, by a single process.

    Args:
        lloyd: The blocks; their indices are found in place.
        weights: The weights of the blocks, positive.
        motifs: (n, s), where to begin; fewer than k only if the method is to spread them.
        k: Number of motifs wanted.

    Returns:
        The motifs, and the weighted distortion before the first and after each iteration, relative
        to the mean weight.
    """
    if lloyd.method.init == "spread":
        looked_at = LookedAt(lloyd.blocks, lloyd.indices, lloyd.blocks.total)
        motifs, _ = lloyd.spread(looked_at, weights.distortions).grow(motifs, k)
    iterations = lloyd.method.iterations
    fixed = int(lloyd.method.force_zero)
    table = motifs.astype(np.float64)
    distortions: list[float] = []
    best = latest = motifs
    for iteration in range(iterations + 1):
        latest = as_working(table, motifs)
        distortion, sums, totals = _assign(lloyd, weights, latest, iteration)
        if not distortions or distortion < min(distortions):
            best = latest
        distortions.append(distortion)
        if iteration > 0 and distortions[-1] > 0.9999 * distortions[-2]:
            break
        moved = np.divide(sums, totals, out=table.copy(), where=totals > 0)
        table[fixed:] = moved[fixed:]
    if best is not latest:
        lloyd.assign(best)
    return best, distortions


def _assign(
    lloyd: Lloyd, weights: BlockWeights, motifs: Motifs, iteration: int
) -> tuple[float, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Finds the nearest motifs; returns the weighted distortion, and for every entry of every
    motif the sum of the weighted values and that of the weights."""
    threads = lloyd.resources.threads
    search = _core.MotifSearch(
        motifs, blocks=len(lloyd.blocks), largest=lloyd.largest, threads=threads
    )
    sums, totals = np.zeros((2, *motifs.shape))
    distortion = weight = 0.0
    for start, blocks in lloyd.blocks.chunks():
        done = iteration * len(lloyd.blocks) + start

        def report(more: int, done: int = done) -> None:
            if lloyd.progress:
                lloyd.progress(done + more)

        indices = search.nearest(blocks, threads=threads, progress=report)
        lloyd.indices[start : start + len(blocks)] = indices
        release(lloyd.indices)
        first = lloyd.blocks.first + start
        each = weights.read(first, first + len(blocks))
        distortion += float((((blocks.astype(np.float64) - motifs[indices]) ** 2) * each).sum())
        weight += float(each.sum(dtype=np.float64))
        for column in range(blocks.shape[1]):
            weighted = blocks[:, column].astype(np.float64) * each[:, column]
            np.add.at(sums[:, column], indices, weighted)
            np.add.at(totals[:, column], indices, each[:, column].astype(np.float64))
    mean = weight / (len(lloyd.blocks) * lloyd.blocks.block_size)
    return distortion / mean, sums, totals
