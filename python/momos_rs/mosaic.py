"""A model's weights as a mosaic of motifs (Mosaic-of-Motifs, arXiv 2602.14896).

The weights are cut into ``m`` blocks of ``s`` consecutive values: tensor after tensor, each
flattened in C order, its last block padded with zeros. Every block is represented by one of
``k`` motifs shared by the whole model; the index of each block's motif is the mosaic.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core, defaults
from .checkpoint.model import Base, Entry
from .checkpoint.views import gather
from .dtypes import MOSAIC_DTYPES
from .errors import InvalidArgumentError
from .precision import apply_precision, check_motif_dtype

if TYPE_CHECKING:
    import torch

__all__ = [
    "Mosaic",
    "Motifs",
    "Progress",
    "build_mosaic",
    "common_dtype",
    "mosaic_bound",
    "mosaic_of_bases",
    "motif_count",
]

Progress: TypeAlias = "Callable[[str, int, int], object]"
"""Called with a phase, the work done and the work in all, in units of that phase."""

Refine: TypeAlias = "Callable[..., tuple[Motifs, npt.NDArray[np.uint32], list[float]]]"
"""An algorithm with the arguments of ``_core.lloyd``."""

Motifs: TypeAlias = "npt.NDArray[np.float32] | npt.NDArray[np.float64]"


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
        return np.bincount(self.indices, minlength=len(self.motifs)).astype(np.uint64)

    def offsets(self) -> list[int]:
        """First block of each tensor, and the number of blocks at the end."""
        result = [0]
        for elements in self.elements:
            result.append(result[-1] + _core.block_count(elements, self.block_size))
        return result

    def tensor_indices(self, tensor: int) -> npt.NDArray[np.uint32]:
        """The indices of one tensor's blocks."""
        offsets = self.offsets()
        return self.indices[offsets[tensor] : offsets[tensor + 1]]

    def table(self) -> npt.NDArray[np.uint8]:
        """The motifs as little-endian elements of :attr:`dtype`, row by row."""
        rows = np.arange(len(self.motifs), dtype=np.uint32)
        return _core.scatter_blocks(self.motifs, rows, self.motifs.size, self.dtype)


def motif_count(blocks: int, capacity: float) -> int:
    """Number of motifs at a capacity: ``k = max(1, min(floor(c * m), m))``.

    Args:
        blocks: Number of blocks, m.
        capacity: Motifs per block, c.

    Raises:
        InvalidArgumentError: Unless ``0 < capacity <= 1``.
    """
    if not 0 < capacity <= 1:
        raise InvalidArgumentError(f"capacity must be above 0 and at most 1, not {capacity}")
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


