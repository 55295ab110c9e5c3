"""K-means that weighs errors by their importance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .checkpoint.model import Base
from .mosaic import Motifs
from .structured import Sensitivity

__all__ = ["block_weights", "weighted_lloyd"]


def block_weights(
    bases: Sequence[Base], sensitivities: Sequence[Sensitivity], block_size: int
) -> npt.NDArray[np.float32]:
    """The weight of every entry of every block, (m, s); 0 for padding.

    Args:
        bases: The tensors of the mosaic.
        sensitivities: For each, one weight or as many as it has elements.
        block_size: Values per block, s.
    """
    parts = []
    for base, sensitivity in zip(bases, sensitivities, strict=True):
        values = np.broadcast_to(
            np.asarray(sensitivity, np.float32).reshape(-1), (base.numel,)
        ).astype("<f4")
        parts.append((values.view(np.uint8), "F32"))
    weights = _core.gather_blocks(parts, block_size)
    largest = float(weights.max(initial=0.0))
    # An entry without any weight still belongs somewhere.
    scaled: npt.NDArray[np.float32] = (weights / largest if largest > 0 else weights) + 1e-6
    return scaled


def weighted_lloyd(
    blocks: Motifs,
    weights: npt.NDArray[np.float32],
    motifs: Motifs,
    iterations: int,
    *,
    fixed_zero: bool = False,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> tuple[Motifs, npt.NDArray[np.uint32], list[float]]:
    """Lloyd's algorithm with every motif at the weighted mean of its blocks.

    Blocks go to the motif at the smallest distance, as without weights; the motifs move towards
    the entries that matter. The iteration of the smallest weighted distortion is kept.

    Args:
        blocks: (m, s).
        weights: (m, s), positive.
        motifs: (k, s), where to begin.
        iterations: Most iterations.
        fixed_zero: Whether motif 0 stays where it is.
        threads: Number of threads; all cores by default.
        progress: Called with the number of blocks assigned so far, over all iterations.

    Returns:
        The motifs, the motif of each block, and the weighted distortion before the first and after
        each iteration, relative to the mean weight.
    """
    table = motifs.astype(np.float64)
    weighted = blocks.astype(np.float64) * weights
    distortions: list[float] = []
    best: tuple[Motifs, npt.NDArray[np.uint32]] | None = None
    m = len(blocks)
    for iteration in range(iterations + 1):
        current: Any = table.astype(blocks.dtype)

        def report(done: int, before: int = iteration * m) -> None:
            if progress:
                progress(before + done)

        indices = _core.nearest_motifs(blocks, current, threads=threads, progress=report)
        errors = (blocks.astype(np.float64) - current[indices]) ** 2
        distortion = float((errors * weights).sum() / weights.mean(dtype=np.float64))
        if best is None or distortion < min(distortions):
            best = (current, indices)
        distortions.append(distortion)
        if iteration == iterations or (
            iteration > 0 and distortions[-1] > 0.9999 * distortions[-2]
        ):
            break
        for column in range(blocks.shape[1]):
            sums = np.bincount(indices, weighted[:, column], len(table))
            totals = np.bincount(indices, weights[:, column], len(table))
            moved = np.divide(sums, totals, out=table[:, column].copy(), where=totals > 0)
            table[int(fixed_zero) :, column] = moved[int(fixed_zero) :]
    assert best is not None
    return *best, distortions
