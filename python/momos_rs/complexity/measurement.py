"""Measures the complexity of a model's weights."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from momos_rs import _core, defaults
from momos_rs.archive.parts import PIECES_DECODED
from momos_rs.dtypes import dtype
from momos_rs.errors import Argument, InvalidArgumentError
from momos_rs.mosaic.mosaic import mosaic_bound, motif_count
from momos_rs.runtime.budget import Shares
from momos_rs.runtime.progress import Progress
from momos_rs.runtime.resources import Resources

from .bit_planes import BITS, PERCENTILE, check_quantisation, matrix_columns, tails
from .compression import (
    COMPRESSORS,
    SLOW_COMPRESSORS,
    Compression,
    StreamCompressor,
    Workers,
    compression_memory,
)
from .controls import RANDOM_BASELINES, RandomBaseline, compare, notes_on, random_baseline
from .counting import Bands, BitStream, Statistics, complexity_of_counts, statistics_of
from .report import ComplexityReport, MosaicBound, QubdComplexity, TensorComplexity
from .weights import Source, WeightSet, WeightTensor, collect_weights

__all__ = [
    "MEASURES",
    "NON_FINITE",
    "SAMPLE",
    "SEEDS",
    "Measure",
    "MeasureKeywords",
    "NonFinite",
    "measure",
]

Measure: TypeAlias = Literal[
    "sparsity", "norm", "bdm", "bdm_2d", "qubd", "bound", "gzip", "bz2", "lzma", "zstd"
]
"""``bdm`` includes block entropy; ``bdm_2d`` is BDM and entropy of the signs in 4x4 blocks."""

MEASURES: tuple[Measure, ...] = (
    "sparsity",
    "norm",
    "bdm",
    "bdm_2d",
    "qubd",
    "bound",
    "gzip",
    "bz2",
    "lzma",
    "zstd",
)

NonFinite: TypeAlias = Literal["error", "skip", "zero"]
"""What to do about a tensor with NaN or infinities: refuse, leave it out, take them for 0."""

NON_FINITE: tuple[NonFinite, ...] = ("error", "skip", "zero")

SEEDS = 3
"""Random baselines that are averaged by default."""

SAMPLE = 16 << 20
"""Most bytes that the slow compressors are given by default."""

PIECES_MEASURED = 8
"""Pieces of a tensor in memory at most: it, cleaned, and cut anew; random ones are made as float32
in several steps."""

Bytes: TypeAlias = "npt.NDArray[np.uint8]"


@dataclass(frozen=True)
class _Options:
    measures: frozenset[str]
    block_size: int
    capacity: float
    bits: int
    robust: bool
    percentile: float
    sample: int | None
    per_tensor_compression: bool
    non_finite: NonFinite
    resources: Resources

    @property
    def threads(self) -> int | None:
        return self.resources.threads

    @property
    def compressors(self) -> tuple[str, ...]:
        return tuple(name for name in COMPRESSORS if name in self.measures)


class MeasureKeywords(TypedDict, total=False):
    """Arguments of :func:`measure` that are the same for all measurements of a run."""

    block_size: int
    capacity: float
    bits: int
    robust: bool
    percentile: float
    sample: int | None
    per_tensor_compression: bool
    baseline: RandomBaseline | Source | None
    seeds: int
    non_finite: NonFinite
    threads: int | None
    memory: int | str | None


def measure(
    source: Source,
    *,
    measures: Sequence[str] | None = None,
    block_size: int = defaults.BLOCK_SIZE,
    capacity: float = defaults.CAPACITY,
    bits: int = BITS,
    robust: bool = False,
    percentile: float = PERCENTILE,
    sample: int | None = SAMPLE,
    per_tensor_compression: bool = False,
    baseline: RandomBaseline | Source | None = None,
    seeds: int = SEEDS,
    non_finite: NonFinite = "error",
    name: str | None = None,
    allow_pickle: bool = False,
    threads: int | None = None,
    memory: int | str | None = None,
    progress: Progress | None = None,
) -> ComplexityReport:
    """Measures the complexity of the trainable weights of a model.

    The 1-D BDM of the signs is the measure of Mosaic-of-Motifs (arXiv 2602.14896): the bits
    ``w > 0`` of all trainable parameters, in order, in blocks of 12, the last incomplete one
    ignored. Every tensor is read once, or twice if it is larger than a piece of what the memory
    allows.

    Args:
        source: A path of a checkpoint or archive, a checkpoint, a state dict, a module, a tensor
            or an array: see :data:`momos_rs.complexity.Source`.
        measures: Which of :data:`MEASURES`; all by default.
        block_size: Values per block of the mosaic bound, s.
        capacity: Motifs per block of the mosaic bound, c.
        bits: Bits per weight of the quantised bit-planes, 1 to 16.
        robust: Quantise between percentiles instead of the extremes.
        percentile: The central share of the weights, in percent, that ``robust`` keeps.
        sample: Most bytes that bz2 and lzma are given; None for all.
        per_tensor_compression: Also compress every tensor by itself.
        baseline: What to compare with: ``"gaussian"`` or ``"shuffled"`` (see
            :func:`momos_rs.complexity.random_baseline`), or another source, such as the
            checkpoint at initialisation. The slow compressors are not run on it.
        seeds: Random baselines to average.
        non_finite: What to do about tensors with NaN or infinities.
        name: What to call the source in the report.
        allow_pickle: Whether a checkpoint file that needs code of its own may run it.
        threads: Number of threads; all cores by default. The figures do not depend on it.
        memory: Bytes of memory to use beyond what the program takes itself, or a size like
            ``"4G"``; half of what is free by default. The figures do not depend on it.
        progress: Called while work goes on.

    Raises:
        InvalidArgumentError: If an argument is out of its range, the memory is too little, the
            source has no weights, a tensor is not finite and ``non_finite`` is ``"error"``, or a
            baseline checkpoint has no tensor in common with the model.
        MomosError: Whatever reading a file raises.
        OSError: If a file cannot be read.
    """
    check_quantisation(bits, percentile)
    options = _Options(
        measures=_checked(measures),
        block_size=block_size,
        capacity=capacity,
        bits=bits,
        robust=robust,
        percentile=percentile,
        sample=sample,
        per_tensor_compression=per_tensor_compression,
        non_finite=_one_of(non_finite),
        resources=Resources(memory, threads),
    )
    if seeds < 1:
        raise InvalidArgumentError(f"seeds must be at least 1, not {seeds}")
    show = progress or (lambda _phase, _done, _total: None)
    weights = collect_weights(source, name=name, allow_pickle=allow_pickle)
    start = time.perf_counter()
    report = _Measurement(weights, options).run(show)
    if baseline is not None:
        others = _baselines(baseline, weights, seeds, allow_pickle=allow_pickle)
        fast = replace(options, measures=options.measures - set(SLOW_COMPRESSORS))
        measured = [_Measurement(other, fast).run(show) for other in others]
        kind = baseline if _is_random(baseline) else "checkpoint"
        comparison = compare(
            report,
            measured,
            kind=str(kind),
            source=str(kind) if _is_random(baseline) else others[0].source,
        )
        if not comparison.tensors:
            raise InvalidArgumentError(
                f"{others[0].source} has no tensor of the same name and shape as "
                f"{report.source}; a baseline is a checkpoint of the same model"
            )
        report = replace(report, baseline=comparison)
    return replace(report, notes=notes_on(report), seconds=time.perf_counter() - start)


def _is_random(baseline: object) -> bool:
    return isinstance(baseline, str) and baseline in RANDOM_BASELINES


def _baselines(
    baseline: RandomBaseline | Source, weights: WeightSet, seeds: int, *, allow_pickle: bool
) -> list[WeightSet]:
    for kind in RANDOM_BASELINES:
        if isinstance(baseline, str) and baseline == kind:
            return [random_baseline(weights, kind, seed) for seed in range(seeds)]
    return [collect_weights(baseline, allow_pickle=allow_pickle)]


def _checked(measures: Sequence[str] | None) -> frozenset[str]:
    chosen = frozenset(MEASURES if measures is None else measures)
    if not chosen:
        raise InvalidArgumentError(f"nothing is left to measure of {', '.join(MEASURES)}")
    for unknown in sorted(chosen - frozenset(MEASURES)):
        raise InvalidArgumentError(f"no measure {unknown!r}; there are {', '.join(MEASURES)}")
    return chosen


def _one_of(policy: NonFinite) -> NonFinite:
    if policy not in NON_FINITE:
        raise InvalidArgumentError(
            f"non_finite must be one of {', '.join(NON_FINITE)}, not {policy!r}"
        )
    return policy


@dataclass
class _Totals:
    """What adds up over the tensors."""

    zeros: int = 0
    sum_of_squares: float = 0.0
    stream: _core.SignCounter = field(default_factory=_core.SignCounter)
    plane: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(1 << 16, np.uint64))
    plane_bits: int = 0
    levels: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    measured_levels: int = 0


class _Measurement:
    """One pass over the weights."""

    def __init__(self, weights: WeightSet, options: _Options) -> None:
        self._weights = weights
        self._options = options
        self._totals = _Totals(levels=np.zeros(options.bits))
        self._shares = _share_out(weights, options)
        if weights.archive is not None:
            weights.archive.threads = self._shares.threads

    def run(self, progress: Progress) -> ComplexityReport:
        options = self._options
        if options.non_finite == "skip":
            self._leave_out_non_finite(progress)
        weights = self._weights
        tensors = []
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress("measure", done, weights.numel)

        bits = BitStream()
        with Workers(self._shares.threads) as workers:
            of_weights = self._compressor(workers, "weights", weights.nbytes)
            of_signs = self._compressor(workers, "signs", math.ceil(weights.numel / 8))

            def compress(data: Bytes, name: str, numel: int) -> None:
                of_weights.feed(data)
                of_signs.feed(bits.append(_core.pack_signs(data, name), numel))

            for tensor in weights.tensors:
                reading = self._read(tensor)
                one = _TensorMeasurement(tensor, reading, options, self._totals)
                alone = None
                if options.per_tensor_compression:
                    alone = self._compressor(workers, "weights", tensor.nbytes)
                for data in reading.pieces():
                    numel = data.size // dtype(tensor.dtype).itemsize
                    if options.compressors:
                        compress(data, tensor.dtype, numel)
                    if alone is not None:
                        alone.feed(data)
                    one.add(data)
                    advance(numel)
                bound = None
                if "bound" in options.measures and tensor.numel:
                    bound = self._bound((tensor,))
                tensors.append(one.finish(bound, () if alone is None else alone.finish()))
            of_signs.feed(bits.finish())
            compression = (*of_weights.finish(), *of_signs.finish())
        return self._report(tuple(tensors), compression)

    def _compressor(self, workers: Workers, of: str, total: int) -> StreamCompressor:
        options = self._options
        return StreamCompressor(
            options.compressors, of=of, total=total, sample=options.sample, workers=workers
        )

    def _leave_out_non_finite(self, progress: Progress) -> None:
        weights = self._weights
        done = 0
        for tensor in weights.tensors:
            reading = _Reading(tensor, self._shares.piece_bytes, self._options.threads)
            if reading.problem is not None:
                self._weights = self._weights.without(tensor.name, reading.problem)
            done += tensor.numel
            progress("look", done, weights.numel)
        if self._weights.numel == 0:
            raise InvalidArgumentError(f"{self._weights.source}: no tensor has finite weights only")

    def _read(self, tensor: WeightTensor) -> _Reading:
        """The weights of a tensor, all finite."""
        reading = _Reading(tensor, self._shares.piece_bytes, self._options.threads)
        if reading.problem is not None:
            if self._options.non_finite != "zero":
                raise InvalidArgumentError(
                    f"{self._weights.source}: tensor {tensor.name!r} has {reading.problem}; "
                    "leave such tensors out (",
                    Argument("non_finite", "skip"),
                    ") or take the values for 0 (",
                    Argument("non_finite", "zero"),
                    ")",
                )
            reading.zero_non_finite()
        return reading

    def _bound(self, tensors: Sequence[WeightTensor]) -> MosaicBound:
        options = self._options
        blocks = sum(_core.block_count(tensor.numel, options.block_size) for tensor in tensors)
        motifs = motif_count(blocks, options.capacity)
        value_bits = 8 * max(dtype(tensor.dtype).itemsize for tensor in tensors)
        bits = mosaic_bound(blocks, motifs, options.block_size, value_bits)
        return MosaicBound(
            block_size=options.block_size,
            capacity=options.capacity,
            blocks=blocks,
            motifs=motifs,
            value_bits=value_bits,
            bits=bits,
            ratio=bits / (8 * sum(tensor.nbytes for tensor in tensors)),
        )

    def _report(
        self, tensors: tuple[TensorComplexity, ...], compression: tuple[Compression, ...]
    ) -> ComplexityReport:
        options, totals, weights = self._options, self._totals, self._weights
        wanted = options.measures
        qubd = QubdComplexity(
            bits=options.bits,
            planes=tuple(totals.levels.tolist()),
            total=math.fsum(totals.levels),
            measured=totals.measured_levels,
            skipped=len(tensors) - totals.measured_levels,
        )
        return ComplexityReport(
            source=weights.source,
            format=weights.format,
            n=weights.numel,
            nbytes=weights.nbytes,
            sparsity=totals.zeros / weights.numel if "sparsity" in wanted else None,
            l2=math.sqrt(totals.sum_of_squares) if "norm" in wanted else None,
            signs=complexity_of_counts(totals.stream.counts(), totals.stream.bits)
            if "bdm" in wanted
            else None,
            bdm_2d=complexity_of_counts(totals.plane, totals.plane_bits)
            if "bdm_2d" in wanted
            else None,
            qubd=qubd if "qubd" in wanted else None,
            bound=self._bound(weights.tensors) if "bound" in wanted else None,
            compression=compression,
            tensors=tensors,
            left_out=weights.left_out,
            baseline=None,
            notes=(),
            seconds=0.0,
        )


class _Reading:
    """The weights of a tensor, which stay in memory if they are one piece.

    Attributes:
        statistics: Those of the weights.
    """

    def __init__(self, tensor: WeightTensor, piece_bytes: int, threads: int | None) -> None:
        self._tensor = tensor
        self._piece_bytes = piece_bytes
        self._threads = threads
        self._zeroed = False
        self._whole = tensor.read() if tensor.nbytes <= piece_bytes else None
        self.statistics = self._statistics()

    @property
    def problem(self) -> str | None:
        """What is not finite among the weights."""
        return _problem(self.statistics)

    def zero_non_finite(self) -> None:
        """Takes what is not finite for 0 from now on."""
        self._zeroed = True
        if self._whole is not None:
            self._whole = _core.zero_non_finite(self._whole, self._tensor.dtype)
        self.statistics = self._statistics()

    def pieces(self) -> Iterator[Bytes]:
        """The weights in order, as of :meth:`WeightTensor.pieces`."""
        if self._whole is not None:
            yield self._whole
            return
        for data in self._tensor.pieces(self._piece_bytes):
            yield _core.zero_non_finite(data, self._tensor.dtype) if self._zeroed else data

    def quantiles(self, qs: Sequence[float]) -> list[float]:
        """Quantiles of the weights."""
        search = _core.QuantileSearch(self._tensor.numel, qs)
        for data in self.pieces():
            search.add(data, self._tensor.dtype, threads=self._threads)
        search.turn()
        for data in self.pieces():
            search.add(data, self._tensor.dtype, threads=self._threads)
        return search.values()

    def _statistics(self) -> Statistics:
        return statistics_of(self.pieces(), self._tensor.dtype, threads=self._threads)


class _TensorMeasurement:
    """The figures of one tensor, whose weights come in pieces."""

    def __init__(
        self, tensor: WeightTensor, reading: _Reading, options: _Options, totals: _Totals
    ) -> None:
        self._tensor = tensor
        self._options = options
        self._totals = totals
        self._statistics = reading.statistics
        self._signs = _core.SignCounter()
        self._columns = matrix_columns(tensor.shape)
        self._bands = Bands((self._columns or 1) * dtype(tensor.dtype).itemsize)
        self._sign_plane = np.zeros(1 << 16, np.uint64)
        self._level_planes = np.zeros((options.bits, 1 << 16), np.uint64)
        self._ends = (0.0, 0.0)
        if self._wants("qubd") and self._columns is not None:
            self._ends = self._quantisation_range(reading)

    def _wants(self, measure: str) -> bool:
        return measure in self._options.measures

    def _quantisation_range(self, reading: _Reading) -> tuple[float, float]:
        options = self._options
        if options.robust:
            low, high = reading.quantiles(tails(options.percentile))
            return low, high
        return self._statistics.least, self._statistics.largest

    def add(self, data: Bytes) -> None:
        """Takes the next piece in."""
        name, threads = self._tensor.dtype, self._options.threads
        if self._wants("bdm"):
            self._totals.stream.update(data, name, threads=threads)
            self._signs.update(data, name, threads=threads)
        if self._columns is None or not (self._wants("bdm_2d") or self._wants("qubd")):
            return
        for band in self._bands.cut(data):
            if self._wants("bdm_2d"):
                self._sign_plane += _core.sign_plane_counts(
                    band, name, self._columns, threads=threads
                )
            if self._wants("qubd"):
                counts = _core.level_plane_counts(
                    band, name, self._columns, self._options.bits, *self._ends, threads=threads
                )
                for plane, more in zip(self._level_planes, counts, strict=True):
                    plane += more

    def finish(
        self, bound: MosaicBound | None, compression: tuple[Compression, ...]
    ) -> TensorComplexity:
        """The figures, once all pieces were taken in; adds them to the totals."""
        tensor, totals = self._tensor, self._totals
        sparsity = l2 = signs = sign_plane = qubd = None
        zeros, sum_of_squares = self._statistics.zeros, self._statistics.sum_of_squares
        totals.zeros += zeros
        totals.sum_of_squares += sum_of_squares
        if self._wants("sparsity") and tensor.numel:
            sparsity = zeros / tensor.numel
        if self._wants("norm"):
            l2 = math.sqrt(sum_of_squares)
        if self._wants("bdm"):
            signs = complexity_of_counts(self._signs.counts(), tensor.numel)
        if self._wants("bdm_2d") and self._columns is not None:
            totals.plane += self._sign_plane
            totals.plane_bits += tensor.numel
            sign_plane = complexity_of_counts(self._sign_plane, tensor.numel)
        if self._wants("qubd") and self._columns is not None:
            squares = _core.ctm_squares(4)
            qubd = tuple(_core.bdm_of_counts(counts, squares) for counts in self._level_planes)
            totals.levels += qubd
            totals.measured_levels += 1
        return TensorComplexity(
            name=tensor.name,
            shape=tensor.shape,
            dtype=tensor.dtype,
            n=tensor.numel,
            sparsity=sparsity,
            l2=l2,
            signs=signs,
            bdm_2d=sign_plane,
            qubd=qubd,
            bound=bound,
            compression=compression,
        )


def _share_out(weights: WeightSet, options: _Options) -> Shares:
    """What the memory allows."""
    once, per_thread = compression_memory(options.compressors, options.sample)
    pieces = PIECES_MEASURED
    if weights.archive is not None:
        decoding, each = weights.archive.decoding_memory()
        once += decoding
        per_thread += each
        pieces += PIECES_DECODED
    # Tensors that are only read at once, with what they are made of; and four rows of a matrix.
    whole = [3 * tensor.nbytes for tensor in weights.tensors if tensor.read_pieces is None]
    bands = [
        8 * (matrix_columns(tensor.shape) or 0) * dtype(tensor.dtype).itemsize
        for tensor in weights.tensors
    ]
    return options.resources.share_out(
        doing=f"measuring {weights.source}",
        once=once + max(whole, default=0) + max(bands, default=0),
        per_thread=per_thread,
        pieces=pieces,
    )


def _problem(statistics: Statistics) -> str | None:
    """What is not finite among weights of these statistics."""
    found = [f"{statistics.nans} NaN"] if statistics.nans else []
    found += [f"{statistics.infinities} infinite"] if statistics.infinities else []
    return f"{' and '.join(found)} weights" if found else None
