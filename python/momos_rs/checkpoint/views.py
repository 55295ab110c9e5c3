"""Arithmetic of views over a base, on bytes and without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from momos_rs.dtypes import dtype
from momos_rs.errors import CorruptionError

from .model import Base, Bytes, Entry

__all__ = ["contiguous_range", "contiguous_strides", "gather", "span", "strides_within"]


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a tensor of that shape in C order."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def span(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Number of elements from a view's first to its last, both included; 0 if it has none."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def strides_within(entry: Entry, base: Base) -> tuple[int, ...]:
    """The strides of an entry, in elements, once it is known to stay within its base.

    Raises:
        CorruptionError: If it does not.
    """
    strides = contiguous_strides(entry.shape) if entry.strides is None else entry.strides
    if (
        len(strides) != len(entry.shape)
        or min((0, entry.offset, *entry.shape, *strides)) < 0
        or entry.offset + span(entry.shape, strides) > base.numel
    ):
        raise CorruptionError(f"tensor {entry.name!r} reaches outside the data it is a view of")
    return strides


def contiguous_range(entry: Entry, base: Base) -> tuple[int, int] | None:
    """The first element of a base that an entry views and one past the last, if it views them all.

    Returns:
        None if it skips elements or has them in another order.

    Raises:
        CorruptionError: If it reaches outside its base.
    """
    strides = strides_within(entry, base)
    if entry.numel and strides != contiguous_strides(entry.shape):
        return None
    return entry.offset, entry.offset + entry.numel


def gather(entry: Entry, base: Base, data: Bytes) -> Bytes:
    """The bytes of an entry in C order.

    Args:
        entry: The view.
        base: Its base.
        data: The base's bytes, as :attr:`Base.read` returns them.

    Returns:
        A one-dimensional array of ``entry.numel * itemsize`` bytes; a view of ``data`` where
        the entry is contiguous in it.

    Raises:
        CorruptionError: If the entry reaches outside its base, or the base's bytes are not as
            many as it says.
    """
    strides = strides_within(entry, base)
    if data.nbytes != base.nbytes:
        raise CorruptionError(
            f"tensor {entry.name!r}: {base.nbytes} bytes expected, {data.nbytes} read"
        )
    itemsize = dtype(base.dtype).itemsize
    if entry.numel == 0 or strides == contiguous_strides(entry.shape):
        start = entry.offset * itemsize
        return data[start : start + entry.numel * itemsize]
    elements = np.lib.stride_tricks.as_strided(
        data.view(f"V{itemsize}")[entry.offset :],
        entry.shape,
        [stride * itemsize for stride in strides],
        writeable=False,
    )
    gathered: Bytes = np.ascontiguousarray(elements).reshape(-1).view(np.uint8)
    return gathered
