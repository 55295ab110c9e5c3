"""The nearest motif of every block, exactly, for numpy arrays and torch tensors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from momos_rs import _core
from momos_rs.errors import InvalidArgumentError

if TYPE_CHECKING:
    import torch

__all__ = ["nearest_motifs"]

_Array = npt.NDArray[Any]
_Rows = npt.NDArray[np.float32] | npt.NDArray[np.float64]


@overload
def nearest_motifs(
    blocks: torch.Tensor, motifs: torch.Tensor | _Array, *, threads: int | None = None
) -> torch.Tensor: ...
@overload
def nearest_motifs(
    blocks: _Array, motifs: torch.Tensor | _Array, *, threads: int | None = None
) -> npt.NDArray[np.int64]: ...
def nearest_motifs(
    blocks: torch.Tensor | _Array, motifs: torch.Tensor | _Array, *, threads: int | None = None
) -> torch.Tensor | npt.NDArray[np.int64]:
    """Finds the motif with the smallest squared L2 distance to each block.

    Among motifs at exactly the same distance the lowest index wins. Distances are those of
    float64 arithmetic, so the answer is the same for any number of threads and on any processor.
    Types narrower than float32 are widened to it; float64 with any other type is float64.

    Args:
        blocks: (m, s) array or tensor of a floating type, all values finite; s from 1 to 4096.
        motifs: (k, s) array or tensor of a floating type, all values finite; k at least 1.
        threads: Number of threads; all cores by default.

    Returns:
        (m,) int64: an array if ``blocks`` is an array, a tensor on its device if it is a tensor.

    Raises:
        InvalidArgumentError: If shapes or types do not fit, or a value is NaN or infinite.
    """
    block_rows, motif_rows = _rows("blocks", blocks), _rows("motifs", motifs)
    if block_rows.shape[1] != motif_rows.shape[1]:
        raise InvalidArgumentError(
            f"blocks and motifs must have the same number of columns, "
            f"not {block_rows.shape[1]} and {motif_rows.shape[1]}"
        )
    if len(motif_rows) == 0:
        raise InvalidArgumentError("there must be at least one motif")
    if block_rows.dtype != motif_rows.dtype:
        block_rows, motif_rows = block_rows.astype(np.float64), motif_rows.astype(np.float64)
    found = _core.nearest_motifs(block_rows, motif_rows, threads=threads).astype(np.int64)
    if isinstance(blocks, np.ndarray) or not _is_tensor(blocks):
        return found
    import torch

    return torch.from_numpy(found).to(blocks.device)


def _is_tensor(value: object) -> bool:
    # A caller with a tensor has imported torch; nobody else has to wait for it.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _rows(name: str, values: Any) -> _Rows:
    """The values as a C-contiguous (rows, s) array of float32 or float64."""
    if _is_tensor(values):
        if not values.is_floating_point():
            raise InvalidArgumentError(f"{name} must be of a floating type, not {values.dtype}")
        tensor = values.detach()
        if tensor.element_size() < 4:
            tensor = tensor.float()
        array = tensor.cpu().numpy()
    else:
        array = np.asarray(values)
        if array.dtype.kind != "f":
            raise InvalidArgumentError(f"{name} must be of a floating type, not {array.dtype}")
    if array.ndim != 2:
        raise InvalidArgumentError(f"{name} must have two dimensions (rows, s), not {array.ndim}")
    if array.dtype.itemsize > 4:
        return np.ascontiguousarray(array, dtype=np.float64)
    return np.ascontiguousarray(array, dtype=np.float32)
