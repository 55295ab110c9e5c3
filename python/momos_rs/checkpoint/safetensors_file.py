"""Reads and writes safetensors files, without torch."""

from __future__ import annotations

import mmap
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from momos_rs.dtypes import DTYPES, dtype
from momos_rs.errors import InsufficientDataError, InvalidArgumentError
from momos_rs.safetensors_format import TensorInfo, encode_header, parse_header

from .model import Base, Bytes, Checkpoint, Entry
from .views import gather

__all__ = ["read_safetensors", "write_safetensors"]

_PAIRED = "F4_X2"  # torch's type of two four-bit floats to the byte,
_SINGLE = "F4"  # which safetensors counts one by one


def read_safetensors(path: Path) -> Checkpoint:
    """Reads a safetensors file; its tensors stay mapped until they are read.

    Raises:
        CorruptionError: If the file contradicts itself or the format.
        InvalidArgumentError: If it holds an element type that torch does not have.
        OSError: If it cannot be read.
    """
    file = _File(path)
    if file.size == 0:  # an empty file cannot be mapped
        raise InsufficientDataError(f"{path} is empty")
    with mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ) as mapped:
        header = parse_header(mapped, source=str(path))
    if "momos" in header.metadata:
        raise InvalidArgumentError(f"{path} is a momos archive; use momos unpack for its weights")
    entries, bases = [], []
    for index, info in enumerate(header.tensors.values()):
        name, shape = _to_torch(info, path)
        entries.append(Entry(info.name, shape, index))
        numel = info.nbytes // dtype(name).itemsize
        bases.append(Base(name, numel, _Slice(file, header.data_start + info.start, info.nbytes)))
    return Checkpoint(
        tuple(entries),
        tuple(bases),
        source=str(path),
        format="safetensors",
        nbytes_on_disk=file.size,
        metadata=header.metadata,
    )


def write_safetensors(file: BinaryIO, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint in the safetensors format, one base in memory at a time.

    The format knows no ties: entries that share a base are written in full each.

    Args:
        file: A seekable file, at its start.
        checkpoint: What to write; keys keep their order.

    Raises:
        InvalidArgumentError: If the format cannot hold an element type or a name.
        CorruptionError: If an entry reaches outside its base.
    """
    specs = [_to_format(entry, checkpoint.bases[entry.base]) for entry in checkpoint.entries]
    header = encode_header(specs, {"format": "pt"} | checkpoint.metadata)
    starts = {}
    position = len(header.data)
    for index in header.order:
        starts[index] = position
        position += specs[index][3]
    by_base: defaultdict[int, list[int]] = defaultdict(list)
    for index, entry in enumerate(checkpoint.entries):
        by_base[entry.base].append(index)

    file.write(header.data)
    reader = checkpoint.read_bases(list(by_base))
    for base_index, indices in by_base.items():
        base = checkpoint.bases[base_index]
        data = next(reader)
        for index in indices:
            file.seek(starts[index])
            file.write(gather(checkpoint.entries[index], base, data).data)
        del data
    file.seek(position)


class _File:
    """A file held open while tensors of it may be read."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self.descriptor).st_size

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@dataclass(frozen=True, eq=False)
class _Slice:
    """Maps a part of a file for as long as the bytes are in use.

    One mapping of the whole file would keep every page that was ever read resident.
    """

    file: _File
    start: int
    nbytes: int

    def __call__(self) -> Bytes:
        if self.nbytes == 0:
            return np.empty(0, np.uint8)
        skipped = self.start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self.file.descriptor,
            skipped + self.nbytes,
            access=mmap.ACCESS_READ,
            offset=self.start - skipped,
        )
        return np.frombuffer(mapped, np.uint8)[skipped:]


def _to_torch(info: TensorInfo, path: Path) -> tuple[str, tuple[int, ...]]:
    """Element type and shape as torch counts them."""
    if info.dtype == _SINGLE and info.shape and info.shape[-1] % 2 == 0:
        return _PAIRED, (*info.shape[:-1], info.shape[-1] // 2)
    if info.dtype not in DTYPES:
        raise InvalidArgumentError(
            f"tensor {info.name!r} in {path} has the element type {info.dtype} with shape "
            f"{list(info.shape)}, which torch cannot hold"
        )
    return info.dtype, info.shape


def _to_format(entry: Entry, base: Base) -> tuple[str, str, tuple[int, ...], int]:
    """Name, element type, shape and bytes as the safetensors format counts them."""
    element = dtype(base.dtype)
    nbytes = entry.numel * element.itemsize
    if base.dtype == _PAIRED and entry.shape:
        return entry.name, _SINGLE, (*entry.shape[:-1], 2 * entry.shape[-1]), nbytes
    if not element.safetensors:
        raise InvalidArgumentError(
            f"tensor {entry.name!r} has the element type {base.dtype}, which safetensors files "
            "cannot hold; write a .pt file instead"
        )
    return entry.name, base.dtype, entry.shape, nbytes
