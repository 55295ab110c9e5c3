"""Parts of a file as bytes.

Parts are copied, since a mapped file that is cut short ends the process by a signal. Only what is
read again and again, the long streams of archives, is mapped, and only for as long as it is in use:
one mapping of the whole file would keep every page that was ever read resident.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from momos_rs.errors import CorruptionError, InsufficientDataError, InvalidArgumentError

from .model import Bytes

__all__ = ["MappedFile", "MappedPart", "check_regular"]

_MAPPED_BYTES = 1 << 22
"""Parts of more bytes may be mapped; those of fewer would each take a descriptor of the process."""

_MOST_BYTES_AT_ONCE = 1 << 30  # of one call of the system, which may not do more


def check_regular(path: Path) -> None:
    """Refuses what is no regular file, before opening it could wait for ever.

    Raises:
        InvalidArgumentError: If it is a pipe, a device or a socket.
        IsADirectoryError: If it is a directory.
        OSError: If there is nothing, or it cannot be looked at.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; name a file")
    path.stat()
    if not path.is_file():
        raise InvalidArgumentError(
            f"{path} is a pipe or a device and cannot be read more than once; "
            "write it to a file first"
        )


class MappedFile:
    """A file held open while parts of it may be read.

    Attributes:
        size: Its bytes.
    """

    def __init__(self, path: Path) -> None:
        """Opens a file.

        Raises:
            InvalidArgumentError: If it is no regular file.
            OSError: If it cannot be opened.
        """
        check_regular(path)
        self._keep(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), str(path))

    @classmethod
    def over(cls, file: IO[bytes]) -> MappedFile:
        """An open file, which may be closed or removed afterwards."""
        made = cls.__new__(cls)
        made._keep(os.dup(file.fileno()), "a temporary file")
        return made

    def _keep(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._lock = threading.Lock()
        status = os.fstat(descriptor)
        self.size = status.st_size
        self._changed = status.st_mtime_ns

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; parts read before stay valid."""
        descriptor, self._descriptor = getattr(self, "_descriptor", -1), -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, start: int, nbytes: int, *, mapped: bool = False) -> Bytes:
        """Some of the bytes.

        Args:
            start: The first byte.
            nbytes: Number of bytes, all within the file.
            mapped: Whether many bytes may stay mapped instead of being copied.

        Raises:
            ValueError: If the file has been closed.
            CorruptionError: If it is not what it was when it was opened.
        """
        if self._descriptor < 0:
            raise ValueError("the file has been closed")
        if nbytes == 0:
            return np.empty(0, np.uint8)
        self.check_unchanged()
        if mapped and nbytes > _MAPPED_BYTES:
            data = self._map(start, nbytes)
        else:
            data = self._copy(start, nbytes)
        self.check_unchanged()
        return data

    def check_unchanged(self) -> None:
        """Checks that nobody has written to the file since it was opened.

        Raises:
            InsufficientDataError: If it has become shorter.
            CorruptionError: If it has been changed otherwise.
        """
        status = os.fstat(self._descriptor)
        if status.st_size < self.size:
            raise InsufficientDataError(f"{self._name} has become shorter while it was read")
        if status.st_size != self.size or status.st_mtime_ns != self._changed:
            raise CorruptionError(f"{self._name} has changed while it was read")

    def _map(self, start: int, nbytes: int) -> Bytes:
        skipped = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self._descriptor, skipped + nbytes, access=mmap.ACCESS_READ, offset=start - skipped
        )
        return np.frombuffer(mapped, np.uint8)[skipped:]

    def _copy(self, start: int, nbytes: int) -> Bytes:
        data = np.empty(nbytes, np.uint8)
        done = 0
        while done < nbytes:
            count = min(nbytes - done, _MOST_BYTES_AT_ONCE)
            try:
                read = self._read_into(data[done : done + count], start + done)
            except OSError as error:
                raise OSError(error.errno, error.strerror, self._name) from None
            if read == 0:
                raise InsufficientDataError(f"{self._name} has become shorter while it was read")
            done += read
        return data

    def _read_into(self, data: Bytes, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [data.data], start)
        with self._lock:  # a system without reads at a place
            os.lseek(self._descriptor, start, os.SEEK_SET)
            found = os.read(self._descriptor, data.size)
        data[: len(found)] = np.frombuffer(found, np.uint8)
        return len(found)


@dataclass(frozen=True, eq=False)
class MappedPart:
    """Elements in a file, as :attr:`Base.read` and :attr:`Base.read_part` give them.

    Attributes:
        file: The file.
        start: The first byte of the first element.
        numel: Number of elements.
        itemsize: Bytes per element.
        check: Called before anything is read; raises if the elements are damaged.
    """

    file: MappedFile
    start: int
    numel: int
    itemsize: int
    check: Callable[[], None] | None = None

    def __call__(self) -> Bytes:
        """All elements."""
        return self.part(0, self.numel)

    def part(self, start: int, stop: int) -> Bytes:
        """The elements from ``start`` to before ``stop``."""
        if self.check is not None:
            self.check()
        return self.file.read(self.start + start * self.itemsize, (stop - start) * self.itemsize)
