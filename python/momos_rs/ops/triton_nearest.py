"""Nearest motifs on a GPU by one fused Triton kernel.

Every program keeps the best and the second-best distance of its blocks while it walks over all
motifs, so the (m, k) matrix of distances never exists. Blocks whose two best float32 distances are
too close to tell are searched again with the same kernel in float64.

With ``TRITON_INTERPRET=1`` in the environment the kernel runs on CPU tensors, for tests.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .torch_nearest import absolute_margin, relative_margin, scaled_to_one

__all__ = ["nearest_motifs"]

_BLOCKS_PER_PROGRAM = 32
_MOTIFS_PER_TILE = 64
_UNROLLED_SIZE = 32


@triton.jit
def _plus_square(distances, block_column, motif_column, rows_left, motifs_left):  # type: ignore[no-untyped-def]
    block = tl.load(block_column, mask=rows_left, other=0.0)
    motif = tl.load(motif_column, mask=motifs_left, other=0.0)
    difference = block[:, None] - motif[None, :]
    return distances + difference * difference


@triton.jit
def _nearest_kernel(  # type: ignore[no-untyped-def]
    blocks,  # (s, m)
    motifs,  # (s, k)
    nearest,  # (m,) int32
    doubtful,  # (m,) int8
    m,
    k,
    relative,
    absolute,
    S: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    TILE: tl.constexpr,  # noqa: N803
    UNROLLED: tl.constexpr,  # noqa: N803
    FLOAT: tl.constexpr,  # noqa: N803
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    rows_left = rows < m
    lane = tl.arange(0, TILE)
    infinity = float("inf")
    # Every lane follows the motifs of its own column of the tiles; lanes meet at the end.
    best = tl.full((ROWS, TILE), infinity, FLOAT)
    second = tl.full((ROWS, TILE), infinity, FLOAT)
    best_index = tl.zeros((ROWS, TILE), tl.int32)
    for start in range(0, k, TILE):
        columns = start + lane
        motifs_left = columns < k
        block_column = blocks + rows
        motif_column = motifs + columns
        distances = tl.zeros((ROWS, TILE), FLOAT)
        if UNROLLED:
            for _ in tl.static_range(S):
                distances = _plus_square(
                    distances, block_column, motif_column, rows_left, motifs_left
                )
                block_column += m
                motif_column += k
        else:
            for _ in range(S):
                distances = _plus_square(
                    distances, block_column, motif_column, rows_left, motifs_left
                )
                block_column += m
                motif_column += k
        distances = tl.where(motifs_left[None, :], distances, infinity)
        closer = distances < best
        second = tl.where(closer, best, tl.minimum(second, distances))
        best_index = tl.where(closer, columns[None, :], best_index)
        best = tl.where(closer, distances, best)
    row_best = tl.min(best, axis=1)
    row_index = tl.min(tl.where(best == row_best[:, None], best_index, k), axis=1)
    chosen = best_index == row_index[:, None]
    # Lanes that never met a motif hold index 0 and infinity: they cannot be the chosen one.
    chosen = chosen & (best == row_best[:, None])
    row_second = tl.min(tl.where(chosen, second, best), axis=1)
    close = row_second <= row_best * (1 + relative) + absolute
    tl.store(nearest + rows, row_index, mask=rows_left)
    tl.store(doubtful + rows, close.to(tl.int8), mask=rows_left)


def nearest_motifs(blocks: Tensor, motifs: Tensor) -> Tensor:
    """As :func:`momos_rs.ops.nearest_motifs`, for checked arguments on a GPU.

    At most 2**31 - 1 blocks and as many motifs.
    """
    # Equal motifs would make every block that takes one of them a near-tie.
    distinct, first = without_duplicates(motifs)
    if blocks.dtype == torch.float64:
        return first[_search(blocks, distinct)[0]]
    nearest, doubtful = _search(*scaled_to_one(blocks, distinct))
    (again,) = doubtful.nonzero(as_tuple=True)
    if len(again):
        nearest[again], _ = _search(blocks[again].double(), distinct.double())
    return first[nearest]


def _search(blocks: Tensor, motifs: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the nearest motif in the tensors' own precision, and where that is in doubt."""
    m, s = blocks.shape
    nearest = torch.empty(m, dtype=torch.int32, device=blocks.device)
    doubtful = torch.zeros(m, dtype=torch.int8, device=blocks.device)
    if m:
        _nearest_kernel[(triton.cdiv(m, _BLOCKS_PER_PROGRAM),)](
            blocks.t().contiguous(),
            motifs.t().contiguous(),
            nearest,
            doubtful,
            m,
            motifs.shape[0],
            relative_margin(s),
            absolute_margin(s),
            S=s,
            ROWS=_BLOCKS_PER_PROGRAM,
            TILE=_MOTIFS_PER_TILE,
            UNROLLED=s <= _UNROLLED_SIZE,
            FLOAT=tl.float64 if blocks.dtype == torch.float64 else tl.float32,
        )
    return nearest.to(torch.int64), doubtful.bool()


def without_duplicates(motifs: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct motifs in order of first appearance, and the index of each in ``motifs``.

    Rows are told apart by a 64-bit hash; if a hash stands for two different rows, all motifs are
    kept.
    """
    clean = motifs + 0.0  # minus zero equals zero
    integer = torch.int64 if motifs.dtype == torch.float64 else torch.int32
    bits = clean.view(integer).to(torch.int64)
    hashed = torch.zeros(len(motifs), dtype=torch.int64, device=motifs.device)
    for column in bits.unbind(dim=1):
        hashed = (hashed ^ column) * -7046029254386353131  # odd: a bijection modulo 2**64
        hashed = hashed ^ (hashed >> 29)
    distinct, group = torch.unique(hashed, return_inverse=True)
    position = torch.arange(len(motifs), device=motifs.device)
    first = torch.full((len(distinct),), len(motifs), device=motifs.device)
    first.scatter_reduce_(0, group, position, reduce="amin")
    if not torch.equal(clean, clean[first[group]]):
        return motifs, position
    kept = first.sort().values
    return clean[kept], kept
