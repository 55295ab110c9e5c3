"""Moving motifs that are worth little to where the error is.

Lloyd's algorithm moves a motif to the mean of its blocks, never across a region where there are
none. So between its iterations motifs whose blocks others could represent nearly as well give up
their places, and go to blocks drawn in proportion to their squared distance to their motifs, as in
:mod:`.spread`. The idea of moving centres of low utility to those of large error is that of LBG-U
(Fritzke, "The LBG-U method for vector quantization", 1997) and of enhanced LBG (Patané and Russo,
2001).

What it costs to do without a motif is bounded by sending all of its blocks to the motif next to it:
the number of blocks times the squared distance between the two, if it is at their mean. A
motif that others are sent to stays, so that bounds add up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from momos_rs import _core

from .block_stream import Floats

__all__ = ["MOST_SHARE", "relocated", "squared_distances"]

MOST_SHARE = 0.1
"""Share of the motifs that may be moved at a time."""

_GAIN = 8.0
"""What a motif at a block takes off the error, as a multiple of the block's own: blocks around it
gain as well. Measured on several models: from 4 to 8 the error falls, then it does not."""


def relocated(
    motifs: Floats,
    counts: npt.NDArray[np.float64],
    rows: Floats,
    distances: npt.NDArray[np.float64],
    *,
    fixed: int,
    threads: int | None = None,
) -> npt.NDArray[np.int64]:
    """Which motifs to move to which blocks.

    Args:
        motifs: (k, s), each at the mean of its blocks.
        counts: (k,) number of blocks of each.
        rows: (n, s) blocks where motifs are wanted, those of the largest distance first.
        distances: (n,) squared distance of each to its motif.
        fixed: Number of motifs, the first ones, that stay.
        threads: Number of threads; all cores by default.

    Returns:
        (r,) different motifs, r at most n: the first is to be moved to the first of the rows, and
        so on.
    """
    apart, beside = _neighbours(motifs, threads)
    with np.errstate(over="ignore", invalid="ignore"):
        cost = np.where(counts > 0, counts * apart, 0.0)
    cost[:fixed] = np.inf
    order = np.lexsort((np.arange(len(cost)), cost))[: 2 * len(rows)]
    stays = np.zeros(len(motifs), np.bool_)
    goes = np.zeros(len(motifs), np.bool_)
    moved: list[int] = []
    for motif in order.tolist():
        if len(moved) == len(rows) or not cost[motif] < _GAIN * distances[len(moved)]:
            break
        if counts[motif] > 0:
            if stays[motif] or goes[beside[motif]]:
                continue
            stays[beside[motif]] = True
        goes[motif] = True
        moved.append(motif)
    return np.array(moved, np.int64)


def _neighbours(
    motifs: Floats, threads: int | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """A motif near each of them, and their squared distance.

    Each is searched among the half of the motifs that it does not belong to, for two ways of
    dividing them; three times out of four that finds the nearest of all.
    """
    numbers = np.arange(len(motifs))
    apart = np.full(len(motifs), np.inf)
    beside = np.zeros(len(motifs), np.int64)
    for bit in (0, 1):
        side = (numbers >> bit) & 1
        for half in (0, 1):
            own, others = np.flatnonzero(side == half), np.flatnonzero(side != half)
            if not len(own) or not len(others):
                continue
            found = others[_core.nearest_motifs(motifs[own], motifs[others], threads=threads)]
            distances = squared_distances(motifs[own], motifs[found])
            nearer = distances < apart[own]
            apart[own[nearer]] = distances[nearer]
            beside[own[nearer]] = found[nearer]
    return apart, beside


def squared_distances(rows: Floats, others: Floats) -> npt.NDArray[np.float64]:
    """The squared distance of every row to the other of its number, (n,), the same everywhere:
    columns are added one after the other."""
    total = np.zeros(len(rows))
    with np.errstate(over="ignore"):
        for column in range(rows.shape[1]):
            difference = rows[:, column].astype(np.float64) - others[:, column]
            total += difference * difference
    return total
