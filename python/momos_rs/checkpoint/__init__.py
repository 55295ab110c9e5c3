"""Files of weights to named tensors and back.

:func:`read` takes PyTorch files, TorchScript archives, safetensors files and sharded folders;
:func:`write` makes PyTorch and safetensors files. Between them stands :class:`Checkpoint`, which
knows of no file format. torch is imported only where tensors of its own come in: safetensors files
are read and written without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .model import Base, Checkpoint, Entry
from .reading import read
from .writing import check_not_input, write

if TYPE_CHECKING:
    from .tensors import from_state_dict, to_state_dict

__all__ = [
    "Base",
    "Checkpoint",
    "Entry",
    "check_not_input",
    "from_state_dict",
    "read",
    "to_state_dict",
    "write",
]


def __getattr__(name: str) -> Any:
    if name in ("from_state_dict", "to_state_dict"):
        from . import tensors

        return getattr(tensors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
