"""Reads the pickles of PyTorch files as data.

The tensors are rebuilt as ``torch._utils`` would, over addresses that stand for the file
(:mod:`momos_rs.checkpoint.file_addresses`), after checking that each stays within its storage and
that its storage is as long as the pickle says; everything else stays inert
(:mod:`momos_rs.checkpoint.pickle_tree`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from momos_rs.errors import CorruptionError, InsufficientDataError, UnsupportedVersionError

from .file_addresses import FileAddresses
from .mapped_file import MappedFile
from .model import Bytes
from .numpy_pickle import array_of, is_reconstruction, rebuild
from .pickle_tree import (
    Global,
    PickledArray,
    PickledObject,
    StorageReference,
    Uncarried,
    read_pickle,
    shorten,
)
from .tensors import as_tensor, over_bytes
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

_QUANTISED_STORAGE_TYPES = {
    "QUInt8Storage": torch.uint8,
    "QInt8Storage": torch.int8,
    "QInt32Storage": torch.int32,
    "QUInt4x2Storage": torch.uint8,
    "QUInt2x4Storage": torch.uint8,
}
"""Those of quantised tensors, which are passed over, as plain types of the same size."""

_PARAMETERS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
    "torch.nn.parameter.Buffer",
)

_SUBCLASSES = ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type")

_FROM_ARRAYS = (
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_xla_tensor",
)

_QUANTISED = "it is quantised; dequantize() it, or save its int_repr(), scale and zero point"
_NESTED = "it is nested; save its parts"
_WRAPPER = "it is of a class of its own, not plain memory; convert it to plain tensors"
_UNINITIALISED = "it is not initialised yet; run the model once before"

_UNCARRIED = {
    "torch._utils._rebuild_qtensor": _QUANTISED,
    "torch._utils._rebuild_meta_tensor_no_storage": (
        "it is on the meta device and has no data; load the weights first"
    ),
    "torch._utils._rebuild_nested_tensor": _NESTED,
    "torch.nested._internal.nested_tensor._rebuild_njt": _NESTED,
    "torch._utils._rebuild_wrapper_subclass": _WRAPPER,
    "torch.nn.parameter.UninitializedParameter": _UNINITIALISED,
    "torch.nn.parameter.UninitializedBuffer": _UNINITIALISED,
}
"""Tensors that torch would rebuild and nothing here can carry, with the way out."""

_SPARSE = ("torch._utils._rebuild_sparse_tensor", "torch._utils._rebuild_sparse_csr_tensor")
_DEVICES = ("torch._utils._rebuild_device_tensor_from_cpu_tensor",)

LoadStorage = Callable[["_StorageFields"], Bytes]


def read_zip_pickle(records: ZipRecords, *, source: str) -> tuple[Any, FileAddresses]:
    """What ``data.pkl`` describes; calls to anything but tensors are recorded only.

    Returns:
        The value, and what the addresses of its tensors stand for.

    Raises:
        CorruptionError: If the pickle is damaged, or a tensor reaches outside its storage.
        UnsupportedVersionError: If the file's byte order is not this machine's.
    """
    if "byteorder" in records.names():
        order = records.read("byteorder").tobytes()[:10].decode("ascii", "replace")
        _check_byte_order(order, source)
    addresses = FileAddresses(records.file)

    def load(storage: _StorageFields) -> Bytes:
        name = f"data/{storage.key}"
        if not records.stored(name):
            return records.read(name)
        return addresses.of_record(records.place(name))

    builder = _TensorBuilder(load, addresses, source)
    data = records.read("data.pkl").tobytes()
    return read_pickle(data, construct=builder.construct, source=source), addresses


def read_legacy_pickle(path: Path) -> tuple[Any, FileAddresses]:
    """As :func:`read_zip_pickle`, of the format of ``torch.save`` before version 1.6.

    That is five pickles (magic number, version, system, object, storage keys), then each storage
    as its number of elements (int64) and the elements.
    """
    source = str(path)
    mapped = MappedFile(path)
    with path.open("rb") as file:
        pickles = _Pickles(file, mapped.size)
        _magic, _version, system = (read_pickle(pickles, source=source) for _ in range(3))
        if isinstance(system, dict):
            _check_byte_order("little" if system.get("little_endian", True) else "big", source)

        # The storages come after the pickle that refers to them: first it is read for their types
        # alone, then, once their places are known, for the tensors.
        types: dict[str, _StorageFields] = {}
        start = pickles.tell()
        read_pickle(pickles, refer=_TypeCollector(types), source=source)
        keys = read_pickle(pickles, source=source)
        places = _legacy_storages(mapped, pickles.tell(), keys, types, source)
        addresses = FileAddresses(mapped)
        file.seek(start)
        builder = _TensorBuilder(
            lambda storage: addresses.of(*places[storage.key]), addresses, source
        )
        return read_pickle(pickles, construct=builder.construct, source=source), addresses


class _Pickles:
    """A file of pickles that allocates no more than it has."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._file.read(max(min(size, self._size - self._file.tell()), 0))

    def readline(self) -> bytes:
        return self._file.readline()

    def tell(self) -> int:
        return self._file.tell()


