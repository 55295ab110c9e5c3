"""What packing did to each tensor, measured on what the archive decodes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from momos_rs import _core
from momos_rs.archive import ArchiveSummary
from momos_rs.checkpoint import Checkpoint
from momos_rs.dtypes import dtype
from momos_rs.mosaic.build import own_bases
from momos_rs.mosaic.methods import FreeMotifs
from momos_rs.mosaic.mosaic import Mosaic, common_dtype, compare_with_mosaic, mosaic_bound
from momos_rs.runtime.progress import Counter, Progress
from momos_rs.runtime.resources import Resources
from momos_rs.runtime.stopwatch import peak_memory

from .maker import Made
from .options import PackOptions
from .report import PackReport, TensorReport
from .selection import Members

__all__ = ["Outcome", "differences_of", "measure", "pack_report"]


_SMALL_ERROR = 0.05
"""A relative error of all tensors by which nobody would look for one that is lost,"""

_LOST = 0.5
"""and one of a tensor by which it is."""

_MOST_NAMED = 10


@dataclass(frozen=True)
class Outcome:
    """What became of a model's tensors.

    Attributes:
        tensors: What became of each stored tensor.
        distortion: Sum of squared differences over the mosaic.
        energy: Sum of squares of its originals.
    """

    tensors: tuple[TensorReport, ...]
    distortion: float
    energy: float


def measure(
    model: Checkpoint,
    made: Made,
    members: Members,
    summary: ArchiveSummary,
    differences: Mapping[int, _core._Difference],
) -> Outcome:
    """What became of every tensor.

    Args:
        model: The originals.
        made: The mosaic.
        members: Which tensors are part of it.
        summary: What the archive takes.
        differences: How the mosaic differs from each of its tensors, by base.
    """
    names: list[list[str]] = [[] for _ in model.bases]
    for entry in model.entries:
        names[members.copies.get(entry.base, entry.base)].append(entry.name)
    reports = []
    distortion = energy = 0.0
    for index, base in enumerate(model.bases):
        if index in members.copies:
            continue
        error = relative = 0.0
        if index in differences:
            difference = differences[index]
            error = difference["distortion"]
            relative = _ratio(error, difference["sum_of_squares"])
            distortion += error
            energy += difference["sum_of_squares"]
        stored = "grid" if made.grid else "mosaic"
        reports.append(
            TensorReport(
                names=tuple(names[index]),
                dtype=base.dtype,
                elements=base.numel,
                stored=stored if index in differences else "exact",
                bytes=summary.stream_bytes[index],
                distortion=error,
                relative_error=relative,
                note=members.decisions[index].note,
            )
        )
    return Outcome(tuple(reports), distortion, energy)


def differences_of(
    model: Checkpoint,
    mosaic: Mosaic,
    members: Members,
    resources: Resources,
    progress: Progress | None,
) -> dict[int, _core._Difference]:
    """How a mosaic differs from each of its tensors, by base; of several processes, each compares
    its share."""
    bases = [model.bases[index] for index in members.indices]
    first, stop = own_bases(bases, mosaic.block_size, resources.team)
    shared = bases[first:stop]
    counter = Counter(progress, "measure", sum(base.nbytes for base in shared))
    own = [
        compare_with_mosaic(base, mosaic, position, threads=resources.threads, done=counter.add)
        for position, base in enumerate(shared)
    ]
    return dict(zip(members.indices, resources.team.join(own), strict=True))


def pack_report(
    model: Checkpoint,
    options: PackOptions,
    members: Members,
    made: Made,
    summary: ArchiveSummary,
    outcome: Outcome,
) -> PackReport:
    """What packing did, for people and machines; without the path and the times."""
    mosaic = made.mosaic
    k = mosaic.requested_motifs if mosaic else 0
    stored = [each for each in outcome.tensors if each.stored != "exact"]
    m = bound = 0
    if mosaic is not None:
        m = sum(_core.block_count(each.elements, mosaic.block_size) for each in stored)
        source_dtype = common_dtype([each.dtype for each in stored])
        bound = mosaic_bound(m, k, mosaic.block_size, 8 * dtype(source_dtype).itemsize)
    sections = summary.section_bytes
    coded = 8 * (sections["motifs"] + sections["indices"] + sections["grid"])
    return PackReport(
        source=model.source,
        archive=None,
        weights=model.numel,
        mosaic_weights=sum(each.elements for each in stored),
        blocks=m,
        block_size=mosaic.block_size if mosaic else options.method.block_size,
        motifs=k,
        motifs_used=len(mosaic.motifs) if mosaic and made.grid else summary.motifs_used,
        capacity=_ratio(k, m),
        method="exact" if mosaic and mosaic.exact else options.method.name,
        motif_dtype=mosaic.dtype if mosaic else None,
        motif_step=mosaic.step if mosaic else None,
        effort=options.effort,
        lossless=mosaic is None or mosaic.exact,
        distortion=outcome.distortion,
        relative_error=_ratio(outcome.distortion, outcome.energy),
        distortions=mosaic.distortions if mosaic else (),
        tensor_bytes=model.nbytes,
        archive_bytes=summary.archive_bytes,
        ratio=_ratio(model.nbytes, summary.archive_bytes),
        bits_per_weight=_ratio(8 * summary.archive_bytes, model.numel),
        sections=summary.section_bytes,
        bound_bits=bound,
        bound_share=_ratio(coded, bound),
        tensors=outcome.tensors,
        left_out=model.left_out,
        notes=_notes(options, members, made, outcome),
        seconds={},
        peak_memory=peak_memory(),
        settings=dict(made.settings),
    )


def _notes(options: PackOptions, members: Members, made: Made, outcome: Outcome) -> tuple[str, ...]:
    """Remarks for the report."""
    mosaic, method = made.mosaic, options.method
    notes = [
        f"{', '.join(each.names)} kept exact: {each.note}" for each in outcome.tensors if each.note
    ]
    if members.copies:
        notes.append(f"{len(members.copies)} tensors equal another and are stored once")
    if mosaic is None:
        notes.append("no tensor became part of a mosaic; everything is stored exactly")
    elif mosaic.exact:
        notes.append(
            f"the tensors are an exact mosaic of {len(mosaic.motifs)} motifs of "
            f"{mosaic.block_size} values: every bit is kept"
        )
        if isinstance(method, FreeMotifs) and method.motif_dtype != "auto":
            notes.append(f"exact motifs are not rounded to {method.motif_dtype}")
    if _ratio(outcome.distortion, outcome.energy) < _SMALL_ERROR:
        lost = [each for each in outcome.tensors if each.relative_error > _LOST]
        notes += [
            f"{', '.join(each.names)} is lost to the scale of the others (relative error "
            f"{each.relative_error:.3g}); keep it exact by exclude"
            for each in lost[:_MOST_NAMED]
        ]
        if len(lost) > _MOST_NAMED:
            notes.append(f"{len(lost) - _MOST_NAMED} more tensors are lost to it")
    return (*notes, *made.notes)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
