"""Writing an archive: sections are spooled while they are made, then follow their header."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from momos_rs import _core, defaults
from momos_rs.checkpoint.model import Base, Checkpoint
from momos_rs.checkpoint.safetensors_file import header_to_keep
from momos_rs.checkpoint.safetensors_layout import encode_header
from momos_rs.dtypes import dtype
from momos_rs.limits import ELEMENTS_PER_CHUNK, GROUPED_BYTES
from momos_rs.mosaic.build import own_bases
from momos_rs.mosaic.mosaic import Mosaic
from momos_rs.runtime.ordered_map import map_ahead
from momos_rs.runtime.progress import Counter, Progress
from momos_rs.runtime.resources import Resources, release

from .document import (
    DOCUMENT_SECTION,
    MOTIFS_SECTION,
    SECTIONS,
    BaseRecord,
    Document,
    GridRecord,
    IndexCoding,
    MosaicRecord,
    decode_document,
    encode_document,
)
from .motifs import encode_motifs
from .spool import Spool, section_digest
from .streams import STORED_HEAD, choose_codec, encode_chunks, encode_stream, trial_elements

__all__ = [
    "DIGEST_KEY",
    "NO_DIGEST",
    "VERSION_KEY",
    "ArchiveSummary",
    "GridSections",
    "section_digest",
    "summarise",
    "write_sections",
]

_FOUR_DIGITS = Context(prec=4, rounding=ROUND_CEILING)

VERSION_KEY = "momos"
DIGEST_KEY = "momos.digest"
_BLOCKS_PER_PIECE = 1 << 20
"""Indices of a tensor that are coded at a time, or as many as keep all threads busy."""

ELEMENTS_PER_PIECE = 4 * ELEMENTS_PER_CHUNK
"""Elements of an exact tensor that are coded at a time."""

NO_DIGEST = "0" * 16
"""What stands in the place of the head's digest while it is computed."""


@dataclass(frozen=True)
class ArchiveSummary:
    """What an archive takes.

    Attributes:
        archive_bytes: Size of the file.
        section_bytes: Bytes of the header, the document, the motifs, the indices, the
            grids and the exact tensors.
        stream_bytes: Bytes of the stream of each base, 0 for a copy; where several bases share a
            stream, their shares by size.
        motifs_used: Motifs that represent a block: those that are stored.
    """

    archive_bytes: int
    section_bytes: dict[str, int]
    stream_bytes: tuple[int, ...]
    motifs_used: int


@dataclass(frozen=True)
class GridSections:
    """Tensors on grids, ready to be written.

    Attributes:
        streams: The stream of each base.
        record: What is said of all of them.
        own_steps: Whether rows or columns of any of them have steps of their own.
    """

    streams: Mapping[int, npt.NDArray[np.uint8]]
    record: GridRecord
    own_steps: bool = False