def _legacy_storages(
    file: MappedFile, position: int, keys: Any, types: dict[str, _StorageFields], source: str
) -> dict[str, tuple[int, int]]:
    """First byte and number of bytes of every storage, of which the pickle and the file agree."""
    if not isinstance(keys, list):
        raise CorruptionError(f"{source} does not list its storages")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        fields = types.get(str(key)) if type(key) in (str, int) else None
        if fields is None:
            raise CorruptionError(f"{source} lists a storage {shorten(key)} that nothing refers to")
        if fields.key in places:
            raise CorruptionError(f"{source} lists its storage {key!r:.40} twice")
        start = position + 8
        if start > file.size:
            raise InsufficientDataError(f"{source} is truncated: storage {key!r:.40} is missing")
        numel = int.from_bytes(file.read(position, 8).tobytes(), "little", signed=True)
        nbytes = fields.root_numel * fields.element.itemsize
        if numel != fields.root_numel:
            raise CorruptionError(
                f"{source} is damaged: storage {key!r:.40} has {numel} elements instead of "
                f"{fields.root_numel}"
            )
        position = start + nbytes
        if position > file.size:
            raise InsufficientDataError(
                f"{source} is truncated: storage {key!r:.40} is not complete"
            )
        places[fields.key] = start, nbytes
    missing = types.keys() - places.keys()
    if missing:
        raise CorruptionError(
            f"{source} is damaged: it does not list its storage {min(missing)!r:.40}"
        )
    return places


def _check_byte_order(order: str, source: str) -> None:
    if order not in ("little", "big"):
        raise CorruptionError(f"{source} states the impossible byte order {order!r:.40}")
    if order != sys.byteorder:
        raise UnsupportedVersionError(
            f"{source} is in {order}-endian byte order; save it anew on a {sys.byteorder}-endian "
            "machine"
        )


class _StorageFields(NamedTuple):
    """What a reference says of a storage.

    Attributes:
        key: Its name in the file.
        element: Its element type.
        root_numel: Elements that the file holds of it.
        start: The first of them that is part of it: very old files have storages that are views of
            others.
        numel: Its own number of elements.
    """

    key: str
    element: torch.dtype
    root_numel: int
    start: int
    numel: int


class _TypeCollector:
    """Notes what a pickle says of every storage it refers to."""

    def __init__(self, types: dict[str, _StorageFields]) -> None:
        self._types = types

    def __call__(self, reference: StorageReference) -> None:
        fields = _storage_fields(reference)
        known = self._types.setdefault(fields.key, fields)
        if (known.element, known.root_numel) != (fields.element, fields.root_numel):
            raise ValueError("a storage has two types or sizes")


