"""Counted blocks to figures, and the streams that are counted."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core

from .report import BlockComplexity

__all__ = ["BitStream", "complexity_of_counts"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Counts: TypeAlias = "npt.NDArray[np.uint64]"


def complexity_of_counts(counts: Counts, bits: int) -> BlockComplexity:
    """The figures of a binary object.

    Args:
        counts: Occurrences of every 12-bit string (4,096) or every 4x4 square (65,536), by key.
        bits: Bits of the object.
    """
    blocks, distinct, plain, corrected = _core.block_entropy(counts)
    return BlockComplexity(
        bits=bits,
        blocks=blocks,
        distinct=distinct,
        possible=counts.size,
        bdm=_core.bdm_of_counts(counts, _table(counts.size)),
        entropy=plain,
        entropy_corrected=corrected,
        saturation=distinct / counts.size,
    )


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
