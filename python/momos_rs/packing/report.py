"""What packing reports."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from momos_rs.records import Record

__all__ = ["PackReport", "TensorReport"]


@dataclass(frozen=True)
class TensorReport(Record):
    """What became of one stored tensor.

    Attributes:
        names: Its names; tied and copied tensors have several.
        dtype: Element type.
        elements: Number of elements.
        stored: ``"mosaic"``, ``"grid"`` or ``"exact"``.
        bytes: Bytes of its section.
        distortion: Sum of squared differences to the original; 0 where exact.
        relative_error: Distortion over the sum of squares of the original; 0 where exact.
        note: Why it is not part of the mosaic, if there is something to say.
    """

    names: tuple[str, ...]
    dtype: str
    elements: int
    stored: str
    bytes: int
    distortion: float = 0.0
    relative_error: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class PackReport(Record):
    """What packing did.

    Attributes:
        source: What was packed.
        archive: Path of the archive, or None if it was made in memory.
        weights: Elements of all tensors, ties counted once, n.
        mosaic_weights: Elements of the tensors that are part of the mosaic.
        blocks: Blocks of the mosaic, m; 0 if there is none.
        block_size: Values per block, s.
        motifs: Motifs asked for, k.
        motifs_used: Motifs that represent a block; only these are stored.
        capacity: Motifs per block, k / m.
        method: How the motifs were chosen.
        motif_dtype: Type of the motifs.
        motif_step: The step of fixed-point motifs, None for others.
        effort: How much time coding might take.
        lossless: Whether every tensor unpacks bit for bit as it was.
        distortion: Sum of squared differences over all real entries (padding is none).
        relative_error: ``||w - w'||^2 / ||w||^2`` over the tensors of the mosaic.
        distortions: Sum of squared errors of the blocks, before the first and after each iteration
            of Lloyd's algorithm.
        tensor_bytes: Bytes of all tensors, ties counted once.
        archive_bytes: Bytes of the archive.
        ratio: ``tensor_bytes / archive_bytes``.
        bits_per_weight: Bits of the archive per element.
        sections: Bytes of the header, the document, the motifs, the indices, the grids and the
            exact tensors.
        bound_bits: The paper's bound on the mosaic, ``k * s * q + m * ceil(log2 k)`` bits, q being
            the bits of the type of the tensors.
        bound_share: Bits of the sections of motifs, indices and grids, over the bound.
        tensors: What became of each stored tensor.
        left_out: What the source holds besides tensors.
        notes: Remarks worth reading.
        seconds: Seconds per phase.
        peak_memory: Most bytes the process had resident so far, None where that is not known.
        settings: How the mosaic was made, also what a target chose; empty if there is none.
    """

    source: str
    archive: str | None
    weights: int
    mosaic_weights: int
    blocks: int
    block_size: int
    motifs: int
    motifs_used: int
    capacity: float
    method: str
    motif_dtype: str | None
    motif_step: float | None
    effort: str
    lossless: bool
    distortion: float
    relative_error: float
    distortions: tuple[float, ...]
    tensor_bytes: int
    archive_bytes: int
    ratio: float
    bits_per_weight: float
    sections: dict[str, int]
    bound_bits: int
    bound_share: float
    tensors: tuple[TensorReport, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: dict[str, float]
    peak_memory: int | None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
