"""Parts of a file as bytes, mapped only for as long as they are in use.

One mapping of the whole file would keep every page that was ever read resident.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from .model import Bytes

__all__ = ["MappedFile", "MappedPart"]


class MappedFile:
    """A file held open while parts of it may be read.

    Attributes:
        size: Its bytes.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file.

        Raises:
            OSError: If it cannot be opened.
        """
        self._keep(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))

    @classmethod
    def over(cls, file: IO[bytes]) -> MappedFile:
        """An open file, which may be closed or removed afterwards."""
        made = cls.__new__(cls)
        made._keep(os.dup(file.fileno()))
        return made

    def _keep(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; parts read before stay valid."""
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, start: int, nbytes: int) -> Bytes:
        """A read-only array over some of the bytes, which keeps them mapped while it lives.

        Args:
            start: The first byte.
            nbytes: Number of bytes, all within the file.

        Raises:
            ValueError: If the file has been closed.
        """
        if self._descriptor < 0:  # by which mmap would understand no file at all
            raise ValueError("the file has been closed")
        if nbytes == 0:
            return np.empty(0, np.uint8)
        skipped = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self._descriptor, skipped + nbytes, access=mmap.ACCESS_READ, offset=start - skipped
        )
        return np.frombuffer(mapped, np.uint8)[skipped:]


@dataclass(frozen=True, eq=False)
class MappedPart:
    """Elements in a file, as :attr:`Base.read` and :attr:`Base.read_part` give them.

    Attributes:
        file: The file.
        start: The first byte of the first element.
        numel: Number of elements.
        itemsize: Bytes per element.
    """

    file: MappedFile
    start: int
    numel: int
    itemsize: int

    def __call__(self) -> Bytes:
        """All elements."""
        return self.part(0, self.numel)

    def part(self, start: int, stop: int) -> Bytes:
        """The elements from ``start`` to before ``stop``."""
        return self.file.read(self.start + start * self.itemsize, (stop - start) * self.itemsize)
