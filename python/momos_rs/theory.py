"""The statements of Mosaic-of-Motifs (arXiv 2602.14896) as functions.

Notation of the paper: ``n`` weights in ``m`` blocks of ``s`` values of ``q`` bits each; ``k``
motifs; the mosaic is a map from blocks to motifs, the capacity is ``c = k / m``.

Counts are exact integers. Their logarithms are computed from the counts where those are small, and
from uniform asymptotics (Temme 1993, Studies in Applied Mathematics 89, 233-243) where they are
not; the relative error of a count so obtained is of the order of 1 / m.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import InvalidArgumentError
from .mosaic.mosaic import mosaic_bound

__all__ = [
    "break_even_capacity",
    "break_even_motifs",
    "complexity_bound",
    "component_count",
    "component_dimension",
    "component_growth",
    "hypothesis_count",
    "in_lower_complexity_regime",
    "log2_component_count",
    "log2_hypothesis_count",
    "log2_stirling",
    "maximal_component_count",
    "stirling",
    "unconstrained_bound",
]

Floats: TypeAlias = "npt.NDArray[np.float64]"

EXACT_BLOCKS = 400
"""Up to this many blocks, logarithms are taken of exact counts."""

_NEGLIGIBLE_BITS = 70
"""A term of a sum that many bits below the largest does not change it in float64."""


def unconstrained_bound(blocks: int, block_size: int, bits: int) -> int:
    """Bits of weights written out: ``m * s * q``, the bound for any parameterisation.

    Args:
        blocks: Number of blocks, m.
        block_size: Values per block, s.
        bits: Bits per value, q.
    """
    _check(blocks=blocks, block_size=block_size, bits=bits)
    return blocks * block_size * bits


def complexity_bound(blocks: int, motifs: int, block_size: int, bits: int) -> int:
    """Bound on the Kolmogorov complexity of a mosaic, up to a constant.

    The motifs, written out, and the index of each block's motif describe the weights:
    ``K(w) <= k * s * q + m * ceil(log2 k) + O(1)``.

    Args:
        blocks: Number of blocks, m.
        motifs: Number of motifs, k.
        block_size: Values per block, s.
        bits: Bits per value of a motif, q.

    >>> complexity_bound(1000, 50, 4, 32)
    12400
    """
    _check(blocks=blocks, motifs=motifs, block_size=block_size, bits=bits)
    return mosaic_bound(blocks, motifs, block_size, bits)


def in_lower_complexity_regime(blocks: int, motifs: int, block_size: int, bits: int) -> bool:
    """Whether the bound of the mosaic is below that of the weights written out.

    That is ``k * s * q + m * ceil(log2 k) < m * s * q``, or in terms of the capacity
    ``c < 1 - ceil(log2 k) / (s * q)``.
    """
    return complexity_bound(blocks, motifs, block_size, bits) < unconstrained_bound(
        blocks, block_size, bits
    )


def break_even_motifs(blocks: int, block_size: int, bits: int) -> int:
    """The most motifs with which a mosaic is in the lower-complexity regime; 0 if none are.

    The bound grows with every motif, so all smaller numbers are in the regime too.

    >>> break_even_motifs(1000, 4, 32)
    921
    """
    _check(blocks=blocks, block_size=block_size, bits=bits)
    low, high = 0, blocks
    while low < high:
        middle = (low + high + 1) // 2
        if in_lower_complexity_regime(blocks, middle, block_size, bits):
            low = middle
        else:
            high = middle - 1
    return low


def break_even_capacity(blocks: int, block_size: int, bits: int) -> float:
    """The largest capacity ``k / m`` in the lower-complexity regime; 0.0 if none is.

    >>> break_even_capacity(1000, 4, 32)
    0.921
    """
    return break_even_motifs(blocks, block_size, bits) / blocks


def component_dimension(motifs_used: int, block_size: int) -> int:
    """Dimension of the linear component of one mosaic: ``k * s``.

    With the mosaic fixed, the weights are a linear function of the motifs that it uses, and
    different motifs give different weights; so the weights with that mosaic are a linear subspace
    of R^n with one dimension for each value of a used motif.

    Args:
        motifs_used: Motifs that represent at least one block.
        block_size: Values per block, s.
    """
    _check(motifs=motifs_used, block_size=block_size)
    return motifs_used * block_size


def stirling(elements: int, classes: int) -> int:
    """Stirling number of the second kind: partitions of a set into that many non-empty classes.

    >>> stirling(4, 2)
    7
    """
    if elements < 0 or classes < 0:
        raise InvalidArgumentError("numbers of elements and classes are not negative")
    return _stirling_row(elements)[classes] if classes <= elements else 0


@lru_cache(maxsize=4)
def _stirling_row(elements: int) -> tuple[int, ...]:
    row = [1]
    for _ in range(elements):
        longer = [0, *row]
        for classes in range(1, len(row)):
            longer[classes] += classes * row[classes]
        row = longer
    return tuple(row)


def component_count(blocks: int, motifs: int) -> int:
    """Number of distinct linear components of the mosaics of ``m`` blocks with ``k`` motifs.

    Two mosaics give the same component if and only if they put the same blocks together, whatever
    the motifs are called; so components are the partitions of the blocks into at most ``k``
    classes: ``sum of S(m, j) for j = 1 .. min(k, m)``. Exact; takes m^2 steps.

    >>> component_count(4, 2)
    8
    """
    _check(blocks=blocks, motifs=motifs)
    return sum(_stirling_row(blocks)[1 : motifs + 1])


def maximal_component_count(blocks: int, motifs: int) -> int:
    """Number of components that are in no other: those of mosaics that use all motifs.

    Merging two classes of a partition gives a subspace of its component; so the components that
    no other contains are the partitions into exactly ``min(k, m)`` classes.

    >>> maximal_component_count(4, 2)
    7
    """
    _check(blocks=blocks, motifs=motifs)
    return stirling(blocks, min(motifs, blocks))


def log2_component_count(blocks: int, motifs: int) -> float:
    """Binary logarithm of :func:`component_count`, for any size.

    >>> log2_component_count(4, 2)
    3.0
    """
    _check(blocks=blocks, motifs=motifs)
    if blocks <= EXACT_BLOCKS:
        return math.log2(component_count(blocks, motifs))
    return _log2_sum(lambda classes: _log2_stirling(blocks, classes), min(motifs, blocks))


def component_growth(blocks: int, motifs: int) -> float:
    """Bits that one more block adds to the logarithm of the number of components.

    ``log2 N(m + 1, k) - log2 N(m, k)``. For a fixed number of motifs it tends to ``log2 k``: the
    number of components grows exponentially with the number of blocks, while the dimension of
    each stays ``k * s``.
    """
    larger, smaller = blocks + 1, blocks
    if blocks < EXACT_BLOCKS:
        ratio = component_count(larger, motifs) / component_count(smaller, motifs)
        return math.log2(ratio)
    # Both from the asymptotics, so that their errors cancel.
    after, before = (
        _log2_sum(lambda classes, m=m: _log2_stirling(m, classes), min(motifs, m))  # type: ignore[misc]
        for m in (larger, smaller)
    )
    return after - before


def hypothesis_count(blocks: int, motifs: int, block_size: int, bits: int) -> int:
    """Number of weight vectors that mosaics with ``q``-bit values can represent.

    A vector is determined by which blocks are equal and by the distinct values of each class:
    ``sum of S(m, j) * B * (B - 1) * ... * (B - j + 1) for j = 1 .. min(k, m)`` with ``B =
    2**(s * q)`` possible blocks. Exact; at most ``k**m * B**k``.

    >>> hypothesis_count(2, 1, 1, 1), hypothesis_count(2, 2, 1, 1)
    (2, 4)
    """
    _check(blocks=blocks, motifs=motifs, block_size=block_size, bits=bits)
    possible = 2 ** (block_size * bits)
    return sum(
        stirling(blocks, classes) * math.perm(possible, classes)
        for classes in range(1, min(motifs, blocks) + 1)
    )


def log2_hypothesis_count(blocks: int, motifs: int, block_size: int, bits: int) -> float:
    """Binary logarithm of :func:`hypothesis_count`, for any size.

    This is what a uniform prior over the class costs, and enters generalisation bounds in place
    of the ``m * s * q`` of unconstrained weights. It is at most ``k * s * q + m * log2 k``.

    >>> log2_hypothesis_count(2, 2, 1, 1)
    2.0
    """
    _check(blocks=blocks, motifs=motifs, block_size=block_size, bits=bits)
    if blocks <= EXACT_BLOCKS and block_size * bits <= 4096:
        return _log2_integer(hypothesis_count(blocks, motifs, block_size, bits))
    value_bits = block_size * bits
    most = min(motifs, blocks)
    if value_bits < 63:
        most = min(most, 1 << value_bits)
    return _log2_sum(
        lambda classes: _log2_stirling(blocks, classes) + _log2_arrangements(value_bits, classes),
        most,
    )


def log2_stirling(elements: int, classes: int) -> float:
    """Binary logarithm of :func:`stirling`, for any size; negative infinity of 0.

    >>> round(log2_stirling(4, 2), 6)
    2.807355
    """
    if not 0 < classes <= elements:
        count = stirling(max(elements, 0), classes) if elements == classes == 0 else 0
        return 0.0 if count else -math.inf
    if elements <= EXACT_BLOCKS:
        return _log2_integer(stirling(elements, classes))
    return float(_log2_stirling(elements, np.array([classes], np.float64))[0])


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise InvalidArgumentError(f"{name} must be at least 1, not {number}")


def _log2_integer(number: int) -> float:
    """As math.log2, also of integers beyond the range of floats."""
    excess = max(0, number.bit_length() - 1000)
    return excess + math.log2(number >> excess)


def _log2_sum(term: Callable[[Floats], Floats], most: int) -> float:
    """log2 of the sum of 2**term(j) over j = 1 .. most, for terms with a single maximum."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        left, right = term(np.array([middle, middle + 1], np.float64))
        if left < right:
            low = middle + 1
        else:
            high = middle
    peak = float(term(np.array([low], np.float64))[0])
    total = 0.0
    for start, step in ((low, -1), (low + 1, 1)):
        position = start
        while 1 <= position <= most:
            stop = min(most, position + 1023) if step > 0 else max(1, position - 1023)
            values = term(np.arange(position, stop + step, step, dtype=np.float64)) - peak
            total += float(np.exp2(values).sum())
            if values[-1] < -_NEGLIGIBLE_BITS:
                break
            position = stop + step
    return peak + math.log2(total)


