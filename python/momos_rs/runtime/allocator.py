"""Giving memory back that was freed."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back_freed_memory"]

_M_MMAP_THRESHOLD = -3
_THRESHOLD = 1 << 20


def give_back_freed_memory() -> None:
    """Lets the allocator return large blocks of memory as soon as they are freed.

    By default glibc keeps what was once freed for the next time, separately for every thread, so
    that a process which frees what it allocates still grows to several times what it uses. For
    the whole process and for good: see ``mallopt(3)``. Does nothing with other allocators.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
    except (OSError, AttributeError):
        return
