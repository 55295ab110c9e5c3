"""A checkpoint in memory, independent of the file format and of torch.

Bytes are kept apart from names: a :class:`Base` is a run of elements stored once, an
:class:`Entry` is a named view of a base. Tied and overlapping tensors are entries that share a
base, so nothing is stored twice and every tie survives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from momos_rs.ahead import map_ahead
from momos_rs.dtypes import dtype

__all__ = ["Base", "Checkpoint", "Entry"]

Bytes = npt.NDArray[np.uint8]


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
    """

    dtype: str
    numel: int
    read: Callable[[], Bytes]
    decodes: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.numel * dtype(self.dtype).itemsize


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
    """

    entries: tuple[Entry, ...]
    bases: tuple[Base, ...]
    source: str = "memory"
    format: str = "memory"
    nbytes_on_disk: int | None = None
    left_out: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

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
            What :attr:`Base.read` returns. Whoever lets go of one before asking for the next keeps
            only one large base in memory.
        """
        bases = self.bases if order is None else [self.bases[index] for index in order]
        if any(base.decodes for base in bases):
            return map_ahead(lambda base: base.read(), bases, [base.nbytes for base in bases])
        return (base.read() for base in bases)
