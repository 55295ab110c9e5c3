"""Reads checkpoints: tells the kinds of file apart by their content and hands on."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from momos_rs.errors import CorruptionError, InsufficientDataError, InvalidArgumentError

from .mapped_file import check_regular
from .model import Checkpoint
from .safetensors_file import read_safetensors
from .sharded import find_in_folder, is_index, read_sharded

__all__ = ["read"]

_ZIP = b"PK\3\4"
_LEGACY_TORCH = re.compile(
    rb"\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\."
    rb"|L119547037146038801333356L\n\.",
    re.DOTALL,
)
"""The magic number, pickled by any protocol."""
_LFS_POINTER = b"version https://git-lfs"
_OTHERS = {
    b"GGUF": "a GGUF file",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array file",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\x80": "a plain pickle, not a file of torch.save",
}
_CHOICES = "PyTorch (.pt, .pth, .ckpt, .bin), TorchScript and .safetensors files can be read"


def read(path: str | os.PathLike[str], *, allow_pickle: bool = False) -> Checkpoint:
    """Reads a checkpoint; large tensors stay mapped in the file until they are read.

    Takes files of ``torch.save`` (a state dict, or anything that leads to one by the rules of
    :mod:`momos_rs.checkpoint.state_dict`), TorchScript archives, safetensors files, sharded
    checkpoints by their ``*.index.json``, and folders with one of these. The content decides, not
    the suffix. The files must not change while the checkpoint is in use.

    Args:
        path: The file or folder.
        allow_pickle: Whether a file that needs code of its own to be loaded may run it; only for
            files from a source you trust.

    Raises:
        UnsafeFileError: If the file needs that and may not.
        CorruptionError: If it is damaged; :class:`InsufficientDataError` if it is cut short.
        InvalidArgumentError: If it is something else, or holds nothing that can be carried.
        OSError: If it cannot be read.
    """
    target = Path(path)
    if target.is_dir():
        target = find_in_folder(target)
    check_regular(target)
    if is_index(target.name):
        return read_sharded(target, lambda shard: _read_file(shard, allow_pickle=allow_pickle))
    return _read_file(target, allow_pickle=allow_pickle)


def _read_file(path: Path, *, allow_pickle: bool) -> Checkpoint:
    check_regular(path)
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise InsufficientDataError(f"{path} is empty")
    zipped = start.startswith(_ZIP)
    if zipped or _LEGACY_TORCH.match(start):
        return _read_with_torch(path, zipped=zipped, allow_pickle=allow_pickle)
    if start[8:9] == b"{" or path.suffix.lower() == ".safetensors":
        _refuse_text(path, start)
        return read_safetensors(path)
    _refuse_text(path, start)
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            raise InvalidArgumentError(f"{path} is {what}; {_CHOICES}")
    raise CorruptionError(f"{path} is not a checkpoint that momos recognises; {_CHOICES}")


def _read_with_torch(path: Path, *, zipped: bool, allow_pickle: bool) -> Checkpoint:
    if zipped and _is_torchscript(path):
        from .torchscript import read_torchscript

        return read_torchscript(path, allow_pickle=allow_pickle)
    from .torch_file import read_torch_file

    return read_torch_file(path, zipped=zipped, allow_pickle=allow_pickle)


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError):
        return False  # what is wrong with it is told when it is read


def _refuse_text(path: Path, start: bytes) -> None:
    """Names what stands in for weights that were never downloaded."""
    text = start.lstrip().lower()
    if text.startswith(_LFS_POINTER):
        raise InvalidArgumentError(
            f"{path} is a Git LFS pointer, not the weights; fetch them with git lfs pull"
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise InvalidArgumentError(f"{path} is a web page, not weights; download the file itself")
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in start) and _is_utf8(start):
        raise InvalidArgumentError(f"{path} is a text file, not weights; {_CHOICES}")


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # cut within a character
    return True
