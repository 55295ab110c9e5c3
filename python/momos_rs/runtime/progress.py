"""Telling how far work is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Counter", "Progress", "counted"]

Progress: TypeAlias = "Callable[[str, int, int], object]"
"""Called with a phase, the work done and the work in all, in units of that phase."""


def counted(progress: Progress | None, phase: str, total: int) -> Callable[[int], object] | None:
    """A callback of the work done alone, for one phase."""
    if progress is None:
        return None
    return lambda done: progress(phase, done, total)


class Counter:
    """Adds up the work done in one phase."""

    def __init__(self, progress: Progress | None, phase: str, total: int) -> None:
        """Nothing is done yet.

        Args:
            progress: Told after every addition, if there is one.
            phase: The phase.
            total: The work in all.
        """
        self._progress = progress
        self._phase = phase
        self._total = total
        self._done = 0

    def add(self, amount: int) -> None:
        """Counts work that has been done."""
        self._done += amount
        if self._progress is not None and self._total > 0:
            self._progress(self._phase, self._done, self._total)
