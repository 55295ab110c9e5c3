"""Quantised bit-plane BDM: the complexity of each bit of quantised weights.

QuBD (arXiv 2605.15551) flattens every tensor of two or more dimensions to a matrix (rows, rest),
quantises it uniformly, and measures each bit of the levels as a binary matrix in 4x4 blocks. Where
the bits of most significance are less complex than those of noise, weights have structure that
their signs alone do not show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.errors import InvalidArgumentError
from momos_rs.records import Record

if TYPE_CHECKING:
    from .weights import Source

__all__ = [
    "BITS",
    "PERCENTILE",
    "Qubd",
    "SkippedTensor",
    "check_quantisation",
    "level_planes",
    "matrix_columns",
    "quantisation_range",
    "qubd",
    "tails",
    "tiled_plane",
]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

BITS = 8
MAX_BITS = 16
PERCENTILE = 99.9
WIDTH = 4
"""Rows and columns of a block."""


@dataclass(frozen=True)
class SkippedTensor(Record):
    """A tensor that is too small to be measured.

    Attributes:
        name: Its name.
        shape: Its shape.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Qubd(Record):
    """Quantised bit-plane BDM; as a sequence, the sums per plane.

    Attributes:
        planes: BDM of each bit-plane summed over the tensors, in bits, least significant first.
        total: Their sum: the complexity C_QuBD.
        tiled: BDM of the tiled manifolds summed over the tensors, None unless asked for.
        bits: Bits per quantised weight.
        robust: Whether the range was between percentiles instead of the extremes.
        percentile: The central share of the weights, in percent, that a robust range covers.
        measured: Names of the tensors measured.
        skipped: Tensors with fewer than two dimensions, or fewer than 4 rows or columns.
    """

    planes: tuple[float, ...]
    total: float
    tiled: float | None
    bits: int
    robust: bool
    percentile: float
    measured: tuple[str, ...]
    skipped: tuple[SkippedTensor, ...]

    def __len__(self) -> int:
        return len(self.planes)

    def __iter__(self) -> Iterator[float]:
        return iter(self.planes)

    def __getitem__(self, plane: int) -> float:
        return self.planes[plane]


def qubd(
    weights: Source,
    *,
    bits: int = BITS,
    robust: bool = False,
    percentile: float = PERCENTILE,
    tiled: bool = False,
    threads: int | None = None,
) -> Qubd:
    """Quantised bit-plane BDM of a tensor or a model.

    Levels are ``clamp(round((w - low) / step), 0, 2**bits - 1)``, ties to even, with
    ``step = (high - low) / (2**bits - 1)`` between the extremes or percentiles of each tensor; a
    range below 1e-8 is a constant, level 0. The arithmetic is float32, float64 for float64
    weights; narrower types are widened first.

    Args:
        weights: A tensor or array of any floating type, or a model: see
            :data:`momos_rs.complexity.Source`.
        bits: Bits per quantised weight, 1 to 16.
        robust: Quantise between percentiles instead of the extremes.
        percentile: The central share of the weights, in percent, that ``robust`` keeps; the
            percentiles are interpolated linearly as by ``torch.quantile``, without its limit.
        tiled: Also measure the tiled manifold, in which every weight becomes a tile of its bits:
            4x2 for 8 bits, 2x2 for 4, else a column.
        threads: Number of threads; all cores by default. The result does not depend on it.

    Returns:
        A sequence of the sums per plane, with what else is worth knowing as attributes.

    Raises:
        InvalidArgumentError: If an argument is out of its range, the source has no weights, or a
            tensor has NaN or infinities.
    """
    from .weights import collect_weights

    check_quantisation(bits, percentile)
    found = collect_weights(weights)
    sums = np.zeros(bits)
    tiled_sum = 0.0
    measured = []
    skipped = []
    for tensor in found.tensors:
        columns = matrix_columns(tensor.shape)
        if columns is None:
            skipped.append(SkippedTensor(tensor.name, tensor.shape))
            continue
        data = tensor.read()
        ends = quantisation_range(
            data, tensor.dtype, robust=robust, percentile=percentile, threads=threads
        )
        if ends is None:
            raise InvalidArgumentError(
                f"{found.source}: tensor {tensor.name!r} has NaN or infinite weights, "
                "which cannot be quantised; leave it out"
            )
        low, high = ends
        sums += level_planes(data, tensor.dtype, columns, bits, low, high, threads=threads)
        if tiled:
            tiled_sum += tiled_plane(data, tensor.dtype, columns, bits, low, high, threads=threads)
        measured.append(tensor.name)
    return Qubd(
        planes=tuple(sums.tolist()),
        total=math.fsum(sums),
        tiled=tiled_sum if tiled else None,
        bits=bits,
        robust=robust,
        percentile=percentile,
        measured=tuple(measured),
        skipped=tuple(skipped),
    )


def check_quantisation(bits: int, percentile: float) -> None:
    """Raises InvalidArgumentError unless both are in their ranges."""
    if not 1 <= bits <= MAX_BITS:
        raise InvalidArgumentError(f"bits must be between 1 and {MAX_BITS}, not {bits}")
    if not 0 < percentile <= 100:
        raise InvalidArgumentError(f"percentile must be above 0 and at most 100, not {percentile}")


def matrix_columns(shape: tuple[int, ...]) -> int | None:
    """Columns of a tensor taken as a matrix (rows, rest).

    Returns:
        None if it has fewer than two dimensions, or fewer than 4 rows or columns.
    """
    if len(shape) < 2:
        return None
    columns = math.prod(shape[1:])
    return columns if min(shape[0], columns) >= WIDTH else None


def quantisation_range(
    data: Bytes,
    dtype: str,
    *,
    robust: bool = False,
    percentile: float = PERCENTILE,
    threads: int | None = None,
) -> tuple[float, float] | None:
    """The ends between which weights are quantised.

    Args:
        data: The weights as little-endian bytes.
        dtype: Their type.
        robust: Between percentiles instead of the extremes.
        percentile: The central share of the weights, in percent, that ``robust`` keeps.
        threads: Number of threads; all cores by default.

    Returns:
        None if there are no weights or one is not finite.
    """
    ends = _core.finite_range(data, dtype, threads=threads)
    if ends is None or not robust:
        return ends
    low, high = _core.quantiles(data, dtype, tails(percentile), threads=threads)
    return low, high


def tails(percentile: float) -> list[float]:
    """The quantiles between which that share of the weights, in percent, lies."""
    tail = (1.0 - percentile / 100.0) / 2.0
    return [tail, 1.0 - tail]


def level_planes(
    data: Bytes,
    dtype: str,
    columns: int,
    bits: int,
    low: float,
    high: float,
    *,
    threads: int | None = None,
) -> tuple[float, ...]:
    """BDM of every bit-plane of a quantised matrix, least significant first.

    Args:
        data: The weights, row after row, as little-endian bytes.
        dtype: Their type.
        columns: Columns of the matrix.
        bits: Bits per quantised weight, 1 to 16.
        low: The weight of level 0.
        high: The weight of the highest level.
        threads: Number of threads; all cores by default.
    """
    return tuple(
        _core.level_plane_complexities(data, dtype, columns, bits, low, high, threads=threads)
    )


def tiled_plane(
    data: Bytes,
    dtype: str,
    columns: int,
    bits: int,
    low: float,
    high: float,
    *,
    threads: int | None = None,
) -> float:
    """BDM of the tiled manifold of a quantised matrix; arguments as of :func:`level_planes`."""
    return _core.tiled_complexity(data, dtype, columns, bits, low, high, threads=threads)
