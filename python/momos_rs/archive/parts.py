"""Reading a part of a tensor of an archive without decoding all of it.

Streams are made of chunks that are decoded on their own. What is kept between two parts is one
chunk at most, or for a transposed grid, whose chunks are columns of the tensor, a file on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.checkpoint.mapped_file import MappedFile, MappedPart
from momos_rs.dtypes import dtype
from momos_rs.limits import ELEMENTS_PER_CHUNK
from momos_rs.mosaic.mosaic import Motifs

from .document import BaseRecord, Kind
from .streams import decode_stream

__all__ = ["PIECES_DECODED", "Parts", "open_parts"]

PIECES_DECODED = 8
"""Pieces of a tensor that decoding one may take at most: it, its stream, and its indices twice
while they are cut to what is asked for, which have four bytes for a value of two if blocks have one
value."""

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Elements: TypeAlias = "npt.NDArray[np.void]"
Indices: TypeAlias = "npt.NDArray[np.uint32]"
Code: TypeAlias = "_core.IndexCode | _core.MotifTree"
Naming: TypeAlias = "Callable[[], AbstractContextManager[None]]"

Scalar = TypeVar("Scalar", bound=np.generic)
Threads: TypeAlias = "Callable[[], int | None]"

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
    threads: Threads,
    block_size: int,
) -> Parts:
    """The parts of a tensor that has a stream of its own; nothing is read yet.

    Args:
        kind: How it is stored.
        base: What the document says of it.
        stream: Returns its stream, the digest checked.
        naming: Names file and stream in the errors of what happens inside.
        motifs: Returns the motifs and how to decode indices.
        threads: Returns the number of threads that decode, None for all cores.
        block_size: Values per block of the mosaic, if there is one.
    """
    if kind == "exact":
        return _ExactParts(base, stream, naming, threads)
    if kind == "grid":
        return _GridParts(base, stream, naming, threads)
    return _MosaicParts(base, stream, naming, motifs, threads, block_size)


class _Chunks(Generic[Scalar]):
    """Items of a stream whose chunks are decoded whole, of which the last one is remembered."""

    def __init__(self, decode: Callable[[int, int], npt.NDArray[Scalar]]) -> None:
        """A stream.

        Args:
            decode: Returns the items from the first number, the start of a chunk, to before the
                second, the end of one.
        """
        self._decode = decode
        # The first item of the last chunk and all its items, if some of them are still to come.
        self._kept: tuple[int, npt.NDArray[Scalar]] | None = None

    def read(self, start: int, stop: int, per_chunk: int, total: int) -> npt.NDArray[Scalar]:
        """The items from ``start`` to before ``stop`` of ``total``."""
        parts = []
        kept, self._kept = self._kept, None
        if kept is not None and kept[0] <= start < kept[0] + kept[1].size:
            begin, items = kept
            parts.append(items[start - begin : stop - begin])
            start = begin + items.size
            if stop < start:
                self._kept = kept
        if start < stop or not parts:
            begin = start // per_chunk * per_chunk
            end = min(-(-stop // per_chunk) * per_chunk, total)
            items = self._decode(begin, end)
            parts.append(items[start - begin : stop - begin])
            if stop < end:
                last = stop // per_chunk * per_chunk
                self._kept = (last, items[last - begin :].copy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class _ExactParts:
    def __init__(
        self, base: BaseRecord, stream: Callable[[], Bytes], naming: Naming, threads: Threads
    ) -> None:
        self._base = base
        self._stream = stream
        self._naming = naming
        self._threads = threads
        self._chunks = _Chunks(self._decode)
        self.chunk = ELEMENTS_PER_CHUNK

    def read(self, start: int, stop: int) -> Bytes:
        with self._naming():
            elements = self._chunks.read(start, stop, ELEMENTS_PER_CHUNK, self._base.elements)
        return elements.view(np.uint8)

    def _decode(self, start: int, stop: int) -> Elements:
        base = self._base
        itemsize = dtype(base.dtype).itemsize
        decoded = decode_stream(
            self._stream(), base.nbytes, itemsize, part=(start, stop), threads=self._threads()
        )
        return decoded.view(f"V{itemsize}")


class _MosaicParts:
    def __init__(
        self,
        base: BaseRecord,
        stream: Callable[[], Bytes],
        naming: Naming,
        motifs: Callable[[], tuple[Motifs, Code]],
        threads: Threads,
        block_size: int,
    ) -> None:
        self._base = base
        self._stream = stream
        self._naming = naming
        self._threads = threads
        self._motifs = motifs
        self._block_size = block_size
        self._blocks = _core.block_count(base.elements, block_size)
        self._chunks = _Chunks(self._decode)
        self.chunk = BLOCKS_PER_CHUNK * block_size

    def read(self, start: int, stop: int) -> Bytes:
        base, block_size = self._base, self._block_size
        motifs, code = self._motifs()
        first, last = start // block_size, -(-stop // block_size)
        with self._naming():
            per_chunk = code.blocks_per_chunk(self._stream())
            indices = self._chunks.read(first, last, per_chunk, self._blocks)
            elements = min(last * block_size, base.elements) - first * block_size
            rebuilt = _core.scatter_blocks(
                motifs, indices, elements, base.dtype, threads=self._threads()
            )
        itemsize = dtype(base.dtype).itemsize
        skipped = start - first * block_size
        return rebuilt[skipped * itemsize : (skipped + stop - start) * itemsize]

    def _decode(self, start: int, stop: int) -> Indices:
        _, code = self._motifs()
        return code.decode(
            self._stream(), self._blocks, part=(start, stop), threads=self._threads()
        )


class _GridParts:
    def __init__(
        self, base: BaseRecord, stream: Callable[[], Bytes], naming: Naming, threads: Threads
    ) -> None:
        self._base = base
        self._stream = stream
        self._naming = naming
        self._threads = threads
        self._chunks = _Chunks(self._decode)
        self._spooled: MappedPart | None = None
        self.chunk = 1

    def read(self, start: int, stop: int) -> Bytes:
        if self._spooled is None:
            with self._naming():
                stream = self._stream()
                _, _, transposed, chunk = _core.grid_order(stream, self._base.elements)
                if not transposed:
                    elements = self._chunks.read(start, stop, chunk, self._base.elements)
                    return elements.view(np.uint8)
                self._spooled = self._spool(stream)
        return self._spooled.part(start, stop)

    def _decode(self, start: int, stop: int) -> Elements:
        base = self._base
        stream = self._stream()
        _, _, _, chunk = _core.grid_order(stream, base.elements)
        chunks = (start // chunk, -(-stop // chunk))
        decoded = _core.decode_grid_chunks(
            stream, base.elements, chunks, base.dtype, threads=self._threads()
        )
        return decoded.view(f"V{dtype(base.dtype).itemsize}")

    def _spool(self, stream: Bytes) -> MappedPart:
        """Decodes everything into a file, in the order of the tensor."""
        base = self._base
        itemsize = dtype(base.dtype).itemsize
        rows, columns, _, chunk = _core.grid_order(stream, base.elements)
        with tempfile.TemporaryFile() as file:
            file.truncate(base.nbytes)
            for number, first in enumerate(range(0, base.elements, chunk)):
                part = (number, number + 1)
                decoded = _core.decode_grid_chunks(
                    stream, base.elements, part, base.dtype, threads=self._threads()
                )
                row = first // columns
                band = np.ascontiguousarray(decoded.view(f"V{itemsize}").reshape(-1, columns).T)
                for column, values in enumerate(band):
                    file.seek((column * rows + row) * itemsize)
                    file.write(values.data)
            file.flush()
            return MappedPart(MappedFile.over(file), 0, base.elements, itemsize)
