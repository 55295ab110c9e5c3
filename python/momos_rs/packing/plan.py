"""Which method, block size and capacity? A sweep over all of them on the real model."""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard

from momos_rs import _core, defaults
from momos_rs.archive.writer import ArchiveSummary
from momos_rs.checkpoint.model import Checkpoint
from momos_rs.dtypes import dtype
from momos_rs.errors import Argument, InvalidArgumentError
from momos_rs.mosaic.lloyd import Lloyd
from momos_rs.mosaic.methods import (
    METHODS_BY_NAME,
    Grid,
    KMeans,
    RandomMotifs,
    Trellis,
    settings_of,
)
from momos_rs.mosaic.mosaic import Mosaic, Motifs, mosaic_bound
from momos_rs.records import Record
from momos_rs.runtime.progress import Progress

from .copies import find_copies
from .maker import Made, Maker
from .options import (
    MethodKeywords,
    Model,
    PackOptions,
    ResourceKeywords,
    SelectionKeywords,
    as_checkpoint,
    resources_of,
)
from .selection import Members

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from momos_rs.mosaic.methods import Sensitivity

__all__ = ["Plan", "PlanKeywords", "PlanPoint", "Reference", "plan"]

BLOCK_SIZES = (2, 4, 8)
CAPACITIES = (0.01, 0.03, 0.1, 0.3)
STEPS = (1.6, 0.8, 0.4, 0.2, 0.1, 0.05)
PLAN_METHODS: tuple[defaults.MethodName, ...] = ("kmeans", "trellis")

Planned: TypeAlias = "KMeans | RandomMotifs | Grid | Trellis"

_PLANNED = (*defaults.FREE_METHODS, *defaults.STRUCTURED_METHODS)

SAMPLE_BYTES = 1 << 24
"""General compressors are tried on at most this much of the weights, taken from all over."""

_SAMPLE_PIECES = 16


@dataclass(frozen=True)
class PlanPoint(Record):
    """One way to pack the model, and what comes of it.

    Attributes:
        method: How motifs are chosen.
        block_size: Values per block, s; None for structured motifs, which do not depend on it.
        capacity: Motifs per block, c; None for structured motifs.
        motifs: Number of motifs, k; None for structured motifs.
        step: Spacing of the grid as a multiple of the root mean square of all weights; None for
            free motifs.
        options: The same as options of ``momos pack``.
        archive_bytes: Bytes of the archive.
        ratio: Bytes of all tensors over those of the archive.
        bits_per_weight: Bits of the archive per weight.
        relative_error: ``||w - w'||^2 / ||w||^2`` over the tensors of the mosaic.
        bound_ratio: The ratio if the mosaic took the bits of the paper's bound; None for
            structured motifs.
        best: Whether no other point has both a smaller error and a larger ratio.
    """

    method: str
    block_size: int | None
    capacity: float | None
    motifs: int | None
    step: float | None
    options: str
    archive_bytes: int
    ratio: float
    bits_per_weight: float
    relative_error: float
    bound_ratio: float | None
    best: bool = False


@dataclass(frozen=True)
class Reference(Record):
    """What takes the model without any error.

    Attributes:
        name: ``"zstd -19"``, ``"xz -9"`` or ``"lossless"`` (as ``momos pack`` stores tensors that
            it keeps exact).
        ratio: Bytes of all tensors over those of the archive.
        sampled: Whether it was estimated from a part of the weights.
    """

    name: str
    ratio: float
    sampled: bool


@dataclass(frozen=True)
class Plan(Record):
    """A sweep over ways to pack a model.

    Attributes:
        source: The model.
        weights: Elements of all tensors.
        mosaic_weights: Elements of the tensors that become part of the mosaic.
        tensor_bytes: Bytes of all tensors.
        points: What was tried, by method, block size and size.
        references: What takes the model without error.
        advice: For several numbers of bits per weight, the options with the least error.
    """

    source: str
    weights: int
    mosaic_weights: int
    tensor_bytes: int
    points: tuple[PlanPoint, ...]
    references: tuple[Reference, ...]
    advice: tuple[str, ...]


