"""A model's weights as a mosaic of motifs (Mosaic-of-Motifs, arXiv 2602.14896).

The weights are cut into ``m`` blocks of ``s`` consecutive values: tensor after tensor, each
flattened in C order, its last block padded with zeros. Every block is represented by one of
``k`` motifs shared by the whole model; the index of each block's motif is the mosaic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.checkpoint.model import Base
from momos_rs.dtypes import MOSAIC_DTYPES, dtype
from momos_rs.errors import Argument, InvalidArgumentError
from momos_rs.runtime.resources import PIECE_BYTES, release

__all__ = [
    "Mosaic",
    "Motifs",
    "common_dtype",
    "compare_with_mosaic",
    "mosaic_bound",
    "motif_count",
]

Motifs: TypeAlias = "npt.NDArray[np.float32] | npt.NDArray[np.float64]"

_INDICES_PER_COUNT = 1 << 20


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A mosaic of motifs: what packing, training and measuring have in common.

    Attributes:
        motifs: (k, s) float32, or float64 if a source tensor is; every value is exactly
            representable in :attr:`dtype`.
        indices: (m,) uint32, the motif of each block.
        elements: Number of elements of each tensor, in the order of its blocks.
        dtype: Type of the motifs: the narrowest that holds the types of all tensors.
        requested_motifs: The k that was asked for; :attr:`motifs` may be fewer.
        exact: Whether every block equals its motif bit for bit.
        step: If not None, every value of a motif is a whole multiple of it, rounded to
            :attr:`dtype`: fixed-point motifs.
        distortions: Sum of squared errors over all blocks before the first and after each
            iteration of Lloyd's algorithm; empty where none ran.
    """

    motifs: Motifs
    indices: npt.NDArray[np.uint32]
    elements: tuple[int, ...]
    dtype: str
    requested_motifs: int
    exact: bool
    distortions: tuple[float, ...] = ()
    step: float | None = None

    @property
    def block_size(self) -> int:
        """Values per block, s."""
        return int(self.motifs.shape[1])

    def counts(self) -> npt.NDArray[np.uint64]:
        """Number of blocks that each motif represents, (k,) uint64."""
        counts = np.zeros(len(self.motifs), np.int64)
        step = max(_INDICES_PER_COUNT, len(self.motifs))
        for start in range(0, len(self.indices), step):
            part = self.indices[start : start + step]
            counts += np.bincount(part, minlength=len(self.motifs))
            release(self.indices)
        return counts.astype(np.uint64)

    @cached_property
    def offsets(self) -> list[int]:
        """First block of each tensor, and the number of blocks at the end."""
        result = [0]
        for elements in self.elements:
            result.append(result[-1] + _core.block_count(elements, self.block_size))
        return result

    def tensor_indices(self, tensor: int) -> npt.NDArray[np.uint32]:
        """The indices of one tensor's blocks."""
        offsets = self.offsets
        return self.indices[offsets[tensor] : offsets[tensor + 1]]

    def table(self, *, threads: int | None = None) -> npt.NDArray[np.uint8]:
        """The motifs as little-endian elements of :attr:`dtype`, row by row."""
        rows = np.arange(len(self.motifs), dtype=np.uint32)
        return _core.scatter_blocks(
            self.motifs, rows, self.motifs.size, self.dtype, threads=threads
        )


def compare_with_mosaic(
    base: Base,
    mosaic: Mosaic,
    tensor: int,
    *,
    threads: int | None = None,
    done: Callable[[int], object] | None = None,
) -> _core._Difference:
    """How a mosaic differs from one of its tensors, in memory for a piece of it.

    Args:
        base: The tensor.
        mosaic: The mosaic.
        tensor: The tensor's number in the mosaic.
        threads: Number of threads; all cores by default.
        done: Called with the bytes of every piece that has been compared.
    """
    indices = mosaic.tensor_indices(tensor)
    size = mosaic.block_size
    itemsize = dtype(base.dtype).itemsize
    start = 0
    difference = None
    for original in base.pieces(PIECE_BYTES):
        stop = start + len(original) // itemsize
        # Whole blocks around the piece.
        first, last = start // size, -(-stop // size)
        count = min(last * size, base.numel) - first * size
        decoded = _core.scatter_blocks(
            mosaic.motifs, indices[first:last], count, base.dtype, threads=threads
        )
        cut = slice((start - first * size) * itemsize, (stop - first * size) * itemsize)
        difference = _core.compare_tensors(
            original, decoded[cut], base.dtype, before=difference, threads=threads
        )
        release(mosaic.indices)
        start = stop
        if done is not None:
            done(len(original))
    if difference is None:
        nothing = np.zeros(0, np.uint8)
        return _core.compare_tensors(nothing, nothing, base.dtype, threads=threads)
    return difference


def motif_count(blocks: int, capacity: float) -> int:
    """Number of motifs at a capacity: ``k = max(1, min(floor(c * m), m))``.

    Args:
        blocks: Number of blocks, m.
        capacity: Motifs per block, c.

    Raises:
        InvalidArgumentError: Unless ``0 < capacity <= 1``.
    """
    if not 0 < capacity <= 1:
        raise InvalidArgumentError(
            Argument("capacity"), f" must be above 0 and at most 1, not {capacity}"
        )
    return max(1, min(math.floor(capacity * blocks), blocks))


def mosaic_bound(blocks: int, motifs: int, block_size: int, bits: int) -> int:
    """The paper's bound on the bits of a mosaic: ``k * s * q + m * ceil(log2 k)``.

    Args:
        blocks: Number of blocks, m.
        motifs: Number of motifs, k.
        block_size: Values per block, s.
        bits: Bits per value of a motif, q.
    """
    return motifs * block_size * bits + blocks * max(motifs - 1, 0).bit_length()


def common_dtype(names: Sequence[str]) -> str:
    """The narrowest type that holds all values of the given types exactly."""
    distinct = set(names)
    for name in sorted(distinct - set(MOSAIC_DTYPES)):
        raise InvalidArgumentError(f"{name} tensors cannot be part of a mosaic")
    if len(distinct) == 1:
        return distinct.pop()
    return "F64" if "F64" in distinct else "F32"
