"""Finding the mosaic that a model already is.

A model trained with MoMos, unpacked from an archive or dequantised has few different blocks of some
size, whatever size is asked for. Then its blocks themselves are the motifs and nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from momos_rs import _core
from momos_rs.checkpoint import Base
from momos_rs.dtypes import dtype
from momos_rs.runtime.resources import Resources

from .mosaic import mosaic_bound

__all__ = ["ExactMosaic", "find_exact_mosaic"]

MOST_BLOCK_SIZE = 32
"""Block sizes up to this one are tried."""

WORTHWHILE = 0.5
"""An exact mosaic pays if the paper's bound on it is at most this share of the weights' bits."""

_ELEMENTS_PER_PIECE = 1 << 22

PREFERENCE = 0.95
"""The block size asked for is taken unless another one's bound is below this share of its own."""


@dataclass(frozen=True)
class ExactMosaic:
    """A mosaic that seems to represent its tensors exactly.

    Attributes:
        block_size: Its block size, s.
        motifs: Most motifs it may have, k: more than are expected.
        distinct_bits: Bits of the motifs expected.
        bound: The paper's bound on its bits, for the motifs expected.
        weight_bits: Bits of its weights.
    """

    block_size: int
    motifs: int
    distinct_bits: int
    bound: int
    weight_bits: int


def find_exact_mosaic(
    bases: Sequence[Base], block_size: int, resources: Resources | None = None
) -> ExactMosaic | None:
    """The block size by which tensors are a mosaic of few motifs, by an estimate.

    Args:
        bases: Tensors of types of :data:`momos_rs.dtypes.MOSAIC_DTYPES`.
        block_size: The size to prefer.
        resources: What may be used; of several processes, each looks by itself.

    Returns:
        The mosaic with the smallest bound, or None if none is worthwhile. Whether it is exact is
        for :func:`momos_rs.build_mosaic` to find out.
    """
    if not bases:
        return None
    threads = None if resources is None else resources.threads
    single = _estimate(bases, 1, threads)
    # The values of k motifs of s values are at most k * s, so if single values hardly repeat, no
    # blocks do.
    if single.distinct_bits > WORTHWHILE * single.weight_bits:
        return None
    found = {1: single}
    for size in (block_size, *range(2, MOST_BLOCK_SIZE + 1)):
        if size not in found:
            found[size] = _estimate(bases, size, threads)
    best = min(found.values(), key=lambda each: each.bound)
    if found[block_size].bound * PREFERENCE <= best.bound:
        best = found[block_size]
    return best if best.bound <= WORTHWHILE * best.weight_bits else None


def _estimate(bases: Sequence[Base], block_size: int, threads: int | None) -> ExactMosaic:
    sampler = _core.RepeatSampler(sum(base.numel // block_size for base in bases), block_size)
    for base in bases:
        itemsize = dtype(base.dtype).itemsize
        # Pieces of whole blocks.
        cut = _ELEMENTS_PER_PIECE // block_size * block_size
        whole = base.read() if base.read_part is None else None
        for start in range(0, base.numel, cut):
            stop = min(start + cut, base.numel)
            part = whole[start * itemsize : stop * itemsize] if whole is not None else None
            sampler.add(base.part(start, stop) if part is None else part, itemsize, threads=threads)
    distinct, one_in = sampler.repeats
    blocks = sum(-(-base.numel // block_size) for base in bases)
    width = max(dtype(base.dtype).itemsize for base in bases)
    # Partial blocks are not sampled; they may each be a motif of their own.
    expected = min(distinct * one_in + len(bases), blocks)
    spread = one_in * math.ceil(4 * math.sqrt(distinct) + 8) if one_in > 1 else 0
    return ExactMosaic(
        block_size=block_size,
        motifs=min(expected + spread, blocks),
        distinct_bits=expected * block_size * 8 * width,
        bound=mosaic_bound(blocks, expected, block_size, 8 * width),
        weight_bits=8 * sum(base.nbytes for base in bases),
    )