class PlanKeywords(SelectionKeywords, ResourceKeywords, total=False):
    """What all points of a plan have in common; see
    :class:`~momos_rs.packing.options.PackKeywords`."""

    seed: int
    force_zero: bool
    motif_dtype: defaults.MotifDtype
    init: defaults.Init
    iterations: int
    tolerance: float
    training_blocks: int
    mini_batch: int
    step_exponent: float | None
    sensitivity: Mapping[str, Sensitivity] | None
    effort: defaults.Effort


def plan(
    model: Model,
    *,
    methods: Sequence[defaults.MethodName] = PLAN_METHODS,
    block_sizes: Sequence[int] = BLOCK_SIZES,
    capacities: Sequence[float] = CAPACITIES,
    steps: Sequence[float] = STEPS,
    references: bool = True,
    progress: Progress | None = None,
    **options: Unpack[PlanKeywords],
) -> Plan:
    """Packs a model in many ways and compares what comes of it.

    Work is shared between points: the order of coding and the scales of the tensors are found once
    for all steps of a method, and k-means at one capacity goes on from the motifs of the capacity
    before with half the iterations (so its error differs a little from that of packing, which
    begins afresh).

    Args:
        model: A module, a state dict of tensors or arrays, or a checkpoint.
        methods: Methods to try.
        block_sizes: Block sizes to try, for free motifs.
        capacities: Capacities to try, for free motifs.
        steps: Spacings of the grid to try, for structured motifs, as multiples of the root mean
            square of all weights.
        references: Whether to try general compressors as well.
        progress: Called with a phase, the points done and the points in all.
        **options: See :class:`PlanKeywords`, for all points; each goes to the methods that take it.

    Raises:
        InvalidArgumentError: If an option is out of its range, no method takes it, or no tensor
            can become part of a mosaic.
    """
    trials = list(_trials(methods, block_sizes, capacities, steps, options))
    checkpoint = as_checkpoint(model)
    sweep = _Sweep(checkpoint, options)
    points = []
    for trial in trials:
        points.append(sweep.point(trial))
        if progress:
            progress("plan", len(points), len(trials))
    marked = tuple(replace(point, best=_is_best(point, points)) for point in points)
    return Plan(
        source=checkpoint.source,
        weights=checkpoint.numel,
        mosaic_weights=sweep.mosaic_weights,
        tensor_bytes=checkpoint.nbytes,
        points=marked,
        references=tuple(_references(sweep.without_mosaic())) if references else (),
        advice=tuple(_advice(marked)),
    )


def _trials(
    methods: Sequence[defaults.MethodName],
    block_sizes: Sequence[int],
    capacities: Sequence[float],
    steps: Sequence[float],
    options: Mapping[str, Any],
) -> Iterator[Planned]:
    """The methods to try, with all their settings."""
    allowed = PlanKeywords.__annotations__.keys()
    for name in options.keys() - allowed:
        raise InvalidArgumentError(
            Argument(name),
            " is not an option of all points; a plan chooses methods, block sizes, capacities and "
            "steps itself, and shows what targets lead to",
        )
    common = {name: options[name] for name in options if name in MethodKeywords.__annotations__}
    kinds = [METHODS_BY_NAME[name] for name in methods if name in _PLANNED]
    if len(kinds) < len(methods):
        raise InvalidArgumentError(
            Argument("methods"), f" must be among {', '.join(_PLANNED)}, not {', '.join(methods)}"
        )
    for name in common:
        if not any(name in settings_of(kind) for kind in kinds):
            raise InvalidArgumentError(
                Argument(name), f" is not taken by any of the methods {', '.join(methods)}"
            )
    for kind in kinds:
        taken = {name: common[name] for name in common if name in settings_of(kind)}
        if issubclass(kind, (Grid, Trellis)):
            for step in sorted(set(steps), reverse=True):
                yield kind(step=step, **taken)
        elif issubclass(kind, (KMeans, RandomMotifs)):
            for size in sorted(set(block_sizes)):
                for capacity in sorted(set(capacities)):
                    yield kind(block_size=size, capacity=capacity, **taken)


