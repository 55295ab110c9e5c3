"""Slicing arrays into blocks, as pybdm's ``utils``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from .tables import get_ctm_dataset, list_ctm_datasets

__all__ = [
    "decompose_dataset",
    "get_ctm_dataset",
    "iter_part_shapes",
    "iter_slices",
    "list_ctm_datasets",
    "prod",
]

Array = np.ndarray[Any, Any]


def prod(seq: Iterable[Any]) -> Any:
    """Product of a sequence of numbers; 1 if it is empty."""
    return math.prod(seq)


def iter_slices(
    X: Array,  # noqa: N803
    shape: Sequence[int],
    shift: int = 0,
) -> Iterator[tuple[slice, ...]]:
    """Slices that cut an array into parts; only parts at its ends may be smaller than ``shape``.

    Args:
        X: The array.
        shape: Shape of a part, equal in every dimension.
        shift: Distance of overlapping parts of full size; 0 for parts side by side.

    Raises:
        AttributeError: If the shape is not equal in every dimension, or has not as many as the
            array.

    >>> X = np.ones((5, 3), dtype=int)
    >>> [(a.stop, b.stop) for a, b in iter_slices(X, (3, 3))]
    [(3, 3), (5, 3)]
    """
    if len(set(shape)) != 1:
        raise AttributeError(f"Partition shape is not symmetric {shape}")
    if len(shape) != X.ndim:
        raise AttributeError("dataset and slice shape does not have the same number of axes")
    if shift <= 0:
        shift = shape[0]
        ends: tuple[int, ...] = X.shape
    else:
        ends = tuple(max(size - width + 1, 0) for size, width in zip(X.shape, shape, strict=True))
    for start in product(*(range(0, end, shift) for end in ends)):
        yield tuple(
            slice(first, min(first + width, size))
            for first, width, size in zip(start, shape, X.shape, strict=True)
        )


def iter_part_shapes(
    X: Array,  # noqa: N803
    shape: Sequence[int],
    shift: int = 0,
) -> Iterator[tuple[int, ...]]:
    """Shapes of the parts that :func:`iter_slices` cuts.

    >>> list(iter_part_shapes(np.ones((5, 3), dtype=int), (3, 3)))
    [(3, 3), (2, 3)]
    """
    for index in iter_slices(X, shape, shift):
        yield tuple(part.stop - part.start for part in index)


def decompose_dataset(
    X: Array,  # noqa: N803
    shape: Sequence[int],
    shift: int = 0,
) -> Iterator[Array]:
    """The parts that :func:`iter_slices` cuts, as views.

    >>> [part.shape for part in decompose_dataset(np.ones((5, 3), dtype=int), (3, 3))]
    [(3, 3), (2, 3)]
    """
    for index in iter_slices(X, shape, shift):
        yield X[index]
