"""What a projection reports and what it made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from momos_rs.errors import InvalidArgumentError

__all__ = ["ModelMosaic", "ProjectionStats", "Span"]


@dataclass(frozen=True)
class Span:
    """The blocks of one parameter within the model's list of blocks.

    Attributes:
        name: The parameter's plain name.
        shape: Its shape.
        first_block: Index of its first block.
        blocks: Number of its blocks; the last one is padded with zeros.
    """

    name: str
    shape: tuple[int, ...]
    first_block: int
    blocks: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True, eq=False)
class ModelMosaic:
    """A model's parameters as motifs and, for every block, the index of its motif.

    Attributes:
        motifs: The motifs, (k, s), floating.
        indices: The motif of every block, (m,) int64, in the order of the spans.
        spans: Which blocks make up which parameter, in the order of ``model.parameters()``.
    """

    motifs: Tensor
    indices: Tensor
    spans: tuple[Span, ...]

    @property
    def s(self) -> int:
        """Block size."""
        return self.motifs.shape[1]

    @property
    def k(self) -> int:
        """Number of motifs."""
        return self.motifs.shape[0]

    def span(self, name: str) -> Span:
        """The span of a parameter.

        Raises:
            InvalidArgumentError: If the mosaic has no parameter of that name.
        """
        for each in self.spans:
            if each.name == name:
                return each
        raise InvalidArgumentError(f"the mosaic has no parameter {name!r}")

    def indices_of(self, span: Span) -> Tensor:
        """The motif indices of a parameter's blocks, (blocks,) int64."""
        return self.indices[span.first_block : span.first_block + span.blocks]

    def values_of(self, span: Span) -> Tensor:
        """A parameter's values in the motifs' dtype, in its shape."""
        flat = self.motifs[self.indices_of(span)].reshape(-1)
        return flat[: span.numel].reshape(span.shape)


@dataclass(frozen=True, eq=False)
class ProjectionStats:
    """What one projection did.

    Attributes:
        distortion: Sum over all real (not padded) weights of the squared change, in float64; the
            correctly rounded sum of the blocks' sums, so it is the same at any number of threads,
            devices and processes.
        num_changed_weights: Number of real weights whose value changed.
        motif_counts: How many blocks took each motif, (k,) int64 on the CPU.
        k: Number of motifs.
        m: Number of blocks.
        n: Number of weights.
        s: Block size.
        q: Bits of a motif's value, as given to :class:`~momos_rs.MoMos`.
        seed: The seed that drew this projection's motifs.
        seconds: Wall time.
        mosaic: Motifs and indices; None when the model is sharded over processes, where no process
            holds all indices.
    """

    distortion: float
    num_changed_weights: int
    motif_counts: Tensor = field(repr=False)
    k: int
    m: int
    n: int
    s: int
    q: int
    seed: int
    seconds: float
    mosaic: ModelMosaic | None = field(default=None, repr=False)

    @property
    def motifs_used(self) -> int:
        """Number of motifs that at least one block took."""
        return int((self.motif_counts > 0).sum())

    @property
    def capacity(self) -> float:
        """Motifs per block, k / m."""
        return self.k / self.m

    @property
    def bound_bits(self) -> int:
        """The paper's bound on the mosaic's description: ``k*s*q + m*ceil(log2 k)`` bits."""
        return self.k * self.s * self.q + self.m * (self.k - 1).bit_length()

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain numbers and lists, without the mosaic."""
        return {
            "distortion": self.distortion,
            "num_changed_weights": self.num_changed_weights,
            "motif_counts": self.motif_counts.tolist(),
            "motifs_used": self.motifs_used,
            "k": self.k,
            "m": self.m,
            "n": self.n,
            "s": self.s,
            "q": self.q,
            "capacity": self.capacity,
            "bound_bits": self.bound_bits,
            "seed": self.seed,
            "seconds": self.seconds,
        }