def _command_line(method: Planned) -> str:
    """A method as options of ``momos pack``."""
    if isinstance(method, (Grid, Trellis)):
        return f"--method {method.name} --step {method.step:g}"
    return f"--method {method.name} -s {method.block_size} -c {method.capacity:g}"


class _Sweep:
    """Makes points; keeps what later ones can use."""

    def __init__(self, model: Checkpoint, options: Mapping[str, Any]) -> None:
        self._model = model
        shared = SelectionKeywords.__annotations__.keys() | {"effort"}
        self._options = PackOptions.of({name: options[name] for name in options if name in shared})
        self._resources = resources_of(options)
        self._copies = find_copies(model)
        self._makers: dict[str, Maker] = {}
        self._warm: tuple[int, npt.NDArray[np.uint64], Motifs] | None = None
        self.mosaic_weights = 0

    def point(self, method: Planned) -> PlanPoint:
        if isinstance(method, (KMeans, RandomMotifs)):
            maker = self._maker(method)
            made = maker.of_motifs(method, refine=self._refine)
        else:
            # What does not depend on the step is found once.
            if method.name not in self._makers:
                self._makers[method.name] = self._maker(method)
            maker = self._makers[method.name]
            made = maker.of_step(method.spacing)
        assert made.mosaic is not None
        summary = maker.summary(made)
        nbytes = summary.archive_bytes
        error, _ = maker.errors(made)
        self.mosaic_weights = sum(made.mosaic.elements)
        free = isinstance(method, (KMeans, RandomMotifs))
        return PlanPoint(
            method=method.name,
            block_size=method.block_size if free else None,
            capacity=method.capacity if isinstance(method, (KMeans, RandomMotifs)) else None,
            motifs=made.mosaic.requested_motifs if free else None,
            step=method.step if isinstance(method, (Grid, Trellis)) else None,
            options=_command_line(method),
            archive_bytes=nbytes,
            ratio=self._model.nbytes / nbytes,
            bits_per_weight=8 * nbytes / self._model.numel,
            relative_error=error,
            bound_ratio=self._bound_ratio(made.mosaic, summary) if free else None,
        )

    def without_mosaic(self) -> Maker:
        """What stores everything exactly."""
        return Maker(self._model, Members((), self._copies, ()), self._options, self._resources)

    def _maker(self, method: Planned) -> Maker:
        options = replace(self._options, method=method)
        members = Members.of(
            self._model, options.selection, method.block_size, self._copies, self._resources
        )
        if not members.indices:
            raise InvalidArgumentError(
                f"{self._model.source}: no tensor can become part of a mosaic"
            )
        return Maker(self._model, members, options, self._resources)

    def _refine(self, lloyd: Lloyd, table: Motifs, k: int) -> tuple[Motifs, list[float]]:
        """Lloyd's algorithm from the motifs of the capacity before, where there are some."""
        method = lloyd.method
        if method.init == "spread":
            return self._refine_spread(lloyd, table, k)
        chosen = _core.select_blocks(
            len(lloyd.blocks), len(table), method.seed, force_zero=method.force_zero
        )
        zero = int(method.force_zero)
        if self._warm is not None and self._warm[0] == table.shape[1]:
            _, before, motifs = self._warm
            # The draws of fewer motifs are among those of more.
            places = np.searchsorted(chosen, before)
            found = places < len(chosen)
            found[found] = chosen[places[found]] == before[found]
            table = table.copy()
            table[places[found] + zero] = motifs[zero:][found]
            fewer = replace(method, iterations=math.ceil(method.iterations / 2))
            lloyd = replace(lloyd, method=fewer)
        result = lloyd.refine(table, k)
        self._warm = (table.shape[1], chosen, result[0])
        return result

    def _refine_spread(self, lloyd: Lloyd, table: Motifs, k: int) -> tuple[Motifs, list[float]]:
        """The same where the motifs that are missing are drawn by their distance to the others."""
        size = table.shape[1]
        if self._warm is not None and self._warm[0] == size and len(self._warm[2]) <= k:
            table = self._warm[2]
            fewer = replace(lloyd.method, iterations=math.ceil(lloyd.method.iterations / 2))
            lloyd = replace(lloyd, method=fewer)
        result = lloyd.refine(table, k)
        self._warm = (size, np.zeros(0, np.uint64), result[0])
        return result

    def _bound_ratio(self, mosaic: Mosaic, summary: ArchiveSummary) -> float:
        bound = mosaic_bound(
            len(mosaic.indices),
            mosaic.requested_motifs,
            mosaic.block_size,
            8 * dtype(mosaic.dtype).itemsize,
        )
        sections = summary.section_bytes
        rest = summary.archive_bytes - sections["motifs"] - sections["indices"]
        return self._model.nbytes / (rest + bound / 8)


