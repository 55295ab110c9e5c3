"""Complexity in the course of training."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from momos_rs.complexity.controls import figures_of
from momos_rs.complexity.measurement import MEASURES, MeasureKeywords, measure
from momos_rs.complexity.report import ComplexityReport
from momos_rs.errors import InvalidArgumentError
from momos_rs.records import Record

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

__all__ = ["TRACKED", "ComplexityTracker", "TrackedComplexity", "TrackerKeywords"]

TRACKED = ("bdm", "bdm_2d", "sparsity", "norm")
"""Measured by default: what takes a few milliseconds for a million weights."""


@dataclass(frozen=True)
class TrackedComplexity(Record):
    """One measurement of a training run.

    Attributes:
        step: When it was made, in whatever the loop counts.
        seconds: Seconds it took.
        sparsity: Share of weights that are zero, None if not measured.
        l2: Euclidean norm of all weights, None if not measured.
        figures: The complexity figures by name, as
            :func:`momos_rs.complexity.figures_of` gives them.
        extra: What the loop had to add, such as the loss.
    """

    step: int
    seconds: float
    sparsity: float | None
    l2: float | None
    figures: dict[str, float]
    extra: dict[str, float]


class TrackerKeywords(MeasureKeywords, total=False):
    """The arguments of :class:`ComplexityTracker` besides the model."""

    measures: Sequence[str]
    every: int
    log: str | os.PathLike[str] | None


class ComplexityTracker:
    """Measures a model every so often and keeps the history.

    Call :meth:`update` after every epoch (or step); it measures when it is time to. The weights
    are measured where they are; those on a GPU are copied one tensor at a time.

    Args:
        model: The model; its parameters are measured with the values they then have.
        measures: Which of :data:`momos_rs.complexity.MEASURES`.
        every: Calls of :meth:`update` from one measurement to the next; the first call measures.
        log: A file to append each measurement to, as a line of JSON.
        **options: Passed to :func:`momos_rs.complexity.measure`.

    Raises:
        InvalidArgumentError: If ``every`` is below 1, or a measure is unknown.

    >>> import torch
    >>> tracker = ComplexityTracker(torch.nn.Linear(64, 64), every=2)
    >>> [tracker.update(epoch) is not None for epoch in range(4)]
    [True, False, True, False]
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        measures: Sequence[str] = TRACKED,
        every: int = 1,
        log: str | os.PathLike[str] | None = None,
        **options: Unpack[MeasureKeywords],
    ) -> None:
        if every < 1:
            raise InvalidArgumentError(f"every must be at least 1, not {every}")
        for unknown in sorted(set(measures) - set(MEASURES)):
            raise InvalidArgumentError(f"no measure {unknown!r}; there are {', '.join(MEASURES)}")
        self.model = model
        self.measures = tuple(measures)
        self.every = every
        self.log = None if log is None else Path(log)
        self.history: list[TrackedComplexity] = []
        self._options = options
        self._calls = 0
        self._reports: list[ComplexityReport] = []

    def update(self, step: int | None = None, **extra: float) -> TrackedComplexity | None:
        """After an epoch or step: measures if it is time to.

        Args:
            step: When this is; the number of earlier calls by default.
            **extra: Figures to keep beside, such as ``loss=0.3``.

        Returns:
            The measurement, None if it was not time.
        """
        calls, self._calls = self._calls, self._calls + 1
        if calls % self.every:
            return None
        return self.measure(calls if step is None else step, **extra)

    def measure(self, step: int, **extra: float) -> TrackedComplexity:
        """Measures now, whatever time it is."""
        start = time.perf_counter()
        report = measure(self.model, measures=self.measures, name=f"step {step}", **self._options)
        entry = TrackedComplexity(
            step=step,
            seconds=time.perf_counter() - start,
            sparsity=report.sparsity,
            l2=report.l2,
            figures=figures_of(report),
            extra={name: float(value) for name, value in extra.items()},
        )
        self.history.append(entry)
        self._reports.append(report)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry.to_dict()) + "\n")
        return entry

    @property
    def reports(self) -> tuple[ComplexityReport, ...]:
        """The full reports of the measurements."""
        return tuple(self._reports)

    def plot(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Draws the history into a ``.pdf``, ``.png`` or ``.svg`` file.

        Raises:
            InvalidArgumentError: If there are fewer than two measurements, or nothing in them that
                can be drawn.
            MomosError: If matplotlib is not installed.
            OSError: If the file cannot be written.
        """
        from momos_rs.plots import save_pictures

        if len(self._reports) < 2:
            raise InvalidArgumentError("a history to draw needs at least two measurements")
        steps = [entry.step for entry in self.history[-len(self._reports) :]]
        save_pictures(self._reports, Path(path), over_time=True, steps=steps, overwrite=overwrite)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: the history and how many calls there were."""
        return {"calls": self._calls, "history": [entry.to_dict() for entry in self.history]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where the tracker that gave :meth:`state_dict` was; full reports begin anew."""
        self._calls = state["calls"]
        self.history = [TrackedComplexity(**entry) for entry in state["history"]]
        self._reports = []
