"""Random numbers that are a function of a seed and a position, and logarithms rounded alike.

A generator that is stepped through gives other numbers when the work is divided in another way.
Here the number of block ``b`` depends on ``b`` alone, and only on additions, multiplications and
divisions in float64, which every device rounds alike; a library's ``log`` is not.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["exponential", "natural_log", "seed_of_projection"]

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15
_FIRST_FACTOR = 0xBF58476D1CE4E5B9
_SECOND_FACTOR = 0x94D049BB133111EB

_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
# atanh(z) = z + z**3/3 + z**5/5 + ...: with |z| below 0.1716 the rest is below 2**-53.
_SERIES = [1.0 / power for power in range(1, 24, 2)]


def seed_of_projection(seed: int, projection: int) -> int:
    """The seed of a run's ``projection``-th projection, in [0, 2**63).

    SplitMix64's output function (Steele, Lea and Flood, 2014) over the sequence it steps through,
    so that neighbouring seeds and neighbouring projections have nothing in common.
    """
    z = (seed + (projection + 1) * _STEP) & _MASK
    z = ((z ^ (z >> 30)) * _FIRST_FACTOR) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND_FACTOR) & _MASK
    return (z ^ (z >> 31)) >> 1


def exponential(positions: Tensor, seed: int) -> Tensor:
    """Exponentially distributed numbers of mean 1, one for every position.

    Args:
        positions: (n,) int64.
        seed: Any 64-bit number.

    Returns:
        (n,) float64 on the same device, over 0.
    """
    bits = _split_mix(positions * _signed(_STEP) + _signed(seed & _MASK))
    # 53 bits, and a half so that no number is 0 or 1.
    uniform = (_shifted(bits, 11).to(torch.float64) + 0.5) * 2.0**-53
    return -natural_log(uniform)


def natural_log(values: Tensor) -> Tensor:
    """The natural logarithm of positive float64 numbers, to a few units in the last place."""
    mantissa, exponent = torch.frexp(values)
    small = mantissa < _SQRT_HALF
    mantissa = torch.where(small, mantissa * 2.0, mantissa)
    power = exponent.to(torch.float64) - small.to(torch.float64)
    z = (mantissa - 1.0) / (mantissa + 1.0)
    square = z * z
    series = torch.full_like(z, _SERIES[-1])
    for coefficient in reversed(_SERIES[:-1]):
        series = series * square
        series = series + coefficient
    return power * _LN2 + 2.0 * (z * series)


def _split_mix(z: Tensor) -> Tensor:
    """SplitMix64's output function on int64, whose products wrap around."""
    z = (z ^ _shifted(z, 30)) * _signed(_FIRST_FACTOR)
    z = (z ^ _shifted(z, 27)) * _signed(_SECOND_FACTOR)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """An unsigned shift to the right; that of int64 repeats the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
