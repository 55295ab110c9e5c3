"""Writes checkpoints: PyTorch and safetensors files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import BinaryIO

from momos_rs.errors import InvalidArgumentError
from momos_rs.files import replacing

from .model import Checkpoint
from .safetensors_file import write_safetensors

__all__ = ["WRITABLE_SUFFIXES", "check_suffix", "write"]

_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

WRITABLE_SUFFIXES = (*_TORCH_SUFFIXES, ".safetensors")
"""The suffixes that choose the format written."""


def write(path: str | os.PathLike[str], checkpoint: Checkpoint, *, overwrite: bool = False) -> None:
    """Writes a checkpoint in the format that the suffix asks for.

    ``.pt``, ``.pth``, ``.bin`` and ``.ckpt`` are PyTorch's: a dictionary of tensors in order, tied
    tensors sharing storage. ``.safetensors`` keeps keys and metadata but knows no ties: tied
    tensors are written in full each.

    Args:
        path: The file to write; it appears only once it is complete.
        checkpoint: What to write.
        overwrite: Whether an existing file may be replaced.

    Raises:
        InvalidArgumentError: If the suffix is none of these, or the format cannot hold a tensor.
        OSError: If the file exists, or cannot be written.
    """
    target = Path(path)
    check_suffix(target)
    with replacing(target, overwrite=overwrite) as file:
        if target.suffix.lower() in _TORCH_SUFFIXES:
            _write_torch(file, checkpoint)
        else:
            write_safetensors(file, checkpoint)


def check_suffix(path: Path) -> None:
    """Fails early if :func:`write` does not know the suffix.

    Raises:
        InvalidArgumentError: If it does not.
    """
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        choices = ", ".join(WRITABLE_SUFFIXES)
        raise InvalidArgumentError(f"{path} must end in one of {choices}, which choose the format")


def _write_torch(file: BinaryIO, checkpoint: Checkpoint) -> None:
    import torch

    from .tensors import to_state_dict

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls rare element types experimental
        torch.save(to_state_dict(checkpoint, copy=False), file)
