"""Measures the complexity of a model's weights."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core, defaults
from momos_rs.bitplanes import (
    BITS,
    PERCENTILE,
    check_quantisation,
    level_planes,
    matrix_columns,
    quantisation_range,
)
from momos_rs.dtypes import dtype
from momos_rs.errors import InvalidArgumentError
from momos_rs.mosaic import mosaic_bound, motif_count

from .compression import COMPRESSORS, SLOW_COMPRESSORS, Compression, StreamCompressor
from .controls import RANDOM_BASELINES, RandomBaseline, compare, notes_on, random_baseline
from .counting import BitStream, complexity_of_counts
from .report import (
    ComplexityReport,
    MosaicBound,
    QubdComplexity,
    TensorComplexity,
)
from .weights import Source, WeightSet, WeightTensor, collect_weights

__all__ = ["MEASURES", "NON_FINITE", "SAMPLE", "SEEDS", "Measure", "NonFinite", "measure"]

Measure: TypeAlias = Literal[
    "sparsity", "norm", "bdm", "bdm2d", "qubd", "bound", "gzip", "bz2", "lzma", "zstd"
]
"""``bdm`` includes block entropy; ``bdm2d`` is BDM and entropy of the signs in 4x4 blocks."""

MEASURES: tuple[Measure, ...] = (
    "sparsity",
    "norm",
    "bdm",
    "bdm2d",
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

Bytes: TypeAlias = "npt.NDArray[np.uint8]"
Statistics: TypeAlias = "tuple[int, int, int, int, float, float, float, float]"
"""As of :func:`_core.weight_statistics`."""

Progress: TypeAlias = "Callable[[str, int, int], object]"
"""Called with a phase, the weights done and the weights in all."""


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
    threads: int | None

    @property
    def compressors(self) -> tuple[str, ...]:
        return tuple(name for name in COMPRESSORS if name in self.measures)

    @property
    def workers(self) -> int:
        return self.threads or os.cpu_count() or 1


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
    progress: Progress | None = None,
) -> ComplexityReport:
    """Measures the complexity of the trainable weights of a model.

    The 1-D BDM of the signs is the measure of Mosaic-of-Motifs (arXiv 2602.14896): the bits
    ``w > 0`` of all trainable parameters, in order, in blocks of 12, the last incomplete one
    ignored. Every tensor is read once.

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
        progress: Called while work goes on.

    Raises:
        InvalidArgumentError: If an argument is out of its range, the source has no weights, a
            tensor is not finite and ``non_finite`` is ``"error"``, or a baseline checkpoint has
            no tensor in common with the model.
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
        threads=threads,
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

    def run(self, progress: Progress) -> ComplexityReport:
        options = self._options
        if options.non_finite == "skip":
            self._leave_out_non_finite()
        weights = self._weights
        tensors = []
        done = 0
        bits = BitStream()
        with (
            self._compressor("weights", weights.nbytes) as of_weights,
            self._compressor("signs", math.ceil(weights.numel / 8)) as of_signs,
        ):
            for tensor in weights.tensors:
                data, found = self._read(tensor)
                if options.compressors:
                    of_weights.feed(data)
                    packed = _core.pack_signs(data, tensor.dtype)
                    of_signs.feed(bits.append(packed, tensor.numel))
                tensors.append(self._measure_tensor(tensor, data, found))
                done += tensor.numel
                progress("measure", done, weights.numel)
            of_signs.feed(bits.finish())
            compression = (*of_weights.finish(), *of_signs.finish())
        return self._report(tuple(tensors), compression)

    def _compressor(self, of: str, total: int) -> StreamCompressor:
        options = self._options
        return StreamCompressor(
            options.compressors,
            of=of,
            total=total,
            sample=options.sample,
            threads=options.workers,
        )

    def _leave_out_non_finite(self) -> None:
        for tensor in self._weights.tensors:
            problem = _problem(_core.weight_statistics(tensor.read(), tensor.dtype))
            if problem is not None:
                self._weights = self._weights.without(tensor.name, problem)
        if self._weights.numel == 0:
            raise InvalidArgumentError(f"{self._weights.source}: no tensor has finite weights only")

    def _read(self, tensor: WeightTensor) -> tuple[Bytes, Statistics]:
        """The weights of a tensor, all finite, and their statistics."""
        options = self._options
        data = tensor.read()
        found = _core.weight_statistics(data, tensor.dtype, threads=options.threads)
        problem = _problem(found)
        if problem is not None:
            if options.non_finite != "zero":
                raise InvalidArgumentError(
                    f"{self._weights.source}: tensor {tensor.name!r} has {problem}; "
                    'leave such tensors out (non_finite="skip", --non-finite skip) or take '
                    'the values for 0 (non_finite="zero", --non-finite zero)'
                )
            data = _core.zero_non_finite(data, tensor.dtype)
            found = _core.weight_statistics(data, tensor.dtype, threads=options.threads)
        return data, found

    def _measure_tensor(
        self, tensor: WeightTensor, data: Bytes, found: Statistics
    ) -> TensorComplexity:
        options = self._options
        wanted = options.measures
        totals = self._totals
        sparsity = l2 = signs = sign_plane = qubd = None
        zeros, sum_of_squares = found[1], found[7]
        totals.zeros += zeros
        totals.sum_of_squares += sum_of_squares
        if "sparsity" in wanted and tensor.numel:
            sparsity = zeros / tensor.numel
        if "norm" in wanted:
            l2 = math.sqrt(sum_of_squares)
        if "bdm" in wanted:
            totals.stream.update(data, tensor.dtype, threads=options.threads)
            counter = _core.SignCounter()
            counter.update(data, tensor.dtype, threads=options.threads)
            signs = complexity_of_counts(counter.counts(), tensor.numel)
        columns = matrix_columns(tensor.shape)
        if "bdm2d" in wanted and columns is not None:
            counts = _core.sign_plane_counts(data, tensor.dtype, columns, threads=options.threads)
            totals.plane += counts
            totals.plane_bits += tensor.numel
            sign_plane = complexity_of_counts(counts, tensor.numel)
        if "qubd" in wanted and columns is not None:
            qubd = self._level_planes(tensor, data, columns)
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
            sign_plane=sign_plane,
            qubd=qubd,
            bound=self._bound((tensor,)) if "bound" in wanted and tensor.numel else None,
            compression=self._compress(data) if options.per_tensor_compression else (),
        )

    def _level_planes(self, tensor: WeightTensor, data: Bytes, columns: int) -> tuple[float, ...]:
        options = self._options
        ends = quantisation_range(
            data,
            tensor.dtype,
            robust=options.robust,
            percentile=options.percentile,
            threads=options.threads,
        )
        assert ends is not None, "non-finite weights were dealt with when they were read"
        return level_planes(
            data, tensor.dtype, columns, options.bits, *ends, threads=options.threads
        )

    def _compress(self, data: Bytes) -> tuple[Compression, ...]:
        with self._compressor("weights", data.size) as compressor:
            compressor.feed(data)
            return compressor.finish()

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
            sign_plane=complexity_of_counts(totals.plane, totals.plane_bits)
            if "bdm2d" in wanted
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


def _problem(statistics: Statistics) -> str | None:
    """What is not finite among weights of these statistics."""
    _, _, nans, infinities, *_ = statistics
    found = [f"{nans} NaN"] if nans else []
    found += [f"{infinities} infinite"] if infinities else []
    return f"{' and '.join(found)} weights" if found else None
