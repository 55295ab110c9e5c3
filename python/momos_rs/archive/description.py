"""What an archive says of itself, without decoding any tensor."""

from __future__ import annotations

from dataclasses import dataclass

from momos_rs.records import Record

from .document import Document
from .reader import Archive

__all__ = ["ArchiveInfo", "MosaicInfo", "TensorInfo", "describe"]


@dataclass(frozen=True)
class TensorInfo(Record):
    """One named tensor.

    Attributes:
        name: Its name.
        dtype: Element type.
        shape: Its shape.
        stored: ``"mosaic"``, ``"grid"``, ``"exact"``, ``"tied"`` to or ``"copy"`` of an earlier
            tensor.
        codec: The codec of its stream.
        bytes: Bytes of its stream; 0 if it is tied or a copy.
        bits_per_weight: Bits of its stream per element.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stored: str
    codec: str
    bytes: int
    bits_per_weight: float


@dataclass(frozen=True)
class MosaicInfo(Record):
    """The mosaic.

    Attributes:
        block_size: Values per block, s.
        blocks: Number of blocks, m.
        motifs: Motifs asked for, k.
        motifs_used: Motifs that represent a block.
        dtype: Type of the motifs.
        method: How the motifs were chosen.
        exact: Whether every block equals its motif.
        index: How indices are coded: ``"prefix"`` or ``"path"``; or ``"grid"``: structured motifs,
            which have no table and no indices.
        code_lengths: For ``"prefix"``, number of motifs by bits of their index's code; a motif
            whose code has b bits represents about one block in 2^b.
    """

    block_size: int
    blocks: int
    motifs: int
    motifs_used: int
    dtype: str
    method: str
    exact: bool
    index: str
    code_lengths: dict[int, int]


@dataclass(frozen=True)
class ArchiveInfo(Record):
    """An archive.

    Attributes:
        archive: Its path.
        version: Version of its format.
        writer: Program that wrote it.
        weights: Elements of all tensors, ties counted once.
        tensor_bytes: Bytes of all tensors, ties counted once.
        archive_bytes: Bytes of the file.
        ratio: ``tensor_bytes / archive_bytes``.
        sections: Bytes of the header, the document, the motifs, the indices and the exact tensors.
        mosaic: The mosaic, or None if everything is exact.
        tensors: The named tensors.
    """

    archive: str
    version: str
    writer: str
    weights: int
    tensor_bytes: int
    archive_bytes: int
    ratio: float
    sections: dict[str, int]
    mosaic: MosaicInfo | None
    tensors: tuple[TensorInfo, ...]


def describe(archive: Archive) -> ArchiveInfo:
    """Describes an open archive by its header alone."""
    document, summary = archive.document, archive.summary
    tensors = []
    seen: set[int] = set()
    for entry in document.entries:
        base = document.bases[entry.base]
        stored = "tied" if entry.base in seen else document.stored(entry.base)
        nbytes = 0 if entry.base in seen else summary.stream_bytes[entry.base]
        seen.add(entry.base)
        tensors.append(
            TensorInfo(
                name=entry.name,
                dtype=base.dtype,
                shape=entry.shape,
                stored=stored,
                codec=archive.codec(entry.base),
                bytes=nbytes,
                bits_per_weight=8 * nbytes / entry.numel if entry.numel else 0.0,
            )
        )
    tensor_bytes = sum(base.nbytes for base in document.bases)
    return ArchiveInfo(
        archive=archive.source,
        version=".".join(map(str, document.version)),
        writer=document.writer,
        weights=sum(base.elements for base in document.bases),
        tensor_bytes=tensor_bytes,
        archive_bytes=summary.archive_bytes,
        ratio=tensor_bytes / summary.archive_bytes,
        sections=summary.section_bytes,
        mosaic=_describe_mosaic(document),
        tensors=tuple(tensors),
    )


def _describe_mosaic(document: Document) -> MosaicInfo | None:
    if document.grid is not None:
        grid = document.grid
        return MosaicInfo(
            block_size=grid.block_size,
            blocks=grid.blocks,
            motifs=grid.motifs,
            motifs_used=grid.motifs,
            dtype=grid.dtype,
            method=str(grid.settings.get("method", "unknown")),
            exact=False,
            index="grid",
            code_lengths={},
        )
    record = document.mosaic
    if record is None:
        return None
    return MosaicInfo(
        block_size=record.block_size,
        blocks=record.blocks,
        motifs=record.requested_motifs,
        motifs_used=record.motifs,
        dtype=record.dtype,
        method=str(record.settings.get("method", "unknown")),
        exact=record.exact,
        index=record.index,
        code_lengths={bits: count for bits, count in enumerate(record.code_lengths) if count},
    )
