"""A checkpoint in memory, independent of the file format and of torch.

Bytes are kept apart from names: a :class:`Base` is a run of elements stored once, an
:class:`Entry` is a named view of a base. Tied and overlapping tensors are entries that share a
base, so nothing is stored twice and every tie survives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from momos_rs.dtypes import dtype
from momos_rs.runtime.ordered_map import map_ahead

__all__ = ["PIECE_ELEMENTS", "Base", "Checkpoint", "Entry", "cuts"]

Bytes = npt.NDArray[np.uint8]


PIECE_ELEMENTS = 1 << 18
"""Pieces of a tensor have a multiple of this many elements: a multiple of what sums of floats are
formed over, so that they do not depend on how a tensor is cut."""


def cuts(numel: int, itemsize: int, nbytes: int, *, chunk: int = 1) -> Iterator[tuple[int, int]]:
    """Cuts elements into pieces of at most that many bytes.

    Args:
        numel: Number of elements.
        itemsize: Bytes of one.
        nbytes: Most bytes of a piece, as far as :data:`PIECE_ELEMENTS` allows.
        chunk: Pieces are of a multiple of this many elements too, if ``nbytes`` are enough.

    Yields:
        The first element and one past the last of each piece.
    """
    aligned = math.lcm(PIECE_ELEMENTS, chunk)
    unit = aligned if aligned * itemsize <= nbytes else PIECE_ELEMENTS
    step = max(nbytes // itemsize // unit, 1) * unit
    for start in range(0, numel, step):
        yield start, min(start + step, numel)


@dataclass(frozen=True, eq=False)
class Base:
    """A run of elements stored once.

    Attributes:
        dtype: Name of the element type, a key of :data:`momos_rs.dtypes.DTYPES`.
        numel: Number of elements.
        read: Returns the elements as little-endian bytes, a one-dimensional C-contiguous uint8
            array of ``numel * itemsize`` entries. It may be a read-only view of a mapped file;
            callers neither write to it nor keep it longer than they need.
        decodes: Whether reading is work, so that it pays to read several bases at once; then
            ``read`` may be called by any thread.
        read_part: Returns the elements from the first number to before the second as ``read``
            does, in memory proportional to their bytes; None where there is only ``read``.
        chunk: Elements that are decoded together: parts that begin and end at multiples of it
            decode nothing twice.
    """

    dtype: str
    numel: int
    read: Callable[[], Bytes]
    decodes: bool = False
    read_part: Callable[[int, int], Bytes] | None = None
    chunk: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.numel * dtype(self.dtype).itemsize

    def part(self, start: int, stop: int) -> Bytes:
        """The elements from ``start`` to before ``stop``, as :attr:`read` returns them.

        Args:
            start: The first element.
            stop: One past the last, at most :attr:`numel`.
        """
        if self.read_part is not None:
            return self.read_part(start, stop)
        itemsize = dtype(self.dtype).itemsize
        return self.read()[start * itemsize : stop * itemsize]

    def pieces(self, nbytes: int) -> Iterator[Bytes]:
        """The elements in consecutive pieces, in memory for one of them if the base has parts.

        All pieces but the last have a multiple of :data:`PIECE_ELEMENTS` elements.

        Args:
            nbytes: Most bytes of a piece, as far as that allows.

        Yields:
            What :meth:`part` returns. A caller that drops one before asking for the next keeps only
            one in memory.
        """
        part = self.read_part
        if part is None:
            itemsize = dtype(self.dtype).itemsize
            whole = self.read()
            for start, stop in self.cuts(nbytes):
                yield whole[start * itemsize : stop * itemsize]
        else:
            yield from (part(start, stop) for start, stop in self.cuts(nbytes))

    def cuts(self, nbytes: int) -> Iterator[tuple[int, int]]:
        """The first element and one past the last of each of the :meth:`pieces`."""
        return cuts(self.numel, dtype(self.dtype).itemsize, nbytes, chunk=self.chunk)


@dataclass(frozen=True)
class Entry:
    """A named tensor: a view of a base.

    Attributes:
        name: Its key in the state dict.
        shape: Its shape.
        base: Index of its base in :attr:`Checkpoint.bases`.
        offset: First element within the base.
        strides: Strides in elements, or None if the entry is the whole base in C order.
    """

    name: str
    shape: tuple[int, ...]
    base: int
    offset: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def numel(self) -> int:
        """Number of elements of the view."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors in order, and the bases they view.

    Attributes:
        entries: The tensors in the order of the state dict; names are unique.
        bases: Every base is viewed by at least one entry; numbered by first use.
        source: What the tensors came from, for messages: a path, or ``"memory"``.
        format: ``"torch"``, ``"torchscript"``, ``"safetensors"`` or ``"memory"``.
        nbytes_on_disk: Size of the file or files, None for ``"memory"``.
        left_out: What the file holds besides the tensors (``"optimizer"``, ``"epoch"``, ...).
        metadata: The string metadata of a safetensors file.
        versions: What a state dict of torch says of its modules, by their names: ``version`` and
            the like, which decide how ``load_state_dict`` reads the tensors.
        header: The JSON of the header of a safetensors file, padding included, where its tensors
            are to be written as they stood in it; else empty.
    """

    entries: tuple[Entry, ...]
    bases: tuple[Base, ...]
    source: str = "memory"
    format: str = "memory"
    nbytes_on_disk: int | None = None
    left_out: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    header: bytes = field(default=b"", repr=False)

    @property
    def numel(self) -> int:
        """Number of elements, ties counted once."""
        return sum(base.numel for base in self.bases)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, ties counted once."""
        return sum(base.nbytes for base in self.bases)

    def read_bases(self, order: Sequence[int] | None = None) -> Iterator[Bytes]:
        """Reads bases one after another, small ones ahead of their turn if they must be decoded.

        Args:
            order: Indices of bases; all in their order by default.

        Yields:
            What :attr:`Base.read` returns. A caller that drops one before asking for the next keeps
            only one large base in memory.
        """
        bases = self.bases if order is None else [self.bases[index] for index in order]
        if any(base.decodes for base in bases):
            return map_ahead(lambda base: base.read(), bases, [base.nbytes for base in bases])
        return (base.read() for base in bases)
