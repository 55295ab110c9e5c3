"""Writing an archive: sections are spooled while they are made, then follow their header."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .. import _core, defaults
from ..ahead import map_ahead
from ..checkpoint.model import Checkpoint
from ..dtypes import dtype
from ..files import replacing
from ..limits import GROUPED_BYTES
from ..mosaic import Mosaic
from ..safetensors_format import encode_header
from .document import (
    DOCUMENT_SECTION,
    MOTIFS_SECTION,
    SECTIONS,
    VERSION,
    BaseRecord,
    Document,
    GridRecord,
    IndexCoding,
    Kind,
    MosaicRecord,
    StreamRecord,
    decode_document,
    encode_document,
)
from .motifs import encode_motifs
from .streams import encode_stream

__all__ = [
    "DIGEST_KEY",
    "NO_DIGEST",
    "VERSION_KEY",
    "ArchiveSummary",
    "GridSections",
    "section_digest",
    "summarise",
    "write_archive",
    "write_sections",
]

VERSION_KEY = "momos"
DIGEST_KEY = "momos.digest"
NO_DIGEST = "0" * 16
"""What stands in the place of the head's digest while it is computed."""


def section_digest(data: npt.NDArray[np.uint8]) -> str:
    """The digest of bytes in an archive: the first 64 bits of their XXH3-128."""
    return _core.digest(data)[:16]


@dataclass(frozen=True)
class ArchiveSummary:
    """What an archive takes.

    Attributes:
        file_bytes: Size of the file.
        section_bytes: Bytes of the header, the document, the motifs, the indices, the
            grids and the exact tensors.
        stream_bytes: Bytes of the stream of each base, 0 for a copy; where several bases share a
            stream, their shares by size.
        motifs_used: Motifs that represent a block: those that are stored.
    """

    file_bytes: int
    section_bytes: dict[str, int]
    stream_bytes: tuple[int, ...]
    motifs_used: int


@dataclass(frozen=True)
class GridSections:
    """Tensors on grids, ready to be written.

    Attributes:
        streams: The stream of each base.
        record: What is said of all of them.
    """

    streams: Mapping[int, npt.NDArray[np.uint8]]
    record: GridRecord


