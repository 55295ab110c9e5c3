"""Structured motifs: every block is the step of its tensor times a vector of integers.

The motifs of such a mosaic are the points of a grid that are used, so they need no table, and
their number k is what it turns out to be. Which points stand for the weights is weighed against
the bits they take:

``grid``
    every value by itself (entropy-constrained scalar quantisation);
``trellis``
    values depend on one another, by the cheapest path through a trellis of 64 states
    (trellis-coded quantisation: Marcellin and Fischer, 1990): less error at equal bits.

Every block is one of the k motifs, though not always the nearest of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from momos_rs import _core, defaults
from momos_rs.checkpoint.model import Base, Checkpoint
from momos_rs.dtypes import dtype
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.progress import Progress
from momos_rs.runtime.resources import Resources

from .importance import Importance
from .methods import Sensitivity, StructuredMotifs
from .mosaic import Mosaic, Motifs, common_dtype

__all__ = ["GridMosaic", "GridPacker", "geometries", "mosaic_of_blocks"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

TRIAL_ELEMENTS = 1 << 21
"""Tensors of up to this many elements are tried in several orders."""

_WEIGHT_RANGE = 64.0
"""Weights of a tensor's elements are kept within this factor of their mean: beyond it, an element
would be left to chance, or take the bits of many."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class GridMosaic:
    """Tensors on grids: a mosaic of structured motifs.

    Attributes:
        tensors: The quantised tensors.
        streams: Their coded streams.
        dtypes: Their element types.
        elements: Their numbers of elements.
        distortions: Sum of squared errors of each.
        energies: Sum of squares of each original.
        step: The spacing of the grid as a multiple of the root mean square of all weights, before
            it is adapted to each tensor.
    """

    tensors: tuple[_core.GridTensor, ...]
    streams: tuple[Bytes, ...]
    dtypes: tuple[str, ...]
    elements: tuple[int, ...]
    distortions: tuple[float, ...]
    energies: tuple[float, ...]
    step: float

    @property
    def nbytes(self) -> int:
        """Bytes of all streams."""
        return sum(stream.size for stream in self.streams)

    @property
    def own_steps(self) -> bool:
        """Whether rows or columns of any tensor have steps of their own."""
        # The flags of a stream, see docs/format.md.
        return any(stream[6] & 12 for stream in self.streams)

    @property
    def relative_error(self) -> float:
        """``||w - w'||^2 / ||w||^2`` over all tensors."""
        energy = sum(self.energies)
        return sum(self.distortions) / energy if energy else 0.0

    @property
    def relative_errors(self) -> tuple[float, ...]:
        """The same, of each tensor."""
        return tuple(
            distortion / energy if energy else 0.0
            for distortion, energy in zip(self.distortions, self.energies, strict=True)
        )

    def mosaic(self, block_size: int, *, threads: int | None = None) -> Mosaic:
        """The mosaic for a block size: its motifs are the distinct blocks.

        Args:
            block_size: Values per block, s; any will do.
            threads: Number of threads; all cores by default.
        """
        decoded = [
            (tensor.to_bytes(name), name)
            for tensor, name in zip(self.tensors, self.dtypes, strict=True)
        ]
        return mosaic_of_blocks(decoded, block_size, threads=threads)


