"""Unpacking an archive into a state dict or a checkpoint file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from momos_rs import checkpoint
from momos_rs.archive import PIECES_DECODED, open_archive
from momos_rs.checkpoint.writing import bytes_in_another_order, check_suffix
from momos_rs.runtime.progress import Progress, counted
from momos_rs.runtime.resources import Resources

if TYPE_CHECKING:
    import torch

from .options import ARCHIVE_SUFFIX, PathLike, beside

__all__ = [
    "load",
    "unpack",
    "unpack_file",
]


def unpack(archive: bytes, *, max_bytes: int | None = None) -> dict[str, torch.Tensor]:
    """The state dict in an archive in memory.

    Args:
        archive: The archive's bytes.
        max_bytes: Most bytes of tensors to accept; see :func:`momos_rs.open`.

    Returns:
        Tensors in their order, on the CPU, tied as they were.

    Raises:
        CorruptionError: If the archive is damaged.
        UnsupportedVersionError: If it needs a newer version of momos.
    """
    with open_archive(archive, max_bytes=max_bytes) as opened:
        return checkpoint.to_state_dict(opened.checkpoint())


def unpack_file(
    source: PathLike,
    target: PathLike | None = None,
    *,
    overwrite: bool = False,
    max_bytes: int | None = None,
    memory: int | str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Unpacks an archive into a checkpoint file.

    Args:
        source: The archive.
        target: The file, its suffix choosing the format (``.pt``, ``.safetensors``, ...); beside
            the source, in the format of the original, by default.
        overwrite: Whether an existing target may be replaced.
        max_bytes: Most bytes of tensors to accept; see :func:`momos_rs.open`.
        memory: Bytes of memory to use beyond what the program takes itself, or a size like
            ``"4G"``; half of what is free by default. The file does not depend on it.
        threads: Number of threads; all cores by default.
        progress: Called with a phase, the bytes done and the bytes in all.

    Returns:
        The path of the file.

    Raises:
        OSError: If a file cannot be read or written.
        CorruptionError: If the archive is damaged; then no file is written.
        UnsupportedVersionError: If it needs a newer version of momos.
        InvalidArgumentError: If the memory is too little, or the suffix is unknown.
    """
    source = Path(source)
    resources = Resources(memory, threads)
    with open_archive(source, max_bytes=max_bytes) as archive:
        if target is None:
            origin = archive.document.source.get("format")
            target = beside(source, ".safetensors" if origin == "safetensors" else ".pt")
        target = Path(target)
        check_suffix(target)
        checkpoint.check_not_input(target, source)
        model = archive.checkpoint()
        once, per_thread = archive.decoding_memory()
        shares = resources.share_out(
            doing=f"unpacking {source}",
            once=once + 2 * bytes_in_another_order(target, model),
            per_thread=per_thread,
            pieces=PIECES_DECODED,
        )
        archive.threads = shares.threads
        checkpoint.write(
            target,
            model,
            overwrite=overwrite,
            piece_bytes=shares.piece_bytes,
            threads=shares.threads,
            progress=counted(progress, "unpack", model.nbytes),
        )
    return target


def load(
    source: PathLike, *, allow_pickle: bool = False, max_bytes: int | None = None
) -> dict[str, torch.Tensor]:
    """The state dict in an archive or in any checkpoint that momos reads.

    Args:
        source: An archive (``.momos``), or a file or folder of weights.
        allow_pickle: Whether a checkpoint may run code of its own to be loaded.
        max_bytes: Most bytes of tensors to accept of an archive; see :func:`momos_rs.open`.

    Raises:
        OSError: If the file cannot be read.
        CorruptionError: If it is damaged.
        UnsafeFileError: If it needs code to load.
    """
    source = Path(source)
    if source.suffix == ARCHIVE_SUFFIX:
        with open_archive(source, max_bytes=max_bytes) as archive:
            return checkpoint.to_state_dict(archive.checkpoint())
    return checkpoint.to_state_dict(checkpoint.read(source, allow_pickle=allow_pickle))
