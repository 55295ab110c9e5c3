"""Tensors that equal an earlier one, which an archive stores once."""

from __future__ import annotations

import numpy as np

from momos_rs import _core
from momos_rs.checkpoint import Base, Checkpoint
from momos_rs.runtime.progress import Counter, Progress
from momos_rs.runtime.resources import PIECE_BYTES
from momos_rs.runtime.team import SOLO, Team

__all__ = [
    "find_copies",
]


def find_copies(
    model: Checkpoint, team: Team = SOLO, progress: Progress | None = None
) -> dict[int, int]:
    """Bases that equal an earlier one, with that one's index.

    Args:
        model: The model.
        team: The processes that look through it together.
        progress: Called with the phase, ``"select"``, the bytes done and the bytes in all.
    """
    first, stop = team.share([base.nbytes for base in model.bases])
    own = model.bases[first:stop]
    counter = Counter(progress, "select", sum(base.nbytes for base in own))
    digests = team.join([_digest(base, counter) for base in own])
    originals: dict[tuple[str, int, str], int] = {}
    copies = {}
    for index, (base, digest) in enumerate(zip(model.bases, digests, strict=True)):
        original = originals.setdefault((base.dtype, base.numel, digest), index)
        if original != index and _are_equal(model.bases[original], base):
            copies[index] = original
    return copies


def _digest(base: Base, counter: Counter) -> str:
    digest = _core.Digest()
    for piece in base.pieces(PIECE_BYTES):
        digest.update(piece)
        counter.add(len(piece))
    return digest.hexdigest()


def _are_equal(one: Base, other: Base) -> bool:
    pairs = zip(one.pieces(PIECE_BYTES), other.pieces(PIECE_BYTES), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
