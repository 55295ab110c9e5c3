"""Packing a model into an archive, and back.

This is what ``momos pack`` and ``momos unpack`` are thin layers over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from . import _core, checkpoint, defaults
from .allocator import give_back_freed_memory
from .archive import PIECES_DECODED, ArchiveSummary, open_archive
from .archive.writer import write_sections
from .checkpoint import Base, Checkpoint
from .checkpoint.writing import bytes_in_another_order, check_suffix
from .dials import Dials
from .dtypes import dtype
from .errors import InvalidArgumentError
from .exactness import find_exact_mosaic
from .files import check_target, replacing
from .lloyd import Training
from .making import Made, Maker
from .memory import share_out
from .mosaic import (
    Mosaic,
    common_dtype,
    compare_with_mosaic,
    exact_mosaic_of_bases,
    mosaic_bound,
    motif_count,
    own_bases,
)
from .precision import check_motif_dtype
from .progress import Counter, Progress, counted
from .report import PackReport, Stopwatch, TensorReport, peak_memory
from .resources import PIECE_BYTES, Resources, memory_budget
from .selection import Decision, Selection, select
from .team import SOLO, Team

if TYPE_CHECKING:
    import torch

    from .structured import Sensitivity

__all__ = [
    "PackOptions",
    "load",
    "pack",
    "pack_file",
    "save",
    "unpack",
    "unpack_file",
]

PathLike: TypeAlias = "str | os.PathLike[str]"
Model: TypeAlias = "torch.nn.Module | Mapping[str, Any] | Checkpoint"

ARCHIVE_SUFFIX = ".momos"

MOST_FOR_EXACTNESS = 2.0
"""A model that is a mosaic already is packed as it is if the paper's bound on it is at most so many
times that of the mosaic asked for."""


_STRUCTURED_BYTES = 24
"""Bytes for every weight that structured motifs take at the most."""


@dataclass(frozen=True)
class PackOptions:
    """How to pack; the arguments of :func:`pack` and :func:`pack_file` in one value.

    Attributes:
        block_size: Values per block, s, from 1 to 4096.
        capacity: Motifs per block, c, above 0 and at most 1; ignored if ``motifs`` is given.
        motifs: Number of motifs, k.
        method: ``"kmeans"``, or ``"random"`` as in the paper; ``"grid"`` or ``"trellis"`` for
            structured motifs, see :mod:`momos_rs.structured`.
        iterations: Most iterations of Lloyd's algorithm for ``"kmeans"``.
        seed: Seed of the draw of motifs.
        force_zero: Whether the zero block is a motif.
        motif_dtype: The precision of motifs that are not exact: ``"float32"``, ``"float16"``,
            ``"bfloat16"``, ``"fixed"`` (adds at most 2% to the distortion) or ``"auto"``.
        effort: How much time coding may take: ``"fast"``, ``"default"`` or ``"best"``. All decode
            to the same tensors.
        lossless: Whether every tensor must unpack bit for bit as it was: a mosaic is used only
            where it is exact.
        include: Patterns of the names of tensors to take instead of those of two or more
            dimensions.
        exclude: Patterns of the names of tensors to keep exact.
        all_parameters: Take all parameters, as in the paper, also those of one dimension.
        threads: Number of threads; all cores by default. The archive does not depend on it.
        step: For structured motifs, the spacing of the grid as a multiple of the root mean square
            of all weights.
        step_exponent: For structured motifs, the step of a tensor is proportional to its root
            mean square to this power.
        sensitivity: Importance of tensors or of their elements by name; see
            :mod:`momos_rs.sensitivity`.
        target_ratio: Least ratio of bytes in to bytes out; instead of a capacity, a number of
            motifs or a step, like the four that follow. See :class:`momos_rs.dials.Dials`.
        target_size: Most bytes of the archive.
        bits: Most bits of the archive per weight.
        max_error: Largest relative error over all tensors of the mosaic.
        max_tensor_error: Largest relative error of each of them.
        tolerance: ``"kmeans"`` ends after an iteration that lowers the distortion by a smaller
            share.
        training_blocks: ``"kmeans"`` refines motifs on at most so many blocks per motif (and on a
            million in any case) where there are more than twice those; 0 for all blocks.
        mini_batch: If not 0, every iteration of ``"kmeans"`` looks at so many blocks only; see
            :mod:`momos_rs.lloyd`.
        memory: Bytes of memory to use beyond what the program takes itself, or a size like
            ``"4G"``; half of what is free by default. The archive does not depend on it.
    """

    block_size: int = defaults.BLOCK_SIZE
    capacity: float = defaults.CAPACITY
    motifs: int | None = None
    method: defaults.Method = defaults.METHOD
    iterations: int = defaults.ITERATIONS
    seed: int = defaults.SEED
    force_zero: bool = defaults.FORCE_ZERO
    motif_dtype: defaults.MotifDtype = defaults.MOTIF_DTYPE
    effort: defaults.Effort = defaults.EFFORT
    lossless: bool = False
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    all_parameters: bool = False
    threads: int | None = None
    step: float = defaults.STEP
    step_exponent: float = defaults.STEP_EXPONENT
    sensitivity: Mapping[str, Sensitivity] | None = None
    target_ratio: float | None = None
    target_size: float | None = None
    bits: float | None = None
    max_error: float | None = None
    max_tensor_error: float | None = None
    tolerance: float = defaults.TOLERANCE
    training_blocks: int = defaults.BLOCKS_PER_MOTIF
    mini_batch: int = 0
    memory: int | str | None = None

    def __post_init__(self) -> None:
        if self.method not in (*defaults.METHODS, *defaults.STRUCTURED_METHODS):
            raise InvalidArgumentError(
                f"method must be one of {', '.join(defaults.METHODS)}, "
                f"{', '.join(defaults.STRUCTURED_METHODS)}, not {self.method!r}"
            )
        if not (math.isfinite(self.step) and self.step > 0):
            raise InvalidArgumentError(f"the step must be above 0, not {self.step}")
        if not math.isfinite(self.step_exponent):
            raise InvalidArgumentError(
                f"the exponent of the step must be finite, not {self.step_exponent}"
            )
        # These check themselves.
        _ = self.dials, self.training, memory_budget(self.memory)
        _core.block_count(0, self.block_size)
        if self.motifs is None:
            motif_count(0, self.capacity)
        elif self.motifs < 1:
            raise InvalidArgumentError(
                f"the number of motifs must be at least 1, not {self.motifs}"
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidArgumentError(f"seed must be at least 0 and below 2^64, not {self.seed}")
        check_motif_dtype(self.motif_dtype)
        if self.effort not in defaults.EFFORTS:
            raise InvalidArgumentError(
                f"effort must be one of {', '.join(defaults.EFFORTS)}, not {self.effort!r}"
            )
        if self.lossless and self.motif_dtype != "auto":
            raise InvalidArgumentError(
                f"lossless packing keeps every bit of a motif; it cannot be {self.motif_dtype} too"
            )
        if self.lossless and (self.dials or self.method not in defaults.METHODS):
            raise InvalidArgumentError(
                "lossless packing keeps every bit, so it cannot meet a target"
                if self.dials
                else f"method {self.method} is not lossless"
            )
        if self.threads is not None and self.threads < 1:
            raise InvalidArgumentError(f"threads must be at least 1, not {self.threads}")

    @property
    def dials(self) -> Dials:
        """What to reach."""
        return Dials(
            self.target_ratio, self.target_size, self.bits, self.max_error, self.max_tensor_error
        )

    @property
    def training(self) -> Training:
        """How motifs are refined."""
        return Training(self.iterations, self.tolerance, self.training_blocks, self.mini_batch)

    def resources(self, team: Team = SOLO) -> Resources:
        """What may be used by a process of a team, which shares the cores and the memory of its
        machine."""
        threads = self.threads
        if threads is None and team.local_size > 1:
            threads = max((os.cpu_count() or 1) // team.local_size, 1)
        return Resources(memory_budget(self.memory, team.local_size), threads, team=team)

    @property
    def selection(self) -> Selection:
        """Which tensors to take."""
        return Selection(tuple(self.include), tuple(self.exclude), self.all_parameters)


def pack(model: Model, *, progress: Progress | None = None, **options: Any) -> bytes:
    """Packs a model into an archive in memory.

    Args:
        model: A module, a state dict of tensors or arrays, or a checkpoint.
        progress: Called with a phase, the work done and the work in all.
        **options: As the attributes of :class:`PackOptions`.

    Returns:
        The archive, the same bytes that :func:`pack_file` writes.

    Raises:
        InvalidArgumentError: If an option is out of its range.
    """
    target = io.BytesIO()
    checked = _options(options)
    _pack(as_checkpoint(model), target, None, checked, checked.resources(), progress, Stopwatch())
    return target.getvalue()


def pack_file(
    source: PathLike,
    target: PathLike | None = None,
    *,
    overwrite: bool = False,
    allow_pickle: bool = False,
    team: Team = SOLO,
    progress: Progress | None = None,
    **options: Any,
) -> PackReport:
    """Packs a checkpoint file into an archive.

    Args:
        source: A file or folder that :func:`momos_rs.checkpoint.read` reads.
        target: The archive; beside the source, with the suffix ``.momos``, by default.
        overwrite: Whether an existing target may be replaced.
        allow_pickle: Whether a source may run code of its own to be loaded.
        team: The processes that pack together; all call this function alike, see
            :mod:`momos_rs.processes`. The first one writes the archive.
        progress: Called with a phase, the work done and the work in all.
        **options: As the attributes of :class:`PackOptions`.

    Returns:
        What was done.

    Raises:
        OSError: If a file cannot be read or written.
        UnsafeFileError: If the source needs code to load.
        CorruptionError: If the source is damaged.
        InvalidArgumentError: If an option is out of its range.
    """
    source = Path(source)
    target = Path(target) if target is not None else _beside(source, ARCHIVE_SUFFIX)
    checked = _options(options)
    if team.size > 1:
        _check_divisible(checked)
    if team.is_first:
        check_target(target, overwrite=overwrite)
    resources = checked.resources(team)
    watch = Stopwatch()
    with watch.phase("read"):
        model = checkpoint.read(source, allow_pickle=allow_pickle)
    return _pack(model, target, overwrite, checked, resources, progress, watch)


def save(model: Model, target: PathLike, *, overwrite: bool = False, **options: Any) -> None:
    """Saves a model: packed as ``.momos``, or unchanged as ``.pt`` or ``.safetensors``.

    Args:
        model: A module, a state dict of tensors or arrays, or a checkpoint.
        target: The file; its suffix chooses the format.
        overwrite: Whether an existing target may be replaced.
        **options: For ``.momos``, as the attributes of :class:`PackOptions`.

    Raises:
        OSError: If the file cannot be written.
        InvalidArgumentError: If an option is out of its range or the suffix is unknown.
    """
    target = Path(target)
    if target.suffix != ARCHIVE_SUFFIX:
        if options:
            raise InvalidArgumentError(f"{', '.join(options)}: only .momos files are packed")
        checkpoint.write(target, as_checkpoint(model), overwrite=overwrite)
        return
    checked = _options(options)
    _pack(as_checkpoint(model), target, overwrite, checked, checked.resources(), None, Stopwatch())


def unpack(archive: bytes, *, max_bytes: int | None = None) -> dict[str, torch.Tensor]:
    """The state dict in an archive in memory.

    Args:
        archive: The archive's bytes.
        max_bytes: Most bytes of tensors to accept; see :func:`momos_rs.open`.

    Returns:
        Tensors in their order, on the CPU, tied as they were.

    Raises:
        CorruptionError: If the archive is damaged.
        UnsupportedVersionError: If it needs a newer version of momos.
    """
    with open_archive(archive, max_bytes=max_bytes) as opened:
        return checkpoint.to_state_dict(opened.checkpoint())


def unpack_file(
    source: PathLike,
    target: PathLike | None = None,
    *,
    overwrite: bool = False,
    max_bytes: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Unpacks an archive into a checkpoint file.

    Args:
        source: The archive.
        target: The file, its suffix choosing the format (``.pt``, ``.safetensors``, ...); beside
            the source, in the format of the original, by default.
        overwrite: Whether an existing target may be replaced.
        max_bytes: Most bytes of tensors to accept; see :func:`momos_rs.open`.
        memory: Bytes of memory to use beyond what the program takes itself; half of what is free
            by default. The file does not depend on it.
        progress: Called with a phase, the bytes done and the bytes in all.

    Returns:
        The path of the file.

    Raises:
        OSError: If a file cannot be read or written.
        CorruptionError: If the archive is damaged; then no file is written.
        UnsupportedVersionError: If it needs a newer version of momos.
        InvalidArgumentError: If the memory is too little, or the suffix is unknown.
    """
    source = Path(source)
    with open_archive(source, max_bytes=max_bytes) as archive:
        if target is None:
            origin = archive.document.source.get("format")
            target = _beside(source, ".safetensors" if origin == "safetensors" else ".pt")
        target = Path(target)
        check_suffix(target)
        model = archive.checkpoint()
        once, per_thread = archive.decoding_memory()
        shares = share_out(
            memory,
            doing=f"unpacking {source}",
            once=once + 2 * bytes_in_another_order(target, model),
            per_thread=per_thread,
            pieces=PIECES_DECODED,
        )
        archive.threads = shares.threads
        checkpoint.write(
            target,
            model,
            overwrite=overwrite,
            piece_bytes=shares.piece_bytes,
            threads=shares.threads,
            progress=counted(progress, "unpack", model.nbytes),
        )
    return target


