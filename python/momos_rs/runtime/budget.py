"""How much memory there is, and how much of it a command may use.

A budget is a number of bytes for what a command keeps resident, beyond the fixed cost of the
program and its libraries.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from momos_rs.errors import InvalidArgumentError

__all__ = [
    "LARGEST_PIECE",
    "LEAST_PIECE",
    "Shares",
    "available_memory",
    "default_budget",
    "format_size",
    "parse_size",
]

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

LARGEST_PIECE = 1 << 26
"""Larger pieces of a tensor gain nothing, on any number of cores."""

LEAST_PIECE = 1 << 22
"""Pieces hold at least 2^18 elements (see :data:`momos_rs.checkpoint.model.PIECE_ELEMENTS`), of up
to 16 bytes."""

_FALLBACK = 4_000_000_000
"""Where nothing tells how much memory there is."""


def parse_size(text: str) -> int:
    """Reads a number of bytes: ``1500``, ``512M``, ``4G``, ``1.5GiB``.

    ``k``, ``M``, ``G`` and ``T`` are powers of 1,000, with an ``i`` behind them of 1,024, as
    everywhere in this program; a ``B`` may follow, case does not matter.

    Args:
        text: The number and its unit.

    Returns:
        Bytes, rounded down.

    Raises:
        InvalidArgumentError: If the text is no such size, or less than a byte.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise InvalidArgumentError(f"{text!r} is not a size like 1500, 512M, 4G or 1.5GiB")
    size = int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].lower()])
    if size < 1:
        raise InvalidArgumentError(f"a size must be at least one byte, not {text!r}")
    return size


def available_memory() -> int:
    """Bytes that this process can use without pushing others out.

    On Linux what the kernel calls available, or what is left under the limit of the control group
    (of a container), if that is less; half of the physical memory where that is all that is known
    (macOS).
    """
    if sys.platform.startswith("linux"):
        found = _available_on_linux(Path("/proc"), Path("/sys/fs/cgroup"))
    elif sys.platform == "win32":
        found = _available_on_windows()
    else:
        found = None
    if found is None:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return found if found is not None and found > 0 else _FALLBACK


def default_budget() -> int:
    """The budget where none is given: half of :func:`available_memory`."""
    return available_memory() // 2


def format_size(size: float) -> str:
    """Bytes as :func:`parse_size` reads them, rounded up to two digits at least."""
    for power, unit in ((3, "G"), (2, "M"), (1, "k")):
        if size >= 1000**power:
            digits = 1 if size < 10 * 1000**power else 0
            return f"{math.ceil(size / 1000**power * 10**digits) / 10**digits:g}{unit}"
    return f"{math.ceil(size)}"


@dataclass(frozen=True)
class Shares:
    """What a budget allows.

    Attributes:
        threads: Threads that may work at once.
        piece_bytes: Bytes of a piece of a tensor.
    """

    threads: int
    piece_bytes: int


def _available_on_linux(proc: Path, cgroups: Path) -> int | None:
    """As :func:`available_memory`; None if the kernel does not say."""
    figures = _pairs(proc / "meminfo")
    if "MemAvailable" not in figures:
        return None
    available = 1024 * figures["MemAvailable"]
    for group in _memory_groups(proc, cgroups):
        left = _left_in_group(group)
        if left is not None:
            available = min(available, left)
    return available


def _memory_groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """The directories of the control groups that this process is in, its own and those above.

    Both generations: https://docs.kernel.org/admin-guide/cgroup-v2.html, and for the first
    ``cgroup-v1/memory.html`` beside it.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root = cgroups
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
        else:
            continue
        # Within a container the path may be that of the host, and only the root is mounted.
        group = root / path.lstrip("/")
        while True:
            if group.is_dir():
                yield group
            if group == root or root not in group.parents:
                break
            group = group.parent


def _left_in_group(group: Path) -> int | None:
    """Bytes under the limit of a control group; None if it has none."""
    figures = _pairs(group / "memory.stat")
    for limit_file, usage_file, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        try:
            limit = int((group / limit_file).read_text())
            usage = int((group / usage_file).read_text())
        except (OSError, ValueError):  # not this generation, or "max"
            continue
        # Pages of files are counted as used, though the kernel gives them up when it must.
        kept = ("inactive_file", "active_file")
        reclaimable = sum(figures.get(prefix + name, 0) for name in kept)
        return max(0, limit - max(0, usage - reclaimable))
    return None


def _pairs(path: Path) -> dict[str, int]:
    """The lines ``name: number`` or ``name number`` of a file of the kernel."""
    pairs = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, *values = line.replace(":", " ").split() or [""]
            if values and values[0].isdigit():
                pairs[name] = int(values[0])
    return pairs


def _available_on_windows() -> int | None:
    """As :func:`available_memory`, by ``GlobalMemoryStatusEx``."""
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            ("total_physical", ctypes.c_uint64),
            ("available_physical", ctypes.c_uint64),
            ("total_page_file", ctypes.c_uint64),
            ("available_page_file", ctypes.c_uint64),
            ("total_virtual", ctypes.c_uint64),
            ("available_virtual", ctypes.c_uint64),
            ("available_extended_virtual", ctypes.c_uint64),
        )

    status = Status()
    status.length = ctypes.sizeof(status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - there only on Windows
    if not kernel.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available_physical)