def _log2_stirling(elements: int, classes: Floats) -> Floats:
    """Temme's uniform approximation of S(n, k) for 1 <= k <= n, as log2."""
    n, k = float(elements), np.asarray(classes, np.float64)
    inner = np.clip(k, 2, max(n - 1, 2))
    t = (n - inner) / inner
    x = _saddle(n / inner)
    log_expm1 = x + np.log(-np.expm1(-x))
    exponent = -n * np.log(x) + inner * log_expm1 - inner * t + (n - inner) * np.log(t)
    factor = np.sqrt(t / ((1 + t) * (x - t)))
    logarithm = exponent + (n - inner) * np.log(inner) + np.log(factor) + _log_binomial(n, inner)
    # S(n, 1) = S(n, n) = 1.
    return np.where((k <= 1) | (k >= n), 0.0, logarithm / math.log(2))


def _saddle(ratio: Floats) -> Floats:
    """The x > 0 with x / (1 - exp(-x)) = ratio > 1, by Newton's method."""
    x = np.where(ratio > 2, ratio, 2 * (ratio - 1))
    for _ in range(60):
        decay = np.exp(-x)
        one_minus = -np.expm1(-x)
        value = x / one_minus - ratio
        slope = (one_minus - x * decay) / one_minus**2
        step = value / slope
        x = np.maximum(x - step, x / 4)
        if np.all(np.abs(step) <= 1e-15 * x):
            break
    return x


