"""Which motifs a projection uses: drawn from the blocks, and refined by Lloyd's algorithm.

Both give the same motifs on every device and at any number of threads and processes: drawing is a
function of the seed, and Lloyd's means are sums of integers.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from momos_rs.errors import InvalidArgumentError

from .parameter_blocks import Blocks
from .shards import Communicator

__all__ = [
    "Assignment",
    "assign_blocks",
    "draw_indices",
    "move_to_means",
    "nearest_motifs",
    "refine",
    "resolve_k",
]

Assignment = dict[torch.device, Tensor]
"""The motif of every block that this process holds: by device, (rows,) int64."""


def resolve_k(m: int, k: int | None, capacity: float | None) -> int:
    """The number of motifs for ``m`` blocks: ``max(1, min(floor(capacity * m), m))``.

    A given ``k`` is clamped to ``m`` alike.
    """
    if k is None:
        if capacity is None:
            raise InvalidArgumentError("give either k or capacity")
        k = math.floor(capacity * m)
    return max(1, min(k, m))


def draw_indices(m: int, k: int, seed: int) -> Tensor:
    """``k`` distinct block indices, uniform among ``m``, (k,) int64 on the CPU."""
    from momos_rs import _core

    if k == 0:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    return torch.from_numpy(_core.select_blocks(m, k, seed).astype("int64"))


def assign_blocks(blocks: Blocks, motifs: Tensor) -> Assignment:
    """The nearest motif of every block, the lowest on ties; exactly."""
    return {
        device: nearest_motifs(matrix, motifs.to(device))
        for device, matrix in blocks.matrices.items()
    }


def nearest_motifs(rows: Tensor, motifs: Tensor) -> Tensor:
    """The index of the motif nearest to each row, (rows,) int64."""
    from momos_rs.ops import search

    if not len(rows):
        return torch.empty(0, dtype=torch.int64, device=rows.device)
    return search(rows, motifs)


def refine(
    blocks: Blocks, motifs: Tensor, iterations: int, *, communicator: Communicator, fixed: int
) -> Tensor:
    """Lloyd's algorithm: every motif moves to the mean of the blocks nearest to it, repeatedly.

    Args:
        blocks: All blocks.
        motifs: Where to start, (k, s).
        iterations: How often to move.
        communicator: The processes that share the blocks.
        fixed: The first ``fixed`` motifs never move (the zero motif).

    Returns:
        (k, s), a new tensor.
    """
    for _ in range(iterations):
        motifs = move_to_means(
            blocks, motifs, assign_blocks(blocks, motifs), communicator=communicator, fixed=fixed
        )
    return motifs


def move_to_means(
    blocks: Blocks,
    motifs: Tensor,
    indices: Assignment,
    *,
    communicator: Communicator,
    fixed: int,
) -> Tensor:
    """Every motif at the mean of its blocks; one without blocks stays where it is.

    The padding of last blocks counts as zeros, as it does in the search.

    Args:
        blocks: All blocks.
        motifs: The motifs, (k, s).
        indices: The motif of every block, by device.
        communicator: The processes that share the blocks.
        fixed: The first ``fixed`` motifs do not move.
    """
    scale = _fixed_point_scale(blocks)
    sums = torch.zeros(motifs.shape, dtype=torch.int64, device=blocks.home)
    counts = torch.zeros(len(motifs), dtype=torch.int64, device=blocks.home)
    for device, rows in blocks.counted_rows():
        local_sums = torch.zeros(motifs.shape, dtype=torch.int64, device=device)
        integers = torch.round(blocks.matrices[device][rows].to(torch.float64) * scale)
        local_sums.index_add_(0, indices[device][rows], integers.to(torch.int64))
        sums += local_sums.to(blocks.home)
        counts += torch.bincount(indices[device][rows], minlength=len(motifs)).to(blocks.home)
    communicator.sum_(sums)
    communicator.sum_(counts)
    counts[:fixed] = 0
    means = sums.to(torch.float64) / (counts.clamp(min=1).to(torch.float64) * scale)[:, None]
    return torch.where((counts > 0)[:, None], means.to(motifs.dtype), motifs)


def _fixed_point_scale(blocks: Blocks) -> float:
    """The power of two that turns weights into integers whose sum over all blocks fits 62 bits.

    With 25 million blocks that leaves 37 bits below the largest weight, more than float32 has.
    """
    largest = blocks.largest_magnitude()
    if largest == 0.0:
        return 1.0
    bits = 62 - blocks.m.bit_length() - math.frexp(largest)[1]
    return 2.0 ** min(bits, 1000)
