"""Writes checkpoints: PyTorch and safetensors files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from momos_rs.dtypes import dtype
from momos_rs.errors import InvalidArgumentError
from momos_rs.runtime.atomic_file import replacing
from momos_rs.runtime.budget import LARGEST_PIECE

from .model import Checkpoint
from .pieces import Pieces
from .safetensors_file import write_safetensors
from .sharded import is_index
from .views import contiguous_range

__all__ = [
    "WRITABLE_SUFFIXES",
    "bytes_in_another_order",
    "check_not_input",
    "check_suffix",
    "write",
]

ARCHIVE_SUFFIX = ".momos"
_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

WRITABLE_SUFFIXES = (*_TORCH_SUFFIXES, ".safetensors")
"""The suffixes that choose the format written."""


def write(
    path: str | os.PathLike[str],
    checkpoint: Checkpoint,
    *,
    overwrite: bool = False,
    piece_bytes: int = LARGEST_PIECE,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Writes a checkpoint in the format that the suffix asks for.

    ``.pt``, ``.pth``, ``.bin`` and ``.ckpt`` are PyTorch's: a dictionary of tensors in order, tied
    tensors sharing storage. ``.safetensors`` keeps keys and metadata but knows no ties: tied
    tensors are written in full each.

    Args:
        path: The file to write; it appears only once it is complete.
        checkpoint: What to write.
        overwrite: Whether an existing file may be replaced.
        piece_bytes: Most bytes of a tensor in memory at once, where it can be read in pieces; does
            not change the file.
        threads: Tensors decoded at once; all cores by default.
        progress: Called with the bytes read so far.

    Raises:
        InvalidArgumentError: If the suffix is none of these, or the format cannot hold a tensor.
        OSError: If the file exists, or cannot be written.
    """
    target = Path(path)
    check_suffix(target)
    with replacing(target, overwrite=overwrite) as file:
        pieces = Pieces(checkpoint, piece_bytes, threads=threads, progress=progress)
        if target.suffix.lower() in _TORCH_SUFFIXES:
            from .torch_writer import write_torch

            write_torch(file, checkpoint, pieces)
        else:
            write_safetensors(file, checkpoint, pieces)


def check_not_input(target: Path, source: Path) -> None:
    """Fails early if writing a file would replace what it is made from, also through a link.

    Args:
        target: The file to write.
        source: The file or folder of weights; of an index or a folder, no file beside is replaced.

    Raises:
        InvalidArgumentError: If it would.
    """
    if not target.is_file():
        return
    folder = source if source.is_dir() else source.parent if is_index(source.name) else None
    files = [source] if folder is None else [each for each in folder.iterdir() if each.is_file()]
    for file in files:
        # What is packed beside a folder's weights is replaced when it is packed again.
        if file.suffix.lower() != ARCHIVE_SUFFIX and file.exists() and file.samefile(target):
            raise InvalidArgumentError(f"{target} is what is read; name another file to write")
    if source.exists() and source.samefile(target):
        raise InvalidArgumentError(f"{target} is what is read; name another file to write")


def check_suffix(path: Path) -> None:
    """Fails early if :func:`write` does not know the suffix.

    Raises:
        InvalidArgumentError: If it does not.
    """
    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        choices = ", ".join(WRITABLE_SUFFIXES)
        raise InvalidArgumentError(f"{path} must end in one of {choices}, which choose the format")


def bytes_in_another_order(path: Path, checkpoint: Checkpoint) -> int:
    """Bytes of the largest base that :func:`write` needs in memory as a whole.

    Only safetensors files need any: they hold every tensor in C order.
    """
    if path.suffix.lower() in _TORCH_SUFFIXES:
        return 0
    views = ((entry, checkpoint.bases[entry.base]) for entry in checkpoint.entries)
    scattered = (
        max(base.nbytes, entry.numel * dtype(base.dtype).itemsize)
        for entry, base in views
        if contiguous_range(entry, base) is None
    )
    return max(scattered, default=0)
