"""The blocks of a model as a stream, in bounded memory.

The blocks of all tensors follow one another: tensor after tensor, each flattened in C order and cut
into blocks of ``s`` consecutive values, its last block padded with zeros. They are gathered in
chunks, in the working precision; if there is room, all of them stay in memory between passes.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.checkpoint.model import Base
from momos_rs.dtypes import dtype
from momos_rs.runtime.resources import BLOCKS_PER_BATCH, BlockPlan

__all__ = ["BlockSource", "Blocks", "Floats", "Sample", "as_working", "batch_bounds"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Floats: TypeAlias = "npt.NDArray[np.float32] | npt.NDArray[np.float64]"
Chosen: TypeAlias = "npt.NDArray[np.uint64]"

_VALUES_PER_GATHER = 1 << 24
"""Values gathered at a time where all blocks stay in memory."""


class BlockSource(Protocol):
    """Blocks that can be gone through any number of times."""

    @property
    def first(self) -> int:
        """Number of the first of them, in the order of those of all processes."""

    @property
    def own(self) -> int:
        """How many of them count; those that follow are also another process's."""

    def __len__(self) -> int:
        """Number of blocks."""

    def chunks(self) -> Iterator[tuple[int, Floats]]:
        """The first block of each chunk, counted from 0, and the blocks."""

    def take(self, chosen: Chosen) -> Floats:
        """Some of the blocks.

        Args:
            chosen: Ascending numbers, in the order of those of all processes; those that are not
                own are passed over.
        """