def write_sections(
    open_target: Callable[[], IO[bytes]],
    path: Path | None,
    checkpoint: Checkpoint,
    mosaic: Mosaic | None,
    members: Sequence[int],
    *,
    copies: Mapping[int, int],
    settings: Mapping[str, Any],
    grid: GridSections | None = None,
    errors: Mapping[int, float] | None = None,
    effort: defaults.Effort = defaults.EFFORT,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> ArchiveSummary:
    """Writes a checkpoint and the mosaic of some of its bases as an archive.

    Args:
        open_target: Opens the file once the sections are made; called by the first process only.
        path: Where the file will be: sections wait beside it, and messages name it. None if it is
            in memory.
        checkpoint: All tensors.
        mosaic: The mosaic, None if there is none; of several processes, each has that of its share
            of the members, by :func:`~momos_rs.mosaic.own_bases`.
        members: Bases that the mosaic represents, in the order of its tensors.
        copies: Bases that equal an earlier one, by which they are represented.
        settings: How the mosaic was made, for the document.
        grid: The bases that lie on grids.
        errors: Relative errors of the bases that are not exact, for who compares them later.
        effort: How much time coding may take: ``"fast"``, ``"default"`` or ``"best"``.
        resources: What may be used. Of several processes, the first one writes the file.
        progress: Called while work goes on.

    Raises:
        OSError: If the file cannot be written.
        InvalidArgumentError: If a name cannot be written.
        CorruptionError: If a reader would refuse the archive because it expands too much.
    """
    resources = resources or Resources()
    team = resources.team
    on_grids = {} if grid is None else grid.streams
    apart = {*copies, *on_grids, *(members if mosaic is not None else ())}
    exact = [index for index in range(len(checkpoint.bases)) if index not in apart]
    groups = _groups(checkpoint, exact)
    sizes = [_nbytes(checkpoint, group) for group in groups]
    first, stop = team.share(sizes)
    own: Sequence[int] = ()
    if mosaic is not None:
        bases = [checkpoint.bases[index] for index in members]
        own = members[slice(*own_bases(bases, mosaic.block_size, team))]
    total = _nbytes(checkpoint, own) + sum(sizes[first:stop])
    counter = Counter(progress, "encode", total)
    with Spool(resources.folder if path is None else path.absolute().parent) as spool:
        record = None
        if mosaic is not None:
            record = _encode_mosaic(
                spool, checkpoint, mosaic, own, settings, effort, resources, counter
            )
        for base in sorted(on_grids):
            spool.add_stream("grid", [base], on_grids[base])
        for group, nbytes in zip(groups[first:stop], sizes[first:stop], strict=True):
            _encode_exact(spool, checkpoint, group, effort)
            counter.add(nbytes)
        spool.join(team)
        summary = None
        if team.is_first:
            requires = ("grid_steps",) if grid is not None and grid.own_steps else ()
            document = Document(
                entries=checkpoint.entries,
                bases=tuple(
                    BaseRecord(
                        base.dtype, base.numel, copies.get(index), _rounded_up(errors, index)
                    )
                    for index, base in enumerate(checkpoint.bases)
                ),
                streams=tuple(spool.streams),
                mosaic=record,
                writer=f"momos {_core.__version__}",
                metadata=checkpoint.metadata,
                source={"format": checkpoint.format, "left_out": list(checkpoint.left_out)},
                grid=None if grid is None else grid.record,
                versions=checkpoint.versions,
                requires=requires,
                header=_header(checkpoint, mosaic, grid),
            )
            summary = _finish(open_target, path, document, spool)
        summary = team.from_first(summary)
        assert summary is not None
        return summary


def _rounded_up(errors: Mapping[int, float] | None, index: int) -> float | None:
    """An error with four digits, never below what it is."""
    error = None if errors is None else errors.get(index)
    if error is None or not math.isfinite(error):
        return None
    return float(_FOUR_DIGITS.create_decimal(error))


def _header(checkpoint: Checkpoint, mosaic: Mosaic | None, grid: GridSections | None) -> str:
    """The header to write with tensors that are all exact; others are another file anyway."""
    exact = grid is None and (mosaic is None or mosaic.exact)
    return header_to_keep(checkpoint).decode() if exact else ""


def _nbytes(checkpoint: Checkpoint, bases: Sequence[int]) -> int:
    return sum(checkpoint.bases[index].nbytes for index in bases)


def _finish(
    open_target: Callable[[], IO[bytes]],
    path: Path | None,
    document: Document,
    spool: Spool,
) -> ArchiveSummary:
    """Writes what was spooled behind its header."""
    encoded = encode_document(document)
    sections = [(DOCUMENT_SECTION, len(encoded)), *spool.sizes.items()]
    head = _head(encoded, sections, document.version)
    # The writer refuses what the reader would.
    decode_document(
        encoded,
        version=document.version,
        source=str(path or "the archive"),
        file_size=len(head) + sum(spool.sizes.values()),
        max_bytes=None,
    )
    target = open_target()
    target.write(head)
    spool.copy_to(target)
    return summarise(document, sections, len(head) - len(encoded))


def _encode_mosaic(
    spool: Spool,
    checkpoint: Checkpoint,
    mosaic: Mosaic,
    own: Sequence[int],
    settings: Mapping[str, Any],
    effort: defaults.Effort,
    resources: Resources,
    counter: Counter,
) -> MosaicRecord:
    """Spools the motifs, and the indices of the tensors of this process, its own."""
    team = resources.team
    counts = team.sum_counts(mosaic.counts().astype(np.int64)).astype(np.uint64)
    total = int(team.sum_counts(np.array([len(mosaic.indices)]))[0])
    make = _prefix_coding if effort == "fast" else _path_coding
    coding = make(mosaic, counts)
    digest = _add_motifs(spool, mosaic, coding, effort) if team.is_first else ""
    row_lengths = _row_lengths(checkpoint)

    def row(position: int) -> float:
        return row_lengths.get(own[position], 0) / mosaic.block_size

    def encode(position: int) -> npt.NDArray[np.uint8] | None:
        indices = mosaic.tensor_indices(position)
        if len(indices) > 2 * _BLOCKS_PER_PIECE:
            return None  # piece by piece, in its turn
        numbers = coding.numbers[indices]
        return coding.encode(numbers, row(position), effort, resources.threads)

    sizes = [checkpoint.bases[base].nbytes for base in own]
    streams = map_ahead(encode, range(len(own)), sizes, threads=resources.threads)
    for position, stream in enumerate(streams):
        if stream is not None:
            spool.add_stream("mosaic", [own[position]], stream)
            counter.add(sizes[position])
        else:
            indices = mosaic.tensor_indices(position)
            _encode_in_pieces(
                spool,
                own[position],
                indices,
                coding,
                row(position),
                effort,
                resources.threads,
                counter,
                sizes[position],
            )
        release(mosaic.indices)
    return MosaicRecord(
        block_size=mosaic.block_size,
        motifs=len(coding.order),
        requested_motifs=mosaic.requested_motifs,
        blocks=total,
        dtype=mosaic.dtype,
        index=coding.index,
        code_lengths=coding.code_lengths,
        digest=digest,
        exact=mosaic.exact,
        settings=settings,
    )


def _encode_in_pieces(
    spool: Spool,
    base: int,
    indices: npt.NDArray[np.uint32],
    coding: _Coding,
    row: float,
    effort: defaults.Effort,
    threads: int | None,
    counter: Counter,
    nbytes: int,
) -> None:
    """Spools the indices of a large tensor as ``coding.encode`` makes them, piece by piece, and
    counts the bytes of the tensor."""
    first, stop = _core.trial_blocks(len(indices))
    encoder = coding.encoder(coding.numbers[indices[first:stop]], row, effort)

    def pieces(blocks: int) -> Iterator[npt.NDArray[np.uint32]]:
        for start in range(0, len(indices), blocks):
            yield coding.numbers[indices[start : start + blocks]]
            release(indices)

    chunk = encoder.blocks_per_piece
    step = max(_BLOCKS_PER_PIECE // chunk, threads or os.cpu_count() or 1) * chunk

    def chunks() -> Iterator[tuple[npt.NDArray[np.uint8], Sequence[int]]]:
        start = 0
        for piece in pieces(step):
            payload, lengths = encoder.encode(piece, threads=threads)
            yield payload, lengths.tolist()
            stop = start + len(piece)
            counter.add(nbytes * stop // len(indices) - nbytes * start // len(indices))
            start = stop

    def fixed() -> Iterator[npt.NDArray[np.uint8]]:
        yield encoder.fixed_head
        for piece in pieces(_BLOCKS_PER_PIECE):
            yield encoder.encode_fixed(piece, threads=threads)

    spool.add_chunks(
        "mosaic",
        [base],
        encoder.head,
        chunks(),
        width=4,
        limit=encoder.worst_case(len(indices)),
        otherwise=fixed,
    )


@dataclass(frozen=True)
class _Coding:
    """How the motifs are numbered, and how a tensor's numbers are coded.

    Attributes:
        index: Its name in the document.
        order: Motifs of the mosaic in the order of the table.
        numbers: The number of each motif of the mosaic, by which indices are coded.
        code_lengths: What the document says of a prefix code.
        encode: Codes numbers, given the blocks per row, the effort and the number of threads.
        encoder: Does so piece by piece, given some numbers, the blocks per row and the effort.
    """

    index: IndexCoding
    order: npt.NDArray[np.uint32]
    numbers: npt.NDArray[np.uint32]
    code_lengths: tuple[int, ...]
    encode: Callable[..., npt.NDArray[np.uint8]]
    encoder: Callable[[npt.NDArray[np.uint32], float, defaults.Effort], _core.IndexEncoder]


def _prefix_coding(mosaic: Mosaic, counts: npt.NDArray[np.uint64]) -> _Coding:
    order, lengths = _core.canonical_order(mosaic.table(), mosaic.block_size, mosaic.dtype, counts)
    code = _core.IndexCode(lengths)

    def encode(
        numbers: npt.NDArray[np.uint32], _row: float, _effort: str, threads: int | None
    ) -> npt.NDArray[np.uint8]:
        return code.encode(numbers, threads=threads)

    def encoder(
        _trial: npt.NDArray[np.uint32], _row: float, _effort: defaults.Effort
    ) -> _core.IndexEncoder:
        return code.encoder()

    numbers = _inverse(order, len(mosaic.motifs))
    return _Coding("prefix", order, numbers, tuple(lengths), encode, encoder)


def _path_coding(mosaic: Mosaic, counts: npt.NDArray[np.uint64]) -> _Coding:
    order = _core.sorted_order(mosaic.table(), mosaic.block_size, mosaic.dtype, counts)
    tree = _core.MotifTree(_rows(mosaic, order), mosaic.block_size, mosaic.dtype)

    def encode(
        numbers: npt.NDArray[np.uint32], row: float, effort: str, threads: int | None
    ) -> npt.NDArray[np.uint8]:
        return tree.encode(numbers, row_blocks=_whole(row), effort=effort, threads=threads)

    def encoder(
        trial: npt.NDArray[np.uint32], row: float, effort: defaults.Effort
    ) -> _core.IndexEncoder:
        return tree.encoder(trial, row_blocks=_whole(row), effort=effort)

    numbers = _inverse(order[tree.rows], len(mosaic.motifs))
    return _Coding("path", order, numbers, (), encode, encoder)


def _whole(row: float) -> int:
    """Blocks in a row, 0 if that is no whole number."""
    return int(row) if row.is_integer() else 0


def _inverse(order: npt.NDArray[np.uint32], size: int) -> npt.NDArray[np.uint32]:
    """The place of each number in an order; 0 for those that are not in it."""
    places = np.zeros(size, np.uint32)
    places[order] = np.arange(len(order), dtype=np.uint32)
    return places


def _rows(mosaic: Mosaic, order: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    """The table of the motifs in an order."""
    table = mosaic.table().reshape(len(mosaic.motifs), -1)
    return np.ascontiguousarray(table[order]).reshape(-1)


def _add_motifs(spool: Spool, mosaic: Mosaic, coding: _Coding, effort: defaults.Effort) -> str:
    """Spools the motifs; returns their digest."""
    rows = _rows(mosaic, coding.order)
    stream = encode_motifs(rows, mosaic.block_size, mosaic.dtype, step=mosaic.step, effort=effort)
    _, digest = spool.add(MOTIFS_SECTION, stream)
    return digest


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
    open_groups: dict[str, tuple[list[int] | None, int]] = {}
    for index in bases:
        base = checkpoint.bases[index]
        nbytes = base.numel * dtype(base.dtype).itemsize
        group, size = open_groups.get(base.dtype, (None, 0))
        if group is None or size + nbytes > GROUPED_BYTES:
            group, size = [], 0
            groups.append(group)
        group.append(index)
        open_groups[base.dtype] = group, size + nbytes
    return groups


def _encode_exact(
    spool: Spool, checkpoint: Checkpoint, group: Sequence[int], effort: defaults.Effort
) -> None:
    """Spools tensors that are kept exact as one stream."""
    bases = [checkpoint.bases[index] for index in group]
    kind = dtype(bases[0].dtype)
    if len(bases) == 1 and bases[0].numel > ELEMENTS_PER_PIECE:
        _encode_exact_in_pieces(spool, group[0], bases[0], effort)
        return
    data = [base.read() for base in bases]
    whole = data[0] if len(data) == 1 else np.concatenate(data)
    stream = encode_stream(whole, kind.itemsize, floating=kind.floating, effort=effort)
    spool.add_stream("exact", group, stream)


def _encode_exact_in_pieces(spool: Spool, index: int, base: Base, effort: defaults.Effort) -> None:
    """Spools a large tensor as :func:`encode_stream` makes it, piece by piece."""
    kind = dtype(base.dtype)
    trial = base.part(*trial_elements(base.numel))
    codec = choose_codec(trial, kind.itemsize, floating=kind.floating, effort=effort)
    nbytes = ELEMENTS_PER_PIECE * kind.itemsize

    def chunks() -> Iterator[tuple[bytes, Sequence[int]]]:
        for piece in base.pieces(nbytes):
            encoded = encode_chunks(piece, kind.itemsize, codec, floating=kind.floating)
            yield b"".join(encoded), [len(chunk) for chunk in encoded]

    def stored() -> Iterator[bytes | npt.NDArray[np.uint8]]:
        yield STORED_HEAD
        yield from base.pieces(nbytes)

    spool.add_chunks(
        "exact",
        [index],
        bytes([codec]),
        chunks(),
        width=8,
        limit=1 + base.nbytes,
        otherwise=stored,
    )


def _head(document: bytes, sections: Sequence[tuple[str, int]], version: tuple[int, int]) -> bytes:
    """The header and the document, with their digest in the header's metadata."""
    tensors = [(name, "U8", (nbytes,), nbytes) for name, nbytes in sections]

    def encode(digest: str) -> bytes:
        metadata = {DIGEST_KEY: digest, VERSION_KEY: ".".join(map(str, version))}
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
        archive_bytes=header_bytes + sum(sizes.values()),
        section_bytes={"header": header_bytes, **{name: sizes.get(name, 0) for name in names}},
        stream_bytes=tuple(shares),
        motifs_used=document.mosaic.motifs if document.mosaic else 0,
    )
