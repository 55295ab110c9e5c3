"""Reads the pickles of PyTorch files as data, their tensors mapped from the file.

The tensors are rebuilt as ``torch._utils`` would, after checking that each stays within its
storage; everything else stays inert (:mod:`momos_rs.checkpoint.pickle_tree`).
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from momos_rs.errors import CorruptionError, InsufficientDataError, UnsupportedVersionError

from .model import Bytes
from .pickle_tree import Global, StorageReference, read_pickle
from .tensors import over_bytes
from .views import span
from .zip_records import ZipRecords

__all__ = ["STORAGE_TYPES", "read_legacy_pickle", "read_zip_pickle"]

STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
"""Element types by the name of the class of storage that stands for them in a pickle."""

_PARAMETERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
)
_WIDEST_ELEMENT = 16  # bytes; torch aligns storages to more, an archive packed anew may not

LoadStorage = Callable[[str, torch.dtype], Bytes]


def read_zip_pickle(records: ZipRecords, *, source: str) -> Any:
    """What ``data.pkl`` describes; tensors are real, calls to anything else are recorded only.

    Raises:
        CorruptionError: If the pickle is damaged, or a tensor reaches outside its storage.
        UnsupportedVersionError: If the file's byte order is not this machine's.
    """
    if "byteorder" in records.names():
        order = records.read("byteorder").tobytes().decode("ascii", "replace")
        _check_byte_order(order, source)
    builder = _TensorBuilder(lambda key, _: records.read(f"data/{key}"), source)
    data = records.read("data.pkl").tobytes()
    return read_pickle(data, construct=builder.construct, source=source)


def read_legacy_pickle(path: Path) -> Any:
    """As :func:`read_zip_pickle`, of the format of ``torch.save`` before version 1.6.

    That is five pickles (magic number, version, system, object, storage keys), then each storage
    as its number of elements (int64) and the elements.
    """
    source = str(path)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    _magic, _version, system = (read_pickle(mapped, source=source) for _ in range(3))
    if isinstance(system, dict):
        _check_byte_order("little" if system.get("little_endian", True) else "big", source)

    # The storages come after the pickle that refers to them: first it is read for their types
    # alone, then, once their places are known, for the tensors.
    types: dict[str, torch.dtype] = {}
    start = mapped.tell()
    read_pickle(mapped, refer=_TypeCollector(types), source=source)
    keys = read_pickle(mapped, source=source)
    storages = _legacy_storages(np.frombuffer(mapped, np.uint8), mapped.tell(), keys, types, source)
    mapped.seek(start)
    builder = _TensorBuilder(lambda key, _: storages[key], source)
    return read_pickle(mapped, construct=builder.construct, source=source)


def _legacy_storages(
    data: Bytes, position: int, keys: Any, types: dict[str, torch.dtype], source: str
) -> dict[str, Bytes]:
    if not isinstance(keys, list):
        raise CorruptionError(f"{source} does not list its storages")
    storages = {}
    for key in map(str, keys):
        if key not in types:
            raise CorruptionError(f"{source} lists a storage {key!r} that nothing refers to")
        numel = int.from_bytes(data[position : position + 8].tobytes(), "little")
        start = position + 8
        position = start + numel * types[key].itemsize
        if position > data.size:
            raise InsufficientDataError(f"{source} is truncated: storage {key!r} is not complete")
        storages[key] = data[start:position]
    return storages


def _check_byte_order(order: str, source: str) -> None:
    if order not in ("little", "big"):
        raise CorruptionError(f"{source} states the impossible byte order {order!r:.40}")
    if order != sys.byteorder:
        raise UnsupportedVersionError(
            f"{source} is in {order}-endian byte order; save it anew on a {sys.byteorder}-endian "
            "machine"
        )


class _TypeCollector:
    """Notes the element type of every storage a pickle refers to."""

    def __init__(self, types: dict[str, torch.dtype]) -> None:
        self._types = types

    def __call__(self, reference: StorageReference) -> None:
        key, element, view = _storage_fields(reference)
        if view is not None:
            raise ValueError("storages that are views of others are not supported")
        if self._types.setdefault(key, element) != element:
            raise ValueError(f"the storage {key!r} has two element types")


class _TensorBuilder:
    """Rebuilds tensors from the calls that pickles make for them."""

    def __init__(self, load: LoadStorage, source: str) -> None:
        self._load = load
        self._source = source
        self._storages: dict[str, Bytes] = {}

    def construct(self, kind: Global, arguments: tuple[Any, ...]) -> Any:
        """A tensor for the calls that stand for one; every other call is not understood."""
        name = str(kind)
        if name == "torch._utils._rebuild_tensor_v2":
            return self._rebuild(*arguments[:4])
        if name == "torch._utils._rebuild_tensor_v3":
            return self._rebuild(*arguments[:4], element=arguments[6])
        if name in _PARAMETERS and isinstance(arguments[0], torch.Tensor):
            return arguments[0]
        return NotImplemented

    def _rebuild(
        self, storage: Any, offset: Any, shape: Any, strides: Any, *, element: Any = None
    ) -> torch.Tensor:
        if not isinstance(storage, StorageReference):
            raise TypeError("a tensor has no storage")
        key, dtype, _ = _storage_fields(storage)
        if element is not None:
            dtype = _element_type(element)
        sizes = (offset, *shape, *strides)
        if any(type(size) is not int or size < 0 for size in sizes) or len(shape) != len(strides):
            raise ValueError(f"a tensor has the impossible shape {shape!r:.100}")
        data = self._storage(key, dtype)
        numel = data.nbytes // dtype.itemsize
        if offset + span(shape, strides) > numel:
            raise CorruptionError(
                f"a tensor of shape {tuple(shape)} in {self._source} reaches outside its storage"
            )
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        flat = over_bytes(data[: numel * dtype.itemsize], dtype)
        return flat.as_strided(shape, strides, offset)

    def _storage(self, key: str, element: torch.dtype) -> Bytes:
        if key not in self._storages:
            data = self._load(key, element)
            if data.ctypes.data % _WIDEST_ELEMENT and data.ctypes.data % element.itemsize:
                data = data.copy()
            self._storages[key] = data
        return self._storages[key]


def _storage_fields(reference: StorageReference) -> tuple[str, torch.dtype, Any]:
    """Key, element type and view of the reference ``("storage", type, key, device, numel)``."""
    fields = reference.key
    if not isinstance(fields, tuple) or len(fields) < 5 or fields[0] != "storage":
        raise TypeError("a reference is not to a storage")
    return str(fields[2]), _element_type(fields[1]), fields[5] if len(fields) > 5 else None


def _element_type(name: Any) -> torch.dtype:
    if not isinstance(name, Global):
        raise TypeError("a storage has no type")
    if name.name in STORAGE_TYPES:
        return STORAGE_TYPES[name.name]
    dtype = getattr(torch, name.name, None) if name.module == "torch" else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"the storage type {name} is not known")
    return dtype
