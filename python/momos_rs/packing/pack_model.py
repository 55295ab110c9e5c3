"""Packing a model into an archive, and back.

This is what ``momos pack`` and ``momos unpack`` are thin layers over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from momos_rs import _core, checkpoint, defaults
from momos_rs.archive.writer import write_sections
from momos_rs.checkpoint import Checkpoint
from momos_rs.dtypes import dtype
from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic.build import exact_mosaic_of_bases
from momos_rs.mosaic.detect import find_exact_mosaic
from momos_rs.mosaic.mosaic import (
    Mosaic,
    common_dtype,
    mosaic_bound,
    motif_count,
)
from momos_rs.runtime.allocator import give_back_freed_memory
from momos_rs.runtime.atomic_file import check_target, replacing
from momos_rs.runtime.progress import Progress
from momos_rs.runtime.resources import Resources, memory_budget
from momos_rs.runtime.stopwatch import Stopwatch
from momos_rs.runtime.team import SOLO, Team

from .copies import find_copies
from .maker import Made, Maker
from .options import ARCHIVE_SUFFIX, Model, PackOptions, PathLike, as_checkpoint, beside
from .outcome import measure, pack_report
from .report import PackReport
from .selection import Decision, select

__all__ = ["pack", "pack_file", "save"]

MOST_FOR_EXACTNESS = 2.0
"""A model that is a mosaic already is packed as it is if the paper's bound on it is at most so many
times that of the mosaic asked for."""


_STRUCTURED_BYTES = 24
"""Bytes for every weight that structured motifs take at the most."""


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
            :mod:`momos_rs.runtime.torch_team`. The first one writes the archive.
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
    target = Path(target) if target is not None else beside(source, ARCHIVE_SUFFIX)
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


def _options(options: Mapping[str, Any]) -> PackOptions:
    try:
        return PackOptions(**options)
    except TypeError:
        unknown = sorted(options.keys() - PackOptions.__dataclass_fields__.keys())
        raise InvalidArgumentError(
            f"unknown option {', '.join(unknown)}; there are "
            f"{', '.join(PackOptions.__dataclass_fields__)}"
        ) from None


def _check_divisible(options: PackOptions) -> None:
    """Raises InvalidArgumentError if the work cannot be divided over processes."""
    way_out = "pack with a single process instead: momos pack"
    if options.method not in defaults.METHODS:
        raise InvalidArgumentError(
            f"method {options.method} cannot be divided over processes; {way_out}"
        )
    if options.targets:
        raise InvalidArgumentError(
            f"{options.targets.describe()} cannot be sought by several processes; {way_out}"
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
            tensors, distortion, energy = measure(
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
    report = pack_report(
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
    if not options.lossless and (options.targets or options.method not in defaults.METHODS):
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