class _Spool:
    """Streams waiting on disk until their sections can be written."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.stack = contextlib.ExitStack()
        self.files: dict[str, IO[bytes]] = {}
        self.sizes: dict[str, int] = {}
        self.streams: list[StreamRecord] = []

    def __enter__(self) -> _Spool:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stack.close()

    def add(self, section: str, data: bytes | npt.NDArray[np.uint8]) -> tuple[int, str]:
        """Appends to a section; returns the size and the digest of what was appended."""
        view = np.frombuffer(data, np.uint8)
        if section not in self.files:
            file = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 - the stack closes it
            self.files[section] = self.stack.enter_context(file)
        self.files[section].write(view.data)
        self.sizes[section] = self.sizes.get(section, 0) + view.size
        return view.size, section_digest(view)

    def add_stream(
        self, kind: Kind, bases: Sequence[int], data: bytes | npt.NDArray[np.uint8]
    ) -> None:
        """Appends the stream of some bases to the section of its kind."""
        self.streams.append(StreamRecord(kind, tuple(bases), *self.add(SECTIONS[kind], data)))

    def copy_to(self, target: IO[bytes]) -> None:
        """Appends all sections to a file, in the order in which they were begun."""
        for file in self.files.values():
            file.seek(0)
            shutil.copyfileobj(file, target, 1 << 20)


def write_archive(
    path: Path,
    checkpoint: Checkpoint,
    mosaic: Mosaic | None,
    members: Sequence[int],
    *,
    copies: Mapping[int, int],
    settings: Mapping[str, Any],
    overwrite: bool,
    grid: GridSections | None = None,
    effort: defaults.Effort = defaults.EFFORT,
    threads: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> ArchiveSummary:
    """Writes a checkpoint and the mosaic of some of its bases as an archive.

    Args:
        path: The file to write; it appears complete or not at all.
        checkpoint: All tensors.
        mosaic: The mosaic, None if there is none.
        members: Bases that the mosaic represents, in the order of its tensors.
        copies: Bases that equal an earlier one, by which they are represented.
        settings: How the mosaic was made, for the document.
        overwrite: Whether an existing file may be replaced.
        grid: The bases that lie on grids.
        effort: How much time coding may take: ``"fast"``, ``"default"`` or ``"best"``.
        threads: Number of threads; all cores by default.
        progress: Called while work goes on.

    Raises:
        OSError: If the file cannot be written.
        InvalidArgumentError: If a name cannot be written.
        CorruptionError: If a reader would refuse the archive because it expands too much.
    """
    with replacing(path, overwrite=overwrite) as target:
        return write_sections(
            target,
            path,
            checkpoint,
            mosaic,
            members,
            copies=copies,
            settings=settings,
            grid=grid,
            effort=effort,
            threads=threads,
            progress=progress,
        )


def write_sections(
    target: IO[bytes],
    path: Path | None,
    checkpoint: Checkpoint,
    mosaic: Mosaic | None,
    members: Sequence[int],
    *,
    copies: Mapping[int, int],
    settings: Mapping[str, Any],
    grid: GridSections | None = None,
    effort: defaults.Effort = defaults.EFFORT,
    threads: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> ArchiveSummary:
    """Writes an archive into an open file; arguments as for :func:`write_archive`."""
    report = progress or (lambda _phase, _done, _total: None)
    directory = None if path is None else path.absolute().parent
    with _Spool(directory) as spool:
        record = None
        if mosaic is not None:
            coding = _prefix_coding(mosaic) if effort == "fast" else _path_coding(mosaic)
            record = _add_motifs(spool, mosaic, coding, settings, effort)
            row_lengths = _row_lengths(checkpoint)

            def encode(position: int) -> npt.NDArray[np.uint8]:
                return coding.encode(
                    coding.numbers[mosaic.tensor_indices(position)],
                    row_lengths.get(members[position], 0) / mosaic.block_size,
                    effort,
                    threads,
                )

            sizes = [checkpoint.bases[base].nbytes for base in members]
            streams = map_ahead(encode, range(len(members)), sizes, threads=threads)
            for position, stream in enumerate(streams):
                spool.add_stream("mosaic", [members[position]], stream)
                report("encode", position + 1, len(checkpoint.bases))
        on_grids = {} if grid is None else grid.streams
        for base in sorted(on_grids):
            spool.add_stream("grid", [base], on_grids[base])
        apart = {*copies, *on_grids, *(members if mosaic is not None else ())}
        exact = [index for index in range(len(checkpoint.bases)) if index not in apart]
        done = len(checkpoint.bases) - len(exact)
        for group in _groups(checkpoint, exact):
            spool.add_stream("exact", group, _encode_exact(checkpoint, group, effort))
            done += len(group)
            report("encode", done, len(checkpoint.bases))
        document = Document(
            entries=checkpoint.entries,
            bases=tuple(
                BaseRecord(base.dtype, base.numel, copies.get(index))
                for index, base in enumerate(checkpoint.bases)
            ),
            streams=tuple(spool.streams),
            mosaic=record,
            writer=f"momos {_core.__version__}",
            metadata=checkpoint.metadata,
            source={"format": checkpoint.format, "left_out": list(checkpoint.left_out)},
            grid=None if grid is None else grid.record,
        )
        encoded = encode_document(document)
        sections = [(DOCUMENT_SECTION, len(encoded)), *spool.sizes.items()]
        head = _head(encoded, sections)
        # The writer refuses what the reader would.
        decode_document(
            encoded,
            version=VERSION,
            source=str(path or "the archive"),
            file_size=len(head) + sum(spool.sizes.values()),
            max_bytes=None,
        )
        target.write(head)
        spool.copy_to(target)
    return summarise(document, sections, len(head) - len(encoded))


@dataclass(frozen=True)
class _Coding:
    """How the motifs are numbered, and how a tensor's numbers are coded.

    Attributes:
        index: Its name in the document.
        order: Motifs of the mosaic in the order of the table.
        numbers: The number of each motif of the mosaic, by which indices are coded.
        code_lengths: What the document says of a prefix code.
        encode: Codes numbers, given the blocks per row, the effort and the number of threads.
    """

    index: IndexCoding
    order: npt.NDArray[np.uint32]
    numbers: npt.NDArray[np.uint32]
    code_lengths: tuple[int, ...]
    encode: Callable[..., npt.NDArray[np.uint8]]


def _prefix_coding(mosaic: Mosaic) -> _Coding:
    order, lengths = _core.canonical_order(
        mosaic.table(), mosaic.block_size, mosaic.dtype, mosaic.counts()
    )
    code = _core.IndexCode(lengths)

    def encode(
        numbers: npt.NDArray[np.uint32], _row: float, _effort: str, threads: int | None
    ) -> npt.NDArray[np.uint8]:
        return code.encode(numbers, threads=threads)

    numbers = _inverse(order, len(mosaic.motifs))
    return _Coding("prefix", order, numbers, tuple(lengths), encode)


def _path_coding(mosaic: Mosaic) -> _Coding:
    order = _core.sorted_order(mosaic.table(), mosaic.block_size, mosaic.dtype, mosaic.counts())
    tree = _core.MotifTree(_rows(mosaic, order), mosaic.block_size, mosaic.dtype)

    def encode(
        numbers: npt.NDArray[np.uint32], row: float, effort: str, threads: int | None
    ) -> npt.NDArray[np.uint8]:
        blocks = int(row) if row.is_integer() else 0
        return tree.encode(numbers, row_blocks=blocks, effort=effort, threads=threads)

    return _Coding("path", order, _inverse(order[tree.rows], len(mosaic.motifs)), (), encode)


def _inverse(order: npt.NDArray[np.uint32], size: int) -> npt.NDArray[np.uint32]:
    """The place of each number in an order; 0 for those that are not in it."""
    places = np.zeros(size, np.uint32)
    places[order] = np.arange(len(order), dtype=np.uint32)
    return places


def _rows(mosaic: Mosaic, order: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """The table of the motifs in an order."""
    table = mosaic.table().reshape(len(mosaic.motifs), -1)
    return np.ascontiguousarray(table[order]).reshape(-1)


def _add_motifs(
    spool: _Spool,
    mosaic: Mosaic,
    coding: _Coding,
    settings: Mapping[str, Any],
    effort: defaults.Effort,
) -> MosaicRecord:
    rows = _rows(mosaic, coding.order)
    stream = encode_motifs(rows, mosaic.block_size, mosaic.dtype, step=mosaic.step, effort=effort)
    _, digest = spool.add(MOTIFS_SECTION, stream)
    return MosaicRecord(
        block_size=mosaic.block_size,
        motifs=len(coding.order),
        requested_motifs=mosaic.requested_motifs,
        blocks=len(mosaic.indices),
        dtype=mosaic.dtype,
        index=coding.index,
        code_lengths=coding.code_lengths,
        digest=digest,
        exact=mosaic.exact,
        settings=settings,
    )


def _row_lengths(checkpoint: Checkpoint) -> dict[int, int]:
    """Elements per row of the bases that are matrices (or more) in C order."""
    return {
        entry.base: entry.numel // entry.shape[0]
        for entry in checkpoint.entries
        if entry.strides is None and len(entry.shape) > 1 and entry.shape[0] > 0
    }


def _groups(checkpoint: Checkpoint, bases: Sequence[int]) -> list[list[int]]:
    """Bases that share a stream: small ones of one type."""
    groups: list[list[int]] = []
    open_groups: dict[str, tuple[list[int], int]] = {}
    for index in bases:
        base = checkpoint.bases[index]
        nbytes = base.numel * dtype(base.dtype).itemsize
        group, size = open_groups.get(base.dtype, ([], GROUPED_BYTES))
        if size + nbytes > GROUPED_BYTES:
            group, size = [], 0
            groups.append(group)
        group.append(index)
        open_groups[base.dtype] = group, size + nbytes
    return groups


def _encode_exact(checkpoint: Checkpoint, group: Sequence[int], effort: defaults.Effort) -> bytes:
    kind = dtype(checkpoint.bases[group[0]].dtype)
    data = [checkpoint.bases[index].read() for index in group]
    whole = data[0] if len(data) == 1 else np.concatenate(data)
    return encode_stream(whole, kind.itemsize, floating=kind.floating, effort=effort)


def _head(document: bytes, sections: Sequence[tuple[str, int]]) -> bytes:
    """The header and the document, with their digest in the header's metadata."""
    tensors = [(name, "U8", (nbytes,), nbytes) for name, nbytes in sections]

    def encode(digest: str) -> bytes:
        metadata = {DIGEST_KEY: digest, VERSION_KEY: ".".join(map(str, VERSION))}
        return encode_header(tensors, metadata, by_itemsize=False).data + document

    return encode(section_digest(np.frombuffer(encode(NO_DIGEST), np.uint8)))


def summarise(
    document: Document, sections: Sequence[tuple[str, int]], header_bytes: int
) -> ArchiveSummary:
    """What an archive with these sections takes."""
    sizes = dict(sections)
    shares = [0] * len(document.bases)
    for stream in document.streams:
        weights = [document.bases[base].nbytes for base in stream.bases]
        total = sum(weights)
        rest = stream.nbytes
        for base, weight in zip(stream.bases, weights, strict=True):
            shares[base] = rest * weight // total if total else 0
            rest -= shares[base]
            total -= weight
        shares[stream.bases[-1]] += rest
    names = (DOCUMENT_SECTION, MOTIFS_SECTION, *SECTIONS.values())
    return ArchiveSummary(
        file_bytes=header_bytes + sum(sizes.values()),
        section_bytes={"header": header_bytes, **{name: sizes.get(name, 0) for name in names}},
        stream_bytes=tuple(shares),
        motifs_used=document.mosaic.motifs if document.mosaic else 0,
    )
