"""The precision of motifs, and what it adds to the distortion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core, defaults
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.resources import release

from .block_stream import Blocks, Floats, as_working, batch_bounds
from .lloyd import Assignment

__all__ = ["Precise", "apply_precision", "distortion"]

Indices: TypeAlias = "npt.NDArray[np.uint32]"

_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_MANTISSA_BITS = {"F64": 52, "F32": 23, "F16": 10, "BF16": 7}

_MOST_TRIALS = 8


@dataclass(frozen=True, eq=False)
class Precise:
    """Motifs of a precision, to which the blocks are assigned.

    Attributes:
        table: (k, s) motifs.
        dtype: The type that holds every value exactly.
        step: The step of the grid that every value lies on, or None.
    """

    table: Floats
    dtype: str
    step: float | None = None


def apply_precision(
    assignment: Assignment, table: Floats, common: str, motif_dtype: defaults.MotifDtype
) -> Precise:
    """Rounds motifs and assigns the blocks again where that may matter.

    Args:
        assignment: The m blocks, of s values each, with the nearest motif of each.
        table: (k, s) motifs in working precision.
        common: The narrowest type that holds all tensors.
        motif_dtype: The precision asked for.

    Raises:
        InvalidArgumentError: If a motif is too large for the type asked for.
    """
    if motif_dtype in ("auto", "fixed"):
        error = distortion(assignment, table)
        step = _grid_step(assignment.blocks, error)
        if step is not None and (motif_dtype == "fixed" or _pays(table, step, common)):
            return _on_grid(assignment, table, error, step, common)
    name = _DTYPES.get(motif_dtype, common)
    if name == "F64" or (name == "F32" and table.dtype == np.float32):
        return Precise(table, name)
    rounded = _round(table, name, assignment.resources.threads)
    if not np.isfinite(rounded).all():
        raise InvalidArgumentError(
            f"weights of up to {np.abs(table).max():.4g} do not fit motifs of type {motif_dtype}"
        )
    if not np.array_equal(rounded, table):
        assignment.assign(rounded)
    return Precise(rounded, name)


def distortion(assignment: Assignment, table: Floats) -> float:
    """The sum of squared differences between blocks and their motifs.

    It is summed batch by batch in the order of all blocks. A batch belongs to the process in whose
    range it begins, which has all of its blocks.
    """
    sums = _distortions(assignment.blocks, table, assignment.indices)
    return assignment.resources.team.ordered_sum(sums)


def _distortions(blocks: Blocks, table: Floats, indices: Indices) -> Iterator[float]:
    """The distortion of every batch."""
    for start, chunk in blocks.chunks():
        first = blocks.first + start
        for batch, end in batch_bounds(first, first + len(chunk)):
            part = chunk[batch - first : end - first].astype(np.float64)
            difference = part - table[indices[batch - blocks.first : end - blocks.first]]
            yield float(np.einsum("ij,ij->", difference, difference))
        release(indices)


def _grid_step(blocks: Blocks, error: float) -> float | None:
    """The step whose rounding adds its share to an error; None if there is no error to share.

    Rounding to a grid of step d adds d^2 / 12 to every value.
    """
    step = math.sqrt(
        12 * defaults.FIXED_POINT_LOSS * error / max(blocks.total * blocks.block_size, 1)
    )
    return step if step > 0 and math.isfinite(step) else None


def _pays(table: Floats, step: float, common: str) -> bool:
    """Whether the grid is coarser than the type at values of typical size."""
    typical = math.sqrt(float(np.mean(np.square(table, dtype=np.float64))))
    return step > typical * 2.0 ** -_MANTISSA_BITS[common]


def _on_grid(
    assignment: Assignment, table: Floats, error: float, step: float, common: str
) -> Precise:
    """Motifs on the coarsest grid tried that adds no more than its share to the error."""
    name = "F64" if common == "F64" else "F32"
    for _ in range(_MOST_TRIALS):
        # Adding zero makes -0 a 0, which is what its integer stands for.
        integers = np.rint(table.astype(np.float64) / step) + 0.0
        rounded = as_working(integers * step, table)
        assignment.assign(rounded)
        if distortion(assignment, rounded) <= error * (1 + defaults.FIXED_POINT_LOSS):
            return Precise(rounded, name, step)
        step *= 0.8
    assignment.assign(table)
    return Precise(table, name)


def _round(table: Floats, name: str, threads: int | None) -> Floats:
    rows = np.arange(len(table), dtype=np.uint32)
    rounded = _core.scatter_blocks(table, rows, table.size, name, threads=threads)
    gathered = _core.gather_blocks([(rounded, name)], table.shape[1], threads=threads)
    return as_working(gathered, table)