def mosaic_of_blocks(
    tensors: Sequence[tuple[Bytes, str]], block_size: int, *, threads: int | None = None
) -> Mosaic:
    """The mosaic of tensors in which every distinct block is a motif.

    Args:
        tensors: Elements as bytes, and element type, of each.
        block_size: Values per block, s.
        threads: Number of threads; all cores by default.
    """
    motif_dtype = common_dtype([name for _, name in tensors])
    blocks = _core.gather_blocks(
        list(tensors), block_size, wide=motif_dtype == "F64", threads=threads
    )
    distinct = _core.distinct_blocks(blocks, len(blocks), threads=threads)
    assert distinct is not None
    first, indices = distinct
    motifs: Motifs = blocks[first]
    return Mosaic(
        motifs=motifs,
        indices=indices,
        elements=tuple(data.size // dtype(name).itemsize for data, name in tensors),
        dtype=motif_dtype,
        requested_motifs=len(motifs),
        exact=False,
    )


@dataclass(frozen=True, eq=False)
class _Member:
    """One tensor and what is known of it before it is quantised."""

    base: Base
    shape: tuple[int, ...]
    scale: float
    """Its step relative to the common one."""
    weights: npt.NDArray[np.float32] | None
    """Weights of its elements, 1 on average."""
    importance: Importance | None = None
    """What errors of its rows and columns cost."""


class GridPacker:
    """Quantises and codes the same tensors at different steps.

    What does not depend on the step, or hardly, is done once: the tensors' scales, and the order
    in which each is coded.

    Args:
        model: The model.
        members: The bases to pack.
        method: A :class:`~momos_rs.mosaic.methods.Grid` or
            :class:`~momos_rs.mosaic.methods.Trellis`; its block size, step and targets do not
            matter here.
        economy: How much bits count, as a multiple of the best trade-off at high rates.
        sensitivities: By number of a base, how much its errors count; its step then follows from
            that instead of the root mean square.
        importances: By number of a base, what its errors cost, instead of sensitivities.
        resources: What may be used. The result does not depend on it.

    Raises:
        InvalidArgumentError: If an argument is out of its range.
    """

    def __init__(
        self,
        model: Checkpoint,
        members: Sequence[int],
        method: StructuredMotifs,
        *,
        economy: float = 1.0,
        sensitivities: Mapping[int, Sensitivity] | None = None,
        importances: Mapping[int, Importance] | None = None,
        resources: Resources | None = None,
    ) -> None:
        self._states = method.states
        self._economy = economy
        self._threads = None if resources is None else resources.threads
        self._sensitivities = sensitivities
        shapes = {
            entry.base: entry.shape for entry in reversed(model.entries) if entry.strides is None
        }
        bases = [model.bases[index] for index in members]
        surveys = self._map(self._survey, bases)
        squares = [survey["sum_of_squares"] for survey in surveys]
        self.elements = sum(base.numel for base in bases)
        self.rms = math.sqrt(sum(squares) / max(self.elements, 1))
        weights = [
            _normalised(sensitivities[index], model.bases[index])
            if sensitivities and index in sensitivities
            else (importances[index].mean if importances else 1.0, None)
            for index in members
        ]
        total = sum(mean * base.numel for (mean, _), base in zip(weights, bases, strict=True))
        average = total / max(self.elements, 1)
        self._members = []
        for index, base, square, (mean, each) in zip(members, bases, squares, weights, strict=True):
            rms = math.sqrt(square / max(base.numel, 1))
            if sensitivities or importances:
                scale = math.sqrt(average / mean) if mean > 0 else _WEIGHT_RANGE
                scale = min(max(scale, 1 / _WEIGHT_RANGE), _WEIGHT_RANGE)
            else:
                scale = (rms / self.rms) ** method.exponent if rms > 0 else 1.0
            shape = shapes.get(index, (base.numel,))
            importance = importances[index] if importances else None
            self._members.append(_Member(base, shape, scale, each, importance))

    def steps(self, step: float) -> list[float]:
        """The step of each tensor, in the units of its weights."""
        spacing = step * (self.rms or 1.0)
        return [
            spacing * member.scale / (1 if self._states == 1 else 2) for member in self._members
        ]

    def at(
        self,
        step: float,
        *,
        limits: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> GridMosaic:
        """Packs all tensors.

        Args:
            step: Spacing of the grid as a multiple of the root mean square of all weights.
            limits: Largest step of each tensor, in the units of its weights.
            progress: Called while work goes on.

        Raises:
            InvalidArgumentError: If the step is too short for the weights, or not above 0.
        """
        if not (math.isfinite(step) and step > 0):
            raise InvalidArgumentError(f"the step must be above 0, not {step}")
        steps = self.steps(step)
        if limits is not None:
            steps = [min(pair) for pair in zip(steps, limits, strict=True)]
        done = 0

        def work(position: int) -> tuple[_core.GridTensor, Bytes, float, float]:
            nonlocal done
            member = self._members[position]
            tensor = self.quantise(position, steps[position])
            stream = tensor.encode(threads=self._threads)
            difference = self._compare(position, tensor)
            done += member.base.numel
            if progress:
                progress("grid", done, self.elements)
            return tensor, stream, difference["distortion"], difference["sum_of_squares"]

        _ = self._geometries  # once, not in every thread
        results = self._map(work, range(len(self._members)))
        return GridMosaic(
            tensors=tuple(tensor for tensor, _, _, _ in results),
            streams=tuple(stream for _, stream, _, _ in results),
            dtypes=tuple(member.base.dtype for member in self._members),
            elements=tuple(member.base.numel for member in self._members),
            distortions=tuple(distortion for _, _, distortion, _ in results),
            energies=tuple(energy for _, _, _, energy in results),
            step=step,
        )

    def quantise(self, position: int, step: float) -> _core.GridTensor:
        """Quantises one tensor to a step in the units of its weights."""
        member = self._members[position]
        geometry = self._geometries[position]
        rows, columns, factors = None, None, None
        if member.importance is not None and _is_matrix(member):
            rows, columns = member.importance.rows, member.importance.inputs
            factors = member.importance.factors
            if geometry.transposed:
                rows, columns = columns, rows
        return _core.quantise_to_grid(
            member.base.read(),
            member.base.dtype,
            geometry,
            step,
            states=self._states,
            economy=self._economy,
            weights=member.weights,
            rows=rows,
            columns=columns,
            factors=factors,
            own_steps=not geometry.lags,
            threads=self._threads,
        )

    def relative_error(self, position: int, step: float) -> float:
        """The relative error of one tensor at a step in the units of its weights."""
        difference = self._compare(position, self.quantise(position, step))
        energy = difference["sum_of_squares"]
        return difference["distortion"] / energy if energy else 0.0

    def _compare(self, position: int, tensor: _core.GridTensor) -> _core._Difference:
        base = self._members[position].base
        return _core.compare_tensors(
            base.read(), tensor.to_bytes(base.dtype), base.dtype, threads=self._threads
        )

    @cached_property
    def _geometries(self) -> list[_core.GridGeometry]:
        """The order in which each tensor is coded, found at a middling step."""
        spacing = defaults.STEP * (self.rms or 1.0)
        return self._map(
            lambda position: _best_geometry(
                self._members[position],
                spacing * self._members[position].scale,
                self._threads,
            ),
            range(len(self._members)),
        )

    def _survey(self, base: Base) -> _core._Survey:
        return _core.survey_tensor(base.read(), base.dtype, threads=self._threads)

    def _map(self, function: Callable[..., T], items: Iterable[object]) -> list[T]:
        with ThreadPoolExecutor(self._threads or os.cpu_count()) as pool:
            return list(pool.map(function, items))


def _normalised(
    sensitivity: Sensitivity, base: Base
) -> tuple[float, npt.NDArray[np.float32] | None]:
    """A tensor's mean weight, and its elements' as multiples of it."""
    if isinstance(sensitivity, (int, float)):
        return float(sensitivity), None
    mean = float(np.mean(sensitivity, dtype=np.float64))
    if sensitivity.size != base.numel:
        raise InvalidArgumentError(
            f"a sensitivity of {sensitivity.size} values for a tensor of {base.numel}"
        )
    if mean <= 0:
        return 0.0, None
    relative = np.clip(sensitivity.reshape(-1) / mean, 1 / _WEIGHT_RANGE, _WEIGHT_RANGE)
    return mean, np.ascontiguousarray(relative, np.float32)


def _is_matrix(member: _Member) -> bool:
    """Whether a tensor is a matrix of rows and inputs, not cut into rows at will."""
    return len(member.shape) > 1 and member.shape[0] > 1 and member.base.numel > member.shape[0]


def _best_geometry(member: _Member, step: float, threads: int | None) -> _core.GridGeometry:
    """The order that takes the fewest bytes, by an estimate without a trellis."""
    candidates = geometries(member.base.numel, member.shape)
    importance = member.importance
    factors = importance.factors if importance is not None and _is_matrix(member) else None
    if factors is not None:
        # Errors go from input to input, so these are the rows.
        candidates = [each for each in candidates if each.transposed]
    if len(candidates) == 1 or member.base.numel > TRIAL_ELEMENTS:
        return candidates[0]
    data = member.base.read()
    # Prediction from rows before is not for rows with steps of their own.
    gain = 0.0
    if factors is not None:
        gain = _core.gain_of_own_steps(factors.importance) * member.base.numel / 8
    return min(
        candidates,
        key=lambda geometry: (
            _core.estimate_grid(data, member.base.dtype, geometry, step, threads=threads)
            + (gain if geometry.lags else 0.0)
        ),
    )


LONGEST_ROW = 1024
"""Longest row within which values are predicted from others; the work grows with its square. From
less than half as many rows there would be little to learn."""

FLAT_COLUMNS = 1024
"""Columns of tensors without rows of their own."""


def geometries(elements: int, shape: Sequence[int]) -> list[_core.GridGeometry]:
    """Orders in which a tensor could be coded, the likeliest to be the best one first.

    A tensor of shape (a, b, ...) is a matrix of a rows, or its transpose. The rows of a
    convolution's transpose are the taps of one input channel after another; each of them is
    predicted from the taps before it and from the same tap of the channels before.

    Args:
        elements: Number of elements.
        shape: The tensor's shape.
    """
    rows = shape[0] if len(shape) > 1 else 1
    if rows < 2 or elements // rows < 2:
        return [_core.GridGeometry(elements, max(min(elements, FLAT_COLUMNS), 1))]
    columns = elements // rows

    def matrix(length: int, *, transposed: bool, taps: int = 1) -> _core.GridGeometry:
        count = elements // length
        lags = [] if taps == 1 else sorted({*range(1, min(taps, 9) + 1), taps, 2 * taps})
        return _core.GridGeometry(
            elements,
            length,
            transposed=transposed,
            within=4 <= length <= min(LONGEST_ROW, 2 * count),
            lags=[lag for lag in lags if lag < count],
            period=taps,
        )

    plain = [matrix(columns, transposed=False), matrix(rows, transposed=True)]
    plain.sort(key=lambda geometry: geometry.columns)
    taps = math.prod(shape[2:])
    if 1 < taps <= MAX_TAPS:
        plain.insert(0, matrix(rows, transposed=True, taps=taps))
    return plain


MAX_TAPS = 64
"""Most taps of a convolution that are told apart."""