def load(
    source: PathLike, *, allow_pickle: bool = False, max_bytes: int | None = None
) -> dict[str, torch.Tensor]:
    """The state dict in an archive or in any checkpoint that momos reads.

    Args:
        source: An archive (``.momos``), or a file or folder of weights.
        allow_pickle: Whether a checkpoint may run code of its own to be loaded.
        max_bytes: Most bytes of tensors to accept of an archive; see :func:`momos_rs.open`.

    Raises:
        OSError: If the file cannot be read.
        CorruptionError: If it is damaged.
        UnsafeFileError: If it needs code to load.
    """
    source = Path(source)
    if source.suffix == ARCHIVE_SUFFIX:
        with open_archive(source, max_bytes=max_bytes) as archive:
            return checkpoint.to_state_dict(archive.checkpoint())
    return checkpoint.to_state_dict(checkpoint.read(source, allow_pickle=allow_pickle))


def _options(options: Mapping[str, Any]) -> PackOptions:
    try:
        return PackOptions(**options)
    except TypeError:
        unknown = sorted(options.keys() - PackOptions.__dataclass_fields__.keys())
        raise InvalidArgumentError(
            f"unknown option {', '.join(unknown)}; there are "
            f"{', '.join(PackOptions.__dataclass_fields__)}"
        ) from None


