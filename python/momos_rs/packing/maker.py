"""Making the mosaic of a model: with given settings, or with those that reach a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from momos_rs import _core, defaults
from momos_rs.archive.document import GridRecord
from momos_rs.archive.writer import ArchiveSummary, GridSections, write_sections
from momos_rs.checkpoint.model import Checkpoint
from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic.build import Refine, mosaic_of_bases
from momos_rs.mosaic.grid import GridMosaic, GridPacker
from momos_rs.mosaic.importance import Importances, importances
from momos_rs.mosaic.lloyd import Lloyd
from momos_rs.mosaic.methods import Exact, FreeMotifs, KMeans, Sensitivity, StructuredMotifs
from momos_rs.mosaic.mosaic import Mosaic, Motifs, compare_with_mosaic
from momos_rs.mosaic.targets import Targets
from momos_rs.mosaic.weighted_lloyd import BYTES_PER_VALUE, BlockWeights, weighted_lloyd
from momos_rs.runtime.progress import Progress
from momos_rs.runtime.resources import Resources

from . import targets
from .selection import Members
from .targets import Found, MissedError

if TYPE_CHECKING:
    from .options import PackOptions

__all__ = ["Made", "Maker"]

FINEST_STEP = 2.0**-20
"""Shortest step to try, relative to the root mean square of all weights: near the precision of
float32."""

COARSEST_STEP = 2.0**7
"""Longest step to try: nothing but zeros is left."""


@dataclass(frozen=True, eq=False)
class Made:
    """A mosaic ready to be written.

    Attributes:
        mosaic: The mosaic; None if no tensor is part of it.
        grid: Its streams, if its motifs are structured; None otherwise.
        settings: How it was made, for the document.
        notes: Remarks for the report.
    """

    mosaic: Mosaic | None
    grid: GridSections | None
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass
class _Discard:
    """A file that keeps nothing."""

    size: int = field(default=0)

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)


class Maker:
    """Makes the mosaic of some bases of a model.

    Args:
        model: The model.
        members: The bases that become part of the mosaic, and copies.
        options: What is asked for.
        resources: What may be used.
        progress: Called while work goes on.
    """

    def __init__(
        self,
        model: Checkpoint,
        members: Members,
        options: PackOptions,
        resources: Resources | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model = model
        self.members = members.indices
        self.copies = members.copies
        self.options = options
        self.resources = resources or Resources()
        self.progress = progress

    def make(self) -> Made:
        """Makes the mosaic that the options ask for.

        Raises:
            InvalidArgumentError: If a target cannot be met; the message says what can.
        """
        method = self.options.method
        if not self.members or isinstance(method, Exact):
            if method.targets:
                raise InvalidArgumentError(
                    *method.targets.mention,
                    " cannot be met: no tensor can become part of a mosaic",
                )
            return Made(None, None, {"method": method.name})
        if isinstance(method, StructuredMotifs):
            return self._structured(method)
        return self.of_motifs(method) if not method.targets else self._free_by_target(method)

    # ---- free motifs

    def of_motifs(self, method: FreeMotifs, *, refine: Refine | None = None) -> Made:
        """The mosaic of free motifs.

        Args:
            method: How they are chosen.
            refine: What takes the place of Lloyd's algorithm.
        """
        per_block = 0
        if refine is None:
            refine = Lloyd.refine
            if self._sensitivities is not None:
                refine = self._refine_by_weight
                per_block = BYTES_PER_VALUE * method.block_size
        mosaic = mosaic_of_bases(
            [self.model.bases[index] for index in self.members],
            method,
            refine=refine,
            per_block=per_block,
            resources=self.resources,
            progress=self.progress,
        )
        record = method.record(self._blocks(method.block_size), mosaic.requested_motifs)
        return Made(mosaic, None, record)

    def _blocks(self, size: int) -> int:
        """Number of blocks of the members, m."""
        return sum(_core.block_count(self.model.bases[each].numel, size) for each in self.members)

    def _refine_by_weight(self, lloyd: Lloyd, table: Motifs, k: int) -> tuple[Motifs, list[float]]:
        assert self._sensitivities is not None
        weights = BlockWeights(
            [self.model.bases[index] for index in self.members],
            [self._sensitivities[index] for index in self.members],
            lloyd.method.block_size,
        )
        return weighted_lloyd(lloyd, weights, table, k)

    def _free_by_target(self, method: FreeMotifs) -> Made:
        blocks = self._blocks(method.block_size)
        size = self._most_bytes()

        def trial(motifs: float) -> tuple[float, Made]:
            made = self.of_motifs(replace(method, motifs=int(motifs), targets=Targets()))
            if size is not None:
                return self.file_size(made), made
            return self._worst_error(made), made

        found = self._search(
            trial,
            size if size is not None else 1.0,
            start=max(1, round(defaults.CAPACITY * blocks)),
            low=1,
            high=blocks,
            rising=size is not None,
            whole=True,
        )
        mosaic = found.result.mosaic
        assert mosaic is not None
        k = mosaic.requested_motifs
        note = f"{method.targets.describe()}: chose c = {k / blocks:.6g} (k = {k})"
        made: Made = found.result
        return replace(made, notes=(note,))

    # ---- structured motifs

    def of_step(self, step: float) -> Made:
        """The mosaic of structured motifs at a step.

        Args:
            step: Spacing of the grid as a multiple of the root mean square of all weights.
        """
        return self._of_grid(self._grid(step))

    def _structured(self, method: StructuredMotifs) -> Made:
        wanted = method.targets
        size = self._most_bytes()
        if not wanted:
            return self.of_step(method.spacing)
        if size is not None:
            grid = self._grid_of_size(size, method.spacing)
        elif wanted.max_error is None:
            grid = self._grid(COARSEST_STEP, self._limits(wanted.max_tensor_error))
        else:
            limits = None
            if wanted.max_tensor_error is not None:
                limits = self._limits(wanted.max_tensor_error)
            grid = self._grid_of_error(wanted.max_error, limits)
        made = self._of_grid(grid)
        chosen = f"a step of {grid.step:.6g} RMS" if grid.step < COARSEST_STEP else "one per tensor"
        return replace(made, notes=(f"{wanted.describe()}: chose {chosen}", *made.notes))

    @cached_property
    def _method(self) -> StructuredMotifs:
        """The method, where motifs are structured."""
        assert isinstance(self.options.method, StructuredMotifs)
        return self.options.method

    @cached_property
    def _packer(self) -> GridPacker:
        return GridPacker(
            self.model,
            self.members,
            self._method,
            sensitivities=self._sensitivities,
            importances=None if self._importances is None else self._importances.by_base,
            resources=self.resources,
        )

    @cached_property
    def _sensitivities(self) -> Mapping[int, Sensitivity] | None:
        method = self.options.method
        if not isinstance(method, (KMeans, StructuredMotifs)) or method.sensitivity is None:
            return None
        from momos_rs.mosaic.sensitivity import by_base

        return by_base(self.model, self.members, method.sensitivity)

    @cached_property
    def _importances(self) -> Importances | None:
        calibration = self._method.calibration
        if calibration is None:
            return None
        return importances(calibration, self.model, self.members, threads=self.resources.threads)

    def _grid(self, step: float, limits: Sequence[float] | None = None) -> GridMosaic:
        return self._packer.at(step, limits=limits, progress=self.progress)

    def _grid_of_error(self, error: float, limits: Sequence[float] | None) -> GridMosaic:
        def trial(step: float) -> tuple[float, GridMosaic]:
            grid = self._grid(step, limits)
            return grid.relative_error, grid

        if limits is not None:
            coarsest = self._grid(COARSEST_STEP, limits)
            if coarsest.relative_error <= error:
                return coarsest
        return self._search_step(trial, error, rising=True).result

    def _grid_of_size(self, size: float, start: float) -> GridMosaic:
        first = self._grid(start)
        # What is not in the streams hardly depends on them.
        rest = self.file_size(self._of_grid(first)) - first.nbytes

        def trial(step: float) -> tuple[float, GridMosaic]:
            nonlocal rest
            grid = first if step == start else self._grid(step)
            estimate = rest + grid.nbytes
            if size * (1 - 2 * targets.TOLERANCE) < estimate < size * (1 + targets.TOLERANCE):
                estimate = self.file_size(self._of_grid(grid))
                rest = estimate - grid.nbytes
            return estimate, grid

        return self._search_step(trial, size, rising=False).result

    def _limits(self, error: float | None) -> list[float]:
        """The longest step of each tensor that keeps it within a relative error."""
        assert error is not None
        spacing = self._method.spacing
        steps = self._packer.steps(spacing)

        def longest(position: int) -> float:
            def trial(step: float) -> tuple[float, None]:
                return self._packer.relative_error(position, step), None

            start = steps[position]
            scale = start / spacing
            try:
                found = targets.search(
                    trial,
                    error,
                    start=start,
                    low=scale * FINEST_STEP,
                    high=scale * COARSEST_STEP * 8,
                    rising=True,
                )
            except MissedError as missed:
                # A tensor of few weights has few errors to choose from.
                if missed.nearest_below is None:
                    raise self._out_of_reach(missed) from None
                return missed.nearest_below.setting
            return found.setting

        return [longest(position) for position in range(len(steps))]

    def _of_grid(self, grid: GridMosaic) -> Made:
        size = self._method.block_size
        mosaic = grid.mosaic(size, threads=self.resources.threads)
        settings = self._method.record(grid.step if grid.step < COARSEST_STEP else None)
        record = GridRecord(
            block_size=size,
            motifs=len(mosaic.motifs),
            blocks=len(mosaic.indices),
            dtype=mosaic.dtype,
            settings=settings,
        )
        streams = dict(zip(self.members, grid.streams, strict=True))
        notes = () if self._importances is None else self._importances.notes
        return Made(mosaic, GridSections(streams, record, grid.own_steps), settings, notes)

    # ---- targets

    def _search_step(
        self,
        trial: Callable[[float], tuple[float, GridMosaic]],
        target: float,
        *,
        rising: bool,
    ) -> Found[GridMosaic]:
        found: Found[GridMosaic] = self._search(
            trial,
            target,
            start=self._method.spacing,
            low=FINEST_STEP,
            high=COARSEST_STEP,
            rising=rising,
        )
        return found

    def _search(
        self, trial: Callable[[float], tuple[float, Any]], target: float, **how: Any
    ) -> Any:
        try:
            return targets.search(trial, target, **how)
        except MissedError as missed:
            raise self._out_of_reach(missed) from None

    def _most_bytes(self) -> float | None:
        """Most bytes that the targets allow; None if they are errors."""
        return self.options.method.targets.most_bytes(self.model.nbytes, self.model.numel)

    def _out_of_reach(self, missed: MissedError) -> InvalidArgumentError:
        """What is possible instead, in one line."""
        method = self.options.method
        tried = [each for each in (missed.nearest_below, missed.nearest_above) if each is not None]
        nearest = " or ".join(self._in_words(found.value) for found in tried)
        return InvalidArgumentError(
            *method.targets.mention,
            f" cannot be met within {targets.TOLERANCE:.0%} by method {method.name}; the nearest "
            f"possible: {nearest}",
        )

    def _in_words(self, value: float) -> str:
        """What a trial led to."""
        asked = self.options.method.targets
        if self._most_bytes() is not None:
            return (
                f"{value:,.0f} bytes (ratio {self.model.nbytes / value:.4g}, "
                f"{8 * value / self.model.numel:.4g} bits per weight)"
            )
        limits = [each for each in (asked.max_error, asked.max_tensor_error) if each is not None]
        # Trials of free motifs are valued as shares of what is allowed.
        if isinstance(self.options.method, FreeMotifs) and len(limits) == 1:
            value *= limits[0]
        return f"a relative error of {value:.4g}"

    def file_size(self, made: Made) -> int:
        """Bytes of the archive."""
        return self.summary(made).archive_bytes

    def summary(self, made: Made) -> ArchiveSummary:
        """What the archive takes, which is made and thrown away."""
        target: Any = _Discard()
        return write_sections(
            lambda: target,
            None,
            self.model,
            None if made.grid else made.mosaic,
            self.members,
            copies=self.copies,
            settings={**made.settings, "effort": self.options.effort},
            grid=made.grid,
            errors=relative_errors(self._differences(made)),
            effort=self.options.effort,
            resources=self.resources,
        )

    def _differences(self, made: Made) -> dict[int, _core._Difference]:
        """How each member differs from what it decodes to."""
        if made.mosaic is None:
            return {}
        return {
            index: compare_with_mosaic(
                self.model.bases[index], made.mosaic, position, threads=self.resources.threads
            )
            for position, index in enumerate(self.members)
        }

    def errors(self, made: Made) -> tuple[float, float]:
        """The relative error over all tensors, and the largest of one of them."""
        distortion = energy = worst = 0.0
        for difference in self._differences(made).values():
            distortion += difference["distortion"]
            energy += difference["sum_of_squares"]
            if difference["sum_of_squares"]:
                worst = max(worst, difference["distortion"] / difference["sum_of_squares"])
        return (distortion / energy if energy else 0.0), worst

    def _worst_error(self, made: Made) -> float:
        """The errors as a share of what is allowed; the larger of them."""
        overall, worst = self.errors(made)
        wanted = self.options.method.targets
        shares = [0.0]
        if wanted.max_error is not None:
            shares.append(overall / wanted.max_error)
        if wanted.max_tensor_error is not None:
            shares.append(worst / wanted.max_tensor_error)
        return max(shares)


def relative_errors(differences: Mapping[int, _core._Difference]) -> dict[int, float]:
    """The relative error of each base that has one, which the archive records."""
    return {
        index: each["distortion"] / each["sum_of_squares"] if each["sum_of_squares"] else 0.0
        for index, each in differences.items()
        if each["distortion"]
    }
