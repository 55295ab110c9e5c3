"""Writes files that ``torch.load`` reads, one piece of a tensor in memory at a time.

``torch.save`` needs every tensor in memory. The format is that of torch 1.6 and later: a zip
archive, not compressed, of a pickle that describes the tensors and a record for each storage.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO, cast

import torch

from .model import Base, Bytes, Checkpoint
from .pieces import Pieces
from .tensors import torch_type
from .torch_pickle import STORAGE_TYPES
from .views import strides_within

__all__ = ["write_torch"]

_FOLDER = "archive"
_ALIGNMENT = 64  # of storages, as torch's own writer does, so that they can be mapped
_PADDING = 0x4246  # kind of the extra field that does it, likewise
_ZIP64_LIMIT = (1 << 31) - 1
_TYPES = {element: name for name, element in STORAGE_TYPES.items() if name != "UntypedStorage"}


def write_torch(file: BinaryIO, checkpoint: Checkpoint, pieces: Pieces) -> None:
    """Writes a dictionary of tensors in order; entries of one base share its storage.

    Args:
        file: A seekable file, at its start.
        checkpoint: What to write.
        pieces: Reads its bases.

    Raises:
        InvalidArgumentError: If the installed torch lacks an element type.
        CorruptionError: If an entry reaches outside its base.
    """
    tree = _pickle(checkpoint)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _write_record(archive, "data.pkl", len(tree), [tree])
        _write_record(archive, "byteorder", 6, [b"little"])
        for index, data in pieces.of(range(len(checkpoint.bases))):
            _write_record(archive, f"data/{index}", checkpoint.bases[index].nbytes, data)
        _write_record(archive, "version", 2, [b"3\n"])


def _write_record(
    archive: zipfile.ZipFile, name: str, nbytes: int, data: Iterable[bytes | Bytes]
) -> None:
    """A record whose bytes begin at a multiple of the alignment."""
    record = zipfile.ZipInfo(f"{_FOLDER}/{name}")
    record.CRC, record.file_size, record.compress_size = 0, nbytes, nbytes
    large = nbytes > _ZIP64_LIMIT
    position = archive.start_dir  # where the next record begins
    room = -(position + len(record.FileHeader(large)) + 4) % _ALIGNMENT
    record.extra = struct.pack("<HH", _PADDING, room) + b"Z" * room
    with archive.open(record, "w", force_zip64=large) as target:
        for piece in data:
            target.write(piece if isinstance(piece, bytes) else piece.data)


@dataclass(frozen=True)
class _Storage:
    """Stands for a storage in the pickle."""

    key: int
    base: Base


@dataclass(frozen=True)
class _Tensor:
    """Stands for a tensor in the pickle."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Pickler(pickle.Pickler):
    """Pickles tensors in the words of ``torch.Tensor.__reduce_ex__``, without having them."""

    def persistent_id(self, obj: Any) -> Any:
        """The reference to a storage, as ``torch.save`` writes it."""
        if not isinstance(obj, _Storage):
            return None
        name = _TYPES.get(torch_type(obj.base))
        if name is None:  # a newer type, which only the tensor knows
            return ("storage", torch.UntypedStorage, str(obj.key), "cpu", obj.base.nbytes)
        return ("storage", getattr(torch, name), str(obj.key), "cpu", obj.base.numel)

    def reducer_override(self, obj: Any) -> Any:
        """The call that rebuilds a tensor."""
        if not isinstance(obj, _Tensor):
            return NotImplemented
        arguments: tuple[Any, ...] = (
            obj.storage,
            obj.offset,
            obj.shape,
            obj.strides,
            False,
            OrderedDict(),
        )
        element = torch_type(obj.storage.base)
        if element in _TYPES:
            return torch._utils._rebuild_tensor_v2, arguments
        rebuild = cast("Any", torch._utils)._rebuild_tensor_v3
        return rebuild, (*arguments, element)


def _pickle(checkpoint: Checkpoint) -> bytes:
    storages = [_Storage(key, base) for key, base in enumerate(checkpoint.bases)]
    tensors: dict[str, _Tensor] = OrderedDict() if checkpoint.versions else {}
    for entry in checkpoint.entries:
        storage = storages[entry.base]
        strides = strides_within(entry, storage.base)
        tensors[entry.name] = _Tensor(storage, entry.offset, entry.shape, strides)
    if checkpoint.versions:
        noted = OrderedDict((name, dict(said)) for name, said in checkpoint.versions.items())
        tensors._metadata = noted  # type: ignore[attr-defined]
    buffer = BytesIO()
    _Pickler(buffer, protocol=2).dump(tensors)
    return buffer.getvalue()
