"""Running sums of what layers are fed: second moments of inputs, and how often rows are used."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from momos_rs.errors import InvalidArgumentError

__all__ = ["ROWS_PER_PRODUCT", "MomentSums", "RowUses"]

ROWS_PER_PRODUCT = 4096
"""Inputs that are multiplied at once in their own precision; their products are added in float64,
so rounding errors do not grow with the number of batches."""


@dataclass
class MomentSums:
    """The sum of ``x x^T`` over inputs ``x``.

    Attributes:
        groups: Number of groups of inputs that are kept apart, as in a grouped convolution.
        width: Values of one input, d.
        diagonal: Whether only the diagonal is kept, because the whole would not fit in memory.
        sums: Shape (groups, width, width), or (groups, width) for a diagonal; float64.
        count: Number of inputs seen, per group.
    """

    groups: int
    width: int
    diagonal: bool
    device: torch.device
    sums: Tensor = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        shape = (
            (self.groups, self.width) if self.diagonal else (self.groups, self.width, self.width)
        )
        self.sums = torch.zeros(shape, dtype=torch.float64, device=self.device)

    @staticmethod
    def nbytes(groups: int, width: int, *, diagonal: bool = False) -> int:
        """Bytes of the sums."""
        return 8 * groups * width * (1 if diagonal else width)

    def add(self, inputs: Tensor) -> None:
        """Adds inputs.

        Args:
            inputs: Shape (n, groups, width), any floating dtype.

        Raises:
            InvalidArgumentError: If there is a NaN or an infinity among them.
        """
        working = torch.float64 if inputs.dtype == torch.float64 else torch.float32
        for piece in torch.split(inputs, ROWS_PER_PRODUCT):
            rows = piece.to(working).transpose(0, 1)
            if self.diagonal:
                product = rows.square().sum(1)
                finite = torch.isfinite(product).all()
            else:
                product = rows.transpose(1, 2) @ rows
                finite = torch.isfinite(product.diagonal(dim1=1, dim2=2)).all()
            if not bool(finite):
                raise InvalidArgumentError("its inputs hold NaN or infinite values")
            self.sums += product
        self.count += len(inputs)


@dataclass
class RowUses:
    """How often each row of an embedding was used.

    Attributes:
        rows: Number of rows.
        uses: By row, float64.
        count: Number of look-ups.
    """

    rows: int
    device: torch.device
    uses: Tensor = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.uses = torch.zeros(self.rows, dtype=torch.float64, device=self.device)

    def add(self, indices: Tensor) -> None:
        """Adds look-ups.

        Args:
            indices: Row numbers, any shape, an integer dtype.
        """
        flat = indices.reshape(-1)
        if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < self.rows:
            return  # the embedding says so itself
        self.uses += torch.bincount(flat, minlength=self.rows).to(torch.float64)
        self.count += flat.numel()
