"""Reads files of ``torch.save``."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import torch

from momos_rs.errors import CorruptionError, UnsafeFileError

from .file_addresses import FileAddresses
from .model import Checkpoint
from .state_dict import find_state_dict
from .tensors import from_tensors
from .torch_pickle import read_legacy_pickle, read_zip_pickle
from .zip_records import ZipRecords

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


def read_torch_file(path: Path, *, zipped: bool, allow_pickle: bool) -> Checkpoint:
    """Reads a file of ``torch.save``, in today's format or that before version 1.6.

    The file is read as inert data, whatever it holds: ``torch.load`` believes what a file says of
    itself, and a damaged one would give memory of the process for weights. It is asked only for
    objects whose code has to be run, and only if that is allowed.

    Args:
        path: The file.
        zipped: Whether it is in today's format.
        allow_pickle: Whether the file may run code of its own, should that be needed.

    Raises:
        UnsafeFileError: If the weights cannot be had without running code of the file.
        CorruptionError: If the file is damaged.
        InvalidArgumentError: If it holds no weights, or such as cannot be carried exactly.
    """
    root, addresses = _read_as_data(path, zipped=zipped)
    try:
        return _to_checkpoint(root, addresses, path)
    except UnsafeFileError:
        if not allow_pickle:
            raise
    return _to_checkpoint(_load_with_code(path), None, path)


def _read_as_data(path: Path, *, zipped: bool) -> tuple[Any, FileAddresses]:
    if not zipped:
        return read_legacy_pickle(path)
    with ZipRecords(path) as records:
        return read_zip_pickle(records, source=str(path))


def _to_checkpoint(root: Any, addresses: FileAddresses | None, path: Path) -> Checkpoint:
    found = find_state_dict(root, source=str(path))
    carried = dataclasses.replace(
        from_tensors(found.tensors.items(), source=str(path)),
        format="torch",
        nbytes_on_disk=path.stat().st_size,
        left_out=tuple(found.left_out),
        versions=found.versions,
    )
    return carried if addresses is None else addresses.read(carried)


def _load_with_code(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch warns of its own internals here (TypedStorage, experimental element types).
            warnings.simplefilter("ignore")
            with path.open("rb") as file:  # not by name: torch believes a suffix, unlike us
                return torch.load(file, map_location="cpu", weights_only=False)
    except (ImportError, AttributeError) as error:
        raise UnsafeFileError(
            f"{path} needs code that is not installed: {_one_line(error)}"
        ) from error
    except _LOAD_ERRORS as error:
        raise CorruptionError(f"{path} cannot be loaded: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
