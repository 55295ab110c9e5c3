"""Reads and writes safetensors files, without torch."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import BinaryIO

from momos_rs.dtypes import DTYPES, dtype
from momos_rs.errors import InsufficientDataError, InvalidArgumentError
from momos_rs.safetensors_format import TensorInfo, encode_header, parse_header

from .mapped_file import MappedFile, MappedPart
from .model import Base, Checkpoint, Entry
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
    file = MappedFile(path)
    if file.size == 0:  # an empty file cannot be mapped
        raise InsufficientDataError(f"{path} is empty")
    header = parse_header(file.read(0, file.size).data, source=str(path))
    if "momos" in header.metadata:
        raise InvalidArgumentError(f"{path} is a momos archive; use momos unpack for its weights")
    entries, bases = [], []
    for index, info in enumerate(header.tensors.values()):
        name, shape = _to_torch(info, path)
        entries.append(Entry(info.name, shape, index))
        itemsize = dtype(name).itemsize
        numel = info.nbytes // itemsize
        elements = MappedPart(file, header.data_start + info.start, numel, itemsize)
        bases.append(Base(name, numel, elements, read_part=elements.part))
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