def as_checkpoint(model: Model) -> Checkpoint:
    """The model as a checkpoint."""
    return model if isinstance(model, Checkpoint) else checkpoint.from_state_dict(model)


def _beside(source: Path, suffix: str) -> Path:
    resolved = source if source.name else source.resolve()
    name = resolved.name if resolved.is_dir() else resolved.name.removesuffix(resolved.suffix)
    return resolved.with_name(name.removesuffix(".index") + suffix)


def _check_divisible(options: PackOptions) -> None:
    """Raises InvalidArgumentError if the work cannot be divided over processes."""
    way_out = "pack with a single process instead: momos pack"
    if options.method not in defaults.METHODS:
        raise InvalidArgumentError(
            f"method {options.method} cannot be divided over processes; {way_out}"
        )
    if options.dials:
        raise InvalidArgumentError(
            f"{options.dials.describe()} cannot be sought by several processes; {way_out}"
        )
    if options.sensitivity is not None:
        raise InvalidArgumentError(
            f"a sensitivity cannot be heeded by several processes; {way_out}"
        )


def _check_structured(model: Checkpoint, members: Sequence[int], options: PackOptions) -> None:
    """Raises InvalidArgumentError if structured motifs do not fit into the memory asked for."""
    budget = memory_budget(options.memory)
    needed = _STRUCTURED_BYTES * sum(model.bases[index].numel for index in members)
    if budget is not None and needed > budget:
        raise InvalidArgumentError(
            f"method {options.method} keeps all tensors in memory, about {needed:,} bytes, which "
            f"is more than the {budget:,} of --memory; the methods "
            f"{' and '.join(defaults.METHODS)} need not"
        )


