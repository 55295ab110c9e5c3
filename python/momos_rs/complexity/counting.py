"""Counted blocks to figures, and the streams that are counted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core

from .report import BlockComplexity

__all__ = [
    "Bands",
    "BitStream",
    "Statistics",
    "complexity_of_counts",
    "random_bdm",
    "randomness_z",
    "statistics_of",
]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Counts: TypeAlias = "npt.NDArray[np.uint64]"


class Statistics(NamedTuple):
    """Of weights: counts, the range without NaN, and sums over the finite ones."""

    n: int
    zeros: int
    nans: int
    infinities: int
    least: float
    largest: float
    sum: float
    sum_of_squares: float


ROWS = 4
"""Rows of a 4x4 block."""


def statistics_of(pieces: Iterable[Bytes], name: str, *, threads: int | None = None) -> Statistics:
    """The statistics of weights in pieces of a multiple of 2^18, but for the last.

    Args:
        pieces: Little-endian bytes of the weights.
        name: Their type.
        threads: Number of threads; all cores by default.
    """
    found = _core.weight_statistics(np.empty(0, np.uint8), name, threads=threads)
    for data in pieces:
        found = _core.weight_statistics(data, name, before=found, threads=threads)
    return Statistics(*found)


def complexity_of_counts(counts: Counts, bits: int) -> BlockComplexity:
    """The figures of a binary object.

    Args:
        counts: Occurrences of every 12-bit string (4,096) or every 4x4 square (65,536), by key.
        bits: Bits of the object.
    """
    blocks, distinct, plain, corrected = _core.block_entropy(counts)
    bdm = _core.bdm_of_counts(counts, _table(counts.size)) if blocks else 0.0
    random = random_bdm(blocks, counts.size)
    return BlockComplexity(
        bits=bits,
        blocks=blocks,
        distinct=distinct,
        possible=counts.size,
        bdm=bdm,
        entropy=plain,
        entropy_corrected=corrected,
        saturation=distinct / counts.size,
        random_bdm=random,
        random_ratio=bdm / random if blocks else 1.0,
        randomness_z=randomness_z(plain, blocks, counts.size),
    )


@lru_cache(maxsize=1024)
def random_bdm(blocks: int, possible: int) -> float:
    """Expected BDM of blocks that are drawn uniformly, as those of fair coin flips are.

    Args:
        blocks: Number of blocks drawn.
        possible: Number of blocks there are: 4,096 strings or 65,536 squares.
    """
    if blocks == 0:
        return 0.0
    # The count of one block is binomial; what is more than 12 deviations off does not matter.
    mean = blocks / possible
    reach = 12 * math.sqrt(mean) + 40
    counts = np.arange(max(1, int(mean - reach)), min(blocks, int(mean + reach)) + 1)
    log_chance = (
        math.lgamma(blocks + 1)
        - _log_factorial(counts)
        - _log_factorial(blocks - counts)
        - counts * math.log(possible)
        + (blocks - counts) * math.log1p(-1 / possible)
    )
    chance = np.exp(log_chance)
    seen = float(chance.sum())
    logarithm = float((chance * np.log2(counts)).sum())
    return float(_table(possible).sum()) * seen + possible * logarithm


def randomness_z(entropy: float, blocks: int, possible: int) -> float | None:
    """Standard score of the G-test of counts against uniform ones.

    For uniform blocks ``G = 2 blocks (log2(possible) - entropy) ln 2`` is chi-squared with
    ``possible - 1`` degrees of freedom.

    Returns:
        None below 5 blocks for each possible one, where that does not hold.
    """
    if blocks < 5 * possible:
        return None
    statistic = 2 * blocks * (math.log2(possible) - entropy) * math.log(2)
    return (statistic - (possible - 1)) / math.sqrt(2 * (possible - 1))


def _log_factorial(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.array([math.lgamma(number + 1) for number in numbers.tolist()])


@cache
def _table(size: int) -> npt.NDArray[np.float64]:
    return _core.ctm_strings(12) if size == 4096 else _core.ctm_squares(4)


class BitStream:
    """Joins packed bits of any number to one stream of whole bytes."""

    def __init__(self) -> None:
        self._rest = 0
        self._bits = 0

    def append(self, packed: Bytes, bits: int) -> Bytes:
        """The bytes that are complete with these bits behind the earlier ones.

        Args:
            packed: Bits, eight to a byte, the first lowest; unused ones 0.
            bits: Number of bits.
        """
        shift = self._bits
        wide = np.zeros(packed.size + 1, np.uint8)
        wide[:-1] = packed << np.uint8(shift)
        if shift:
            wide[1:] |= packed >> np.uint8(8 - shift)
        wide[0] |= self._rest
        whole, self._bits = divmod(shift + bits, 8)
        self._rest = int(wide[whole]) if self._bits else 0
        return wide[:whole]

    def finish(self) -> Bytes:
        """The last byte, if one is begun, filled up with zeros."""
        return np.full(min(self._bits, 1), self._rest, np.uint8)


class Bands:
    """Cuts the weights of a matrix that come in pieces into bands of whole 4x4 blocks."""

    def __init__(self, row_bytes: int) -> None:
        """A matrix with that many bytes a row."""
        self._band = ROWS * row_bytes
        self._rest = np.empty(0, np.uint8)

    def cut(self, data: Bytes) -> Iterator[Bytes]:
        """Bands of a multiple of four rows; what is left over waits for the next piece."""
        if self._rest.size:
            needed = self._band - self._rest.size
            self._rest = np.concatenate([self._rest, data[:needed]])
            if self._rest.size < self._band:
                return
            yield self._rest
            data = data[needed:]
        whole = data.size - data.size % self._band
        if whole:
            yield data[:whole]
        self._rest = data[whole:].copy()
