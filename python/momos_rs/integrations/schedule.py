"""When a training run projects, and how many motifs it then allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from momos_rs.errors import InvalidArgumentError

__all__ = ["CapacitySchedule", "Schedule", "Unit", "geometric_capacity", "linear_capacity"]

Unit = Literal["epoch", "step"]

CapacitySchedule = Callable[[int], float]
"""From the number of epochs (or steps) trained so far to the capacity of a projection."""


@dataclass(frozen=True)
class Schedule:
    """When to project.

    Attributes:
        every: Units from one projection to the next; the first one is after ``warmup + every``.
        unit: ``"epoch"`` or ``"step"``.
        warmup: Units without projection at the start.
        capacity: Capacity by time; None leaves it to the :class:`~momos_rs.MoMos`.
    """

    every: int = 1
    unit: Unit = "epoch"
    warmup: int = 0
    capacity: CapacitySchedule | None = None

    def __post_init__(self) -> None:
        if self.unit not in ("epoch", "step"):
            raise InvalidArgumentError(f"unit must be epoch or step, not {self.unit!r}")
        if self.every < 1 or self.warmup < 0:
            raise InvalidArgumentError(
                f"every must be at least 1 and warmup at least 0, not {self.every}, {self.warmup}"
            )

    def due(self, trained: int) -> bool:
        """Whether to project after that many units."""
        return trained > self.warmup and (trained - self.warmup) % self.every == 0


def linear_capacity(start: float, end: float, *, over: int) -> CapacitySchedule:
    """Capacity that goes from ``start`` to ``end`` in a straight line over that many units."""
    _check(start, end, over)
    return lambda trained: start + (end - start) * min(trained / over, 1.0)


def geometric_capacity(start: float, end: float, *, over: int) -> CapacitySchedule:
    """Capacity that is multiplied by the same factor every unit, from ``start`` to ``end``."""
    _check(start, end, over)
    return lambda trained: start * (end / start) ** min(trained / over, 1.0)


def _check(start: float, end: float, over: int) -> None:
    if not (0 < start <= 1 and 0 < end <= 1) or over < 1:
        raise InvalidArgumentError(
            f"a capacity schedule goes between capacities over 0 and at most 1 in at least one "
            f"unit, not from {start} to {end} over {over}"
        )
