"""Quantised bit-plane BDM (QuBD, arXiv 2605.15551): the planes of quantised weight matrices."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from . import _core

__all__ = ["level_planes", "matrix_columns"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

WIDTH = 4
"""Rows and columns of a block."""


def matrix_columns(shape: tuple[int, ...]) -> int | None:
    """Columns of a tensor taken as a matrix (rows, rest).

    Returns:
        None if it has fewer than two dimensions, or fewer than 4 rows or columns.
    """
    if len(shape) < 2:
        return None
    columns = int(np.prod(shape[1:], dtype=np.int64))
    return columns if min(shape[0], columns) >= WIDTH else None


def level_planes(
    data: Bytes,
    dtype: str,
    columns: int,
    *,
    bits: int,
    robust: bool = False,
    percentile: float = 99.9,
    threads: int | None = None,
) -> tuple[float, ...]:
    """BDM of every bit-plane of a quantised matrix, least significant first.

    Args:
        data: The weights, row after row, as little-endian bytes; all finite.
        dtype: Their type.
        columns: Columns of the matrix.
        bits: Bits per quantised weight, 1 to 16.
        robust: Quantise between percentiles instead of the extremes.
        percentile: The central share of the weights, in percent, that ``robust`` keeps.
        threads: Number of threads; all cores by default.
    """
    assert not robust, percentile
    found = _core.finite_range(data, dtype, threads=threads)
    assert found is not None
    low, high = found
    return tuple(
        _core.level_plane_complexities(data, dtype, columns, bits, low, high, threads=threads)
    )
