"""How to pack: every option of ``momos pack`` in one value."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from momos_rs import _core, checkpoint, defaults
from momos_rs.checkpoint import Checkpoint
from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic.lloyd import Training
from momos_rs.mosaic.mosaic import (
    motif_count,
)
from momos_rs.mosaic.motif_precision import check_motif_dtype
from momos_rs.runtime.resources import Resources, memory_budget
from momos_rs.runtime.team import SOLO, Team

from .selection import Selection
from .targets import Targets

if TYPE_CHECKING:
    import torch

    from momos_rs.mosaic.grid import Sensitivity

__all__ = [
    "ARCHIVE_SUFFIX",
    "Model",
    "PackOptions",
    "PathLike",
    "as_checkpoint",
    "beside",
]

PathLike: TypeAlias = "str | os.PathLike[str]"
Model: TypeAlias = "torch.nn.Module | Mapping[str, Any] | Checkpoint"

ARCHIVE_SUFFIX = ".momos"


@dataclass(frozen=True)
class PackOptions:
    """How to pack; the arguments of :func:`pack` and :func:`pack_file` in one value.

    Attributes:
        block_size: Values per block, s, from 1 to 4096.
        capacity: Motifs per block, c, above 0 and at most 1; ignored if ``motifs`` is given.
        motifs: Number of motifs, k.
        method: ``"kmeans"``, or ``"random"`` as in the paper; ``"grid"`` or ``"trellis"`` for
            structured motifs, see :mod:`momos_rs.mosaic.grid`.
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
            :mod:`momos_rs.mosaic.sensitivity`.
        target_ratio: Least ratio of bytes in to bytes out; instead of a capacity, a number of
            motifs or a step, like the four that follow. See :class:`momos_rs.targets.Targets`.
        target_size: Most bytes of the archive.
        bits: Most bits of the archive per weight.
        max_error: Largest relative error over all tensors of the mosaic.
        max_tensor_error: Largest relative error of each of them.
        tolerance: ``"kmeans"`` ends after an iteration that lowers the distortion by a smaller
            share.
        training_blocks: ``"kmeans"`` refines motifs on at most so many blocks per motif (and on a
            million in any case) where there are more than twice those; 0 for all blocks.
        mini_batch: If not 0, every iteration of ``"kmeans"`` looks at so many blocks only; see
            :mod:`momos_rs.mosaic.lloyd`.
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
        _ = self.targets, self.training, memory_budget(self.memory)
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
        if self.lossless and (self.targets or self.method not in defaults.METHODS):
            raise InvalidArgumentError(
                "lossless packing keeps every bit, so it cannot meet a target"
                if self.targets
                else f"method {self.method} is not lossless"
            )
        if self.threads is not None and self.threads < 1:
            raise InvalidArgumentError(f"threads must be at least 1, not {self.threads}")

    @property
    def targets(self) -> Targets:
        """What to reach."""
        return Targets(
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


def as_checkpoint(model: Model) -> Checkpoint:
    """The model as a checkpoint."""
    return model if isinstance(model, Checkpoint) else checkpoint.from_state_dict(model)


def beside(source: Path, suffix: str) -> Path:
    """The path beside a source, with its name and another suffix."""
    resolved = source if source.name else source.resolve()
    name = resolved.name if resolved.is_dir() else resolved.name.removesuffix(resolved.suffix)
    return resolved.with_name(name.removesuffix(".index") + suffix)
