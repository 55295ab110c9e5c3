"""Tensors over a file of torch, before any of it is read.

torch knows tensors by their addresses, which tell what is tied to what. Here the addresses are
those of a mapping that stands for the file and never holds anything; what lies at them is read from
the file when it is asked for, checked, and in pieces.
"""

from __future__ import annotations

import bisect
import dataclasses
import mmap
from dataclasses import dataclass

import numpy as np
import torch

from .mapped_file import MappedFile, MappedPart
from .model import Base, Bytes, Checkpoint
from .tensors import TensorReader, over_bytes
from .views import span
from .zip_records import Record

__all__ = ["FileAddresses"]


class FileAddresses:
    """Addresses that stand for the bytes of a file."""

    def __init__(self, file: MappedFile) -> None:
        """Reserves as many addresses as the file has bytes.

        Raises:
            OSError: If there are not so many.
        """
        self._file = file
        size = max(file.size, 1)
        # Private pages that nobody may write to take no memory and are not promised any.
        if hasattr(mmap, "MAP_PRIVATE"):
            reserved = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        else:
            reserved = mmap.mmap(-1, size, access=mmap.ACCESS_READ)
        self._bytes = np.frombuffer(reserved, np.uint8)
        self._bytes.flags.writeable = False
        self._address = self._bytes.ctypes.data
        self._starts: list[int] = []
        self._records: list[Record] = []

    def of(self, start: int, nbytes: int) -> Bytes:
        """The addresses of some of the bytes."""
        return self._bytes[start : start + nbytes]

    def of_record(self, record: Record) -> Bytes:
        """The addresses of a record, which is checked before anything at them is read."""
        place = bisect.bisect(self._starts, record.start)
        self._starts.insert(place, record.start)
        self._records.insert(place, record)
        return self.of(record.start, record.nbytes)

    def now(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor at these addresses, read from the file; any other as it is."""
        strided = self._elements(tensor)
        return tensor if strided is None else strided.tensor_in_memory()

    def read(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint with its bases read from the file, those that are at its addresses."""
        return dataclasses.replace(
            checkpoint, bases=tuple(self._from_file(base) for base in checkpoint.bases)
        )

    def _from_file(self, base: Base) -> Base:
        if not isinstance(base.read, TensorReader) or base.nbytes == 0:
            return base
        strided = self._elements(base.read.tensor)
        if strided is None:
            return base
        if strided.tensor.is_contiguous():
            elements = strided.elements
            return dataclasses.replace(base, read=elements, read_part=elements.part)
        return dataclasses.replace(base, read=strided, read_part=None)

    def _elements(self, tensor: torch.Tensor) -> _StridedPart | None:
        """Where a tensor lies in the file; None if it is somewhere else."""
        start = tensor.data_ptr() - self._address
        if tensor.numel() == 0 or not 0 <= start < self._bytes.size:
            return None
        place = bisect.bisect(self._starts, start) - 1
        check = self._records[place].check if place >= 0 else None
        numel = span(tensor.shape, tensor.stride())
        return _StridedPart(MappedPart(self._file, start, numel, tensor.itemsize, check), tensor)


@dataclass(frozen=True, eq=False)
class _StridedPart:
    """Elements in a file that are not in C order: :attr:`Base.read`.

    Attributes:
        elements: All elements from the first to the last.
        tensor: Its type, shape and strides; what is at its address is not looked at.
    """

    elements: MappedPart
    tensor: torch.Tensor

    def __call__(self) -> Bytes:
        """All elements, in C order."""
        return TensorReader(self.tensor_in_memory())()

    def tensor_in_memory(self) -> torch.Tensor:
        """The tensor as a copy, its elements in C order."""
        flat = over_bytes(self.elements(), self.tensor.dtype)
        return flat.as_strided(self.tensor.shape, self.tensor.stride(), 0).contiguous()
