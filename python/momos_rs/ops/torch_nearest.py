"""Nearest motifs with plain torch operations in bounded memory, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["nearest_motifs", "nearest_motifs_float64", "relative_margin"]

# Distances held at once; two temporaries of this many values exist beside them.
_DISTANCES_AT_ONCE = 1 << 24


def nearest_motifs(blocks: Tensor, motifs: Tensor) -> Tensor:
    """As :func:`momos_rs.ops.nearest_motifs`, for checked arguments.

    Squared differences are summed coordinate by coordinate: no cancellation as in the expansion
    ``|x|^2 - 2 x m + |m|^2``, and no matrix unit that might round to TF32.
    """
    if blocks.dtype == torch.float64:
        return nearest_motifs_float64(blocks, motifs)
    scaled_blocks, scaled_motifs = scaled_to_one(blocks, motifs)
    step = max(1, _DISTANCES_AT_ONCE // motifs.shape[0])
    nearest = torch.empty(blocks.shape[0], dtype=torch.int64, device=blocks.device)
    doubtful = torch.empty(blocks.shape[0], dtype=torch.bool, device=blocks.device)
    margin = relative_margin(blocks.shape[1])
    for begin in range(0, blocks.shape[0], step):
        rows = slice(begin, begin + step)
        distances = _squared_distances(scaled_blocks[rows], scaled_motifs)
        best, nearest[rows] = distances.min(dim=1)
        limit = best * (1 + margin) + absolute_margin(blocks.shape[1])
        doubtful[rows] = (distances <= limit[:, None]).sum(dim=1) > 1
    (again,) = doubtful.nonzero(as_tuple=True)
    nearest[again] = nearest_motifs_float64(blocks[again].double(), motifs.double())
    return nearest


def nearest_motifs_float64(blocks: Tensor, motifs: Tensor) -> Tensor:
    """Brute force in float64; the lowest index on ties."""
    step = max(1, _DISTANCES_AT_ONCE // motifs.shape[0])
    positions = torch.arange(motifs.shape[0], device=motifs.device)
    nearest = torch.empty(blocks.shape[0], dtype=torch.int64, device=blocks.device)
    for begin in range(0, blocks.shape[0], step):
        rows = slice(begin, begin + step)
        distances = _squared_distances(blocks[rows], motifs)
        best = distances.amin(dim=1, keepdim=True)
        # argmin may name any of several equal minima.
        tied = torch.where(distances == best, positions, motifs.shape[0])
        nearest[rows] = tied.amin(dim=1)
    return nearest


def scaled_to_one(blocks: Tensor, motifs: Tensor) -> tuple[Tensor, Tensor]:
    """Both times the power of two that brings the largest magnitude near one.

    Squares of float32 values underflow below 1e-19 and overflow above 1e19; scaling by a power of
    two rounds nothing but what becomes subnormal, which the absolute margin covers.
    """
    if not blocks.shape[0]:
        return blocks, motifs
    largest = torch.maximum(blocks.abs().amax(), motifs.abs().amax())
    exponent = math.frexp(float(largest))[1]
    factor = 2.0 ** -max(-100, min(exponent, 100))
    return blocks * factor, motifs * factor


def relative_margin(s: int) -> float:
    """By how much a float32 squared distance over ``s`` coordinates may lead astray, relatively.

    A difference, a square and up to ``s`` additions are rounded, each by at most 2**-24; twice
    that for the two distances compared, and twice again for the comparison itself.
    """
    return 4.0 * (s + 3) * 2.0**-24


def absolute_margin(s: int) -> float:
    """The same for squares that underflow, which some devices flush to zero."""
    return 4.0 * s * torch.finfo(torch.float32).tiny


def _squared_distances(blocks: Tensor, motifs: Tensor) -> Tensor:
    total = torch.zeros(blocks.shape[0], motifs.shape[0], dtype=blocks.dtype, device=blocks.device)
    for coordinate in range(blocks.shape[1]):
        difference = blocks[:, coordinate, None] - motifs[None, :, coordinate]
        total += difference * difference
    return total