def _is_best(point: PlanPoint, points: Sequence[PlanPoint]) -> bool:
    return not any(
        (other.ratio >= point.ratio and other.relative_error < point.relative_error)
        or (other.ratio > point.ratio and other.relative_error <= point.relative_error)
        for other in points
    )


def _advice(points: Sequence[PlanPoint]) -> Iterable[str]:
    """For each whole number of bits per weight, the options with the least error, of free and of
    structured motifs."""
    kinds = {
        "free motifs": [point for point in points if point.step is None],
        "structured motifs": [point for point in points if point.step is not None],
    }
    for bits in (1, 2, 3, 4, 6, 8):
        for name, candidates in kinds.items():
            within = [each for each in candidates if bits / 2 < each.bits_per_weight <= bits]
            if within:
                best = min(within, key=lambda point: point.relative_error)
                yield (
                    f"{bits} bits per weight, {name}: {best.options} "
                    f"(ratio {best.ratio:.4g}, relative error {best.relative_error:.3g})"
                )


def _references(maker: Maker) -> Iterable[Reference]:
    model = maker.model
    pieces = [base.read() for index, base in enumerate(model.bases) if index not in maker.copies]
    total = sum(piece.size for piece in pieces)
    exact = maker.file_size(Made(None, None, {}))
    sample = _sample(pieces, total)
    sampled = len(sample) < total
    zstd = zstandard.ZstdCompressor(level=19).compress(sample)
    xz = lzma.compress(sample, preset=9)
    duplicates = model.nbytes / max(total, 1)
    for name, packed in (("zstd -19", zstd), ("xz -9", xz)):
        yield Reference(name, duplicates * len(sample) / len(packed), sampled)
    yield Reference("lossless", model.nbytes / exact, False)


def _sample(pieces: Sequence[npt.NDArray[np.uint8]], total: int) -> bytes:
    """All bytes, or as many stretches of them as the compressors get to see."""
    if total <= SAMPLE_BYTES:
        return b"".join(piece.tobytes() for piece in pieces)
    length = SAMPLE_BYTES // _SAMPLE_PIECES // 8 * 8
    starts = [
        index * (total - length) // (_SAMPLE_PIECES - 1) // 8 * 8 for index in range(_SAMPLE_PIECES)
    ]
    parts = []
    offset = 0
    for piece in pieces:
        for start in starts:
            low, high = max(start - offset, 0), min(start + length - offset, piece.size)
            if low < high:
                parts.append(piece[low:high].tobytes())
        offset += piece.size
    return b"".join(parts)
