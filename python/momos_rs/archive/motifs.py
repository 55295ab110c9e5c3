"""The stream of the motifs.

Its codecs below 4 are those of any bytes (see :mod:`.streams`), applied to the regrouped table;
the others are the core's, which know what a motif is.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core, defaults
from momos_rs.dtypes import dtype
from momos_rs.errors import InsufficientDataError

from .streams import decode_stream, encode_stream

__all__ = ["decode_motifs", "encode_motifs"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

_CODECS_OF_BYTES = 4


def encode_motifs(
    table: Bytes,
    block_size: int,
    name: str,
    *,
    step: float | None = None,
    effort: defaults.Effort = defaults.EFFORT,
) -> bytes:
    """The stream of a table of motifs.

    Args:
        table: Little-endian elements, row by row, in the order of the archive.
        block_size: Values per motif.
        name: Their type.
        step: The step of the grid on which all values lie, if they do.
        effort: How much time coding may take.

    Returns:
        The stream, never more than one byte longer than the table.
    """
    motifs = table.size // (block_size * dtype(name).itemsize)
    # The planes are made already; the stream codec sees bytes.
    regrouped = _core.regroup_motifs(table, block_size, name, motifs)
    if effort != "fast" or step is not None:
        stream = _core.encode_motifs(table, block_size, name, motifs, step=step)
        if stream.size <= table.size:
            return stream.tobytes()
    return encode_stream(regrouped, 1, floating=False, general=True)


def decode_motifs(stream: Bytes, block_size: int, name: str, motifs: int) -> Bytes:
    """Inverts :func:`encode_motifs`.

    Args:
        stream: The stream.
        block_size: Values per motif.
        name: Their type.
        motifs: Their number; the caller has checked that it may allocate them.

    Raises:
        InsufficientDataError: If the stream ends early.
        CorruptionError: If it contradicts itself.
        UnsupportedVersionError: If the codec is unknown.
    """
    if stream.size == 0:
        raise InsufficientDataError("a stream ends early")
    if stream[0] >= _CODECS_OF_BYTES:
        return _core.decode_motifs(stream, block_size, name, motifs)
    nbytes = motifs * block_size * dtype(name).itemsize
    regrouped = decode_stream(stream, nbytes, 1)
    return _core.restore_motifs(np.ascontiguousarray(regrouped), block_size, name, motifs)
