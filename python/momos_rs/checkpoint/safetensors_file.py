"""Reads and writes safetensors files, without torch."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from momos_rs.dtypes import DTYPES, dtype
from momos_rs.errors import InsufficientDataError, InvalidArgumentError

from .mapped_file import MappedFile, MappedPart
from .model import Base, Bytes, Checkpoint, Entry
from .pieces import Pieces
from .safetensors_layout import (
    EncodedHeader,
    TensorInfo,
    adopt_header,
    encode_header,
    head_bytes,
    parse_header,
)
from .views import contiguous_range, gather

__all__ = ["header_to_keep", "read_safetensors", "write_safetensors"]

_VERSIONS = "torch.modules"
"""Key of the metadata that says of modules, as JSON, what a state dict of torch has as
``_metadata``."""

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
    first = file.read(0, min(8, file.size)).tobytes()
    head = file.read(0, head_bytes(first, file.size))
    header = parse_header(head.data, source=str(path), size=file.size)
    if "momos" in header.metadata:
        raise InvalidArgumentError(f"{path} is a momos archive; use momos unpack for its weights")
    versions = _versions(header.metadata.pop(_VERSIONS, "{}"))
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
        versions=versions,
        header=header.raw,
    )


def _versions(text: str) -> dict[str, dict[str, Any]]:
    """What the metadata says of modules; nothing if it is not what is written here."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, dict) or not all(isinstance(each, dict) for each in said.values()):
        return {}
    return {
        name: {key: value for key, value in each.items() if not isinstance(value, (dict, list))}
        for name, each in said.items()
    }


def write_safetensors(file: BinaryIO, checkpoint: Checkpoint, pieces: Pieces) -> None:
    """Writes a checkpoint in the safetensors format, one piece of a base in memory at a time.

    The format knows no ties: entries that share a base are written in full each. A checkpoint with
    a header gets it back byte for byte, and so a file of lossless tensors is what it was.

    Args:
        file: A seekable file, at its start.
        checkpoint: What to write; keys keep their order.
        pieces: Reads its bases.

    Raises:
        InvalidArgumentError: If the format cannot hold an element type or a name.
        CorruptionError: If an entry reaches outside its base, or the header is not theirs.
    """
    specs = _specs(checkpoint)
    if checkpoint.header:
        header = adopt_header(checkpoint.header, specs, source=checkpoint.source)
    else:
        header = _default_header(checkpoint)
    starts = {}
    position = len(header.data)
    for index in header.order:
        starts[index] = position
        position += specs[index][3]
    by_base: defaultdict[int, list[int]] = defaultdict(list)
    for index, entry in enumerate(checkpoint.entries):
        by_base[entry.base].append(index)

    file.write(header.data)
    for base_index, data in pieces.of(list(by_base)):
        base = checkpoint.bases[base_index]
        entries = [(starts[index], checkpoint.entries[index]) for index in by_base[base_index]]
        _write_entries(file, base, entries, data)
    file.seek(position)


def header_to_keep(checkpoint: Checkpoint) -> bytes:
    """The header without which :func:`write_safetensors` would write another file, else nothing."""
    if not checkpoint.header or _default_header(checkpoint).data[8:] == checkpoint.header:
        return b""
    return checkpoint.header


def _default_header(checkpoint: Checkpoint) -> EncodedHeader:
    metadata = {"format": "pt"} | checkpoint.metadata
    if checkpoint.versions:
        metadata[_VERSIONS] = json.dumps(checkpoint.versions, separators=(",", ":"))
    return encode_header(_specs(checkpoint), metadata)


def _specs(checkpoint: Checkpoint) -> list[tuple[str, str, tuple[int, ...], int]]:
    return [_to_format(entry, checkpoint.bases[entry.base]) for entry in checkpoint.entries]


def _write_entries(
    file: BinaryIO, base: Base, entries: Sequence[tuple[int, Entry]], pieces: Iterator[Bytes]
) -> None:
    """Writes the entries of one base, each at its place in the file."""
    ranges = [contiguous_range(entry, base) for _, entry in entries]
    if None in ranges:  # elements in another order, for which the base is needed whole
        data = np.concatenate([np.empty(0, np.uint8), *pieces])
        for start, entry in entries:
            file.seek(start)
            file.write(gather(entry, base, data).data)
        return
    itemsize = dtype(base.dtype).itemsize
    done = 0
    for piece in pieces:
        for (start, _), (first, last) in zip(entries, filter(None, ranges), strict=True):
            begin, end = first * itemsize, last * itemsize
            overlap = piece[max(begin - done, 0) : max(end - done, 0)]
            if overlap.size:
                file.seek(start + max(done - begin, 0))
                file.write(overlap.data)
        done += piece.size


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
