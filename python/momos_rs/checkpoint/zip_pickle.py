"""Reads the pickle of a torch zip archive as data, with its tensors mapped from the records.

The tensors are rebuilt as ``torch._utils`` would, after checking that each stays within its
storage; everything else stays inert (:mod:`momos_rs.checkpoint.pickle_tree`).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from momos_rs.errors import CorruptionError, UnsupportedVersionError

from .model import Bytes
from .pickle_tree import Global, StorageReference, read_pickle
from .tensors import over_bytes
from .views import span
from .zip_records import ZipRecords

__all__ = ["read_zip_pickle"]

_STORAGE_TYPES = {
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
}


def read_zip_pickle(records: ZipRecords, *, source: str) -> Any:
    """What ``data.pkl`` describes; tensors are real, calls to anything else are recorded only.

    Raises:
        CorruptionError: If the pickle is damaged, or a tensor reaches outside its storage.
        UnsupportedVersionError: If the file's byte order is not this machine's.
    """
    if "byteorder" in records.names():
        order = records.read("byteorder").tobytes().decode("ascii", "replace")
        if order != sys.byteorder:
            raise UnsupportedVersionError(
                f"{source} is in {order}-endian byte order; save it anew on such a machine"
            )
    builder = _TensorBuilder(records, source)
    data = records.read("data.pkl").tobytes()
    return read_pickle(data, construct=builder.construct, source=source)


class _TensorBuilder:
    def __init__(self, records: ZipRecords, source: str) -> None:
        self._records = records
        self._source = source
        self._storages: dict[str, Bytes] = {}

    def construct(self, kind: Global, arguments: tuple[Any, ...]) -> Any:
        """Rebuilds tensors and parameters; every other call is not understood."""
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
            raise TypeError("a tensor without a storage")
        _, storage_type, key, *_ = storage.key
        dtype = _element_type(storage_type if element is None else element)
        sizes = (offset, *shape, *strides)
        if any(type(size) is not int or size < 0 for size in sizes) or len(shape) != len(strides):
            raise ValueError("a tensor of impossible shape")
        data = self._storage(str(key))
        numel = data.nbytes // dtype.itemsize
        if offset + span(shape, strides) > numel:
            raise CorruptionError(
                f"a tensor of shape {tuple(shape)} in {self._source} reaches outside its storage"
            )
        flat = over_bytes(data[: numel * dtype.itemsize], dtype)
        return flat.as_strided(shape, strides, offset)

    def _storage(self, key: str) -> Bytes:
        if key not in self._storages:
            data = self._records.read(f"data/{key}")
            if data.ctypes.data % 16:  # torch aligns records; an archive packed anew may not
                data = np.copy(data)
            self._storages[key] = data
        return self._storages[key]


_PARAMETERS = {
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
}


def _element_type(name: Any) -> torch.dtype:
    if not isinstance(name, Global):
        raise TypeError("a storage without a type")
    if name.name in _STORAGE_TYPES:
        return _STORAGE_TYPES[name.name]
    dtype = getattr(torch, name.name, None) if name.module == "torch" else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"the unknown storage type {name}")
    return dtype
