"""Reading an archive: its document at once, its tensors one by one when they are asked for."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.checkpoint.mapped_file import MappedFile
from momos_rs.checkpoint.model import Base, Checkpoint, Entry
from momos_rs.checkpoint.safetensors_layout import Header, head_bytes, parse_header
from momos_rs.dtypes import dtype
from momos_rs.errors import CorruptionError, InsufficientDataError, MomosError
from momos_rs.limits import ELEMENTS_PER_CHUNK
from momos_rs.mosaic.mosaic import Mosaic, Motifs

from .document import (
    DOCUMENT_SECTION,
    MOTIFS_SECTION,
    SECTIONS,
    BaseRecord,
    Document,
    GridRecord,
    Kind,
    check_version,
    decode_document,
)
from .motifs import decode_motifs
from .parts import Parts, open_parts
from .streams import decode_stream
from .writer import DIGEST_KEY, NO_DIGEST, VERSION_KEY, ArchiveSummary, section_digest, summarise

if TYPE_CHECKING:
    import torch

__all__ = ["Archive", "open_archive"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Indices: TypeAlias = "npt.NDArray[np.uint32]"
Code: TypeAlias = "_core.IndexCode | _core.MotifTree"

CODECS: Mapping[Kind, Mapping[int, str]] = {
    "mosaic": {0: "fixed width", 1: "prefix code", 2: "contexts", 3: "mixing"},
    "exact": {0: "stored", 1: "zstd", 2: "planes", 3: "rotated planes", 4: "floats", 5: "fields"},
    "grid": {0: "grid"},
}
"""Names of the codecs of streams by their first byte."""

DIGEST_BYTES = 1 << 24
"""Bytes of a stream that are resident at a time while its digest is checked."""

GRID_CHUNK_BYTES = 20 << 22
"""What decoding one chunk of a grid takes: 2^22 values as integers, as float64 and as they are."""

GROUPS_KEPT = 4
"""Decoded groups of small tensors that are kept while their neighbours are read."""


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
    file = MappedFile(path)
    try:
        if file.size == 0:
            raise InsufficientDataError(f"{path} is empty")
        return Archive(file, str(path), max_bytes=max_bytes)
    except BaseException:
        file.close()
        raise


class Archive(Mapping[str, "torch.Tensor"]):
    """An open archive: a mapping of names to tensors, decoded one at a time.

    Reading a tensor decodes only its own section (and, once, the motifs), after checking the
    digest. Use it as a context manager, or call :meth:`close`.

    Attributes:
        document: What the archive says of itself.
        source: Path of the file, for messages.
        threads: Number of threads that decode; all cores by default.
    """

    threads: int | None = None

    def __init__(
        self, data: MappedFile | bytes, source: str, *, max_bytes: int | None = None
    ) -> None:
        self.source = source
        self._data = data
        self._size = data.size if isinstance(data, MappedFile) else len(data)
        self._header, version, document = _parse(self._at, self._size, source)
        self._check_sections()
        self.document: Document = decode_document(
            document, version=version, source=source, file_size=self._size, max_bytes=max_bytes
        )
        self._starts = self._place_streams()
        self._members = {
            base: start
            for stream in self.document.streams
            if stream.kind == "exact"
            for base, start in zip(stream.bases, self._starts_in(stream.bases), strict=True)
        }
        self._names: dict[int, tuple[str, int]] = {}
        for entry in self.document.entries:
            at = self.document.stream_of.get(entry.base, -1)
            name, count = self._names.get(at, (entry.name, 0))
            self._names[at] = name, count + 1
        self._read_group = lru_cache(GROUPS_KEPT)(self._decode_group)
        self._whole: set[int] = set()
        self._decoded_motifs: tuple[Motifs, Code] | None = None
        self._motifs_lock = threading.Lock()
        self._entries = {entry.name: entry for entry in self.document.entries}

    def _starts_in(self, bases: Sequence[int]) -> Iterator[int]:
        """Where each of some bases starts in the elements that they have together, in bytes."""
        start = 0
        for base in bases:
            yield start
            start += self.document.bases[base].nbytes

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
        if isinstance(self._data, MappedFile):
            self._data.close()

    def __getitem__(self, name: str) -> torch.Tensor:
        from momos_rs.checkpoint import to_state_dict

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
        return summarise(self.document, sections, self._header.data_start)

    def decoding_memory(self) -> tuple[int, int]:
        """About the bytes that decoding takes besides the tensors: once, and for each thread."""
        if self.document.grid is not None:
            return 0, GRID_CHUNK_BYTES
        record = self.document.mosaic
        per_thread = (
            ELEMENTS_PER_CHUNK
            * 3
            * max((dtype(base.dtype).itemsize for base in self.document.bases), default=1)
        )
        if record is None:
            return 0, per_thread
        width = 8 if record.dtype == "F64" else 4
        per_motif = 2 * width * record.block_size
        if record.index == "path":
            # The tree, what one of the codecs makes of it, and a probability of each node.
            per_motif += 12 * record.block_size + 29
            per_thread += 4 * record.motifs
        return per_motif * record.motifs, per_thread

    def checkpoint(self) -> Checkpoint:
        """The tensors as a checkpoint whose bases decode when they are read."""
        return Checkpoint(
            entries=self.document.entries,
            bases=tuple(map(self._lazy_base, range(len(self.document.bases)))),
            source=self.source,
            format="momos",
            nbytes_on_disk=self._size,
            metadata=dict(self.document.metadata),
            versions={name: dict(each) for name, each in self.document.versions.items()},
            header=self.document.header.encode(),
        )

    def read_base(self, index: int, *, progress: Callable[[int], object] | None = None) -> Bytes:
        """The elements of one base as little-endian bytes.

        Raises:
            CorruptionError: If its section is damaged.
        """
        base = self.document.bases[index]
        if base.copy_of is not None:
            return self.read_base(base.copy_of, progress=progress)
        at = self.document.stream_of[index]
        stream = self.document.streams[at]
        if stream.kind == "exact":
            if len(stream.bases) == 1:
                return self._decode_group(at)
            start = self._members[index]
            return self._read_group(at)[start : start + base.nbytes]
        if stream.kind == "grid":
            with self._naming(self._stream_name(at)):
                multiples = _core.decode_grid(self._stream(at), base.elements, threads=self.threads)
                return multiples.to_bytes(base.dtype)
        motifs, code = self._motifs
        with self._naming(self._stream_name(at)):
            return _core.scatter_blocks(
                motifs,
                code.decode(self._stream(at), self._blocks(base), threads=self.threads),
                base.elements,
                base.dtype,
                threads=self.threads,
                progress=progress,
            )

    def codec(self, index: int) -> str:
        """The codec of the stream of a base; of the original for a copy."""
        copy_of = self.document.bases[index].copy_of
        at = self.document.stream_of[index if copy_of is None else copy_of]
        stream = self.document.streams[at]
        if not stream.nbytes:
            return "none"
        first = int(self._at(self._header.data_start + self._starts[at], 1)[0])
        return CODECS[stream.kind].get(first, f"unknown ({first})")

    def mosaic(self) -> Mosaic | None:
        """The mosaic, its motifs in the archive's order; None if everything is exact."""
        record = self.document.mosaic
        if self.document.grid is not None:
            return self._grid_mosaic(self.document.grid)
        if record is None:
            return None
        motifs, code = self._motifs
        parts = [np.zeros(0, np.uint32)]
        members = self.document.members()
        for member in members:
            at = self.document.stream_of[member]
            with self._naming(self._stream_name(at)):
                blocks = self._blocks(self.document.bases[member])
                parts.append(code.decode(self._stream(at), blocks, threads=self.threads))
        return Mosaic(
            motifs=motifs,
            indices=np.concatenate(parts),
            elements=tuple(self.document.bases[member].elements for member in members),
            dtype=record.dtype,
            requested_motifs=record.requested_motifs,
            exact=record.exact,
        )

    def _grid_mosaic(self, record: GridRecord) -> Mosaic:
        from momos_rs.mosaic.grid import mosaic_of_blocks

        decoded = [
            (self.read_base(index), self.document.bases[index].dtype)
            for index in self.document.members("grid")
        ]
        return mosaic_of_blocks(decoded, record.block_size)

    def _decode_group(self, at: int) -> Bytes:
        """The elements of all bases of an exact stream."""
        bases = [self.document.bases[index] for index in self.document.streams[at].bases]
        nbytes = sum(base.nbytes for base in bases)
        with self._naming(self._stream_name(at)):
            itemsize = dtype(bases[0].dtype).itemsize
            return decode_stream(self._stream(at), nbytes, itemsize, threads=self.threads)

    def _blocks(self, base: BaseRecord) -> int:
        assert self.document.mosaic is not None
        return _core.block_count(base.elements, self.document.mosaic.block_size)

    @property
    def _motifs(self) -> tuple[Motifs, Code]:
        """The motifs in the order of their numbers, and how to decode these; decoded once."""
        with self._motifs_lock:
            if self._decoded_motifs is None:
                self._decoded_motifs = self._decode_motifs()
            return self._decoded_motifs

    def _decode_motifs(self) -> tuple[Motifs, Code]:
        record = self.document.mosaic
        assert record is not None
        with self._naming(f"section {MOTIFS_SECTION!r}"):
            info = self._header.tensors[MOTIFS_SECTION]
            start = self._header.data_start + info.start
            self._check_digest(start, info.nbytes, record.digest)
            section = self._at(start, info.nbytes)
            table = decode_motifs(section, record.block_size, record.dtype, record.motifs)
            del section
            motifs = _core.gather_blocks(
                [(table, record.dtype)], record.block_size, wide=record.dtype == "F64"
            )
            if record.index == "prefix":
                return motifs, _core.IndexCode(list(record.code_lengths))
            tree = _core.MotifTree(table, record.block_size, record.dtype)
            del table
            return motifs[tree.rows], tree

    def _lazy_base(self, index: int) -> Base:
        record = self.document.bases[index]
        original = index if record.copy_of is None else record.copy_of
        at = self.document.stream_of[original]
        stream = self.document.streams[at]
        parts: Parts | None = None
        if len(stream.bases) == 1:
            naming = partial(self._naming, self._stream_name(at))
            parts = open_parts(
                stream.kind,
                self.document.bases[original],
                partial(self._stream, at),
                naming,
                lambda: self._motifs,
                lambda: self.threads,
                self.document.mosaic.block_size if self.document.mosaic else 1,
            )
        return Base(
            record.dtype,
            record.elements,
            lambda: self.read_base(index),
            decodes=True,
            read_part=parts.read if parts else None,
            chunk=parts.chunk if parts else 1,
        )

    def _stream(self, at: int) -> Bytes:
        """A stream, its digest checked when it is read for the first time."""
        stream = self.document.streams[at]
        start = self._header.data_start + self._starts[at]
        if at not in self._whole:
            self._check_digest(start, stream.nbytes, stream.digest)
            self._whole.add(at)
        return self._at(start, stream.nbytes)

    def _at(self, start: int, nbytes: int) -> Bytes:
        """Some bytes of the archive."""
        if isinstance(self._data, MappedFile):
            return self._data.read(start, nbytes, mapped=True)
        return np.frombuffer(self._data, np.uint8, nbytes, start)

    def _check_digest(self, start: int, nbytes: int, digest: str) -> None:
        """Checks the digest of bytes, of which only a piece at a time becomes resident."""
        found = _core.Digest()
        for first in range(start, start + nbytes, DIGEST_BYTES):
            found.update(self._at(first, min(DIGEST_BYTES, start + nbytes - first)))
        if found.hexdigest()[: len(NO_DIGEST)] != digest:
            raise CorruptionError("its digest does not match: the file is damaged")

    def _stream_name(self, at: int) -> str:
        """The section of a stream, and a tensor in it."""
        kind = self.document.streams[at].kind
        name, count = self._names.get(at, ("", 0))
        more = f" and {count - 1} more" if count > 1 else ""
        return f"section {SECTIONS[kind]!r}, {name!r:.200}{more}"

    @contextlib.contextmanager
    def _naming(self, part: str) -> Iterator[None]:
        """Names the file and a part of it in the errors of what happens inside."""
        try:
            yield
        except MomosError as error:
            raise type(error)(f"{self.source}: {part}: {error}") from None

    def _check_sections(self) -> None:
        known = {DOCUMENT_SECTION, MOTIFS_SECTION, *SECTIONS.values()}
        for name, info in self._header.tensors.items():
            if name not in known:
                raise CorruptionError(f"{self.source}: section {name!r} belongs to nothing")
            if info.dtype != "U8" or len(info.shape) != 1 or info.nbytes == 0:
                raise CorruptionError(f"{self.source}: section {name!r} is no stream of bytes")

    def _place_streams(self) -> tuple[int, ...]:
        """Where each stream starts; checks that sections are what their streams need."""
        ends = {
            name: info.start
            for name, info in self._header.tensors.items()
            if name in SECTIONS.values()
        }
        starts = []
        for stream in self.document.streams:
            section = SECTIONS[stream.kind]
            if section not in ends:
                raise CorruptionError(f"{self.source}: section {section!r} is missing")
            starts.append(ends[section])
            ends[section] += stream.nbytes
        for section, end in ends.items():
            if end != self._header.tensors[section].stop:
                raise CorruptionError(
                    f"{self.source}: section {section!r} has not the length of its streams"
                )
        if (MOTIFS_SECTION in self._header.tensors) != (self.document.mosaic is not None):
            what = "is missing" if self.document.mosaic else "belongs to nothing"
            raise CorruptionError(f"{self.source}: section {MOTIFS_SECTION!r} {what}")
        return tuple(starts)


def _parse(
    at: Callable[[int, int], Bytes], size: int, source: str
) -> tuple[Header, tuple[int, int], bytes]:
    """The header, the version and the document; checks the digest of header and document."""
    head = head_bytes(at(0, min(8, size)).tobytes(), size)
    header = parse_header(at(0, head).data, source=source, size=size)
    if VERSION_KEY not in header.metadata:
        raise CorruptionError(f"{source} is not a .momos archive: it is a plain safetensors file")
    version = check_version(header.metadata[VERSION_KEY], source)
    document = header.tensors.get(DOCUMENT_SECTION)
    if document is None or document.start != 0:
        raise CorruptionError(f"{source}: section {DOCUMENT_SECTION!r} is missing")
    digest = header.metadata.get(DIGEST_KEY, "").encode()
    raw = at(0, header.data_start + document.nbytes).tobytes()
    blank = raw.replace(digest, NO_DIGEST.encode(), 1) if len(digest) == len(NO_DIGEST) else raw
    if section_digest(np.frombuffer(blank, np.uint8)).encode() != digest:
        raise CorruptionError(f"{source}: the header does not match its digest: it is damaged")
    return header, version, raw[header.data_start :]
