"""Motifs spread over the blocks: drawn with a probability that grows with the squared distance.

Drawn uniformly, motifs crowd where most blocks are and miss the tails, and Lloyd's algorithm does
not bring them there. Rounds of drawing by distance do (k-means||, Bahmani et al., "Scalable
k-means++", 2012), here with exact distances and as many draws as there shall be motifs, so that
nothing is left to cluster: the first fifth is drawn uniformly, then four times a fifth, each block
with a probability proportional to its squared distance to the nearest motif so far.

A round draws without replacement by exponential races (Efraimidis and Spirakis, 2006): the blocks
with the least ``-log(u) / distance**2`` win. ``u`` depends on the seed, the round and the block's
number alone, so the draw is the same on every device and at any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .motifs import draw_indices, nearest_motifs
from .parameter_blocks import Blocks, row_sums
from .random_numbers import exponential, seed_of_projection
from .shards import Communicator

__all__ = ["ROUNDS", "draw_spread"]

ROUNDS = 5
"""Rounds of drawing, the uniform one included."""

# Distances widen slices of this many values to float64 at a time.
_SLICE_VALUES = 1 << 22


def draw_spread(
    blocks: Blocks,
    kept: Tensor,
    count: int,
    seed: int,
    *,
    communicator: Communicator,
    start: bool = True,
) -> Tensor:
    """Draws motifs from the blocks, far from each other and from those there are.

    Args:
        blocks: All blocks.
        kept: Motifs there are already, (n, s); n may be 0 with ``start``.
        count: How many to draw.
        seed: Seed of the draw.
        communicator: The processes that share the blocks.
        start: Whether the first round draws uniformly; without it, all go by distance.

    Returns:
        (count, s), distinct blocks. Once every block is a motif the rest are drawn uniformly.
    """
    share = -(-count // ROUNDS)
    drawn = kept[:0]
    distances: dict[torch.device, Tensor] = {}
    fresh = kept
    if start:
        drawn = blocks.take(draw_indices(blocks.m, min(share, count), seed))
        fresh = torch.cat([kept, drawn])
    for turn in range(ROUNDS + 1):
        if len(drawn) == count:
            break
        _approach(blocks, fresh, distances)
        wanted = min(share, count - len(drawn))
        chosen = _race(blocks, distances, wanted, seed_of_projection(seed, turn), communicator)
        if not len(chosen):
            break
        fresh = blocks.take(chosen)
        drawn = torch.cat([drawn, fresh])
    missing = count - len(drawn)
    if missing:
        drawn = torch.cat([drawn, blocks.take(draw_indices(blocks.m, missing, seed))])
    return drawn


def _approach(blocks: Blocks, motifs: Tensor, distances: dict[torch.device, Tensor]) -> None:
    """Lowers every block's squared distance to the nearest motif by what new motifs do."""
    for device, matrix in blocks.matrices.items():
        table = motifs.to(device)
        nearest = nearest_motifs(matrix, table)
        found = torch.cat([matrix.new_empty(0, dtype=torch.float64), *_squares(
            matrix, table, nearest
        )])  # fmt: skip
        before = distances.get(device)
        distances[device] = found if before is None else torch.minimum(before, found)


def _squares(matrix: Tensor, table: Tensor, nearest: Tensor) -> Iterator[Tensor]:
    step = max(1, _SLICE_VALUES // matrix.shape[1])
    for begin in range(0, len(matrix), step):
        rows = slice(begin, begin + step)
        difference = matrix[rows].to(torch.float64).sub_(table[nearest[rows]])
        yield row_sums(difference.mul_(difference))


def _race(
    blocks: Blocks,
    distances: dict[torch.device, Tensor],
    count: int,
    seed: int,
    communicator: Communicator,
) -> Tensor:
    """The numbers of up to ``count`` blocks, drawn by distance, ascending, (n,) int64 on the CPU.

    Blocks that are a motif are never drawn.
    """
    numbers = blocks.numbers()
    times, entrants = [], []
    for device, rows in blocks.counted_rows():
        far, number = distances[device][rows], numbers[device][rows]
        (there,) = (far > 0).nonzero(as_tuple=True)
        number = number[there]
        arrival = exponential(number, seed) / far[there]
        first = _first(arrival, number, count)
        times.append(arrival[first].to(blocks.home))
        entrants.append(number[first].to(blocks.home))
    # What every process sends: times as bit patterns, and numbers; those that are missing are last.
    own = torch.full((2, count), torch.iinfo(torch.int64).max, device=blocks.home)
    if times:
        arrival, number = torch.cat(times), torch.cat(entrants)
        first = _first(arrival, number, count)
        own[0, : len(first)] = arrival[first].view(torch.int64)
        own[1, : len(first)] = number[first]
    # Positive floats are ordered as their bit patterns.
    every = communicator.gather(own).movedim(1, 0).reshape(2, -1)
    every = every[:, every[1] != torch.iinfo(torch.int64).max]
    first = _first(every[0], every[1], count)
    return every[1, first].sort().values.cpu()


def _first(times: Tensor, numbers: Tensor, count: int) -> Tensor:
    """Positions of the ``count`` earliest times, the lower number first where they are equal."""
    if len(times) <= count:
        return torch.arange(len(times), device=times.device)
    last = torch.topk(times, count, largest=False, sorted=False).values.max()
    (before,) = (times < last).nonzero(as_tuple=True)
    (tied,) = (times == last).nonzero(as_tuple=True)
    tied = tied[numbers[tied].argsort()[: count - len(before)]]
    return torch.cat([before, tied])
