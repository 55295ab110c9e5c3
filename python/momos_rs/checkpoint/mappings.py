"""Where tensors that torch has mapped lie in their file.

torch maps a whole file at once, so that every page of it that was ever read stays resident. A
tensor whose place in the file is known is read through mappings of its parts instead.
"""

from __future__ import annotations

import bisect
import dataclasses
import os
from pathlib import Path

import numpy as np

from .mapped_file import MappedFile, MappedPart
from .model import Base, Checkpoint
from .tensors import TensorReader

__all__ = ["read_from_file"]

_MAPS = Path("/proc/self/maps")
_SAMPLE = 64
"""Bytes at either end of a tensor that must agree with what is in the file."""


def read_from_file(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The checkpoint with those of its bases read from a file that are mapped from it.

    Only Linux tells what is mapped where; elsewhere the checkpoint stays as it is.

    Args:
        checkpoint: Tensors in memory, some of it mapped.
        path: The file that it was read from.
    """
    mappings = _mappings_of(path)
    if not mappings:
        return checkpoint
    file = MappedFile(path)
    bases = tuple(_from_file(base, mappings, file) for base in checkpoint.bases)
    return dataclasses.replace(checkpoint, bases=bases)


def _mappings_of(path: Path) -> list[tuple[int, int, int]]:
    """First address, one past the last, and offset in the file of its mappings, ascending."""
    target = os.path.realpath(path)
    found = []
    try:
        lines = _MAPS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    for line in lines:
        addresses, _permissions, offset, _device, _inode, *name = line.split(maxsplit=5)
        if name and name[0] == target:
            start, stop = (int(each, 16) for each in addresses.split("-"))
            found.append((start, stop, int(offset, 16)))
    return sorted(found)


def _from_file(base: Base, mappings: list[tuple[int, int, int]], file: MappedFile) -> Base:
    if not isinstance(base.read, TensorReader) or base.nbytes == 0:
        return base
    address = base.read.address
    if address is None:
        return base
    start, stop, offset = mappings[max(bisect.bisect(mappings, (address + 1,)) - 1, 0)]
    if not start <= address <= address + base.nbytes <= stop:
        return base
    elements = MappedPart(file, offset + address - start, base.numel, base.nbytes // base.numel)
    if elements.start + base.nbytes > file.size or not _agree(base, elements):
        return base
    return dataclasses.replace(base, read=elements, read_part=elements.part)


def _agree(base: Base, elements: MappedPart) -> bool:
    """Whether both ends of the elements are what they are in memory, as they should be."""
    count = min(_SAMPLE, base.numel)
    ends = ((0, count), (base.numel - count, base.numel))
    return all(np.array_equal(base.part(*end), elements.part(*end)) for end in ends)
