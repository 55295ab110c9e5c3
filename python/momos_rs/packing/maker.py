"""Making the mosaic of a model: with given settings, or with those that reach a target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from momos_rs import _core, defaults
from momos_rs.archive.document import GridRecord
from momos_rs.archive.writer import ArchiveSummary, GridSections, write_sections
from momos_rs.checkpoint.model import Checkpoint
from momos_rs.defaults import STRUCTURED_METHODS
from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic.build import Refine, mosaic_of_bases
from momos_rs.mosaic.grid import GridMosaic, GridPacker, Sensitivity
from momos_rs.mosaic.lloyd import Lloyd
from momos_rs.mosaic.mosaic import Mosaic, Motifs, compare_with_mosaic
from momos_rs.mosaic.weighted_lloyd import BYTES_PER_VALUE, BlockWeights, weighted_lloyd
from momos_rs.runtime.progress import Progress
from momos_rs.runtime.resources import Resources

from . import targets
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
        members: The bases that become part of the mosaic.
        copies: Bases that equal an earlier one.
        options: What is asked for.
        resources: What may be used; what the options say by default.
        progress: Called while work goes on.
    """

    def __init__(
        self,
        model: Checkpoint,
        members: Sequence[int],
        copies: Mapping[int, int],
        options: PackOptions,
        resources: Resources | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.model = model
        self.members = members
        self.copies = copies
        self.options = options
        self.resources = options.resources() if resources is None else resources
        self.progress = progress

    def make(self) -> Made:
        """Makes the mosaic that the options ask for.

        Raises:
            InvalidArgumentError: If a target cannot be met; the message says what can.
        """
        structured = self.options.method in STRUCTURED_METHODS
        if not self.members:
            if self.options.targets:
                raise InvalidArgumentError(
                    f"{self.options.targets.describe()} cannot be met: no tensor can become part "
                    "of a mosaic"
                )
            return Made(None, None, {"method": self.options.method})
        if structured:
            return self._structured()
        return self.of_motifs() if not self.options.targets else self._free_by_target()

    # ---- free motifs

    def of_motifs(self, motifs: int | None = None, *, refine: Refine | None = None) -> Made:
        """The mosaic of free motifs.

        Args:
            motifs: Number of motifs; as the options say by default.
            refine: What takes the place of Lloyd's algorithm.
        """
        options = self.options
        per_block = 0
        if refine is None:
            refine = Lloyd.refine
            if options.sensitivity is not None:
                refine = self._refine_by_weight
                per_block = BYTES_PER_VALUE * options.block_size
        motifs = options.motifs if motifs is None else motifs
        mosaic = mosaic_of_bases(
            [self.model.bases[index] for index in self.members],
            block_size=options.block_size,
            capacity=options.capacity,
            motifs=motifs,
            method=options.method,
            training=options.training,
            seed=options.seed,
            force_zero=options.force_zero,
            motif_dtype=options.motif_dtype,
            refine=refine,
            per_block=per_block,
            resources=self.resources,
            progress=self.progress,
        )
        refines = options.method == "kmeans"
        settings = {
            "capacity": options.capacity if motifs is None else None,
            "method": options.method,
            "iterations": options.iterations if refines else 0,
            "seed": options.seed,
            "force_zero": options.force_zero,
        }
        if refines:
            settings |= self._training_settings(mosaic.requested_motifs)
        return Made(mosaic, None, settings)

    def _training_settings(self, motifs: int) -> dict[str, Any]:
        """What is not as usual in how motifs were refined."""
        training = self.options.training
        settings: dict[str, Any] = {}
        if training.tolerance != defaults.TOLERANCE:
            settings["tolerance"] = training.tolerance
        if training.mini_batch:
            settings["mini_batch"] = training.mini_batch
        elif training.sample_width(self.blocks, motifs) > 1:
            settings["training_blocks"] = training.blocks_per_motif
        return settings

    @property
    def blocks(self) -> int:
        """Number of blocks of the members, m."""
        size = self.options.block_size
        return sum(_core.block_count(self.model.bases[each].numel, size) for each in self.members)

    def _refine_by_weight(self, lloyd: Lloyd, table: Motifs) -> tuple[Motifs, list[float]]:
        assert self._sensitivities is not None
        weights = BlockWeights(
            [self.model.bases[index] for index in self.members],
            [self._sensitivities[index] for index in self.members],
            self.options.block_size,
        )
        return weighted_lloyd(lloyd, weights, table)

    def _free_by_target(self) -> Made:
        options = self.options
        blocks = self.blocks
        size = options.targets.most_bytes(self.model.nbytes, self.model.numel)

        def trial(motifs: float) -> tuple[float, Made]:
            made = self.of_motifs(int(motifs))
            if size is not None:
                return self.file_size(made), made
            return self._worst_error(*self.errors(made)), made

        found = self._search(
            trial,
            size if size is not None else 1.0,
            start=max(1, round(options.capacity * blocks)),
            low=1,
            high=blocks,
            rising=size is not None,
            whole=True,
        )
        mosaic = found.result.mosaic
        assert mosaic is not None
        k = mosaic.requested_motifs
        note = f"{options.targets.describe()}: chose c = {k / blocks:.6g} (k = {k})"
        return Made(mosaic, None, found.result.settings, (note,))

    # ---- structured motifs

    def of_step(self, step: float) -> Made:
        """The mosaic of structured motifs at a step.

        Args:
            step: Spacing of the grid as a multiple of the root mean square of all weights.
        """
        return self._of_grid(self._grid(step))

    def _structured(self) -> Made:
        options = self.options
        wanted = options.targets
        size = wanted.most_bytes(self.model.nbytes, self.model.numel)
        if not wanted:
            return self.of_step(options.step)
        if size is not None:
            grid = self._grid_of_size(size)
        elif wanted.max_error is None:
            grid = self._grid(COARSEST_STEP, self._limits(wanted.max_tensor_error))
        else:
            limits = None
            if wanted.max_tensor_error is not None:
                limits = self._limits(wanted.max_tensor_error)
            grid = self._grid_of_error(wanted.max_error, limits)
        made = self._of_grid(grid)
        chosen = f"a step of {grid.step:.6g} RMS" if grid.step < COARSEST_STEP else "one per tensor"
        return dataclasses.replace(made, notes=(f"{wanted.describe()}: chose {chosen}",))

    @cached_property
    def _packer(self) -> GridPacker:
        return GridPacker(
            self.model,
            self.members,
            method=self.options.method,
            exponent=self.options.step_exponent,
            sensitivities=self._sensitivities,
            threads=self.options.threads,
        )

    @cached_property
    def _sensitivities(self) -> Mapping[int, Sensitivity] | None:
        if self.options.sensitivity is None:
            return None
        from momos_rs.mosaic.sensitivity import by_base

        return by_base(self.model, self.members, self.options.sensitivity)

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

    def _grid_of_size(self, size: float) -> GridMosaic:
        first = self._grid(self.options.step)
        # What is not in the streams hardly depends on them.
        rest = self.file_size(self._of_grid(first)) - first.nbytes

        def trial(step: float) -> tuple[float, GridMosaic]:
            nonlocal rest
            grid = first if step == self.options.step else self._grid(step)
            estimate = rest + grid.nbytes
            if size * (1 - 2 * targets.TOLERANCE) < estimate < size * (1 + targets.TOLERANCE):
                estimate = self.file_size(self._of_grid(grid))
                rest = estimate - grid.nbytes
            return estimate, grid

        return self._search_step(trial, size, rising=False).result

    def _limits(self, error: float | None) -> list[float]:
        """The longest step of each tensor that keeps it within a relative error."""
        assert error is not None
        steps = self._packer.steps(self.options.step)

        def longest(position: int) -> float:
            def trial(step: float) -> tuple[float, None]:
                return self._packer.relative_error(position, step), None

            start = steps[position]
            scale = start / self.options.step
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
        options = self.options
        mosaic = grid.mosaic(options.block_size, threads=options.threads)
        settings = {
            "method": options.method,
            "step": grid.step if grid.step < COARSEST_STEP else None,
            "step_exponent": None if options.sensitivity else options.step_exponent,
        }
        record = GridRecord(
            block_size=options.block_size,
            motifs=len(mosaic.motifs),
            blocks=len(mosaic.indices),
            dtype=mosaic.dtype,
            settings=settings,
        )
        streams = dict(zip(self.members, grid.streams, strict=True))
        return Made(mosaic, GridSections(streams, record), settings)

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
            start=self.options.step,
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

    def _out_of_reach(self, missed: MissedError) -> InvalidArgumentError:
        """What is possible instead, in one line."""
        asked = self.options.targets
        size = asked.most_bytes(self.model.nbytes, self.model.numel)
        nearest = []
        for found in (missed.nearest_below, missed.nearest_above):
            if found is None:
                continue
            if size is None:
                shares = [
                    limit
                    for limit in (asked.max_error, asked.max_tensor_error)
                    if limit is not None
                ]
                value = found.value * (shares[0] if len(shares) == 1 else 1.0)
                is_share = self.options.method not in STRUCTURED_METHODS
                nearest.append(f"a relative error of {value if is_share else found.value:.4g}")
            else:
                nearest.append(
                    f"{found.value:,.0f} bytes (ratio {self.model.nbytes / found.value:.4g}, "
                    f"{8 * found.value / self.model.numel:.4g} bits per weight)"
                )
        return InvalidArgumentError(
            f"{asked.describe()} cannot be met within {targets.TOLERANCE:.0%} by method "
            f"{self.options.method}; the nearest possible: {' or '.join(nearest)}"
        )

    def file_size(self, made: Made) -> int:
        """Bytes of the archive."""
        return self.summary(made).file_bytes

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
            effort=self.options.effort,
            resources=self.resources,
        )

    def errors(self, made: Made) -> tuple[float, float]:
        """The relative error over all tensors, and the largest of one of them."""
        assert made.mosaic is not None
        distortion = energy = worst = 0.0
        for position, index in enumerate(self.members):
            difference = compare_with_mosaic(self.model.bases[index], made.mosaic, position)
            distortion += difference["distortion"]
            energy += difference["sum_of_squares"]
            if difference["sum_of_squares"]:
                worst = max(worst, difference["distortion"] / difference["sum_of_squares"])
        return (distortion / energy if energy else 0.0), worst

    def _worst_error(self, overall: float, worst: float) -> float:
        """The errors as a share of what is allowed; the larger of them."""
        wanted = self.options.targets
        shares = [0.0]
        if wanted.max_error is not None:
            shares.append(overall / wanted.max_error)
        if wanted.max_tensor_error is not None:
            shares.append(worst / wanted.max_tensor_error)
        return max(shares)
