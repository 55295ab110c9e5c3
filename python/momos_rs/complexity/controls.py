"""What a figure is to be compared with, and what it can tell at all."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from momos_rs.checkpoint.model import cuts
from momos_rs.dtypes import dtype
from momos_rs.runtime.budget import LARGEST_PIECE

from .counting import statistics_of
from .report import (
    BaselineComparison,
    BlockComplexity,
    ComplexityReport,
    Ratio,
    TensorComplexity,
    TensorRatios,
)
from .weights import WeightSet, WeightTensor

__all__ = [
    "RANDOM_BASELINES",
    "RandomBaseline",
    "compare",
    "figures_of",
    "notes_on",
    "random_baseline",
]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

RandomBaseline: TypeAlias = Literal["gaussian", "shuffled"]
RANDOM_BASELINES: tuple[RandomBaseline, ...] = get_args(RandomBaseline)

SATURATED = 0.99
RESOLVING = 0.6
"""Below this share of blocks seen, new weights still bring new blocks in good number."""


def random_baseline(weights: WeightSet, kind: RandomBaseline, seed: int) -> WeightSet:
    """A model of the same shapes and types with random weights.

    Args:
        weights: The model.
        kind: ``"gaussian"``: normal weights with each tensor's mean and deviation;
            ``"shuffled"``: each tensor's own weights, permuted.
        seed: Seed; the same one gives the same weights on every machine.
    """
    tensors = tuple(
        _gaussian(tensor, seed, index) if kind == "gaussian" else _shuffled(tensor, seed, index)
        for index, tensor in enumerate(weights.tensors)
    )
    return WeightSet(f"{kind}, seed {seed}", weights.format, tensors, archive=weights.archive)


def _gaussian(tensor: WeightTensor, seed: int, index: int) -> WeightTensor:
    pieces = partial(_gaussian_pieces, tensor, seed, index)
    return replace(tensor, read=lambda: _joined(pieces(LARGEST_PIECE)), read_pieces=pieces)


def _joined(pieces: Iterator[Bytes]) -> Bytes:
    return np.concatenate([np.empty(0, np.uint8), *pieces])


def _gaussian_pieces(tensor: WeightTensor, seed: int, index: int, nbytes: int) -> Iterator[Bytes]:
    """Normal weights; the generator gives the same numbers whatever the pieces."""
    n, _, nans, infinities, _, _, total, squares = statistics_of(
        tensor.pieces(nbytes), tensor.dtype
    )
    finite = max(n - nans - infinities, 1)
    mean = total / finite
    deviation = max(squares / finite - mean * mean, 0.0) ** 0.5
    rng = np.random.default_rng((seed, index))
    for start, stop in cuts(tensor.numel, dtype(tensor.dtype).itemsize, nbytes):
        if tensor.dtype == "F64":
            wide = rng.standard_normal(stop - start) * deviation + mean
            yield wide.astype("<f8").view(np.uint8)
        else:
            values = rng.standard_normal(stop - start, dtype=np.float32)
            values *= np.float32(deviation)
            values += np.float32(mean)
            yield _narrowed(values, tensor.dtype)


def _narrowed(values: npt.NDArray[np.float32], name: str) -> Bytes:
    if name in ("F32", "F16"):
        return values.astype(dtype(name).numpy).view(np.uint8)
    import torch

    narrow = torch.from_numpy(values).to(getattr(torch, dtype(name).torch))
    data: Bytes = narrow.view(torch.uint8).numpy()
    return data


def _shuffled(tensor: WeightTensor, seed: int, index: int) -> WeightTensor:
    return replace(tensor, read=partial(_permuted, tensor, seed, index), read_pieces=None)


def _permuted(tensor: WeightTensor, seed: int, index: int) -> Bytes:
    itemsize = dtype(tensor.dtype).itemsize
    elements = np.ascontiguousarray(tensor.read()).view(f"<u{itemsize}")
    permuted: Bytes = np.random.default_rng((seed, index)).permutation(elements).view(np.uint8)
    return permuted


def figures_of(measured: ComplexityReport | TensorComplexity) -> dict[str, float]:
    """The complexity figures of a model or tensor by name."""
    return dict(_figures(measured))


def _figures(measured: ComplexityReport | TensorComplexity) -> Iterator[tuple[str, float]]:
    if measured.signs is not None:
        yield "bdm", measured.signs.bdm
        yield "entropy", measured.signs.entropy
        yield "entropy corrected", measured.signs.entropy_corrected
    if measured.bdm_2d is not None:
        yield "bdm_2d", measured.bdm_2d.bdm
    planes: Sequence[float] = ()
    if isinstance(measured, TensorComplexity):
        planes = measured.qubd or ()
    elif measured.qubd is not None:
        planes = measured.qubd.planes
    if planes:
        yield "qubd", sum(planes)
        for plane, value in enumerate(planes):
            yield f"qubd[{plane}]", value
    for each in measured.compression:
        yield f"{each.name} of {each.of}", each.ratio


def compare(
    report: ComplexityReport, baselines: Sequence[ComplexityReport], *, kind: str, source: str
) -> BaselineComparison:
    """A model's figures against those of baselines, which are averaged.

    Args:
        report: The model.
        baselines: One report for each seed, or that of another checkpoint.
        kind: See :attr:`BaselineComparison.kind`.
        source: See :attr:`BaselineComparison.source`.
    """
    by_name = [{tensor.name: tensor for tensor in baseline.tensors} for baseline in baselines]
    tensors = [
        TensorRatios(
            tensor.name,
            _ratios(figures_of(tensor), [figures_of(names[tensor.name]) for names in by_name]),
        )
        for tensor in report.tensors
        if all(
            tensor.name in names and names[tensor.name].shape == tensor.shape for names in by_name
        )
    ]
    return BaselineComparison(
        kind=kind,
        source=source,
        seeds=len(baselines),
        n=baselines[0].n,
        ratios=_ratios(figures_of(report), [figures_of(each) for each in baselines]),
        tensors=tuple(tensors),
    )


def _ratios(
    values: Mapping[str, float], baselines: Sequence[Mapping[str, float]]
) -> tuple[Ratio, ...]:
    ratios = []
    for figure, value in values.items():
        found = [baseline[figure] for baseline in baselines if figure in baseline]
        if len(found) < len(baselines):
            continue
        mean = statistics.fmean(found)
        if mean == 0:
            continue  # a tensor too small to hold a block
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        ratios.append(Ratio(figure, value, mean, spread, value / mean))
    return tuple(ratios)


def notes_on(report: ComplexityReport) -> tuple[str, ...]:
    """How saturated the figures are, and which of them still tell models of this size apart."""
    notes = []
    if report.signs is not None and report.signs.saturation >= SATURATED:
        notes.append(
            f"the 1-D BDM of the signs is saturated: {_seen(report.signs)} occur, so that it "
            "follows the number of weights, and structure moves only the logarithms of counts; "
            f"{_what_resolves(report)}"
        )
    if report.bdm_2d is not None and report.bdm_2d.saturation >= SATURATED:
        notes.append(f"the 4x4 BDM of the signs is saturated: {_seen(report.bdm_2d)} occur")
    if report.signs is not None and report.signs.randomness_z is not None:
        z = report.signs.randomness_z
        verdict = "cannot be told from" if abs(z) < 4 else "differ from"
        notes.append(
            f"the signs {verdict} fair coin flips by their blocks of 12 (G-test, z = {z:.1f})"
        )
    sampled = sorted({each.name for each in report.compression if each.sampled})
    if sampled:
        notes.append(f"{' and '.join(sampled)} were given a sample of the weights, not all")
    if report.qubd is not None and report.qubd.skipped:
        notes.append(
            f"QuBD leaves out {report.qubd.skipped} of {len(report.tensors)} tensors, which have "
            "fewer than two dimensions or fewer than 4 rows or columns"
        )
    notes += _notes_on_baseline(report)
    return tuple(notes)


def _notes_on_baseline(report: ComplexityReport) -> Iterator[str]:
    if report.baseline is None:
        return
    alone = len(report.tensors) - len(report.baseline.tensors)
    if alone or report.baseline.n != report.n:
        yield (
            f"{report.baseline.source} is another model: {alone} of {len(report.tensors)} tensors "
            f"have none of the same name and shape there, and it has {report.baseline.n:,} "
            f"weights, not {report.n:,}; ratios of whole models compare these"
        )


def _seen(blocks: BlockComplexity) -> str:
    return f"{blocks.distinct:,} of {blocks.possible:,} blocks"


def _what_resolves(report: ComplexityReport) -> str:
    able = []
    if report.bdm_2d is not None and report.bdm_2d.saturation < RESOLVING:
        able.append(f"4x4 blocks of signs ({_seen(report.bdm_2d)} seen)")
    if report.qubd is not None:
        fresh = sum(
            tensor.n
            for tensor in report.tensors
            if tensor.qubd is not None and _expected_saturation(tensor.n) < RESOLVING
        )
        if fresh:
            able.append(f"QuBD of the tensors not saturated ({fresh / report.n:.0%} of weights)")
    if report.signs is not None:
        able.append("the corrected block entropy")
    if report.compression:
        able.append("the ratios of the compressors")
    return f"what still resolves this model: {', '.join(able)}"


def _expected_saturation(weights: int) -> float:
    """Share of the 4x4 blocks that random bits of that many weights would show."""
    return float(-np.expm1(-weights / 16 / 65536))
