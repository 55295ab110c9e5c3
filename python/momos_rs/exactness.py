"""Finding the mosaic that a model already is.

A model trained with MoMos, unpacked from an archive or dequantised has few different blocks of some
size, whatever size is asked for. Then its blocks themselves are the motifs and nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _core
from .checkpoint import Base
from .dtypes import dtype
from .mosaic import mosaic_bound

__all__ = ["ExactMosaic", "find_exact_mosaic"]

MOST_BLOCK_SIZE = 32
"""Block sizes up to this one are tried."""

WORTHWHILE = 0.5
"""An exact mosaic pays if the paper's bound on it is at most this share of the weights' bits."""

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
    bases: Sequence[Base], block_size: int, *, threads: int | None = None
) -> ExactMosaic | None:
    """The block size by which tensors are a mosaic of few motifs, by an estimate.

    Args:
        bases: Tensors of types of :data:`momos_rs.dtypes.MOSAIC_DTYPES`.
        block_size: The size to prefer.
        threads: Number of threads.

    Returns:
        The mosaic with the smallest bound, or None if none is worthwhile. Whether it is exact is
        for :func:`momos_rs.build_mosaic` to find out.
    """
    if not bases:
        return None
    data = [(base.read(), dtype(base.dtype).itemsize) for base in bases]
    single = _estimate(data, 1, threads)
    # The values of k motifs of s values are at most k * s, so if single values hardly repeat, no
    # blocks do.
    if single.distinct_bits > WORTHWHILE * single.weight_bits:
        return None
    found = {1: single}
    for size in (block_size, *range(2, MOST_BLOCK_SIZE + 1)):
        if size not in found:
            found[size] = _estimate(data, size, threads)
    best = min(found.values(), key=lambda each: each.bound)
    if found[block_size].bound * PREFERENCE <= best.bound:
        best = found[block_size]
    return best if best.bound <= WORTHWHILE * best.weight_bits else None


def _estimate(
    data: Sequence[tuple[npt.NDArray[np.uint8], int]], block_size: int, threads: int | None
) -> ExactMosaic:
    distinct, one_in = _core.sample_repeats(data, block_size, threads=threads)
    blocks = sum(-(-part.size // (itemsize * block_size)) for part, itemsize in data)
    width = max(itemsize for _, itemsize in data)
    # Partial blocks are not sampled; they may each be a motif of their own.
    expected = min(distinct * one_in + len(data), blocks)
    spread = one_in * math.ceil(4 * math.sqrt(distinct) + 8) if one_in > 1 else 0
    return ExactMosaic(
        block_size=block_size,
        motifs=min(expected + spread, blocks),
        distinct_bits=expected * block_size * 8 * width,
        bound=mosaic_bound(blocks, expected, block_size, 8 * width),
        weight_bits=8 * sum(part.size for part, _ in data),
    )