def _pack(
    model: Checkpoint,
    target: Path | IO[bytes],
    overwrite: bool | None,
    options: PackOptions,
    resources: Resources,
    progress: Progress | None,
    watch: Stopwatch,
) -> PackReport:
    if options.memory is not None:
        give_back_freed_memory()
    if isinstance(target, Path):
        resources = dataclasses.replace(resources, folder=target.absolute().parent)
    team = resources.team
    with watch.phase("select"):
        copies = find_copies(model, team, progress)
        decisions, members = _select(model, options, copies, options.block_size, team)
    if options.method not in defaults.METHODS:
        _check_structured(model, members, options)
    with watch.phase("mosaic"):
        found = _find_exact(model, members, options, copies, resources, progress)
        if found is not None:
            exact, decisions, members = found
            made = Made(exact, None, {"method": "exact"})
        elif options.lossless:
            members = []
            made = Made(None, None, {"method": "exact"})
        else:
            made = Maker(model, members, copies, options, resources, progress).make()
        mosaic = made.mosaic
    # Until all is done, a signal leaves no archive.
    with contextlib.ExitStack() as placing:

        def open_target() -> IO[bytes]:
            if not isinstance(target, Path):
                return target
            assert overwrite is not None
            return placing.enter_context(replacing(target, overwrite=overwrite))

        with watch.phase("encode and write"):
            summary = write_sections(
                open_target,
                target if isinstance(target, Path) else None,
                model,
                None if made.grid else mosaic,
                members,
                copies=copies,
                settings={**made.settings, "effort": options.effort},
                grid=made.grid,
                effort=options.effort,
                resources=resources,
                progress=progress,
            )
        with watch.phase("measure"):
            tensors, distortion, energy = _measure(
                model,
                mosaic,
                members,
                copies,
                decisions,
                summary,
                "grid" if made.grid else "mosaic",
                team,
                progress,
            )
    archive = str(target) if isinstance(target, Path) else None
    report = _report(
        model, archive, options, made, summary, tensors, distortion, energy, copies, watch
    )
    peaks = team.join([report.peak_memory or 0])
    return dataclasses.replace(report, peak_memory=max(peaks) or None)


