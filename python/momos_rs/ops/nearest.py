"""``torch.ops.momos.nearest_motifs``: safe under ``torch.compile``, one kernel per device.

* CPU: the exact search of the Rust core.
* CUDA: a fused Triton kernel (:mod:`.triton_nearest`) where Triton is installed, else plain torch
  (:mod:`.torch_nearest`). Neither holds the (m, k) matrix of distances, and both confirm near-ties
  in float64.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from momos_rs.errors import InvalidArgumentError

from . import torch_nearest

__all__ = ["nearest_motifs", "search"]


def search(blocks: Tensor, motifs: Tensor) -> Tensor:
    """As :func:`nearest_motifs`, for checked arguments, and not through torch's dispatcher.

    The first call of a custom operator imports the compiler, which takes seconds.
    """
    if blocks.device.type == "cpu":
        from momos_rs.mosaic import nearest

        # Processes that share a machine divide its cores by torch's number of threads.
        return nearest.nearest_motifs(blocks, motifs, threads=torch.get_num_threads())
    if blocks.is_cuda and importlib.util.find_spec("triton") is not None:
        from . import triton_nearest

        return triton_nearest.nearest_motifs(blocks, motifs)
    return torch_nearest.nearest_motifs(blocks, motifs)


@torch.library.custom_op("momos::nearest_motifs", mutates_args=())
def _nearest_motifs(blocks: Tensor, motifs: Tensor) -> Tensor:
    return search(blocks, motifs)


@_nearest_motifs.register_fake
def _(blocks: Tensor, motifs: Tensor) -> Tensor:  # noqa: ARG001
    return blocks.new_empty((blocks.shape[0],), dtype=torch.int64)


def nearest_motifs(blocks: Tensor, motifs: Tensor) -> Tensor:
    """The index of the motif nearest to each block in L2, the lowest one on ties.

    Args:
        blocks: (m, s), float32 or float64, finite.
        motifs: (k, s) with k at least 1, of the same dtype and device.

    Returns:
        (m,) int64 on the same device. The operator has no gradient.

    Raises:
        InvalidArgumentError: If shapes, dtypes or devices do not fit.
    """
    if blocks.dim() != 2 or motifs.dim() != 2 or blocks.shape[1] != motifs.shape[1]:
        raise InvalidArgumentError(
            "blocks and motifs must be (m, s) and (k, s), not "
            f"{tuple(blocks.shape)} and {tuple(motifs.shape)}"
        )
    if motifs.shape[0] < 1:
        raise InvalidArgumentError("there must be at least one motif")
    if blocks.dtype not in (torch.float32, torch.float64) or blocks.dtype != motifs.dtype:
        raise InvalidArgumentError(
            f"blocks and motifs must both be float32 or float64, not {blocks.dtype} and "
            f"{motifs.dtype}"
        )
    if blocks.device != motifs.device:
        raise InvalidArgumentError(
            f"blocks are on {blocks.device} and motifs on {motifs.device}; move one of them"
        )
    nearest: Tensor = _nearest_motifs(blocks.detach(), motifs.detach())
    return nearest