def _log_binomial(n: float, k: Floats) -> Floats:
    rest = [math.lgamma(each + 1) + math.lgamma(n - each + 1) for each in k.tolist()]
    return math.lgamma(n + 1) - np.array(rest)


def _log2_arrangements(value_bits: int, classes: Floats) -> Floats:
    """log2 of B * (B - 1) * ... * (B - j + 1) for B = 2**value_bits."""
    if value_bits > 1000:
        return classes * value_bits
    possible = 2.0**value_bits
    share = classes / possible
    # Sum of log(1 - i / B): by Stirling's formula, or its series where that cancels.
    with np.errstate(divide="ignore", invalid="ignore"):
        closed = (
            -(possible - classes + 0.5) * np.log1p(-share)
            - classes
            + (1 / possible - 1 / (possible - classes)) / 12
        )
    closed = np.where(classes >= possible, _log_factorial_over_power(possible), closed)
    series = -classes * (classes - 1) / (2 * possible) * (1 + (2 * classes - 1) / (6 * possible))
    return classes * value_bits + np.where(share < 1e-4, series, closed) / math.log(2)


def _log_factorial_over_power(number: float) -> float:
    """log(B! / B**B), where Stirling's formula for (B - j)! has no value."""
    return math.lgamma(number + 1) - number * math.log(number)
