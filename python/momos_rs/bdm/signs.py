"""The BDM of the signs of weights, straight from the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from momos_rs import _core

if TYPE_CHECKING:
    from momos_rs.complexity import BlockComplexity, Source

__all__ = ["sign_bdm", "sign_complexity"]


def sign_complexity(
    weights: Source, *, ndim: Literal[1, 2] = 1, threads: int | None = None
) -> BlockComplexity:
    """BDM and block entropy of the bits ``w > 0`` of weights (NaN and both zeros give 0).

    Equal to ``BDM(ndim).bdm((w > 0).astype(int))``, without the array of bits.

    Args:
        weights: A tensor or array of any floating type, or a model: the bits of its trainable
            parameters form one stream (``ndim=1``), or are counted together as matrices (rows,
            rest), those below 4 rows or columns left out (``ndim=2``).
        ndim: 1 for blocks of 12 bits, 2 for 4x4 blocks.
        threads: Number of threads; all cores by default. The result does not depend on it.

    Raises:
        InvalidArgumentError: If ``ndim`` is neither, or the source has no weights.
    """
    import numpy as np

    from momos_rs.complexity import collect_weights
    from momos_rs.complexity.bit_planes import matrix_columns
    from momos_rs.complexity.counting import complexity_of_counts
    from momos_rs.errors import InvalidArgumentError

    if ndim not in (1, 2):
        raise InvalidArgumentError(f"ndim must be 1 or 2, not {ndim}")
    found = collect_weights(weights)
    if ndim == 1:
        counter = _core.SignCounter()
        for tensor in found.tensors:
            counter.update(tensor.read(), tensor.dtype, threads=threads)
        return complexity_of_counts(counter.counts(), counter.bits)
    counts = None
    bits = 0
    for tensor in found.tensors:
        columns = matrix_columns(tensor.shape)
        if columns is not None:
            more = _core.sign_plane_counts(tensor.read(), tensor.dtype, columns, threads=threads)
            counts = more if counts is None else counts + more
            bits += tensor.numel
    return complexity_of_counts(np.zeros(1 << 16, np.uint64) if counts is None else counts, bits)


def sign_bdm(weights: Source, *, ndim: Literal[1, 2] = 1, threads: int | None = None) -> float:
    """The BDM of :func:`sign_complexity` alone, in bits."""
    return sign_complexity(weights, ndim=ndim, threads=threads).bdm
