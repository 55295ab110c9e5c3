"""Reads PyTorch files: ``torch.save`` archives, the older pickle format, and modules on request."""

from __future__ import annotations

import dataclasses
import pickle
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import torch

from momos_rs.errors import CorruptionError, MomosError, UnsafeFileError

from .model import Checkpoint
from .state_dict import find_state_dict
from .tensors import from_tensors
from .zip_pickle import read_zip_pickle
from .zip_records import ZipRecords

__all__ = ["read_legacy_file", "read_torch_zip"]

# What torch.load raises on files that are damaged, or that it declines to load.
_LOAD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


def read_torch_zip(path: Path, *, allow_pickle: bool) -> Checkpoint:
    """Reads a file of ``torch.save``.

    ``torch.load(weights_only=True)`` with mapped storages comes first. What it declines because
    of harmless company (a ``Namespace`` of arguments beside the weights) is read as inert data.

    Args:
        path: The file.
        allow_pickle: Whether the file may run code of its own, should that be needed.

    Raises:
        UnsafeFileError: If the weights cannot be had without running code of the file.
        CorruptionError: If the file is damaged.
        InvalidArgumentError: If it holds no weights, or such as cannot be carried exactly.
    """
    with ZipRecords(path) as records:
        try:
            root = _load(path, weights_only=True, mmap=not records.compressed)
        except _LOAD_ERRORS:
            if not allow_pickle:
                return _to_checkpoint(read_zip_pickle(records, source=str(path)), path)
            try:
                return _to_checkpoint(read_zip_pickle(records, source=str(path)), path)
            except MomosError:
                root = _load_with_code(path, mmap=not records.compressed)
    return _to_checkpoint(root, path)


def read_legacy_file(path: Path, *, allow_pickle: bool) -> Checkpoint:
    """Reads a file in the format of ``torch.save`` before version 1.6; it cannot be mapped.

    Args and errors are those of :func:`read_torch_zip`.
    """
    try:
        root = _load(path, weights_only=True, mmap=False)
    except _LOAD_ERRORS as error:
        needed = _needed_code(error)
        if needed is None:
            raise CorruptionError(f"{path} is truncated or damaged: {_one_line(error)}") from None
        if not allow_pickle:
            raise UnsafeFileError(
                f"{path} would run {needed} to be loaded: save a state dict instead, "
                "or use --allow-pickle (allow_pickle=True) if you trust the source"
            ) from None
        root = _load_with_code(path, mmap=False)
    return _to_checkpoint(root, path)


def _to_checkpoint(root: Any, path: Path) -> Checkpoint:
    found = find_state_dict(root, source=str(path))
    return dataclasses.replace(
        from_tensors(found.tensors.items(), source=str(path)),
        format="torch",
        nbytes_on_disk=path.stat().st_size,
        left_out=tuple(found.left_out),
    )


def _load_with_code(path: Path, *, mmap: bool) -> Any:
    try:
        return _load(path, weights_only=False, mmap=mmap)
    except ImportError as error:
        raise UnsafeFileError(
            f"{path} needs code that is not installed: {_one_line(error)}"
        ) from error
    except _LOAD_ERRORS as error:
        raise CorruptionError(f"{path} cannot be loaded: {_one_line(error)}") from error


def _load(path: Path, *, weights_only: bool, mmap: bool) -> Any:
    with warnings.catch_warnings():
        # torch warns of its own internals here (TypedStorage, experimental element types).
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=mmap)


def _needed_code(error: BaseException) -> str | None:
    """The function or class that the safe unpickler declined, or None if that was not it."""
    match = re.search(
        r"(?:Unsupported global: GLOBAL|Unsupported class|unrecognized function) (\S+)", str(error)
    )
    return match[1] if match else None


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
