"""Sums of floating-point numbers that do not depend on their order.

The statistics of a projection are added up on any number of threads, devices and processes. Adding
the numbers as exact integers makes the result the correctly rounded sum, in any order of addition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .shards import Communicator

__all__ = ["ExactSum"]

_MANTISSA_BITS = 53
_LOW_BITS = 26
# Exponents of float64 as frexp gives them: -1073 (smallest subnormal) to 1024.
_LEAST_EXPONENT = -1073
_EXPONENTS = 1024 - _LEAST_EXPONENT + 1


class ExactSum:
    """An exact sum of non-negative float64 numbers.

    Every number is an integer mantissa times a power of two. Mantissas of equal exponent are added
    as integers, the upper and lower halves apart so that 2**36 of them cannot overflow.

    Args:
        device: Where the numbers live.
    """

    def __init__(self, device: torch.device) -> None:
        self._halves = torch.zeros(2, _EXPONENTS, dtype=torch.int64, device=device)

    def add(self, values: Tensor) -> None:
        """Adds all entries of a float64 tensor on the accumulator's device."""
        # A square that overflows counts as the largest number there is.
        finite = values.reshape(-1).clamp(max=torch.finfo(torch.float64).max)
        mantissa, exponent = torch.frexp(finite)
        integer = (mantissa * 2.0**_MANTISSA_BITS).to(torch.int64)
        at = exponent.to(torch.int64) - _LEAST_EXPONENT
        self._halves[0].index_add_(0, at, integer >> _LOW_BITS)
        self._halves[1].index_add_(0, at, integer & ((1 << _LOW_BITS) - 1))

    def merge(self, other: ExactSum) -> None:
        """Adds another sum, which may live on another device."""
        self._halves += other._halves.to(self._halves.device)

    def reduce(self, communicator: Communicator) -> None:
        """Adds the sums of all processes that hold shards."""
        communicator.sum_(self._halves)

    def value(self) -> float:
        """The sum, rounded once; infinite if it exceeds float64."""
        high, low = self._halves.cpu().tolist()
        total = 0
        for at, (upper, lower) in enumerate(zip(high, low, strict=True)):
            total += ((upper << _LOW_BITS) + lower) << at
        # The integer counts units of 2**(_LEAST_EXPONENT - _MANTISSA_BITS).
        try:
            return total / (1 << (_MANTISSA_BITS - _LEAST_EXPONENT))
        except OverflowError:
            return math.inf
