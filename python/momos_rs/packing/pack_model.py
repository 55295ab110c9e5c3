"""Packing a model into an archive.

This is what ``momos pack`` is a thin layer over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from momos_rs import _core, checkpoint, defaults
from momos_rs.archive.writer import ArchiveSummary, write_sections
from momos_rs.checkpoint import Checkpoint
from momos_rs.dtypes import dtype
from momos_rs.errors import Argument, InvalidArgumentError
from momos_rs.mosaic.build import exact_mosaic_of_bases
from momos_rs.mosaic.detect import find_exact_mosaic
from momos_rs.mosaic.methods import Exact, FreeMotifs, KMeans, StructuredMotifs
from momos_rs.mosaic.mosaic import common_dtype, mosaic_bound
from momos_rs.runtime.allocator import give_back_freed_memory
from momos_rs.runtime.atomic_file import check_target, replacing
from momos_rs.runtime.progress import Progress
from momos_rs.runtime.resources import Resources
from momos_rs.runtime.stopwatch import Stopwatch
from momos_rs.runtime.team import SOLO, Team

from .copies import find_copies
from .maker import Made, Maker, relative_errors
from .options import (
    ARCHIVE_SUFFIX,
    Model,
    PackKeywords,
    PackOptions,
    PathLike,
    as_checkpoint,
    beside,
    resources_of,
)
from .outcome import differences_of, measure, pack_report
from .report import PackReport
from .selection import Members
from .unusual import keep_exact, without_unusual

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Packer", "pack", "pack_file", "save"]

MOST_FOR_EXACTNESS = 2.0
"""A model that is a mosaic already is packed as it is if the paper's bound on it is at most this
many times that of the mosaic asked for."""

_STRUCTURED_BYTES = 24
"""Most bytes of memory that structured motifs take for every weight."""


def pack(
    model: Model, *, progress: Progress | None = None, **options: Unpack[PackKeywords]
) -> bytes:
    """Packs a model into an archive in memory.

    Args:
        model: A module, a state dict of tensors or arrays, or a checkpoint.
        progress: Called with a phase, the work done and the work in all.
        **options: See :class:`~momos_rs.packing.options.PackKeywords`.

    Returns:
        The archive, the same bytes that :func:`pack_file` writes.

    Raises:
        InvalidArgumentError: If an option is out of its range, or the method does not take it.
    """
    target = io.BytesIO()
    checked, resources = PackOptions.of(options), resources_of(options)
    Packer(as_checkpoint(model), checked, resources, progress).pack(target)
    return target.getvalue()


def pack_file(
    source: PathLike,
    target: PathLike | None = None,
    *,
    overwrite: bool = False,
    allow_pickle: bool = False,
    team: Team = SOLO,
    progress: Progress | None = None,
    **options: Unpack[PackKeywords],
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
        **options: See :class:`~momos_rs.packing.options.PackKeywords`.

    Returns:
        What was done.

    Raises:
        OSError: If a file cannot be read or written.
        UnsafeFileError: If the source needs code to load.
        CorruptionError: If the source is damaged.
        InvalidArgumentError: If an option is out of its range, or the method does not take it.
    """
    source = Path(source)
    target = Path(target) if target is not None else beside(source, ARCHIVE_SUFFIX)
    checked, resources = PackOptions.of(options), resources_of(options, team)
    if team.size > 1:
        _check_divisible(checked)
    if team.is_first:
        check_target(target, overwrite=overwrite)
        checkpoint.check_not_input(target, source)
    watch = Stopwatch()
    with watch.phase("read"):
        model = checkpoint.read(source, allow_pickle=allow_pickle)
    return Packer(model, checked, resources, progress, watch).pack(target, overwrite=overwrite)


def save(
    model: Model,
    target: PathLike,
    *,
    overwrite: bool = False,
    **options: Unpack[PackKeywords],
) -> None:
    """Saves a model: packed as ``.momos``, or unchanged as ``.pt`` or ``.safetensors``.

    Args:
        model: A module, a state dict of tensors or arrays, or a checkpoint.
        target: The file; its suffix chooses the format.
        overwrite: Whether an existing target may be replaced.
        **options: For ``.momos``, see :class:`~momos_rs.packing.options.PackKeywords`.

    Raises:
        OSError: If the file cannot be written.
        InvalidArgumentError: If an option is out of its range, the method does not take it, or the
            suffix is unknown.
    """
    target = Path(target)
    if target.suffix != ARCHIVE_SUFFIX:
        if options:
            raise InvalidArgumentError(f"{', '.join(options)}: only .momos files are packed")
        checkpoint.write(target, as_checkpoint(model), overwrite=overwrite)
        return
    checked, resources = PackOptions.of(options), resources_of(options)
    Packer(as_checkpoint(model), checked, resources).pack(target, overwrite=overwrite)


def _check_divisible(options: PackOptions) -> None:
    """Raises InvalidArgumentError if the work cannot be divided over processes."""
    way_out = "; pack with a single process instead: momos pack"
    method = options.method
    if isinstance(method, StructuredMotifs):
        raise InvalidArgumentError(
            f"method {method.name} cannot be divided over processes{way_out}"
        )
    if method.targets:
        raise InvalidArgumentError(
            *method.targets.mention, f" cannot be searched for by several processes{way_out}"
        )
    if isinstance(method, KMeans) and method.sensitivity is not None:
        raise InvalidArgumentError(f"several processes cannot use a sensitivity{way_out}")


