"""Writing an archive: sections are spooled while they are made, then follow their header."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .. import _core
from ..checkpoint.model import Checkpoint
from ..dtypes import dtype
from ..files import replacing
from ..mosaic import Mosaic
from ..safetensors_format import encode_header
from .document import (
    GRID_SECTION,
    GRID_VERSION,
    MOTIFS_SECTION,
    BaseRecord,
    Document,
    GridRecord,
    MosaicRecord,
    decode_document,
    encode_document,
    section_name,
)
from .packed_document import DOCUMENT_SECTION, pack_document
from .streams import encode_stream

__all__ = [
    "DIGEST_KEY",
    "DOCUMENT_KEY",
    "NO_DIGEST",
    "ArchiveSummary",
    "GridSections",
    "summarise",
    "write_archive",
    "write_sections",
]

DOCUMENT_KEY = "momos"
DIGEST_KEY = "momos.digest"
NO_DIGEST = "0" * 32
"""What stands in the place of the header's digest while it is computed."""


@dataclass(frozen=True)
class ArchiveSummary:
    """What an archive takes.

    Attributes:
        file_bytes: Size of the file.
        section_bytes: Bytes of the header, the motifs, the indices, the grids and the exact
            tensors.
        stream_bytes: Bytes of the section of each base, 0 for a copy.
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


@dataclass
class _Spool:
    """Sections waiting on disk for their header."""

    file: IO[bytes]
    sections: list[tuple[str, int]] = field(default_factory=list)

    def add(self, name: str, data: bytes | npt.NDArray[np.uint8]) -> str:
        """Appends a section and returns its digest."""
        view = np.frombuffer(data, np.uint8)
        self.file.write(view.data)
        self.sections.append((name, view.size))
        return _core.digest(view)


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
    progress: Callable[[str, int, int], object] | None = None,
) -> ArchiveSummary:
    """Writes an archive into an open file; arguments as for :func:`write_archive`."""
    report = progress or (lambda _phase, _done, _total: None)
    directory = None if path is None else path.absolute().parent
    with tempfile.TemporaryFile(dir=directory) as file:
        spool = _Spool(file)
        record, order = _add_mosaic(spool, mosaic, settings)
        places = {} if mosaic is None else {base: place for place, base in enumerate(members)}
        bases = []
        for index, base in enumerate(checkpoint.bases):
            if index in copies:
                bases.append(BaseRecord(base.dtype, base.numel, "copy", copy_of=copies[index]))
            elif index in places:
                assert order is not None
                assert mosaic is not None
                code, renumbering = order
                stream = code.encode(renumbering[mosaic.tensor_indices(places[index])])
                digest = spool.add(section_name(index, "mosaic"), stream)
                bases.append(BaseRecord(base.dtype, base.numel, "mosaic", digest))
            elif grid is not None and index in grid.streams:
                stream = grid.streams[index]
                bases.append(
                    BaseRecord(
                        base.dtype,
                        base.numel,
                        "grid",
                        _core.digest(stream),
                        stream_bytes=stream.size,
                    )
                )
            else:
                kind = dtype(base.dtype)
                exact = encode_stream(base.read(), kind.itemsize, floating=kind.floating)
                digest = spool.add(section_name(index, "exact"), exact)
                bases.append(BaseRecord(base.dtype, base.numel, "exact", digest))
            report("encode", index + 1, len(checkpoint.bases))
        if grid is not None:
            spool.add(GRID_SECTION, np.concatenate([grid.streams[i] for i in sorted(grid.streams)]))
        document = Document(
            entries=checkpoint.entries,
            bases=tuple(bases),
            mosaic=record,
            writer=f"momos {_core.__version__}",
            metadata=checkpoint.metadata,
            source={"format": checkpoint.format, "left_out": list(checkpoint.left_out)},
            **({} if grid is None else {"grid": grid.record, "version": GRID_VERSION}),
        )
        text = encode_document(document)
        if grid is not None:
            text, packed = pack_document(text)
            spool.add(DOCUMENT_SECTION, packed)
        header = _header(text, spool.sections)
        size = len(header) + sum(nbytes for _, nbytes in spool.sections)
        # The writer refuses what the reader would.
        decode_document(
            encode_document(document),
            source=str(path or "the archive"),
            file_size=size,
            max_bytes=None,
        )
        target.write(header)
        file.seek(0)
        shutil.copyfileobj(file, target, 1 << 20)
    return summarise(bases, spool.sections, len(header), record)


def _add_mosaic(
    spool: _Spool, mosaic: Mosaic | None, settings: Mapping[str, Any]
) -> tuple[MosaicRecord | None, tuple[_core.IndexCode, npt.NDArray[np.uint32]] | None]:
    """Adds the motifs; returns the record, and the code with the new number of each motif."""
    if mosaic is None:
        return None, None
    table = mosaic.table()
    order, lengths = _core.canonical_order(table, mosaic.block_size, mosaic.dtype, mosaic.counts())
    itemsize = dtype(mosaic.dtype).itemsize
    rows = np.ascontiguousarray(table.reshape(len(mosaic.motifs), -1)[order]).reshape(-1)
    regrouped = _core.regroup_motifs(rows, mosaic.block_size, mosaic.dtype, len(order))
    # The planes are made already; the stream codec sees bytes.
    stream = encode_stream(regrouped, 1, floating=False)
    renumbering = np.zeros(len(mosaic.motifs), np.uint32)
    renumbering[order] = np.arange(len(order), dtype=np.uint32)
    record = MosaicRecord(
        block_size=mosaic.block_size,
        motifs=len(order),
        requested_motifs=mosaic.requested_motifs,
        blocks=len(mosaic.indices),
        dtype=mosaic.dtype,
        code_lengths=tuple(lengths),
        digest=spool.add(MOTIFS_SECTION, stream),
        exact=mosaic.exact,
        settings=settings,
    )
    assert rows.size == len(order) * mosaic.block_size * itemsize
    return record, (_core.IndexCode(lengths), renumbering)


def _header(document: str, sections: Sequence[tuple[str, int]]) -> bytes:
    """The header, with its own digest in its metadata."""
    tensors = [(name, "U8", (nbytes,), nbytes) for name, nbytes in sections]

    def encode(digest: str) -> bytes:
        metadata = {DIGEST_KEY: digest, DOCUMENT_KEY: document}
        return encode_header(tensors, metadata, by_itemsize=False).data

    blank = encode(NO_DIGEST)
    return encode(_core.digest(np.frombuffer(blank, np.uint8)))


def summarise(
    bases: Sequence[BaseRecord],
    sections: Sequence[tuple[str, int]],
    header_bytes: int,
    record: MosaicRecord | None,
) -> ArchiveSummary:
    """What an archive with these sections takes."""
    sizes = dict(sections)
    streams = tuple(
        0
        if base.stored == "copy"
        else base.stream_bytes
        if base.stream_bytes is not None
        else sizes[section_name(index, base.stored)]
        for index, base in enumerate(bases)
    )
    kinds = {
        "header": header_bytes + sizes.get(DOCUMENT_SECTION, 0),
        MOTIFS_SECTION: sizes.get(MOTIFS_SECTION, 0),
    }
    if GRID_SECTION in sizes:
        kinds[GRID_SECTION] = sizes[GRID_SECTION]
    kinds["indices"] = sum(
        nbytes for base, nbytes in zip(bases, streams, strict=True) if base.stored == "mosaic"
    )
    kinds["exact"] = sum(
        nbytes for base, nbytes in zip(bases, streams, strict=True) if base.stored == "exact"
    )
    return ArchiveSummary(
        file_bytes=header_bytes + sum(sizes.values()),
        section_bytes=kinds,
        stream_bytes=streams,
        motifs_used=record.motifs if record else 0,
    )