def _select(
    model: Checkpoint,
    options: PackOptions,
    copies: Mapping[int, int],
    block_size: int,
    team: Team,
) -> tuple[list[Decision], list[int]]:
    """The decision on every base, and the bases of the mosaic."""
    decisions = select(model, options.selection, block_size, team)
    members = [
        index for index, decision in enumerate(decisions) if decision.mosaic and index not in copies
    ]
    return decisions, members


def _find_exact(
    model: Checkpoint,
    members: Sequence[int],
    options: PackOptions,
    copies: Mapping[int, int],
    resources: Resources,
    progress: Progress | None,
) -> tuple[Mosaic, list[Decision], list[int]] | None:
    """The mosaic that the model already is, with its decisions and members, if that pays."""
    # Whoever sets a target or a structure does not ask for what the model is.
    if not options.lossless and (options.dials or options.method not in defaults.METHODS):
        return None
    bases = [model.bases[index] for index in members]
    found = find_exact_mosaic(bases, options.block_size, threads=options.threads)
    if found is None:
        return None
    if not options.lossless:
        m = sum(_core.block_count(base.numel, options.block_size) for base in bases)
        k = options.motifs if options.motifs else motif_count(m, options.capacity)
        bits = 8 * dtype(common_dtype([base.dtype for base in bases])).itemsize
        asked = mosaic_bound(m, min(k, m), options.block_size, bits)
        if found.bound > MOST_FOR_EXACTNESS * asked:
            return None
    decisions, members = _select(model, options, copies, found.block_size, resources.team)
    mosaic = exact_mosaic_of_bases(
        [model.bases[index] for index in members],
        block_size=found.block_size,
        motifs=found.motifs,
        resources=resources,
        progress=progress,
    )
    return None if mosaic is None else (mosaic, decisions, members)


def find_copies(
    model: Checkpoint, team: Team = SOLO, progress: Progress | None = None
) -> dict[int, int]:
    """Bases that equal an earlier one, with that one's index.

    Args:
        model: The model.
        team: The processes that look through it together.
        progress: Called with the phase, ``"select"``, the bytes done and the bytes in all.
    """
    first, stop = team.share([base.nbytes for base in model.bases])
    own = model.bases[first:stop]
    counter = Counter(progress, "select", sum(base.nbytes for base in own))
    digests = team.join([_digest(base, counter) for base in own])
    originals: dict[tuple[str, int, str], int] = {}
    copies = {}
    for index, (base, digest) in enumerate(zip(model.bases, digests, strict=True)):
        original = originals.setdefault((base.dtype, base.numel, digest), index)
        if original != index and _are_equal(model.bases[original], base):
            copies[index] = original
    return copies


def _digest(base: Base, counter: Counter) -> str:
    digest = _core.Digest()
    for piece in base.pieces(PIECE_BYTES):
        digest.update(piece)
        counter.add(len(piece))
    return digest.hexdigest()


def _are_equal(one: Base, other: Base) -> bool:
    pairs = zip(one.pieces(PIECE_BYTES), other.pieces(PIECE_BYTES), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _measure(
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


def _report(
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
