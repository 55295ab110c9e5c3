"""Which tensors of a state dict are trainable parameters.

A state dict does not say which of its tensors are parameters and which are buffers, so buffers are
told by their element type (integers, booleans and complex numbers are not weights) and by the names
that torch's normalisation layers give their running statistics.
"""

from __future__ import annotations

from momos_rs.dtypes import dtype

__all__ = ["RUNNING_STATISTICS", "is_running_statistic", "is_trainable", "why_not_trainable"]

RUNNING_STATISTICS: frozenset[str] = frozenset(
    {"running_mean", "running_var", "num_batches_tracked"}
)
"""Names of the buffers of ``torch.nn.BatchNorm*``, ``InstanceNorm*`` and their descendants."""


def is_running_statistic(name: str) -> bool:
    """Whether a tensor of that name is a running statistic of a normalisation layer.

    Args:
        name: Its key in the state dict; the part behind the last dot decides.
    """
    return name.rpartition(".")[2] in RUNNING_STATISTICS


def why_not_trainable(name: str, dtype_name: str) -> str | None:
    """Why a tensor of a state dict is no trainable parameter; None if it is one.

    Args:
        name: Its key in the state dict.
        dtype_name: Its element type, a key of :data:`momos_rs.dtypes.DTYPES`.

    Raises:
        InvalidArgumentError: If there is no such element type.
    """
    if is_running_statistic(name):
        return "running statistic"
    if not dtype(dtype_name).floating:
        return f"elements of type {dtype_name} are not weights"
    return None


def is_trainable(name: str, dtype_name: str) -> bool:
    """Whether a tensor of a state dict is a trainable parameter, as far as one can tell.

    Args:
        name: Its key in the state dict.
        dtype_name: Its element type, a key of :data:`momos_rs.dtypes.DTYPES`.

    Raises:
        InvalidArgumentError: If there is no such element type.
    """
    return why_not_trainable(name, dtype_name) is None
