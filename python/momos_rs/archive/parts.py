"""Reading a part of a tensor of an archive without decoding all of it.

Streams are made of chunks that are decoded on their own. What is kept between two parts is one
chunk at most, or for a transposed grid, whose chunks are columns of the tensor, a file on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import _core
from ..checkpoint.mapped_file import MappedFile, MappedPart
from ..dtypes import dtype
from ..limits import ELEMENTS_PER_CHUNK
from ..mosaic import Motifs
from .document import BaseRecord, Kind
from .streams import decode_stream

__all__ = ["Parts", "open_parts"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Indices: TypeAlias = "npt.NDArray[np.uint32]"
Code: TypeAlias = "_core.IndexCode | _core.MotifTree"
Naming: TypeAlias = "Callable[[], AbstractContextManager[None]]"

BLOCKS_PER_CHUNK = 1 << 17
"""Blocks of a chunk of most index streams; a stream of another codec is not cut as well."""


class Parts(Protocol):
    """A tensor that can be read in parts.

    Attributes:
        chunk: Elements that are decoded together.
    """

    chunk: int

    def read(self, start: int, stop: int) -> Bytes:
        """The elements from ``start`` to before ``stop``, as little-endian bytes.

        Raises:
            CorruptionError: If its stream is damaged.
        """


def open_parts(
    kind: Kind,
    base: BaseRecord,
    stream: Callable[[], Bytes],
    naming: Naming,
    motifs: Callable[[], tuple[Motifs, Code]],
    block_size: int,
) -> Parts:
    """The parts of a tensor that has a stream of its own; nothing is read yet.

    Args:
        kind: How it is stored.
        base: What the document says of it.
        stream: Returns its stream, the digest checked.
        naming: Names file and stream in the errors of what happens inside.
        motifs: Returns the motifs and how to decode indices.
        block_size: Values per block of the mosaic, if there is one.
    """
    if kind == "exact":
        return _ExactParts(base, stream, naming)
    if kind == "grid":
        return _GridParts(base, stream, naming)
    return _MosaicParts(base, stream, naming, motifs, block_size)


class _ExactParts:
    def __init__(self, base: BaseRecord, stream: Callable[[], Bytes], naming: Naming) -> None:
        self._base = base
        self._stream = stream
        self._naming = naming
        self.chunk = ELEMENTS_PER_CHUNK

    def read(self, start: int, stop: int) -> Bytes:
        base = self._base
        with self._naming():
            return decode_stream(
                self._stream(), base.nbytes, dtype(base.dtype).itemsize, part=(start, stop)
            )


class _MosaicParts:
    def __init__(
        self,
        base: BaseRecord,
        stream: Callable[[], Bytes],
        naming: Naming,
        motifs: Callable[[], tuple[Motifs, Code]],
        block_size: int,
    ) -> None:
        self._base = base
        self._stream = stream
        self._naming = naming
        self._motifs = motifs
        # The number of the last chunk decoded and its indices, if some of them are still to come.
        self._kept: tuple[int, Indices] | None = None
        self._block_size = block_size
        self.chunk = BLOCKS_PER_CHUNK * block_size

    def read(self, start: int, stop: int) -> Bytes:
        base = self._base
        motifs, code = self._motifs()
        block_size = self._block_size
        first, last = start // block_size, -(-stop // block_size)
        with self._naming():
            indices = self._indices(code, first, last)
            elements = min(last * block_size, base.elements) - first * block_size
            rebuilt = _core.scatter_blocks(motifs, indices, elements, base.dtype)
        itemsize = dtype(base.dtype).itemsize
        skipped = start - first * block_size
        return rebuilt[skipped * itemsize : (skipped + stop - start) * itemsize]

    def _indices(self, code: Code, first: int, last: int) -> Indices:
        """The indices of the blocks from ``first`` to before ``last``."""
        stream = self._stream()
        blocks = _core.block_count(self._base.elements, self._block_size)
        per_chunk = code.blocks_per_chunk(stream)
        parts = []
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] * per_chunk <= first < (kept[0] + 1) * per_chunk:
            number, indices = kept
            begin = number * per_chunk
            parts.append(indices[first - begin : last - begin])
            first = begin + indices.size
            if last < first:
                self._kept = kept
        if first < last:
            begin = first // per_chunk * per_chunk
            end = min(-(-last // per_chunk) * per_chunk, blocks)
            indices = code.decode(stream, blocks, part=(begin, end))
            parts.append(indices[first - begin : last - begin])
            if last < end:
                number = last // per_chunk
                self._kept = (number, indices[number * per_chunk - begin :].copy())
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint32), *parts])


class _GridParts:
    def __init__(self, base: BaseRecord, stream: Callable[[], Bytes], naming: Naming) -> None:
        self._base = base
        self._stream = stream
        self._naming = naming
        self._spooled: MappedPart | None = None
        self.chunk = 1

    def read(self, start: int, stop: int) -> Bytes:
        base = self._base
        if self._spooled is not None:
            return self._spooled.part(start, stop)
        with self._naming():
            stream = self._stream()
            _, _, transposed, chunk = _core.grid_order(stream, base.elements)
            if not transposed:
                self.chunk = chunk
                first = start // chunk
                decoded = _core.decode_grid_chunks(
                    stream, base.elements, (first, -(-stop // chunk)), base.dtype
                )
                itemsize = dtype(base.dtype).itemsize
                skipped = (start - first * chunk) * itemsize
                return decoded[skipped : skipped + (stop - start) * itemsize]
            self._spooled = self._spool(stream)
        return self._spooled.part(start, stop)

    def _spool(self, stream: Bytes) -> MappedPart:
        """Decodes everything into a file, in the order of the tensor."""
        base = self._base
        itemsize = dtype(base.dtype).itemsize
        rows, columns, _, chunk = _core.grid_order(stream, base.elements)
        with tempfile.TemporaryFile() as file:
            file.truncate(base.nbytes)
            for number, first in enumerate(range(0, base.elements, chunk)):
                part = (number, number + 1)
                decoded = _core.decode_grid_chunks(stream, base.elements, part, base.dtype)
                row = first // columns
                band = np.ascontiguousarray(decoded.view(f"V{itemsize}").reshape(-1, columns).T)
                for column, values in enumerate(band):
                    file.seek((column * rows + row) * itemsize)
                    file.write(values.data)
            file.flush()
            return MappedPart(MappedFile.over(file), 0, base.elements, itemsize)
