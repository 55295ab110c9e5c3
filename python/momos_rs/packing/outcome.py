"""What packing did to each tensor, measured on what the archive decodes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from momos_rs import _core
from momos_rs.archive import ArchiveSummary
from momos_rs.checkpoint import Checkpoint
from momos_rs.dtypes import dtype
from momos_rs.mosaic.build import own_bases
from momos_rs.mosaic.mosaic import (
    Mosaic,
    common_dtype,
    compare_with_mosaic,
    mosaic_bound,
)
from momos_rs.runtime.progress import Counter, Progress
from momos_rs.runtime.stopwatch import Stopwatch, peak_memory
from momos_rs.runtime.team import Team

from .maker import Made
from .options import PackOptions
from .report import PackReport, TensorReport
from .selection import Decision

__all__ = [
    "measure",
    "pack_report",
]


def measure(
    model: Checkpoint,
    mosaic: Mosaic | None,
    members: Sequence[int],
    copies: Mapping[int, int],
    decisions: Sequence[Decision],
    summary: ArchiveSummary,
    stored: str,
    team: Team,
    progress: Progress | None,
) -> tuple[tuple[TensorReport, ...], float, float]:
    """What became of each stored tensor, the distortion and the sum of squares of the mosaic."""
    differences: dict[int, _core._Difference] = {}
    if mosaic is not None:
        bases = [model.bases[index] for index in members]
        first, stop = own_bases(bases, mosaic.block_size, team)
        shared = bases[first:stop]
        counter = Counter(progress, "measure", sum(base.nbytes for base in shared))
        own = [
            compare_with_mosaic(base, mosaic, position, done=counter.add)
            for position, base in enumerate(shared)
        ]
        differences = dict(zip(members, team.join(own), strict=True))
    names: list[list[str]] = [[] for _ in model.bases]
    for entry in model.entries:
        names[copies.get(entry.base, entry.base)].append(entry.name)
    reports = []
    distortion = energy = 0.0
    for index, base in enumerate(model.bases):
        if index in copies:
            continue
        error = relative = 0.0
        if index in differences:
            difference = differences[index]
            error = difference["distortion"]
            relative = _ratio(error, difference["sum_of_squares"])
            distortion += error
            energy += difference["sum_of_squares"]
        reports.append(
            TensorReport(
                names=tuple(names[index]),
                dtype=base.dtype,
                elements=base.numel,
                stored=stored if index in differences else "exact",
                bytes=summary.stream_bytes[index],
                distortion=error,
                relative_error=relative,
                note=decisions[index].note,
            )
        )
    return tuple(reports), distortion, energy


def pack_report(
    model: Checkpoint,
    archive: str | None,
    options: PackOptions,
    made: Made,
    summary: ArchiveSummary,
    tensors: tuple[TensorReport, ...],
    distortion: float,
    energy: float,
    copies: Mapping[int, int],
    watch: Stopwatch,
) -> PackReport:
    """What packing did, for people and machines."""
    mosaic = made.mosaic
    notes = [f"{', '.join(each.names)} kept exact: {each.note}" for each in tensors if each.note]
    if copies:
        notes.append(f"{len(copies)} tensors equal another and are stored once")
    k = mosaic.requested_motifs if mosaic else 0
    m = bound = 0
    if mosaic is None:
        notes.append("no tensor became part of a mosaic; everything is stored exactly")
    else:
        stored = [each for each in tensors if each.stored != "exact"]
        m = sum(_core.block_count(each.elements, mosaic.block_size) for each in stored)
        source_dtype = common_dtype([each.dtype for each in stored])
        bound = mosaic_bound(m, k, mosaic.block_size, 8 * dtype(source_dtype).itemsize)
        if mosaic.exact:
            notes.append(
                f"the tensors are an exact mosaic of {len(mosaic.motifs)} motifs of "
                f"{mosaic.block_size} values: every bit is kept"
            )
            if options.motif_dtype != "auto":
                notes.append(f"exact motifs are not rounded to {options.motif_dtype}")
    notes += made.notes
    sections = summary.section_bytes
    coded = 8 * (sections["motifs"] + sections["indices"] + sections["grid"])
    return PackReport(
        source=model.source,
        archive=archive,
        weights=model.numel,
        mosaic_weights=sum(each.elements for each in tensors if each.stored != "exact"),
        blocks=m,
        block_size=mosaic.block_size if mosaic else options.block_size,
        motifs=k,
        motifs_used=len(mosaic.motifs) if mosaic and made.grid else summary.motifs_used,
        capacity=_ratio(k, m),
        method="exact" if mosaic and mosaic.exact else options.method,
        motif_dtype=mosaic.dtype if mosaic else None,
        motif_step=mosaic.step if mosaic else None,
        effort=options.effort,
        lossless=mosaic is None or mosaic.exact,
        distortion=distortion,
        relative_error=_ratio(distortion, energy),
        distortions=mosaic.distortions if mosaic else (),
        bytes_in=model.nbytes,
        bytes_out=summary.file_bytes,
        ratio=_ratio(model.nbytes, summary.file_bytes),
        bits_per_weight=_ratio(8 * summary.file_bytes, model.numel),
        sections=summary.section_bytes,
        bound_bits=bound,
        bound_share=_ratio(coded, bound),
        tensors=tensors,
        left_out=model.left_out,
        notes=tuple(notes),
        seconds=dict(watch.seconds),
        peak_memory=peak_memory(),
        settings=dict(made.settings),
    )


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