def build_mosaic(
    tensors: Sequence[npt.NDArray[np.floating[Any]] | torch.Tensor],
    *,
    block_size: int = defaults.BLOCK_SIZE,
    capacity: float = defaults.CAPACITY,
    motifs: int | None = None,
    method: defaults.Method = defaults.METHOD,
    iterations: int = defaults.ITERATIONS,
    seed: int = defaults.SEED,
    force_zero: bool = defaults.FORCE_ZERO,
    motif_dtype: defaults.MotifDtype = defaults.MOTIF_DTYPE,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Mosaic:
    """Represents tensors by a mosaic.

    If the distinct blocks (by bit pattern) number at most k, they are the motifs and the mosaic
    is exact. Otherwise ``random`` draws the motifs uniformly without replacement from the blocks,
    as the paper does, and ``kmeans`` goes on from there with iterations of Lloyd's algorithm
    (1982) in which every block goes to its nearest motif exactly; a motif that represents no
    block stays where it is. With ``force_zero`` motif 0 is the zero block and never moves.

    Args:
        tensors: Arrays or tensors of types of :data:`momos_rs.dtypes.MOSAIC_DTYPES`, any shapes,
            all values finite.
        block_size: Values per block, s, from 1 to 4096.
        capacity: Motifs per block, c; ignored if ``motifs`` is given.
        motifs: Number of motifs, k; at most m are used.
        method: ``"kmeans"`` or ``"random"``.
        iterations: Most iterations of Lloyd's algorithm.
        seed: Seed of the draw, 0 to 2^64 - 1.
        force_zero: Whether the zero block is a motif.
        motif_dtype: The precision of motifs that do not represent their blocks exactly: a type,
            or ``"fixed"`` for whole multiples of a step that adds at most 2% to the distortion,
            which ``"auto"`` chooses if they need fewer bits than the type of the tensors.
        threads: Number of threads; all cores by default. The result does not depend on it.
        progress: Called while work goes on.

    Returns:
        The mosaic; blocks are assigned to motifs of their final precision.

    Raises:
        InvalidArgumentError: If an argument is out of its range or there are no blocks.
    """
    from .checkpoint import from_state_dict

    named = {f"tensors[{index}]": tensor for index, tensor in enumerate(tensors)}
    model = from_state_dict(named, source="build_mosaic")
    bases = []
    for entry in model.entries:
        base = model.bases[entry.base]
        bases.append(Base(base.dtype, entry.numel, functools.partial(_read_entry, entry, base)))
    return mosaic_of_bases(
        bases,
        block_size=block_size,
        capacity=capacity,
        motifs=motifs,
        method=method,
        iterations=iterations,
        seed=seed,
        force_zero=force_zero,
        motif_dtype=motif_dtype,
        threads=threads,
        progress=progress,
    )


def mosaic_of_bases(
    bases: Sequence[Base],
    *,
    block_size: int,
    capacity: float,
    motifs: int | None,
    method: defaults.Method,
    iterations: int,
    seed: int,
    force_zero: bool,
    motif_dtype: defaults.MotifDtype = defaults.MOTIF_DTYPE,
    refine: Refine = _core.lloyd,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Mosaic:
    """As :func:`build_mosaic`, of bases, which are read one after another.

    ``refine`` takes the place of Lloyd's algorithm.
    """
    if method not in defaults.METHODS:
        raise InvalidArgumentError(
            f"method must be one of {', '.join(defaults.METHODS)}, not {method!r}"
        )
    if iterations < 0:
        raise InvalidArgumentError(f"iterations must be at least 0, not {iterations}")
    check_motif_dtype(motif_dtype)
    common = common_dtype([base.dtype for base in bases])
    elements = tuple(base.numel for base in bases)
    report = progress or (lambda _phase, _done, _total: None)

    blocks = _gather(bases, block_size, common, threads, report)
    m = len(blocks)
    if m == 0:
        raise InvalidArgumentError("there are no weights to make a mosaic of")
    if motifs is not None and motifs < 1:
        raise InvalidArgumentError(f"the number of motifs must be at least 1, not {motifs}")
    k = min(motifs, m) if motifs is not None else motif_count(m, capacity)

    distinct = _core.distinct_blocks(blocks, k, threads=threads)
    if distinct is not None:
        first, indices = distinct
        return Mosaic(blocks[first], indices, elements, common, k, exact=True)

    chosen = _core.select_blocks(m, k, seed, force_zero=force_zero)
    table = blocks[chosen]
    if force_zero:
        table = np.concatenate([np.zeros((1, block_size), blocks.dtype), table])

    def assign(table: Motifs) -> npt.NDArray[np.uint32]:
        return _core.nearest_motifs(
            blocks, table, threads=threads, progress=lambda done: report("assign", done, m)
        )

    distortions: tuple[float, ...] = ()
    if method == "random" or iterations == 0:
        indices = assign(table)
    else:
        total = m * (iterations + 1)
        table, indices, refined = refine(
            blocks,
            table,
            iterations,
            fixed_zero=force_zero,
            threads=threads,
            progress=lambda done: report("refine motifs", done, total),
        )
        distortions = tuple(refined)
    precise = apply_precision(blocks, table, indices, common, motif_dtype, assign)
    return Mosaic(
        precise.table,
        precise.indices,
        elements,
        precise.dtype,
        k,
        exact=False,
        distortions=distortions,
        step=precise.step,
    )


def exact_mosaic_of_bases(
    bases: Sequence[Base],
    *,
    block_size: int,
    motifs: int,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Mosaic | None:
    """The mosaic whose motifs are the distinct blocks; None if there are more than ``motifs``."""
    common = common_dtype([base.dtype for base in bases])
    report = progress or (lambda _phase, _done, _total: None)
    blocks = _gather(bases, block_size, common, threads, report)
    distinct = _core.distinct_blocks(blocks, motifs, threads=threads)
    if distinct is None:
        return None
    first, indices = distinct
    elements = tuple(base.numel for base in bases)
    return Mosaic(blocks[first], indices, elements, common, len(first), exact=True)


def _gather(
    bases: Sequence[Base],
    block_size: int,
    motif_dtype: str,
    threads: int | None,
    report: Progress,
) -> Motifs:
    """The blocks of all bases, of which one at a time is in memory beside them."""
    wide = motif_dtype == "F64"
    counts = [_core.block_count(base.numel, block_size) for base in bases]
    blocks = np.empty((sum(counts), block_size), np.float64 if wide else np.float32)
    start = 0
    for base, count in zip(bases, counts, strict=True):
        blocks[start : start + count] = _core.gather_blocks(
            [(base.read(), base.dtype)], block_size, wide=wide, threads=threads
        )
        start += count
        report("gather", start, len(blocks))
    return blocks


def _read_entry(entry: Entry, base: Base) -> npt.NDArray[np.uint8]:
    return gather(entry, base, base.read())


def common_dtype(names: Sequence[str]) -> str:
    """The narrowest type that holds all values of the given types exactly."""
    distinct = set(names)
    for name in sorted(distinct - set(MOSAIC_DTYPES)):
        raise InvalidArgumentError(f"{name} tensors cannot be part of a mosaic")
    if len(distinct) == 1:
        return distinct.pop()
    return "F64" if "F64" in distinct else "F32"
