"""Every limit of files in one place, each with its reason.

The writer refuses what the reader would.
"""

from __future__ import annotations

__all__ = [
    "DOCUMENT_EXPANSION",
    "ELEMENTS_PER_CHUNK",
    "FREE_DOCUMENT_BYTES",
    "GROUPED_BYTES",
    "MAX_BLOCK_SIZE",
    "MAX_CODE_LENGTHS",
    "MAX_DOCUMENT_BYTES",
    "MAX_EXPANSION",
    "MAX_FREE_BYTES",
    "MAX_INFLATED_BYTES",
    "MAX_INFLATION",
    "MAX_RANK",
]

ELEMENTS_PER_CHUNK = 1 << 20
"""Elements per independently compressed chunk of an exact tensor: a few megabytes, enough for the
compressor to learn from and small enough that threads share one large tensor."""

GROUPED_BYTES = 1 << 18
"""Exact tensors of one type share streams of about this many bytes: hundreds of biases would pay
more for their streams than for their values, and reading one of them decodes no more than this."""

MAX_DOCUMENT_BYTES = 100_000_000
"""Most bytes of an archive's document: as many as a safetensors header may have."""

FREE_DOCUMENT_BYTES = 1 << 20
"""Bytes that a document of any compressed size may have: as text a few of them are an object, which
takes some twenty times as much."""

DOCUMENT_EXPANSION = 64
"""Bytes of a document beyond those per byte compressed. Names and shapes of real models compress by
less than twenty."""

MAX_CODE_LENGTHS = 49
"""Numbers of motifs by the length of their code: no code of an index is longer than 48 bits."""

MAX_RANK = 64
"""Most dimensions of a tensor; torch itself allows 64."""

MAX_FREE_BYTES = 1 << 30
"""Decoded bytes that a file of any size may announce: a mosaic of a single motif takes no bits."""

MAX_EXPANSION = 1024
"""Decoded bytes beyond those per byte of the file. Mosaics of real models expand by less than a
hundred; only weights that are constant over long stretches expand by more."""

MAX_BLOCK_SIZE = 4096
"""Most values of a block, as of the core."""

MAX_INFLATED_BYTES = 1 << 28
"""Bytes that the compressed records of a PyTorch file of any size may hold; torch writes none, only
files that were zipped anew by hand have them, and they are held in memory."""

MAX_INFLATION = 16
"""Bytes of compressed records beyond those per byte of the file."""
