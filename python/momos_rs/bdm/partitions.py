"""How an array is cut into blocks, and what happens at its ends: pybdm's partition classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from .utils import decompose_dataset

__all__ = ["Partition", "PartitionCorrelated", "PartitionIgnore", "PartitionRecursive"]

Array = np.ndarray[Any, Any]


class Partition:
    """Base of partitions.

    Attributes:
        shape: Shape of a block.
        name: Name of the kind of partition.
    """

    name = "none"

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({', '.join(self.params)})>"

    @property
    def params(self) -> list[str]:
        """The parameters, for the representation."""
        return [f"shape={self.shape}"]

    def decompose(self, X: Array) -> Iterator[Array]:  # noqa: N803
        """The blocks of an array, as views.

        Raises:
            AttributeError: If the array has not as many dimensions as a block.
        """
        raise NotImplementedError(f"{type(self).__name__!r} is not meant for a direct use")

    @property
    def parameter(self) -> int:
        """What the core needs to know besides name and shape."""
        return 0


class PartitionIgnore(Partition):
    """Whole blocks side by side; what none covers is left out."""

    name: Literal["ignore", "correlated"] = "ignore"

    def decompose(self, X: Array) -> Iterator[Array]:  # noqa: N803
        """The blocks of an array, as views."""
        for part in decompose_dataset(X, self.shape):
            if part.shape == self.shape:
                yield part


class PartitionCorrelated(PartitionIgnore):
    """Overlapping whole blocks.

    Attributes:
        shift: Distance between blocks.
    """

    name = "correlated"

    def __init__(self, shape: tuple[int, ...], shift: int = 1) -> None:
        super().__init__(shape=shape)
        if shift < 1:
            raise AttributeError("'shift' has to be a positive integer")
        self.shift = shift

    @property
    def params(self) -> list[str]:
        """The parameters, for the representation."""
        return [*super().params, f"shift={self.shift}"]

    def decompose(self, X: Array) -> Iterator[Array]:  # noqa: N803
        """The blocks of an array, as views."""
        for part in decompose_dataset(X, self.shape, self.shift):
            if part.shape == self.shape:
                yield part

    @property
    def parameter(self) -> int:
        """The shift."""
        return self.shift


class PartitionRecursive(Partition):
    """Whole blocks side by side; what none covers is cut into smaller blocks, and so on.

    Attributes:
        min_length: Least width of a block.
    """

    name: Literal["recursive"] = "recursive"

    def __init__(self, shape: tuple[int, ...], min_length: int = 2) -> None:
        super().__init__(shape=shape)
        self.min_length = min_length

    @property
    def params(self) -> list[str]:
        """The parameters, for the representation."""
        return [*super().params, f"min_length={self.min_length}"]

    def decompose(self, X: Array) -> Iterator[Array]:  # noqa: N803
        """The blocks of an array, as views."""
        yield from self._decompose(X, self.shape)

    def _decompose(self, part: Array, shape: tuple[int, ...]) -> Iterator[Array]:
        for smaller in decompose_dataset(part, shape):
            if smaller.shape == shape:
                yield smaller
            elif min(smaller.shape) >= self.min_length:
                yield from self._decompose(smaller, (min(smaller.shape),) * len(shape))

    @property
    def parameter(self) -> int:
        """The least width."""
        return self.min_length
