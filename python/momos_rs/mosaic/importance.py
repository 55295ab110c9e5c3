"""What errors of weights cost, where it is known how they are used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.checkpoint.model import Checkpoint
from momos_rs.errors import InvalidArgumentError

from .calibration import Calibration, LayerInputs

__all__ = ["Importance", "Importances", "importances"]

Array: TypeAlias = "npt.NDArray[np.float64]"

EVEN_USES = 0.5
"""Uses of an embedding, as a share of those seen, that are spread evenly over its rows: a row that
calibration never saw may be needed later."""

LEAST_OUTPUT = 0.05
"""Least weight of an output, as a share of the mean: gradients come from few samples."""


@dataclass(frozen=True, eq=False)
class Importance:
    """What squared errors of a tensor of shape (a, b, ...), a matrix of a rows, cost.

    Attributes:
        mean: Cost of a squared error of a weight, on average.
        rows: How much errors of each row count; float64, above 0, any scale. All alike if None.
        inputs: How much those of each input (column) count; not beside factors. All alike if None.
        factors: Second moments of the inputs, so that errors of some inputs are made up for by
            others. None if nothing is known of how inputs are correlated.
    """

    mean: float
    rows: npt.NDArray[np.float64] | None = None
    inputs: npt.NDArray[np.float64] | None = None
    factors: _core.FeedbackFactors | None = None

    @property
    def feeds_back(self) -> bool:
        """Whether errors are made up for."""
        return self.factors is not None and not self.factors.diagonal


@dataclass(frozen=True)
class Importances:
    """What errors of a model's weights cost.

    Attributes:
        by_base: By number of a base.
        notes: Remarks for the report.
    """

    by_base: dict[int, Importance]
    notes: tuple[str, ...]


def importances(
    calibration: Calibration,
    model: Checkpoint,
    members: Sequence[int],
    *,
    threads: int | None = None,
) -> Importances:
    """What errors of some tensors cost, as calibration found.

    Args:
        calibration: Of this model.
        model: The model.
        members: Numbers of the bases in question.
        threads: Number of threads; all cores by default. The result does not depend on it.

    Raises:
        InvalidArgumentError: If it is a calibration of another model.
    """
    calibration.check(model)
    finder = _Finder(calibration, model, threads)
    found = {index: finder.of_base(index) for index in members}
    known = {index: each for index, each in found.items() if each is not None and each.mean > 0}
    if not known:
        raise InvalidArgumentError(
            "the calibration knows none of the tensors to pack: its layers are "
            f"{', '.join(list(calibration.layers)[:3])}, ..."
        )
    # Nothing tells what errors of the others cost: relative errors count as in those known.
    elements = sum(model.bases[index].numel for index in known)
    cost = sum(each.mean * finder.energy(index) for index, each in known.items()) / elements
    others = [index for index in members if index not in known]
    for index in others:
        mean_square = finder.energy(index) / max(model.bases[index].numel, 1)
        known[index] = Importance(cost / mean_square if mean_square > 0 else cost)
    return Importances(known, tuple(finder.notes(others)))


class _Finder:
    """Finds what is known of each base; what layers share is factorised once."""

    def __init__(self, calibration: Calibration, model: Checkpoint, threads: int | None) -> None:
        self.calibration = calibration
        self.model = model
        self.threads = threads
        self._factors: dict[tuple[str, ...], _core.FeedbackFactors] = {}
        self._few: dict[str, float] = {}
        self._refused: list[str] = []

    def names(self, index: int) -> list[str]:
        """The names of the whole of a base."""
        return [
            entry.name
            for entry in self.model.entries
            if entry.base == index and entry.strides is None
        ]

    def energy(self, index: int) -> float:
        """The sum of squares of a base."""
        base = self.model.bases[index]
        return float(
            _core.survey_tensor(base.read(), base.dtype, threads=self.threads)["sum_of_squares"]
        )

    def of_base(self, index: int) -> Importance | None:
        """What errors of a base cost; None if nothing is known."""
        names = self.calibration.names_of(self.names(index))
        layers = {name: self.calibration.layers.get(name) for name in names}
        gradients = self.calibration.gradients
        gradient = next((gradients[name] for name in names if name in gradients), None)
        fed = [(name, layer) for name, layer in layers.items() if layer and not layer.rows]
        looked_up = [layer for layer in layers.values() if layer and layer.rows]
        elements = self.model.bases[index].numel
        if fed:
            return self._of_inputs(index, *fed[0], gradient)
        total = _sum(gradient) if gradient is not None else 0.0
        if looked_up:
            return self._of_rows(index, looked_up[0], total)
        return Importance(total / elements) if total > 0 else None

    def _of_inputs(
        self, index: int, name: str, layer: LayerInputs, gradient: Array | None
    ) -> Importance | None:
        parts = [self.calibration.moments[each] for each in layer.moments]
        diagonals = np.concatenate(
            [
                (each.sums if each.diagonal else np.einsum("gii->gi", each.sums)) / each.count
                for each in parts
            ]
        )
        inputs, factors = diagonals.mean(0), None
        power = _sum(diagonals) / len(diagonals)
        if not power > 0:
            return None
        if not any(each.diagonal for each in parts):
            factors = self._factorise(name, layer)
        # Without factors, as damping would do.
        damped = 0.99 * inputs + 0.01 * _mean(inputs)
        inputs = damped if factors is None else factors.importance
        rows = self._outputs(gradient)
        if rows is not None:
            mean = _mean(rows) / power
        else:
            # Without gradients, errors count by their share in the layer's outputs.
            mean = 1 / self._output_energy(index, diagonals)
        return Importance(
            mean * _mean(inputs), rows, None if factors is not None else inputs, factors
        )

    def _output_energy(self, index: int, diagonals: Array) -> float:
        """About the mean square of a layer's outputs, summed over them."""
        base = self.model.bases[index]
        groups, width = diagonals.shape
        weights = _core.gather_blocks(
            [(base.read(), base.dtype)], width, wide=False, threads=self.threads
        ).reshape(groups, -1, width)
        squares = np.add.reduce(np.square(weights, dtype=np.float64), axis=1)
        return _sum(squares * diagonals) or 1.0

    def _outputs(self, gradient: Array | None) -> Array | None:
        if gradient is None or not _sum(gradient) > 0:
            return None
        return np.maximum(gradient, LEAST_OUTPUT * _mean(gradient))

    def _of_rows(self, index: int, layer: LayerInputs, total: float) -> Importance:
        moments = self.calibration.moments[layer.moments[0]]
        uses = moments.sums[0] / moments.count
        rows = uses + EVEN_USES / len(uses)
        elements = self.model.bases[index].numel
        # Without gradients, errors count by their share in what is looked up.
        mean = total / elements if total > 0 else 1 / (self.energy(index) or 1.0)
        return Importance(mean * (1 + EVEN_USES), rows)

    def _factorise(self, name: str, layer: LayerInputs) -> _core.FeedbackFactors | None:
        if layer.moments not in self._factors:
            parts = [self.calibration.moments[each] for each in layer.moments]
            count = min(each.count for each in parts)
            # All are made sums over as many inputs.
            sums = np.concatenate([each.sums * (count / each.count) for each in parts])
            try:
                self._factors[layer.moments] = _core.FeedbackFactors(
                    np.ascontiguousarray(sums), count, threads=self.threads
                )
            except InvalidArgumentError:
                self._refused.append(name)
                return None
            factors = self._factors[layer.moments]
            if count < factors.width:
                self._few[name] = factors.damping
        return self._factors[layer.moments]

    def notes(self, unknown: Sequence[int]) -> list[str]:
        """What was not as hoped."""
        notes = [f"calibrated on {self.calibration.samples:,} samples", *self.calibration.notes]
        if self._few:
            worst = max(self._few.values())
            notes.append(
                f"fewer inputs than columns in {len(self._few)} layers, such as "
                f"{next(iter(self._few))}; their second moments were damped by up to {worst:.0%}"
            )
        if self._refused:
            notes.append(
                f"no feedback in {', '.join(self._refused)}: second moments without factors"
            )
        names = [self.names(index)[0] for index in unknown if self.names(index)]
        if names:
            notes.append(f"not calibrated: {', '.join(names)}")
        return notes


def _sum(values: Array) -> float:
    """The sum, rounded once: the same on every machine."""
    return math.fsum(values.ravel())


def _mean(values: Array) -> float:
    return _sum(values) / values.size
