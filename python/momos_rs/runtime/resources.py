"""What a computation may use: memory, threads, other processes, and a place for temporary files."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from momos_rs.errors import Argument, InvalidArgumentError

from .budget import (
    LARGEST_PIECE,
    LEAST_PIECE,
    Shares,
    default_budget,
    format_size,
    parse_size,
)
from .team import SOLO, Team

__all__ = [
    "BLOCKS_PER_BATCH",
    "PIECE_BYTES",
    "BlockPlan",
    "Resources",
    "memory_budget",
    "new_indices",
    "release",
]

Indices = npt.NDArray[np.uint32]

BLOCKS_PER_BATCH = 1 << 16
"""Chunks of blocks begin at multiples of this: distortions are summed over that many."""

PIECE_BYTES = 1 << 23
"""Bytes of a piece of a tensor that is only looked at: enough for all threads to work on."""

_LEAST_CHUNK = 1 << 20
_SEARCH_BLOCKS_PER_MOTIF = 8
"""Blocks that are worth searching at once; the fewer, the less those near each other help. A search
among few of them takes twice as long, and reading them again in every pass next to nothing."""


@dataclass(frozen=True)
class BlockPlan:
    """How blocks are gone through.

    Attributes:
        chunk: Blocks in memory at a time, a multiple of :data:`BLOCKS_PER_BATCH`, unless all are.
        keep: Whether the blocks stay in memory between passes, or are read again for each.
        indices_in_memory: Whether the motif of each block stays in memory, or goes to a file.
    """

    chunk: int
    keep: bool
    indices_in_memory: bool


@dataclass(frozen=True)
class Resources:
    """What a computation may use.

    Attributes:
        memory: Bytes of memory of all processes on this machine together, beyond what the program
            takes itself, or a size like ``"4G"``; by default half of what is free, and more if the
            motifs need it.
        threads: Number of threads of this process; all cores by default, divided between the
            processes on this machine.
        folder: Where temporary files go, which have no name; the system's place by default.
        team: The processes that work together.
    """

    memory: int | str | None = None
    threads: int | None = None
    folder: Path | None = None
    team: Team = SOLO

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InvalidArgumentError(
                Argument("threads"), f" must be at least 1, not {self.threads}"
            )
        if self.threads is None and self.team.local_size > 1:
            threads = max((os.cpu_count() or 1) // self.team.local_size, 1)
            object.__setattr__(self, "threads", threads)
        _ = self.budget  # checks itself

    @property
    def budget(self) -> int | None:
        """Bytes of memory of this process; None for the default."""
        return memory_budget(self.memory, self.team.local_size)

    def plan(
        self,
        blocks: int,
        motifs: int,
        block_size: int,
        *,
        wide: bool,
        per_block: int = 0,
    ) -> BlockPlan:
        """How to go through blocks to represent them by motifs.

        Args:
            blocks: Number of blocks of this process.
            motifs: Number of motifs, k.
            block_size: Values per block, s.
            wide: Whether values are float64, not float32.
            per_block: Bytes that are needed besides for each block in memory.

        Raises:
            InvalidArgumentError: If the memory asked for is not enough.
        """
        value = 8 if wide else 4
        row = value * block_size
        fixed = motif_bytes(motifs, block_size, wide=wide)
        work = row + _SEARCH_BYTES_PER_BLOCK + per_block
        least = fixed + min(blocks, BLOCKS_PER_BATCH) * (row + work)
        budget = self.budget
        if budget is None:
            budget = default_budget() // self.team.local_size
        if budget < least:
            if self.memory is not None:
                raise self._too_little(least, budget, motifs, block_size)
            budget = least
        free = budget - fixed
        kept = blocks * (row + _INDEX_BYTES)
        wanted = max(_LEAST_CHUNK, _SEARCH_BLOCKS_PER_MOTIF * motifs)
        if free - kept >= min(blocks, wanted) * work:
            return BlockPlan(_chunk((free - kept) // work, blocks), True, True)
        indices = blocks * _INDEX_BYTES
        in_memory = indices <= free // 4
        if in_memory:
            free -= indices
        return BlockPlan(_chunk(free // (row + work), blocks), False, in_memory)

    def _too_little(
        self, least: int, budget: int, motifs: int, block_size: int
    ) -> InvalidArgumentError:
        """Says how much memory motifs need."""
        processes = self.team.local_size
        each = "" if processes == 1 else f" in each of {processes} processes"
        return InvalidArgumentError(
            f"making {motifs:,} motifs of {block_size} values takes at least "
            f"{format_size(least)} of memory{each}, and {format_size(budget)} are allowed; allow "
            "it more (",
            Argument("memory", format_size(least * processes)),
            "), or take fewer motifs",
        )

    def share_out(self, *, doing: str, once: int, per_thread: int, pieces: int) -> Shares:
        """Divides the memory between what is needed anyway, threads and pieces of tensors.

        Args:
            doing: What takes the memory, for the message.
            once: Bytes that are needed however many threads there are.
            per_thread: Bytes that each thread needs.
            pieces: Pieces of tensors, in one form or another, that are in memory at once.

        Raises:
            InvalidArgumentError: If the memory asked for is not enough; the message says what is.
        """
        needed = _ANYWAY + once + per_thread + pieces * LEAST_PIECE
        budget = self.budget
        if budget is None:
            budget = max(default_budget(), needed)
        elif budget < needed:
            raise InvalidArgumentError(
                f"{doing} takes at least {format_size(needed)} of memory, and "
                f"{format_size(budget)} are allowed; allow it more (",
                Argument("memory", format_size(needed)),
                ")",
            )
        free = budget - needed
        threads = self.threads or os.cpu_count() or 1
        workers = min(threads, 1 + free // 2 // max(per_thread, 1))
        free -= (workers - 1) * per_thread
        return Shares(workers, min(LEAST_PIECE + free // pieces, LARGEST_PIECE))


_ANYWAY = 64_000_000
"""What small tensors that are read ahead of their turn take, and all that is too small to count."""

_SEARCH_BYTES_PER_BLOCK = 32
"""Besides the blocks themselves, which a search may copy: their order, and what it found."""

_INDEX_BYTES = 4

_FIXED_BYTES = 40_000_000
"""For pieces of tensors and of streams, whatever the numbers of blocks and motifs."""


def motif_bytes(motifs: int, block_size: int, *, wide: bool) -> int:
    """Peak bytes for the motifs and their tables while they are made or coded.

    Measured: a search takes 40 + 9 s bytes per motif, sums and moved motifs 16 + 16 s, coding
    50 + 35 s at the end, for float32.
    """
    return _FIXED_BYTES + motifs * (64 + (88 if wide else 44) * block_size)


def _chunk(blocks: int, all_blocks: int) -> int:
    if blocks >= all_blocks:
        return max(all_blocks, 1)
    return max(blocks // BLOCKS_PER_BATCH, 1) * BLOCKS_PER_BATCH


def memory_budget(memory: int | str | None, processes: int = 1) -> int | None:
    """The bytes of memory of each of the processes on a machine.

    Args:
        memory: Bytes, or a size as :func:`momos_rs.runtime.budget.parse_size` reads it, for all
            of them; None for the default.
        processes: Their number.

    Returns:
        Bytes, or None for the default.

    Raises:
        InvalidArgumentError: If that is no size.
    """
    if memory is None:
        return None
    nbytes = parse_size(memory) if isinstance(memory, str) else memory
    if nbytes < 1:
        raise InvalidArgumentError(Argument("memory"), f" must be at least one byte, not {nbytes}")
    return max(nbytes // processes, 1)


def new_indices(blocks: int, plan: BlockPlan, folder: Path | None) -> Indices:
    """Room for the motif of each block, in memory or in a file without a name.

    Nothing of the file is left when the array is gone or the process ends, however it ends.

    Args:
        blocks: Number of blocks.
        plan: Says where.
        folder: Where files go.

    Raises:
        OSError: If there is no room for the file.
    """
    if plan.indices_in_memory or blocks == 0:
        return np.zeros(blocks, np.uint32)
    with tempfile.TemporaryFile(dir=folder) as file:
        nbytes = blocks * _INDEX_BYTES
        if hasattr(os, "posix_fallocate"):
            # A full disk is an error here, not a signal when a page is written.
            os.posix_fallocate(file.fileno(), 0, nbytes)
        else:
            file.truncate(nbytes)
        return np.memmap(file, np.uint32, "r+", shape=(blocks,))


def release(array: npt.NDArray[Any]) -> None:
    """Lets go of the pages of a file that :func:`new_indices` mapped; they are read again if
    somebody looks. Does nothing to arrays in memory."""
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
