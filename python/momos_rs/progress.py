"""Telling how far work is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Progress", "counted"]

Progress: TypeAlias = "Callable[[str, int, int], object]"
"""Called with a phase, the work done and the work in all."""


def counted(progress: Progress | None, phase: str, total: int) -> Callable[[int], object] | None:
    """A callback of the work done alone, for one phase."""
    if progress is None:
        return None
    return lambda done: progress(phase, done, total)
