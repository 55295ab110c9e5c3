"""What a checkpoint holds, in a form that golden files record."""

from __future__ import annotations

import hashlib

from momos_rs.checkpoint import Checkpoint


def tensor_digests(checkpoint: Checkpoint) -> list[list[object]]:
    """Name, shape, type, base, offset, strides and SHA-256 of the base, of every tensor."""
    digests = [hashlib.sha256(base.read().tobytes()).hexdigest() for base in checkpoint.bases]
    return [
        [
            entry.name,
            list(entry.shape),
            checkpoint.bases[entry.base].dtype,
            entry.base,
            entry.offset,
            None if entry.strides is None else list(entry.strides),
            digests[entry.base],
        ]
        for entry in checkpoint.entries
    ]
