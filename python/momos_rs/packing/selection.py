"""Which tensors of a checkpoint become part of the mosaic, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from momos_rs import _core
from momos_rs.checkpoint.model import Base, Checkpoint, Entry
from momos_rs.checkpoint.trainable import is_running_statistic
from momos_rs.dtypes import MOSAIC_DTYPES, dtype
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.resources import PIECE_BYTES, Resources

__all__ = ["Decision", "Members", "Selection", "select"]


@dataclass(frozen=True)
class Selection:
    """Which tensors should become part of the mosaic.

    Attributes:
        include: Names, or patterns of them (``*``, ``?``, ``[...]``); what is the name of a
            tensor is no pattern. If any are given, exactly the floating tensors that match one are
            taken, whatever their number of dimensions.
        exclude: Names and patterns, likewise, of what is kept exact in any case.
        all_parameters: Take every floating tensor but running statistics, as in the paper,
            instead of those of two or more dimensions only.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    all_parameters: bool = False


@dataclass(frozen=True)
class Decision:
    """What becomes of one base.

    Attributes:
        mosaic: Whether it becomes part of the mosaic.
        note: Why a tensor that was selected, or that a reader would expect to be, is not part of
            the mosaic; empty where there is nothing to say.
        energy: Sum of the squares of its values, if it becomes part of the mosaic.
    """

    mosaic: bool
    note: str = ""
    energy: float = 0.0


@dataclass(frozen=True)
class Members:
    """What becomes of the bases of a checkpoint.

    Attributes:
        decisions: One per base, in order.
        copies: Bases that equal an earlier one, with that one's index.
        indices: The bases that become part of the mosaic, in order.
    """

    decisions: Sequence[Decision]
    copies: Mapping[int, int]
    indices: Sequence[int]

    @classmethod
    def of(
        cls,
        model: Checkpoint,
        selection: Selection,
        block_size: int,
        copies: Mapping[int, int],
        resources: Resources | None = None,
    ) -> Members:
        """Decides, given the copies; arguments as of :func:`select`."""
        decisions = select(model, selection, block_size, resources)
        indices = [
            index
            for index, decision in enumerate(decisions)
            if decision.mosaic and index not in copies
        ]
        return cls(decisions, copies, indices)

    def without_mosaic(self) -> Members:
        """The same with every tensor kept exact."""
        return replace(self, indices=())


def select(
    checkpoint: Checkpoint,
    selection: Selection,
    block_size: int,
    resources: Resources | None = None,
) -> list[Decision]:
    """Decides for every base of a checkpoint.

    Args:
        checkpoint: The tensors. Those that are candidates are read once, to find NaN and Inf.
        selection: What to take.
        block_size: Values per block; smaller tensors stay exact.
        resources: What may be used; the processes of a team look through the tensors together.

    Returns:
        One decision per base, in order.

    Raises:
        InvalidArgumentError: If a pattern matches no tensor.
    """
    names = [entry.name for entry in checkpoint.entries]
    include, exclude = (
        _matching(names, patterns, checkpoint.source)
        for patterns in (selection.include, selection.exclude)
    )
    views: list[list[Entry]] = [[] for _ in checkpoint.bases]
    for entry in checkpoint.entries:
        views[entry.base].append(entry)
    resources = resources or Resources()
    team = resources.team
    first, stop = team.share([base.nbytes for base in checkpoint.bases])
    return team.join(
        [
            _decide(
                checkpoint.bases[index],
                views[index],
                selection,
                include,
                exclude,
                block_size,
                resources.threads,
            )
            for index in range(first, stop)
        ]
    )


def _decide(
    base: Base,
    entries: Sequence[Entry],
    selection: Selection,
    include: Set[str],
    exclude: Set[str],
    block_size: int,
    threads: int | None,
) -> Decision:
    names = [entry.name for entry in entries]
    if not dtype(base.dtype).floating or not exclude.isdisjoint(names):
        return Decision(mosaic=False)
    if selection.include:
        if include.isdisjoint(names):
            return Decision(mosaic=False)
    elif any(is_running_statistic(name) for name in names):
        note = "running statistic, no parameter" if selection.all_parameters else ""
        return Decision(mosaic=False, note=note)
    elif not selection.all_parameters and all(len(entry.shape) < 2 for entry in entries):
        return Decision(mosaic=False)
    if base.dtype not in MOSAIC_DTYPES:
        return Decision(mosaic=False, note=f"{base.dtype} has too few bits to gain from a mosaic")
    if base.numel < block_size:
        return Decision(mosaic=False, note=f"{base.numel} elements do not fill a block")
    start = 0
    energy = 0.0
    for piece in base.pieces(PIECE_BYTES):
        survey = _core.survey_tensor(piece, base.dtype, threads=threads)
        position = survey["first_non_finite"]
        if position is not None:
            return Decision(mosaic=False, note=f"NaN or Inf at element {start + position}")
        start += len(piece) // dtype(base.dtype).itemsize
        energy += survey["sum_of_squares"]
    return Decision(mosaic=True, energy=energy)


def _matching(names: Sequence[str], patterns: Sequence[str], source: str) -> frozenset[str]:
    """The names that are one of the patterns, or match one that is no name.

    Raises:
        InvalidArgumentError: If nothing is or matches a pattern.
    """
    known = frozenset(names)
    matching: set[str] = set()
    for pattern in patterns:
        found = {pattern} if pattern in known else {n for n in names if fnmatchcase(n, pattern)}
        if not found:
            raise InvalidArgumentError(
                f"no tensor of {source} matches {pattern!r}; names look like {_example(names)}"
            )
        matching |= found
    return frozenset(matching)


def _example(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:3]) or "nothing: there are no tensors"
