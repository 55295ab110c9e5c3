"""Tensors whose values are no weights like the others: masks, constants, and what is huge.

Motifs and steps are shared by all tensors of a mosaic, so that one of values a thousand times as
large would cost all others their precision; and of a tensor of two values (an attention mask of
-1e9, a pruning mask) nothing may be rounded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from momos_rs.checkpoint.model import Base, Checkpoint
from momos_rs.dtypes import dtype
from momos_rs.runtime.resources import PIECE_BYTES

from .selection import Decision, Members

Unsigned: TypeAlias = "np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]"

__all__ = ["keep_exact", "without_unusual"]

_SAMPLE = 4096
"""Elements that tell of most tensors that they have more than two values."""

_OUTLIER = 1000.0
"""A tensor is kept exact if its root mean square is more than so many times the median of all."""


def without_unusual(model: Checkpoint, members: Members) -> Members:
    """The members of a mosaic that is not exact: without tensors of one or two values, and without
    those that are larger than the others by far.

    Args:
        model: The model.
        members: Those by names, types and sizes.
    """
    notes = {}
    for index in members.indices:
        if _has_two_values(model.bases[index]):
            notes[index] = "it has no more than two different values"
    rest = [index for index in members.indices if index not in notes]
    squares = [members.decisions[index].energy / max(model.bases[index].numel, 1) for index in rest]
    typical = _median(squares, [model.bases[index].numel for index in rest])
    for index, square in zip(rest, squares, strict=True):
        if not math.isfinite(square):
            notes[index] = "the squares of its values are beyond all numbers"
        elif typical and square > _OUTLIER**2 * typical:
            times = math.sqrt(square / typical)
            notes[index] = f"its values are {times:.3g} times as large as those of other tensors"
    return keep_exact(members, notes)


def keep_exact(members: Members, notes: dict[int, str]) -> Members:
    """The members without some bases, and why."""
    if not notes:
        return members
    decisions = [
        Decision(mosaic=False, note=notes[index]) if index in notes else decision
        for index, decision in enumerate(members.decisions)
    ]
    indices = [index for index in members.indices if index not in notes]
    return dataclasses.replace(members, decisions=decisions, indices=indices)


def _has_two_values(base: Base) -> bool:
    """Whether a tensor has no more than two different values, by their bits."""
    unsigned = f"<u{dtype(base.dtype).itemsize}"
    values = np.unique(base.part(0, min(_SAMPLE, base.numel)).view(unsigned))
    if len(values) > 2:
        return False
    for piece in base.pieces(PIECE_BYTES):
        found = np.unique(np.concatenate([values, _others(piece.view(unsigned), values)]))
        if len(found) > 2:
            return False
        values = found
    return True


def _others(elements: Unsigned, values: Unsigned) -> Unsigned:
    """The elements that are none of some values."""
    other = np.ones(elements.shape, bool)
    for value in values:
        other &= elements != value
    return elements[other]


def _median(values: Sequence[float], weights: Sequence[int]) -> float:
    """The lower median of the values that are neither zero nor infinite, by weight."""
    counted = sorted(
        pair for pair in zip(values, weights, strict=True) if pair[0] > 0 and math.isfinite(pair[0])
    )
    half = sum(weight for _, weight in counted) / 2
    passed = 0
    for value, weight in counted:
        passed += weight
        if passed >= half:
            return value
    return 0.0
