"""Finding out that blocks are few different ones, and which."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.runtime.resources import Resources, release

from .block_stream import Blocks, Floats

__all__ = ["find_distinct"]

_INDICES_PER_PIECE = 1 << 22


def find_distinct(
    blocks: Blocks,
    limit: int,
    indices: npt.NDArray[np.uint32],
    *,
    wide: bool,
    resources: Resources,
    progress: Callable[[int], object] | None = None,
) -> Floats | None:
    """The different blocks, told apart by bit pattern, in the order of their first occurrence.

    Args:
        blocks: The blocks of this process.
        limit: Most different blocks; memory is proportional to it.
        indices: (m,) where to put which of them each block is; undefined if there are too many.
        wide: Whether blocks are float64.
        resources: What may be used.
        progress: Called with the number of blocks gone through.

    Returns:
        (k, s) the different blocks of all processes, or None if there are more than the limit.
    """
    team = resources.team
    found = _core.DistinctBlocks(blocks.block_size, limit, wide=wide)
    within = True
    for start, chunk in blocks.chunks(blocks.own):
        numbers = found.add(chunk, threads=resources.threads)
        if numbers is None:
            within = False
            break
        indices[start : start + len(chunk)] = numbers
        release(indices)
        if progress:
            progress(start + len(chunk))
    if not all(team.join([within])):
        return None
    if team.size == 1:
        return found.rows
    counts = team.join([len(found.rows)])
    together = _core.DistinctBlocks(blocks.block_size, limit, wide=wide)
    everywhere = team.concatenate(found.rows)
    own_numbers = None
    start = 0
    for rank, count in enumerate(counts):
        numbers = together.add(everywhere[start : start + count], threads=resources.threads)
        if numbers is None:
            return None
        if rank == team.rank:
            own_numbers = numbers
        start += count
    assert own_numbers is not None
    for start in range(0, blocks.own, _INDICES_PER_PIECE):
        part = slice(start, min(start + _INDICES_PER_PIECE, blocks.own))
        indices[part] = own_numbers[indices[part]]
        release(indices)
    return together.rows