class Blocks:
    """The blocks of some tensors, or the range of them that a process takes care of.

    Args:
        bases: The tensors.
        block_size: Values per block, s.
        wide: Whether to gather float64 instead of float32.
        plan: How many blocks to gather at a time, and whether to keep them.
        first: The first block of the range.
        own: How many of its blocks count; those that follow are also another process's. All by
            default.
        stop: One past the last block of the range; all blocks by default.
        threads: Number of threads; all cores by default.

    Attributes:
        first: The first block of the range.
        own: How many of its blocks count.
        total: Number of blocks of all tensors, m.
        block_size: Values per block, s.
    """

    def __init__(
        self,
        bases: Sequence[Base],
        block_size: int,
        *,
        wide: bool,
        plan: BlockPlan,
        first: int = 0,
        own: int | None = None,
        stop: int | None = None,
        threads: int | None = None,
    ) -> None:
        self._bases = bases
        counts = [_core.block_count(base.numel, block_size) for base in bases]
        self._starts = [0, *accumulate(counts)]
        self.total = self._starts[-1]
        self.block_size = block_size
        self.first = first
        self.stop = self.total if stop is None else stop
        self.own = self.stop - first if own is None else own
        self._wide = wide
        self._plan = plan
        self._threads = threads
        self._kept: Floats | None = None
        self._whole: tuple[int, Bytes] | None = None

    def __len__(self) -> int:
        """Number of blocks of the range."""
        return self.stop - self.first

    def chunks(self, stop: int | None = None) -> Iterator[tuple[int, Floats]]:
        """Goes through the blocks of the range.

        Chunks end at multiples of :data:`~momos_rs.runtime.resources.BLOCKS_PER_BATCH` in the
        order of all blocks, or at the end of the range.

        Args:
            stop: Where to end, counted from the beginning of the range.

        Yields:
            The first block, counted from the beginning of the range, and the (n, s) blocks.
            A caller that drops one before asking for the next keeps one chunk in memory.
        """
        end = self.stop if stop is None else min(self.first + stop, self.stop)
        start = self.first
        if self._plan.chunk >= len(self):
            edges = [end]
        else:
            step = self._plan.chunk
            edges = [*range(start // step * step + step, end, step), end]
        for edge in edges:
            if edge > start:
                yield start - self.first, self.read(start, edge)
            start = edge

    def read(self, start: int, stop: int) -> Floats:
        """The blocks from one number up to another, in the order of all blocks.

        Args:
            start: The first block, within the range.
            stop: One past the last.

        Returns:
            (stop - start, s) float32, or float64 if the blocks are wide; not to be written to.
        """
        if not self._plan.keep:
            return self._gather(start, stop)
        if self._kept is None:
            self._kept = self._gather_all()
        return self._kept[start - self.first : stop - self.first]

    def take(self, chosen: Chosen) -> Floats:
        """As :meth:`BlockSource.take`."""
        return _take(self, chosen)

    def largest(self) -> float:
        """The largest magnitude of the values of all blocks of the range."""
        chunks = (blocks for _, blocks in self.chunks())
        largest = (_core.largest_block(blocks, threads=self._threads) for blocks in chunks)
        return max(largest, default=0.0)

    def empty(self, blocks: int) -> Floats:
        """Room for that many blocks."""
        if self._wide:
            return np.empty((blocks, self.block_size), np.float64)
        return np.empty((blocks, self.block_size), np.float32)

    def _gather_all(self) -> Floats:
        blocks = self.empty(len(self))
        step = max(_VALUES_PER_GATHER // self.block_size, 1)
        for start in range(self.first, self.stop, step):
            stop = min(start + step, self.stop)
            blocks[start - self.first : stop - self.first] = self._gather(start, stop)
        return blocks

    def _gather(self, start: int, stop: int) -> Floats:
        parts = []
        at = bisect.bisect_right(self._starts, start) - 1
        while at < len(self._bases) and self._starts[at] < stop:
            base, before = self._bases[at], self._starts[at]
            low = max(start - before, 0) * self.block_size
            high = min((stop - before) * self.block_size, base.numel)
            if high > low:
                parts.append((self._part(at, low, high), base.dtype))
            at += 1
        return _core.gather_blocks(parts, self.block_size, wide=self._wide, threads=self._threads)

    def _part(self, at: int, start: int, stop: int) -> Bytes:
        """Elements of a tensor; one that has no parts is read once and kept for the next."""
        base = self._bases[at]
        if base.read_part is not None:
            return base.read_part(start, stop)
        if self._whole is None or self._whole[0] != at:
            self._whole = None
            self._whole = at, base.read()
        size = dtype(base.dtype).itemsize
        data = self._whole[1][start * size : stop * size]
        if stop == base.numel:
            self._whole = None
        return data


class Sample:
    """Blocks drawn at random, one of every ``width`` consecutive ones, as a source of its own.

    Which one depends on the seed alone, so nothing needs to be remembered of a sample, however
    large. The draws are the numbers of SplitMix64 (Steele, Lea and Flood, 2014).

    Args:
        blocks: The blocks; those that are not own are passed over.
        width: How many blocks each is drawn from.
        seed: Seed of the draw, below 2^64.
        keep: Whether to keep the sample in memory, or to pick it out anew in every pass.
    """

    def __init__(self, blocks: Blocks, width: int, seed: int, *, keep: bool = False) -> None:
        self._blocks = blocks
        self._width = width
        self._seed = seed
        end = blocks.first + blocks.own
        self._length = sum(
            len(self._drawn(start, min(start + _BLOCKS_PER_DRAW, end)))
            for start in range(blocks.first, end, _BLOCKS_PER_DRAW)
        )
        self._kept: list[Floats] | None = None
        if keep:
            self._kept = [np.concatenate([rows for _, rows in self.chunks()])] if len(self) else []

    def __len__(self) -> int:
        """Number of blocks of the sample that are own."""
        return self._length

    @property
    def own(self) -> int:
        """Number of blocks of the sample, all of which count."""
        return self._length

    @property
    def first(self) -> int:
        """Number of the first block of the sample, in the order of those of all processes."""
        before = self._blocks.first // self._width
        edge = before * self._width
        return before + len(self._drawn(edge, self._blocks.first))

    def take(self, chosen: Chosen) -> Floats:
        """As :meth:`BlockSource.take`."""
        return _take(self, chosen)

    def empty(self, blocks: int) -> Floats:
        """Room for that many blocks."""
        return self._blocks.empty(blocks)

    def chunks(self) -> Iterator[tuple[int, Floats]]:
        """As :meth:`BlockSource.chunks`."""
        if self._kept is not None:
            yield from ((0, rows) for rows in self._kept)
            return
        done = 0
        for start, blocks in self._blocks.chunks(self._blocks.own):
            first = self._blocks.first + start
            drawn = self._drawn(first, first + len(blocks))
            if len(drawn):
                yield done, blocks[drawn - first]
            done += len(drawn)

    def _drawn(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The blocks drawn within a range, in the order of all blocks."""
        windows = np.arange(start // self._width, -(-stop // self._width), dtype=np.int64)
        begins = windows * self._width
        widths = np.minimum(begins + self._width, self._blocks.total) - begins
        drawn = begins + (_random(self._seed, windows) % widths.view(np.uint64)).view(np.int64)
        return drawn[(drawn >= start) & (drawn < stop)]


def _take(source: Blocks | Sample, chosen: Chosen) -> Floats:
    """Some blocks of a source, by one pass over all of them."""
    low, high = np.searchsorted(chosen, [source.first, source.first + source.own])
    own = (chosen[low:high] - np.uint64(source.first)).astype(np.int64)
    taken = source.empty(len(own))
    for start, blocks in source.chunks():
        low, high = np.searchsorted(own, [start, start + len(blocks)])
        np.take(blocks, own[low:high] - start, axis=0, out=taken[low:high])
    return taken


_BLOCKS_PER_DRAW = 1 << 20


def _random(seed: int, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Some of the numbers that SplitMix64 gives for a seed, counted from 0."""
    state = np.uint64(seed) + (numbers.view(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


_GOLDEN = 0x9E3779B97F4A7C15


def as_working(values: npt.NDArray[np.float64] | Floats, like: Floats) -> Floats:
    """Values in the working precision of others."""
    if like.dtype == np.float64:
        return values.astype(np.float64)
    return values.astype(np.float32)


def batch_bounds(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The batches of :data:`~momos_rs.runtime.resources.BLOCKS_PER_BATCH` that begin in a range.

    Args:
        start: The first block of the range, in the order of all blocks.
        stop: One past the last.

    Yields:
        First block and one past the last of each.
    """
    first = -(-start // BLOCKS_PER_BATCH) * BLOCKS_PER_BATCH
    for batch in range(first, stop, BLOCKS_PER_BATCH):
        yield batch, min(batch + BLOCKS_PER_BATCH, stop)
