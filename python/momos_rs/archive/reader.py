"""Reading an archive: its document at once, its tensors one by one when they are asked for."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import _core
from ..checkpoint.model import Base, Checkpoint, Entry
from ..dtypes import dtype
from ..errors import CorruptionError, InsufficientDataError, MomosError
from ..mosaic import Mosaic, Motifs
from ..safetensors_format import Header, parse_header
from .document import (
    GRID_SECTION,
    MOTIFS_SECTION,
    BaseRecord,
    Document,
    GridRecord,
    check_readable,
    decode_document,
    section_name,
)
from .packed_document import DOCUMENT_SECTION, stub_digest, unpack_document
from .streams import decode_stream
from .writer import DIGEST_KEY, DOCUMENT_KEY, NO_DIGEST, ArchiveSummary, summarise

if TYPE_CHECKING:
    import torch

__all__ = ["Archive", "open_archive"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Buffer: TypeAlias = "mmap.mmap | bytes"


def open_archive(
    source: str | os.PathLike[str] | bytes, *, max_bytes: int | None = None
) -> Archive:
    """Opens an archive without decoding any tensor.

    Args:
        source: Path of the file, which is mapped, or its bytes.
        max_bytes: Most bytes of tensors to accept. By default an archive may announce 1 GiB and
            1,024 bytes for every byte of its own.

    Raises:
        OSError: If the file cannot be read.
        CorruptionError: If it is no archive, or a damaged one.
        InsufficientDataError: If it is truncated.
        UnsupportedVersionError: If it needs a newer version of momos.
    """
    if isinstance(source, bytes):
        return Archive(source, "the archive", max_bytes=max_bytes)
    path = Path(source)
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise InsufficientDataError(f"{path} is empty")
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return Archive(buffer, str(path), max_bytes=max_bytes)
    except BaseException:
        buffer.close()
        raise


class Archive(Mapping[str, "torch.Tensor"]):
    """An open archive: a mapping of names to tensors, decoded one at a time.

    Reading a tensor decodes only its own section (and, once, the motifs), after checking the
    digest. Use it as a context manager, or call :meth:`close`.

    Attributes:
        document: What the archive says of itself.
        source: Path of the file, for messages.
    """

    def __init__(self, buffer: Buffer, source: str, *, max_bytes: int | None = None) -> None:
        self.source = source
        self._buffer = buffer
        self._header = _parse(buffer, source)
        self.document: Document = decode_document(
            self._document_text(),
            source=source,
            file_size=len(buffer),
            max_bytes=max_bytes,
        )
        self._check_sections()
        self._entries = {entry.name: entry for entry in self.document.entries}

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file; tensors already read stay valid."""
        if isinstance(self._buffer, mmap.mmap):
            # Bytes still viewed by someone keep the mapping alive until they let go.
            with contextlib.suppress(BufferError):
                self._buffer.close()

    def __getitem__(self, name: str) -> torch.Tensor:
        from ..checkpoint import to_state_dict

        entry = self._entries[name]
        single = Checkpoint(
            entries=(Entry(name, entry.shape, 0, entry.offset, entry.strides),),
            bases=(self._lazy_base(entry.base),),
            source=self.source,
        )
        return to_state_dict(single)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Archive {self.source}: {len(self)} tensors>"

    @property
    def summary(self) -> ArchiveSummary:
        """What the archive takes, section by section."""
        sections = [(each.name, each.nbytes) for each in self._header.tensors.values()]
        return summarise(
            self.document.bases, sections, self._header.data_start, self.document.mosaic
        )

    def checkpoint(self) -> Checkpoint:
        """The tensors as a checkpoint whose bases decode when they are read."""
        return Checkpoint(
            entries=self.document.entries,
            bases=tuple(map(self._lazy_base, range(len(self.document.bases)))),
            source=self.source,
            format="momos",
            nbytes_on_disk=len(self._buffer),
            metadata=dict(self.document.metadata),
        )

    def read_base(self, index: int, *, progress: Callable[[int], object] | None = None) -> Bytes:
        """The elements of one base as little-endian bytes.

        Raises:
            CorruptionError: If its section is damaged.
        """
        base = self.document.bases[index]
        if base.stored == "copy":
            assert base.copy_of is not None
            return self.read_base(base.copy_of, progress=progress)
        name = section_name(index, base.stored)
        with self._naming(name if base.stored != "grid" else f"{name} of base {index}"):
            if base.stored == "grid":
                return self._read_grid(index, base)
            stream = self._section(name, base.digest)
            if base.stored == "exact":
                return decode_stream(stream, base.nbytes, dtype(base.dtype).itemsize)
            motifs, code = self._motifs
            indices = self._indices(base, stream, code)
            return _core.scatter_blocks(
                motifs, indices, base.elements, base.dtype, progress=progress
            )

    def mosaic(self) -> Mosaic | None:
        """The mosaic, its motifs in the archive's order; None if everything is exact."""
        record = self.document.mosaic
        if self.document.grid is not None:
            return self._grid_mosaic(self.document.grid)
        if record is None:
            return None
        motifs, code = self._motifs
        parts = []
        members = [
            (index, base)
            for index, base in enumerate(self.document.bases)
            if base.stored == "mosaic"
        ]
        for index, base in members:
            name = section_name(index, "mosaic")
            with self._naming(name):
                parts.append(self._indices(base, self._section(name, base.digest), code))
        return Mosaic(
            motifs=motifs,
            indices=np.concatenate(parts) if parts else np.zeros(0, np.uint32),
            elements=tuple(base.elements for _, base in members),
            dtype=record.dtype,
            requested_motifs=record.requested_motifs,
            exact=record.exact,
        )

    def _read_grid(self, index: int, base: BaseRecord) -> Bytes:
        assert base.stream_bytes is not None
        start = sum(each.stream_bytes or 0 for each in self.document.bases[:index])
        section = self._raw_section(GRID_SECTION)[start : start + base.stream_bytes]
        _check_digest(section, base.digest)
        return _core.decode_grid(section, base.elements).to_bytes(base.dtype)

    def _grid_mosaic(self, record: GridRecord) -> Mosaic:
        from ..structured import mosaic_of_blocks

        decoded = [
            (self.read_base(index), base.dtype)
            for index, base in enumerate(self.document.bases)
            if base.stored == "grid"
        ]
        return mosaic_of_blocks(decoded, record.block_size)

    def _indices(
        self, base: BaseRecord, stream: Bytes, code: _core.IndexCode
    ) -> npt.NDArray[np.uint32]:
        assert self.document.mosaic is not None
        blocks = _core.block_count(base.elements, self.document.mosaic.block_size)
        return code.decode(stream, blocks)

    @cached_property
    def _motifs(self) -> tuple[Motifs, _core.IndexCode]:
        record = self.document.mosaic
        assert record is not None
        with self._naming(MOTIFS_SECTION):
            nbytes = record.motifs * record.block_size * dtype(record.dtype).itemsize
            regrouped = decode_stream(self._section(MOTIFS_SECTION, record.digest), nbytes, 1)
            table = _core.restore_motifs(
                np.ascontiguousarray(regrouped), record.block_size, record.dtype, record.motifs
            )
            motifs = _core.gather_blocks(
                [(table, record.dtype)], record.block_size, wide=record.dtype == "F64"
            )
            return motifs, _core.IndexCode(list(record.code_lengths))

    def _lazy_base(self, index: int) -> Base:
        record = self.document.bases[index]
        return Base(record.dtype, record.elements, lambda: self.read_base(index))

    def _document_text(self) -> str:
        """The document, from the metadata or from its own section."""
        text = self._header.metadata[DOCUMENT_KEY]
        digest = stub_digest(text)
        if digest is None:
            return text
        # The stub says first whether this reader can go on.
        check_readable(text, source=self.source)
        if DOCUMENT_SECTION not in self._header.tensors:
            raise CorruptionError(f"{self.source}: section {DOCUMENT_SECTION!r} is missing")
        with self._naming(DOCUMENT_SECTION):
            return unpack_document(self._section(DOCUMENT_SECTION, digest))

    def _section(self, name: str, digest: str) -> Bytes:
        section = self._raw_section(name)
        _check_digest(section, digest)
        return section

    def _raw_section(self, name: str) -> Bytes:
        info = self._header.tensors[name]
        start = self._header.data_start + info.start
        return np.frombuffer(self._buffer, np.uint8, info.nbytes, start)

    @contextlib.contextmanager
    def _naming(self, section: str) -> Iterator[None]:
        """Names the file and the section in the errors of what happens inside."""
        try:
            yield
        except MomosError as error:
            raise type(error)(f"{self.source}: section {section!r}: {error}") from None

    def _check_sections(self) -> None:
        expected = {MOTIFS_SECTION} if self.document.mosaic else set()
        expected |= {
            section_name(index, base.stored)
            for index, base in enumerate(self.document.bases)
            if base.stored != "copy"
        }
        if stub_digest(self._header.metadata[DOCUMENT_KEY]) is not None:
            expected.add(DOCUMENT_SECTION)
        found = self._header.tensors
        for name in sorted(expected ^ found.keys()):
            what = "is missing" if name in expected else "belongs to nothing"
            raise CorruptionError(f"{self.source}: section {name!r} {what}")
        for name, info in found.items():
            if info.dtype != "U8" or len(info.shape) != 1 or info.nbytes == 0:
                raise CorruptionError(f"{self.source}: section {name!r} is no stream of bytes")
        if GRID_SECTION in expected:
            announced = sum(base.stream_bytes or 0 for base in self.document.bases)
            if announced != found[GRID_SECTION].nbytes:
                raise CorruptionError(
                    f"{self.source}: section {GRID_SECTION!r} holds {found[GRID_SECTION].nbytes} "
                    f"bytes instead of {announced}"
                )


def _check_digest(section: Bytes, digest: str) -> None:
    if _core.digest(section) != digest:
        raise CorruptionError("its digest does not match: the file is damaged")


def _parse(buffer: Buffer, source: str) -> Header:
    header = parse_header(buffer, source=source)
    if DOCUMENT_KEY not in header.metadata:
        raise CorruptionError(f"{source} is not a .momos archive: it is a plain safetensors file")
    digest = header.metadata.get(DIGEST_KEY, "").encode()
    raw = bytes(buffer[: header.data_start])
    blank = raw.replace(digest, NO_DIGEST.encode(), 1) if len(digest) == len(NO_DIGEST) else raw
    if _core.digest(np.frombuffer(blank, np.uint8)).encode() != digest:
        raise CorruptionError(f"{source}: the header does not match its digest: it is damaged")
    return header