class _TensorBuilder:
    """Rebuilds tensors from the calls that pickles make for them."""

    def __init__(self, load: LoadStorage, addresses: FileAddresses, source: str) -> None:
        self._load = load
        self._addresses = addresses
        self._source = source
        self._storages: dict[str, tuple[Bytes, torch.dtype]] = {}

    def construct(self, kind: Global, arguments: tuple[Any, ...]) -> Any:
        """A tensor for the calls that stand for one; every other call is not understood."""
        name = str(kind)
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            metadata = arguments[6] if len(arguments) > 6 else None
            return self._rebuild(*arguments[:4], metadata=metadata)
        if name == "torch._utils._rebuild_tensor_v3":
            metadata = arguments[7] if len(arguments) > 7 else None
            return self._rebuild(*arguments[:4], element=arguments[6], metadata=metadata)
        if name in _UNCARRIED:
            return Uncarried(_UNCARRIED[name])
        if name in _SPARSE:
            return Uncarried(f"its layout is {_layout(arguments[0])}; save to_dense() of it")
        if name in _SUBCLASSES and isinstance(arguments[0], Global):
            if not isinstance(arguments[2], tuple):
                raise TypeError("a tensor is rebuilt from something that is no tuple")
            return self.construct(arguments[0], arguments[2])
        if name in _FROM_ARRAYS:
            return self._from_array(arguments[0], arguments[1])
        if name in _PARAMETERS and isinstance(arguments[0], (torch.Tensor, Uncarried)):
            return arguments[0]
        if name in _DEVICES and isinstance(arguments[0], torch.Tensor):
            if arguments[0].dtype != _element_type(arguments[1]):
                return Uncarried("its type on its device is another than in the file")
            return arguments[0]
        if is_reconstruction(name):
            return rebuild(name, arguments)
        return NotImplemented

    def _rebuild(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        *,
        element: Any = None,
        metadata: Any = None,
    ) -> torch.Tensor:
        if not isinstance(storage, StorageReference):
            raise TypeError("a tensor has no storage")
        fields = _storage_fields(storage)
        dtype = fields.element if element is None else _element_type(element)
        if not isinstance(shape, (tuple, list)) or not isinstance(strides, (tuple, list)):
            raise TypeError("a tensor has no shape")
        sizes = (offset, *shape, *strides)
        if any(type(size) is not int or size < 0 for size in sizes) or len(shape) != len(strides):
            raise ValueError(f"a tensor has the impossible shape {shorten(shape)}")
        if len(shape) > _MAX_RANK or math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
            raise CorruptionError(
                f"a tensor of shape {shorten(tuple(shape))} in {self._source} reaches outside its "
                "storage"
            )
        data = self._storage(fields)
        numel = data.nbytes // dtype.itemsize
        if offset + span(shape, strides) > numel:
            raise CorruptionError(
                f"a tensor of shape {shorten(tuple(shape))} in {self._source} reaches outside its "
                "storage"
            )
        if 0 in shape:
            return torch.empty(shape, dtype=dtype, device="cpu")
        flat = over_bytes(data[: numel * dtype.itemsize], dtype)
        tensor = flat.as_strided(shape, strides, offset)
        return self._with_flags(tensor, metadata) if metadata else tensor

    def _with_flags(self, tensor: torch.Tensor, metadata: Any) -> torch.Tensor:
        """The tensor as conjugated or negated as it was saved, read from the file at once."""
        if not isinstance(metadata, dict):
            raise TypeError("what is said of a tensor is no dictionary")
        flags = {name: metadata.get(name) is True for name in ("conj", "neg")}
        if not any(flags.values()):
            return tensor
        real = self._addresses.now(tensor)
        if flags["neg"]:
            real = torch._neg_view(real)
        return torch.conj(real) if flags["conj"] else real

    def _from_array(self, array: Any, element: Any) -> Any:
        if not isinstance(array, PickledArray):
            raise TypeError("a tensor is rebuilt from something that is no array")
        # The data of the array comes with its state, which has been set by now.
        tensor = as_tensor(array_of(array))
        if tensor is None:
            raise ValueError("a tensor is rebuilt from an array of no numbers")
        return tensor.to(_element_type(element))

    def _storage(self, fields: _StorageFields) -> Bytes:
        if fields.key not in self._storages:
            data = self._load(fields)
            expected = fields.root_numel * fields.element.itemsize
            if not expected <= data.nbytes < expected + fields.element.itemsize:
                kind = InsufficientDataError if data.nbytes < expected else CorruptionError
                raise kind(
                    f"{self._source} is damaged: storage {fields.key!r:.40} has {data.nbytes} "
                    f"bytes instead of {expected}"
                )
            self._storages[fields.key] = data, fields.element
        data, element = self._storages[fields.key]
        if element != fields.element:
            raise ValueError("a storage has two element types")
        start = fields.start * element.itemsize
        return data[start : start + fields.numel * element.itemsize]


_MAX_RANK = 64  # dimensions that torch allows
_MAX_ELEMENTS = 1 << 60  # beyond which products of sizes overflow


def _layout(value: Any) -> str:
    if isinstance(value, PickledObject) and value.arguments:
        value = value.arguments[0]
    return value if isinstance(value, str) and len(value) < 40 else "sparse"


def _key(value: Any) -> str:
    if type(value) not in (str, int) or len(str(value)) > 200:
        raise TypeError("the key of a storage is no text")
    return str(value)


def _storage_fields(reference: StorageReference) -> _StorageFields:
    """Reads ``("storage", type, key, device, numel)``, which very old files end by a view."""
    fields = reference.key
    if not isinstance(fields, tuple) or len(fields) < 5 or fields[0] != "storage":
        raise TypeError("a reference is not to a storage")
    numel, view = fields[4], fields[5] if len(fields) > 5 else None
    start, own = 0, numel
    if view is not None:
        if not isinstance(view, tuple) or len(view) != 3:
            raise TypeError("a view of a storage is not described as such")
        _, start, own = view
    sizes = (numel, start, own)
    if any(type(size) is not int or not 0 <= size < _MAX_ELEMENTS for size in sizes):
        raise ValueError("a storage has an impossible size")
    if start + own > numel:
        raise ValueError("a view of a storage reaches outside of it")
    return _StorageFields(_key(fields[2]), _element_type(fields[1]), numel, start, own)


def _element_type(name: Any) -> torch.dtype:
    if not isinstance(name, Global):
        raise TypeError("a storage has no type")
    if name.name in STORAGE_TYPES:
        return STORAGE_TYPES[name.name]
    if name.name in _QUANTISED_STORAGE_TYPES:
        return _QUANTISED_STORAGE_TYPES[name.name]
    dtype = getattr(torch, name.name, None) if name.module == "torch" else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"the storage type {name.module:.40}.{name.name:.40} is not known")
    return dtype
