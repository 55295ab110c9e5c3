"""Which memory a tensor occupies, and whether two tensors occupy the same."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["covers_alike", "memory_of", "overlap", "repeats_itself"]


def memory_of(values: Tensor) -> tuple[object, ...]:
    """What two tensors have in common if and only if they are the same memory read alike."""
    return (
        _storage(values), values.storage_offset(), values.dtype, values.shape,
        values.stride(),
    )  # fmt: skip


def repeats_itself(values: Tensor) -> bool:
    """Whether several elements are at one address, as in an expanded tensor."""
    if values.numel() < 2 or values.is_contiguous():
        return False
    if _is_dense(values):
        return False
    return int(_occupied(values).sum()) < values.numel() * values.element_size()


def covers_alike(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors hold the same elements in another order, such as a transpose."""
    return (
        _storage(first) == _storage(second)
        and first.dtype == second.dtype
        and _range(first) == _range(second)
        and _is_dense(first)
        and _is_dense(second)
    )


def overlap(first: Tensor, second: Tensor) -> bool:
    """Whether any byte belongs to both tensors."""
    if _storage(first) != _storage(second) or not first.numel() or not second.numel():
        return False
    (begin, end), (other_begin, other_end) = _range(first), _range(second)
    if end <= other_begin or other_end <= begin:
        return False
    if _is_dense(first) and _is_dense(second):
        return True
    # Interleaved slices: columns of one matrix.
    origin, stop = min(begin, other_begin), max(end, other_end)
    both = _occupied(first, origin, stop) & _occupied(second, origin, stop)
    return bool(both.any())


def _storage(values: Tensor) -> tuple[torch.device, int]:
    return values.device, values.untyped_storage().data_ptr()


def _range(values: Tensor) -> tuple[int, int]:
    """First and one-past-last byte within the storage."""
    size = values.element_size()
    first = int(values.storage_offset()) * size
    steps = zip(values.shape, values.stride(), strict=True)
    return first, first + (sum((n - 1) * int(stride) for n, stride in steps) + 1) * size


def _is_dense(values: Tensor) -> bool:
    """Whether the elements fill their range, each address once."""
    expected = 1
    for stride, length in sorted(
        (stride, length)
        for length, stride in zip(values.shape, values.stride(), strict=True)
        if length != 1
    ):
        if stride != expected:
            return False
        expected *= length
    return True


def _occupied(values: Tensor, origin: int | None = None, stop: int | None = None) -> Tensor:
    """Which of the bytes of a range of the storage belong to a tensor, as booleans on the CPU."""
    begin, end = _range(values)
    size = values.element_size()
    origin = begin if origin is None else origin
    stop = end if stop is None else stop
    marks = torch.zeros(stop - origin, dtype=torch.bool, device="cpu")
    for byte in range(size):
        marks.as_strided(
            values.shape, [each * size for each in values.stride()], begin - origin + byte
        ).fill_(True)
    return marks