@dataclass(eq=False)
class Packer:
    """Packs one model.

    Attributes:
        model: The model.
        options: How.
        resources: What may be used.
        progress: Called with a phase, the work done and the work in all.
        watch: Takes the time of every phase.
    """

    model: Checkpoint
    options: PackOptions
    resources: Resources
    progress: Progress | None = None
    watch: Stopwatch = field(default_factory=Stopwatch)

    def pack(self, target: Path | IO[bytes], *, overwrite: bool = False) -> PackReport:
        """Writes the archive.

        Args:
            target: Its path, or an open file.
            overwrite: Whether an existing file of that path may be replaced.

        Raises:
            OSError: If a file cannot be read or written.
            InvalidArgumentError: If a target cannot be met, or the memory is too little.
        """
        if self.resources.memory is not None:
            give_back_freed_memory()
        path = target if isinstance(target, Path) else None
        if path is not None:
            self.resources = dataclasses.replace(self.resources, folder=path.absolute().parent)
        with self.watch.phase("select"):
            members = self.select()
        with self.watch.phase("mosaic"):
            members, made = self.make(members)
        with self.watch.phase("measure"):
            members, made, differences = self._measure(members, made)
        # Until all is done, a signal leaves no archive.
        with contextlib.ExitStack() as placing:

            def open_target() -> IO[bytes]:
                if not isinstance(target, Path):
                    return target
                return placing.enter_context(replacing(target, overwrite=overwrite))

            with self.watch.phase("encode and write"):
                summary = write_sections(
                    open_target,
                    path,
                    self.model,
                    None if made.grid else made.mosaic,
                    members.indices,
                    copies=members.copies,
                    settings={**made.settings, "effort": self.options.effort},
                    grid=made.grid,
                    errors=relative_errors(differences),
                    effort=self.options.effort,
                    resources=self.resources,
                    progress=self.progress,
                )
            return self._report(path, members, made, summary, differences)

    def select(self) -> Members:
        """Which tensors become part of the mosaic."""
        copies = find_copies(self.model, self.resources.team, self.progress)
        return self._select(copies, self.options.method.block_size)

    def make(self, members: Members) -> tuple[Members, Made]:
        """The mosaic, and the tensors that are part of it.

        Args:
            members: Those that would be by the options' block size.
        """
        method = self.options.method
        if isinstance(method, StructuredMotifs):
            self._check_structured(method, members.indices)
        elif not method.targets:
            # Who sets a target or a structure does not ask for what the model is.
            found = self._find_exact(method, members)
            if found is not None:
                return found
            if isinstance(method, Exact):
                members = members.without_mosaic()
        members = without_unusual(self.model, members)
        return members, self._make(members)

    def _make(self, members: Members) -> Made:
        return Maker(self.model, members, self.options, self.resources, self.progress).make()

    def _measure(
        self, members: Members, made: Made
    ) -> tuple[Members, Made, dict[int, _core._Difference]]:
        """How the mosaic differs from its tensors; made anew without those that it would make
        infinite."""
        if made.mosaic is None:
            return members, made, {}
        args = self.resources, self.progress
        differences = differences_of(self.model, made.mosaic, members, *args)
        infinite = {
            index: "rounded, it would not be finite"
            for index, each in differences.items()
            if not math.isfinite(each["distortion"])
        }
        if not infinite:
            return members, made, differences
        members = keep_exact(members, infinite)
        return self._measure(members, self._make(members))

    def _select(self, copies: Mapping[int, int], block_size: int) -> Members:
        return Members.of(self.model, self.options.selection, block_size, copies, self.resources)

    def _find_exact(
        self, method: FreeMotifs | Exact, members: Members
    ) -> tuple[Members, Made] | None:
        """The mosaic that the model already is, and its members, if that pays."""
        bases = [self.model.bases[index] for index in members.indices]
        found = find_exact_mosaic(bases, method.block_size, self.resources)
        if found is None:
            return None
        if isinstance(method, FreeMotifs):
            m = sum(_core.block_count(base.numel, method.block_size) for base in bases)
            bits = 8 * dtype(common_dtype([base.dtype for base in bases])).itemsize
            asked = mosaic_bound(m, method.motif_count(m), method.block_size, bits)
            if found.bound > MOST_FOR_EXACTNESS * asked:
                return None
        members = self._select(members.copies, found.block_size)
        mosaic = exact_mosaic_of_bases(
            [self.model.bases[index] for index in members.indices],
            block_size=found.block_size,
            motifs=found.motifs,
            resources=self.resources,
            progress=self.progress,
        )
        return None if mosaic is None else (members, Made(mosaic, None, {"method": "exact"}))

    def _check_structured(self, method: StructuredMotifs, members: Sequence[int]) -> None:
        """Raises InvalidArgumentError if structured motifs need more than the memory allowed."""
        budget = self.resources.budget
        needed = _STRUCTURED_BYTES * sum(self.model.bases[index].numel for index in members)
        if method.calibration is not None:
            # Factors are half of a matrix, and targets and errors are kept in float64.
            needed += 16 * max((self.model.bases[index].numel for index in members), default=0)
            needed += sum(each.sums.nbytes // 2 for each in method.calibration.moments.values())
        if budget is not None and needed > budget:
            raise InvalidArgumentError(
                f"method {method.name} keeps all tensors in memory, about {needed:,} bytes, which "
                f"is more than the {budget:,} of ",
                Argument("memory"),
                f"; the methods {' and '.join(defaults.FREE_METHODS)} do not",
            )

    def _report(
        self,
        path: Path | None,
        members: Members,
        made: Made,
        summary: ArchiveSummary,
        differences: Mapping[int, _core._Difference],
    ) -> PackReport:
        outcome = measure(self.model, made, members, summary, differences)
        report = pack_report(self.model, self.options, members, made, summary, outcome)
        peaks = self.resources.team.join([report.peak_memory or 0])
        return dataclasses.replace(
            report,
            archive=None if path is None else str(path),
            seconds=dict(self.watch.seconds),
            peak_memory=max(peaks) or None,
        )
