"""The stream of the motifs."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .. import _core, defaults
from .streams import decode_stream, encode_stream

__all__ = ["decode_motifs", "encode_motifs"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

FIRST_OWN_CODEC = 4
"""Codecs below this one are those of bytes, applied to the regrouped table; the others are the
core's."""


def encode_motifs(
    table: Bytes, block_size: int, dtype: str, step: float | None, effort: defaults.Effort
) -> Bytes:
    """The stream of a table of motifs.

    Args:
        table: Little-endian elements, row by row, in the order of the archive.
        block_size: Values per motif.
        dtype: Their type.
        step: The distance of the grid on which all values lie, or None if there is none.
        effort: How much time it may take.

    Returns:
        The stream, never more than one byte longer than the table.
    """
    motifs = len(table) // (block_size * np.dtype("u1").itemsize)
    raise NotImplementedError(motifs)
