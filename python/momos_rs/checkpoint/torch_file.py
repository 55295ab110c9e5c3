"""Reads files of ``torch.save``."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import torch

from momos_rs.errors import CorruptionError, MomosError, UnsafeFileError

from .mappings import read_from_file
from .model import Checkpoint
from .state_dict import find_state_dict
from .tensors import from_tensors
from .torch_pickle import read_legacy_pickle, read_zip_pickle
from .zip_records import ZipRecords, is_zip

__all__ = ["read_torch_file"]

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


def read_torch_file(path: Path, *, allow_pickle: bool) -> Checkpoint:
    """Reads a file of ``torch.save``, in today's format or that before version 1.6.

    ``torch.load(weights_only=True)`` comes first, with mapped storages where the format has them.
    What it declines because of harmless company (a ``Namespace`` of arguments beside the weights)
    is read as inert data.

    Args:
        path: The file.
        allow_pickle: Whether the file may run code of its own, should that be needed.

    Raises:
        UnsafeFileError: If the weights cannot be had without running code of the file.
        CorruptionError: If the file is damaged.
        InvalidArgumentError: If it holds no weights, or such as cannot be carried exactly.
    """
    mappable = is_zip(path)
    if mappable:
        with ZipRecords(path) as records:
            mappable = not records.compressed
    try:
        root = _load(path, weights_only=True, mmap=mappable)
    except _LOAD_ERRORS:
        try:
            return _to_checkpoint(_read_as_data(path), path)
        except MomosError:
            if not allow_pickle:
                raise
        root = _load_with_code(path, mmap=mappable)
    return _to_checkpoint(root, path)


def _read_as_data(path: Path) -> Any:
    if not is_zip(path):
        return read_legacy_pickle(path)
    with ZipRecords(path) as records:
        return read_zip_pickle(records, source=str(path))


def _to_checkpoint(root: Any, path: Path) -> Checkpoint:
    found = find_state_dict(root, source=str(path))
    carried = dataclasses.replace(
        from_tensors(found.tensors.items(), source=str(path)),
        format="torch",
        nbytes_on_disk=path.stat().st_size,
        left_out=tuple(found.left_out),
    )
    return read_from_file(carried, path)


def _load_with_code(path: Path, *, mmap: bool) -> Any:
    try:
        return _load(path, weights_only=False, mmap=mmap)
    except (ImportError, AttributeError) as error:
        raise UnsafeFileError(
            f"{path} needs code that is not installed: {_one_line(error)}"
        ) from error
    except _LOAD_ERRORS as error:
        raise CorruptionError(f"{path} cannot be loaded: {_one_line(error)}") from error


def _load(path: Path, *, weights_only: bool, mmap: bool) -> Any:
    with warnings.catch_warnings():
        # torch warns of its own internals here (TypedStorage, experimental element types).
        warnings.simplefilter("ignore")
        if path.suffix.lower() == ".safetensors":  # which torch.load believes, unlike us
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=weights_only)
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=mmap)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
