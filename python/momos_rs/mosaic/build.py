"""Building the mosaic of tensors: draw motifs, refine them, find the nearest for every block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

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
    new_indices,
)
from momos_rs.runtime.team import Team

from .block_stream import Blocks
from .distinct_blocks import find_distinct
from .lloyd import Assignment, Lloyd
from .methods import FreeMotifs, KMeans, RandomMotifs, make_method
from .mosaic import Mosaic, Motifs, common_dtype
from .motif_precision import apply_precision
from .spread import BYTES_PER_BLOCK, SHARES

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

__all__ = [
    "build_mosaic",
    "exact_mosaic_of_bases",
    "mosaic_of_bases",
    "own_bases",
]

Refine: TypeAlias = "Callable[[Lloyd, Motifs, int], tuple[Motifs, list[float]]]"
"""An algorithm with the arguments of :meth:`Lloyd.refine <momos_rs.mosaic.lloyd.Lloyd.refine>`."""


class MosaicKeywords(TypedDict, total=False):
    """The settings of :class:`~momos_rs.mosaic.methods.KMeans` and
    :class:`~momos_rs.mosaic.methods.RandomMotifs` as keywords."""

    block_size: int
    capacity: float | None
    motifs: int | None
    seed: int
    force_zero: bool
    motif_dtype: defaults.MotifDtype
    init: defaults.Init
    iterations: int
    tolerance: float
    training_blocks: int
    mini_batch: int


def build_mosaic(
    tensors: Sequence[npt.NDArray[np.floating[Any]] | torch.Tensor],
    *,
    method: defaults.MethodName | KMeans | RandomMotifs = defaults.METHOD,
    memory: int | str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    **settings: Unpack[MosaicKeywords],
) -> Mosaic:
    """Represents tensors by a mosaic.

    If the distinct blocks (by bit pattern) number at most k, they are the motifs and the mosaic
    is exact. Otherwise ``random`` draws the motifs uniformly without replacement from the blocks,
    as the paper does, and ``kmeans`` refines motifs by Lloyd's algorithm
    (1982) in which every block goes to its nearest motif exactly; a motif that represents no
    block stays where it is. With ``force_zero`` motif 0 is the zero block and never moves.

    Args:
        tensors: Arrays or tensors of types of :data:`momos_rs.dtypes.MOSAIC_DTYPES`, any shapes,
            all values finite.
        method: ``"kmeans"`` or ``"random"``, or a :class:`~momos_rs.mosaic.methods.KMeans` or
            :class:`~momos_rs.mosaic.methods.RandomMotifs`.
        memory: Bytes of memory to use besides the tensors, or a size like ``"4G"``; half of what
            is free by default. The result does not depend on it.
        threads: Number of threads; all cores by default. The result does not depend on it.
        progress: Called while work goes on.
        **settings: The attributes of the method, unless it is an object.

    Returns:
        The mosaic; blocks are assigned to motifs of their final precision.

    Raises:
        InvalidArgumentError: If an argument is out of its range or there are no blocks.
    """
    from momos_rs.checkpoint import from_state_dict

    chosen = make_method(method, settings)
    if not isinstance(chosen, FreeMotifs) or chosen.targets:
        raise InvalidArgumentError(
            "build_mosaic makes kmeans and random motifs, and reaches no target"
        )
    named = {f"tensors[{index}]": tensor for index, tensor in enumerate(tensors)}
    model = from_state_dict(named, source="build_mosaic")
    bases = []
    for entry in model.entries:
        base = model.bases[entry.base]
        bases.append(Base(base.dtype, entry.numel, functools.partial(_read_entry, entry, base)))
    resources = Resources(memory=memory, threads=threads)
    return mosaic_of_bases(bases, chosen, resources=resources, progress=progress)


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

    def assignment(self, largest: float, progress: Callable[[int], object]) -> Assignment:
        """Its blocks, to be assigned to motifs."""
        return Assignment(
            blocks=self.blocks,
            indices=self.indices,
            largest=largest,
            plan=self.plan,
            resources=self.resources,
            progress=progress,
        )

    def distinct(self, limit: int, report: Progress) -> Motifs | None:
        """The different blocks of all processes, if there are at most that many."""
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
    method: FreeMotifs,
    *,
    refine: Refine = Lloyd.refine,
    per_block: int = 0,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> Mosaic:
    """As :func:`build_mosaic`, of bases, which are read piece by piece.

    With several processes, each gets the mosaic of its share of the bases.

    Args:
        bases: The tensors.
        method: How motifs are chosen; of a target, only the default capacity is made.
        refine: What takes the place of Lloyd's algorithm.
        per_block: Bytes that it takes besides for each block in memory.
        resources: What may be used.
        progress: Called while work goes on.

    Raises:
        InvalidArgumentError: If there are no blocks, or the memory is not enough.
    """
    report = progress or (lambda _phase, _done, _total: None)
    elements = [base.numel for base in bases]
    m = sum(_core.block_count(each, method.block_size) for each in elements)
    if m == 0:
        raise InvalidArgumentError("there are no weights to make a mosaic of")
    k = method.motif_count(m)
    spreads = isinstance(method, KMeans) and method.init == "spread"
    if spreads:
        per_block += BYTES_PER_BLOCK
    part = _part(bases, method.block_size, k, resources or Resources(), per_block=per_block)
    distinct = part.distinct(k, report)
    if distinct is not None:
        return part.mosaic(distinct, elements, k, dtype=part.common, exact=True)
    table, largest = _drawn(part, method, m, max(k // SHARES, 1) if spreads else k)
    assignment = part.assignment(largest, lambda done: report("assign", done, len(part.blocks)))
    distortions: list[float] = []
    if isinstance(method, KMeans) and (method.iterations or spreads):
        table, distortions = refine(_lloyd(assignment, method, k, report), table, k)
    else:
        assignment.assign(table)
    precise = apply_precision(assignment, table, part.common, method.motif_dtype)
    return part.mosaic(
        precise.table,
        elements,
        k,
        dtype=precise.dtype,
        exact=False,
        distortions=tuple(distortions),
        step=precise.step,
    )


def _drawn(part: _Part, method: FreeMotifs, m: int, k: int) -> tuple[Motifs, float]:
    """Motifs drawn from all m blocks, and the largest magnitude of these."""
    chosen = _core.select_blocks(m, k, method.seed, force_zero=method.force_zero)
    team = part.resources.team
    table = team.concatenate(part.blocks.take(chosen))
    if method.force_zero:
        table = np.concatenate([np.zeros((1, method.block_size), table.dtype), table])
    return table, team.largest(part.blocks.largest())


def _lloyd(assignment: Assignment, method: KMeans, motifs: int, report: Progress) -> Lloyd:
    """Lloyd's algorithm on blocks, with a progress of its own."""
    lloyd = Lloyd(
        blocks=assignment.blocks,
        indices=assignment.indices,
        largest=assignment.largest,
        plan=assignment.plan,
        resources=assignment.resources,
        progress=lambda done: report("refine motifs", done, searches),
        method=method,
    )
    searches = lloyd.searches(motifs)
    return lloyd


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
