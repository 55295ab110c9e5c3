"""Building the mosaic of tensors: draw motifs, refine them, find the nearest for every block."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core, defaults
from momos_rs.checkpoint.model import Base, Entry
from momos_rs.checkpoint.views import gather
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.progress import Progress
from momos_rs.runtime.resources import (
    BLOCKS_PER_BATCH,
    BlockPlan,
    Resources,
    memory_budget,
    new_indices,
)
from momos_rs.runtime.team import Team

from .block_stream import Blocks
from .distinct_blocks import find_distinct
from .lloyd import Lloyd, Training
from .mosaic import Mosaic, Motifs, common_dtype, motif_count
from .motif_precision import apply_precision, check_motif_dtype

if TYPE_CHECKING:
    import torch

__all__ = [
    "build_mosaic",
    "exact_mosaic_of_bases",
    "mosaic_of_bases",
    "own_bases",
]

Refine: TypeAlias = "Callable[[Lloyd, Motifs], tuple[Motifs, list[float]]]"
"""An algorithm with the arguments of :meth:`Lloyd.refine <momos_rs.mosaic.lloyd.Lloyd.refine>`."""


def build_mosaic(
    tensors: Sequence[npt.NDArray[np.floating[Any]] | torch.Tensor],
    *,
    block_size: int = defaults.BLOCK_SIZE,
    capacity: float = defaults.CAPACITY,
    motifs: int | None = None,
    method: defaults.Method = defaults.METHOD,
    iterations: int = defaults.ITERATIONS,
    seed: int = defaults.SEED,
    force_zero: bool = defaults.FORCE_ZERO,
    motif_dtype: defaults.MotifDtype = defaults.MOTIF_DTYPE,
    tolerance: float = defaults.TOLERANCE,
    training_blocks: int = defaults.BLOCKS_PER_MOTIF,
    mini_batch: int = 0,
    memory: int | str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Mosaic:
    """Represents tensors by a mosaic.

    If the distinct blocks (by bit pattern) number at most k, they are the motifs and the mosaic
    is exact. Otherwise ``random`` draws the motifs uniformly without replacement from the blocks,
    as the paper does, and ``kmeans`` goes on from there with iterations of Lloyd's algorithm
    (1982) in which every block goes to its nearest motif exactly; a motif that represents no
    block stays where it is. With ``force_zero`` motif 0 is the zero block and never moves.

    Args:
        tensors: Arrays or tensors of types of :data:`momos_rs.dtypes.MOSAIC_DTYPES`, any shapes,
            all values finite.
        block_size: Values per block, s, from 1 to 4096.
        capacity: Motifs per block, c; ignored if ``motifs`` is given.
        motifs: Number of motifs, k; at most m are used.
        method: ``"kmeans"`` or ``"random"``.
        iterations: Most iterations of Lloyd's algorithm; with ``mini_batch``, the number of
            batches.
        seed: Seed of the draw, 0 to 2^64 - 1.
        force_zero: Whether the zero block is a motif.
        motif_dtype: The precision of motifs that do not represent their blocks exactly: a type,
            or ``"fixed"`` for whole multiples of a step that adds at most 2% to the distortion,
            which ``"auto"`` chooses if they need fewer bits than the type of the tensors.
        tolerance: Lloyd's algorithm ends after an iteration that lowers the distortion by a
            smaller share; 0 to end only where no motif moves.
        training_blocks: Motifs are refined on at most so many blocks per motif (and on a million
            in any case), drawn at random, where there are more than twice those; 0 for all blocks.
        mini_batch: If not 0, every iteration looks at so many blocks only, drawn at random, and
            moves each motif to the mean of all blocks it was given so far (Sculley, 2010).
        memory: Bytes of memory to use besides the tensors, or a size like ``"4G"``; half of what
            is free by default. The result does not depend on it.
        threads: Number of threads; all cores by default. The result does not depend on it.
        progress: Called while work goes on.

    Returns:
        The mosaic; blocks are assigned to motifs of their final precision.

    Raises:
        InvalidArgumentError: If an argument is out of its range or there are no blocks.
    """
    from momos_rs.checkpoint import from_state_dict

    named = {f"tensors[{index}]": tensor for index, tensor in enumerate(tensors)}
    model = from_state_dict(named, source="build_mosaic")
    bases = []
    for entry in model.entries:
        base = model.bases[entry.base]
        bases.append(Base(base.dtype, entry.numel, functools.partial(_read_entry, entry, base)))
    return mosaic_of_bases(
        bases,
        block_size=block_size,
        capacity=capacity,
        motifs=motifs,
        method=method,
        training=Training(iterations, tolerance, training_blocks, mini_batch),
        seed=seed,
        force_zero=force_zero,
        motif_dtype=motif_dtype,
        resources=Resources(memory=memory_budget(memory), threads=threads),
        progress=progress,
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """What one process does of a mosaic.

    Attributes:
        bases: The range of bases that are its own.
        blocks: Its blocks, and those that follow up to the end of a batch that begins among them.
        indices: Room for the motif of each.
        common: Type of the motifs.
        plan: How the blocks are gone through.
        resources: What may be used.
    """

    bases: tuple[int, int]
    blocks: Blocks
    indices: npt.NDArray[np.uint32]
    common: str
    plan: BlockPlan
    resources: Resources

    def mosaic(self, motifs: Motifs, elements: Sequence[int], k: int, **known: Any) -> Mosaic:
        """The mosaic of its own bases."""
        own = tuple(elements[slice(*self.bases)])
        return Mosaic(motifs, self.indices[: self.blocks.own], own, known.pop("dtype"), k, **known)

    def distinct(self, limit: int, report: Progress) -> Motifs | None:
        """The different blocks of all processes, if there are at most so many."""
        return find_distinct(
            self.blocks,
            limit,
            self.indices,
            wide=self.common == "F64",
            resources=self.resources,
            progress=lambda done: report("gather", done, self.blocks.own),
        )


def _part(
    bases: Sequence[Base],
    block_size: int,
    motifs: int,
    resources: Resources,
    *,
    per_block: int = 0,
) -> _Part:
    """The share of this process of the blocks of some bases, to be represented by motifs."""
    common = common_dtype([base.dtype for base in bases])
    counts = [_core.block_count(base.numel, block_size) for base in bases]
    share = resources.team.share(counts)
    first = sum(counts[: share[0]])
    own = sum(counts[slice(*share)])
    # The batches, of which sums are formed, that begin within the share must be whole.
    begin, end = (-(-edge // BLOCKS_PER_BATCH) * BLOCKS_PER_BATCH for edge in (first, first + own))
    stop = min(end, sum(counts)) if end > begin else first + own
    wide = common == "F64"
    plan = resources.plan(stop - first, motifs, block_size, wide=wide, per_block=per_block)
    blocks = Blocks(
        bases,
        block_size,
        wide=wide,
        plan=plan,
        first=first,
        own=own,
        stop=stop,
        threads=resources.threads,
    )
    indices = new_indices(len(blocks), plan, resources.folder)
    return _Part(share, blocks, indices, common, plan, resources)


def own_bases(bases: Sequence[Base], block_size: int, team: Team) -> tuple[int, int]:
    """The range of bases whose mosaic :func:`mosaic_of_bases` gives to this process."""
    return team.share([_core.block_count(base.numel, block_size) for base in bases])


def mosaic_of_bases(
    bases: Sequence[Base],
    *,
    block_size: int,
    capacity: float,
    motifs: int | None,
    method: defaults.Method,
    training: Training,
    seed: int,
    force_zero: bool,
    motif_dtype: defaults.MotifDtype = defaults.MOTIF_DTYPE,
    refine: Refine = Lloyd.refine,
    per_block: int = 0,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> Mosaic:
    """As :func:`build_mosaic`, of bases, which are read piece by piece.

    With several processes, each gets the mosaic of its share of the bases.

    Args:
        bases: The tensors.
        block_size: As of :func:`build_mosaic`, like those that follow.
        capacity: Motifs per block.
        motifs: Number of motifs.
        method: How motifs are chosen.
        training: How they are refined.
        seed: Seed of the draw.
        force_zero: Whether the zero block is a motif.
        motif_dtype: The precision of motifs.
        refine: What takes the place of Lloyd's algorithm.
        per_block: Bytes that it takes besides for each block in memory.
        resources: What may be used.
        progress: Called while work goes on.

    Raises:
        InvalidArgumentError: If an argument is out of its range, there are no blocks, or the
            memory is not enough.
    """
    if method not in defaults.METHODS:
        raise InvalidArgumentError(
            f"method must be one of {', '.join(defaults.METHODS)}, not {method!r}"
        )
    check_motif_dtype(motif_dtype)
    resources = resources or Resources()
    report = progress or (lambda _phase, _done, _total: None)
    elements = [base.numel for base in bases]
    m = sum(_core.block_count(each, block_size) for each in elements)
    if m == 0:
        raise InvalidArgumentError("there are no weights to make a mosaic of")
    if motifs is not None and motifs < 1:
        raise InvalidArgumentError(f"the number of motifs must be at least 1, not {motifs}")
    k = min(motifs, m) if motifs is not None else motif_count(m, capacity)
    part = _part(bases, block_size, k, resources, per_block=per_block)

    distinct = part.distinct(k, report)
    if distinct is not None:
        return part.mosaic(distinct, elements, k, dtype=part.common, exact=True)

    chosen = _core.select_blocks(m, k, seed, force_zero=force_zero)
    drawn, largest = part.blocks.take(chosen)
    table = resources.team.concatenate(drawn)
    if force_zero:
        table = np.concatenate([np.zeros((1, block_size), table.dtype), table])
    lloyd = Lloyd(
        blocks=part.blocks,
        indices=part.indices,
        largest=resources.team.largest(largest),
        training=training,
        plan=part.plan,
        resources=resources,
        seed=seed,
        fixed_zero=force_zero,
        progress=lambda done: report("assign", done, len(part.blocks)),
    )
    distortions: list[float] = []
    if method == "random" or training.iterations == 0:
        lloyd.assign(table)
    else:
        searches = lloyd.searches(len(table))
        refining = dataclasses.replace(
            lloyd, progress=lambda done: report("refine motifs", done, searches)
        )
        table, distortions = refine(refining, table)
    precise = apply_precision(
        part.blocks, table, part.indices, part.common, motif_dtype, lloyd.assign, resources.team
    )
    return part.mosaic(
        precise.table,
        elements,
        k,
        dtype=precise.dtype,
        exact=False,
        distortions=tuple(distortions),
        step=precise.step,
    )


def exact_mosaic_of_bases(
    bases: Sequence[Base],
    *,
    block_size: int,
    motifs: int,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> Mosaic | None:
    """The mosaic whose motifs are the distinct blocks; None if there are more than ``motifs``.

    With several processes, each gets the mosaic of its share of the bases.
    """
    report = progress or (lambda _phase, _done, _total: None)
    part = _part(bases, block_size, motifs, resources or Resources())
    distinct = part.distinct(motifs, report)
    if distinct is None:
        return None
    elements = [base.numel for base in bases]
    return part.mosaic(distinct, elements, len(distinct), dtype=part.common, exact=True)


def _read_entry(entry: Entry, base: Base) -> npt.NDArray[np.uint8]:
    return gather(entry, base, base.read())
