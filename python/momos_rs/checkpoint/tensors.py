"""Tensors of torch and arrays of numpy to a :class:`Checkpoint` and back, ties included."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from momos_rs.dtypes import DTYPES, dtype
from momos_rs.errors import InvalidArgumentError

from .model import Base, Bytes, Checkpoint, Entry
from .pickle_tree import Uncarried
from .views import contiguous_strides, span, strides_within

__all__ = [
    "TensorReader",
    "as_tensor",
    "from_state_dict",
    "from_tensors",
    "module_versions",
    "over_bytes",
    "to_state_dict",
    "torch_type",
]

_NAMES: dict[torch.dtype, str] = {
    getattr(torch, each.torch): each.name for each in DTYPES.values() if hasattr(torch, each.torch)
}

_SPARE_FACTOR = 2
"""A base that views share may span this many times the elements they use before it is asked
whether they truly overlap; two columns of a wide matrix must not bring the matrix along."""


def from_state_dict(
    state: Mapping[str, torch.Tensor | np.ndarray[Any, Any]] | torch.nn.Module,
    *,
    source: str = "memory",
) -> Checkpoint:
    """A checkpoint over tensors in memory; contiguous tensors on the CPU are not copied.

    Tensors that overlap in memory share a base, so tied weights are held once. Elements are read
    when :attr:`Base.read` is called: a tensor changed meanwhile is read as changed.

    Args:
        state: Named tensors or arrays, or a module, which stands for its ``state_dict()``.
        source: What to call them in messages.

    Raises:
        InvalidArgumentError: If a value is not a tensor, or one that cannot be carried exactly
            (sparse, quantised, nested, without data); the message names it and the way out.
    """
    mapping = state.state_dict() if isinstance(state, torch.nn.Module) else state
    named = []
    for name, value in mapping.items():
        tensor = as_tensor(value)
        if not isinstance(name, str) or tensor is None:
            raise InvalidArgumentError(
                f"{source}: {name!r} is a {type(value).__name__}, not a tensor; leave it out"
            )
        named.append((name, tensor))
    versions = module_versions(mapping)
    return dataclasses.replace(from_tensors(named, source=source), versions=versions)


def module_versions(mapping: object) -> dict[str, dict[str, Any]]:
    """The versions of the modules whose state a mapping is, by their names, as
    ``torch.nn.Module.state_dict`` notes them: a module that is of a newer version converts what an
    older one has saved.

    Args:
        mapping: A state dict, in memory or of a pickle.

    Returns:
        What is said of each module, as far as it is text, numbers, true, false or None.
    """
    attributes = getattr(mapping, "attributes", None)
    noted = attributes.get("_metadata") if isinstance(attributes, dict) else None
    noted = getattr(mapping, "_metadata", noted)
    if not isinstance(noted, Mapping):
        return {}
    return {
        name: {key: value for key, value in each.items() if _is_plain(key, value)}
        for name, each in noted.items()
        if isinstance(name, str) and isinstance(each, Mapping)
    }


def _is_plain(key: object, value: object) -> bool:
    if isinstance(value, float):
        return isinstance(key, str) and math.isfinite(value)
    return isinstance(key, str) and (
        value is None
        or isinstance(value, (str, bool))
        or (isinstance(value, int) and abs(value) < 1 << 63)
    )


def from_tensors(
    named: Iterable[tuple[str, torch.Tensor | Uncarried]], *, source: str
) -> Checkpoint:
    """As :func:`from_state_dict`, of pairs with unique names."""
    tensors = [(name, _plain(tensor, f"{source}: tensor {name!r}")) for name, tensor in named]
    placed: dict[int, tuple[_Pool, int, tuple[int, ...] | None]] = {}
    for group in _overlapping([tensor for _, tensor in tensors]):
        placed |= _share(group, [tensors[index][1] for index in group])
    numbers: dict[int, int] = {}
    bases: list[Base] = []
    entries = []
    for index, (name, tensor) in enumerate(tensors):
        pool, offset, strides = placed[index]
        if id(pool) not in numbers:
            numbers[id(pool)] = len(bases)
            read = pool.read
            # Where parts would take as much as the whole, there are none.
            part = None if read.address is None else read.part
            bases.append(Base(_NAMES[tensor.dtype], pool.numel, read, read_part=part))
        entries.append(Entry(name, tuple(tensor.shape), numbers[id(pool)], offset, strides))
    return Checkpoint(tuple(entries), tuple(bases), source)


def to_state_dict(checkpoint: Checkpoint, *, copy: bool = True) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint on the CPU, in order; entries of one base share storage.

    Args:
        checkpoint: The checkpoint to materialise.
        copy: Whether the tensors own writable memory. Without, they may be views of a mapped
            file and must not be written to.

    Raises:
        InvalidArgumentError: If the installed torch lacks an element type.
        CorruptionError: If an entry reaches outside its base.
    """
    flat: list[torch.Tensor] = []
    types: dict[int, torch.dtype] = {}
    elements = [torch_type(base) for base in checkpoint.bases]
    for data, element in zip(checkpoint.read_bases(), elements, strict=True):
        tensor = _materialise(data, element, copy=copy)
        # torch.save refuses one memory under two types (a tensor and its view as another).
        if types.setdefault(tensor.data_ptr(), tensor.dtype) != tensor.dtype:
            tensor = tensor.clone()
        flat.append(tensor)
    result: dict[str, torch.Tensor] = OrderedDict() if checkpoint.versions else {}
    for entry in checkpoint.entries:
        # as_strided would follow an unchecked view anywhere in memory.
        strides = strides_within(entry, checkpoint.bases[entry.base])
        result[entry.name] = flat[entry.base].as_strided(entry.shape, strides, entry.offset)
    if checkpoint.versions:
        # As Module.state_dict does it: load_state_dict asks for the attribute.
        result._metadata = _as_metadata(checkpoint.versions)  # type: ignore[attr-defined]
    return result


def _as_metadata(versions: Mapping[str, Mapping[str, Any]]) -> OrderedDict[str, dict[str, Any]]:
    return OrderedDict((name, dict(said)) for name, said in versions.items())


def as_tensor(value: object) -> torch.Tensor | None:
    """The value if it is a tensor, a tensor over it if it is an array torch can hold, or None."""
    if isinstance(value, torch.Tensor):
        return value
    if not isinstance(value, np.ndarray):
        return None
    array = value.astype(value.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    try:
        with warnings.catch_warnings():
            # torch warns that it would write to read-only arrays; nothing here does.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(array)
    except TypeError:  # text, objects, records, long double
        return None


def over_bytes(data: Bytes, element: torch.dtype) -> torch.Tensor:
    """A one-dimensional tensor over bytes, without a copy; it may not be written to."""
    if data.nbytes == 0:
        return torch.empty(0, dtype=element, device="cpu")
    tensor = as_tensor(data)
    assert tensor is not None
    return tensor.view(element)


def _plain(tensor: torch.Tensor | Uncarried, what: str) -> torch.Tensor:
    """The tensor detached and as dense memory.

    Raises:
        InvalidArgumentError: If it is not that, and how to make it so.
    """
    if isinstance(tensor, Uncarried):
        raise InvalidArgumentError(f"{what} cannot be carried: {tensor.reason}")
    with torch._C.DisableTorchFunctionSubclass():
        obstacle = _obstacle(tensor)
        if obstacle is not None:
            raise InvalidArgumentError(f"{what} cannot be carried: {obstacle}")
        return tensor.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()


def _obstacle(tensor: torch.Tensor) -> str | None:
    """Why a tensor is not plain memory of a known type, and the way out."""
    kind = type(tensor)
    if torch.nn.parameter.is_lazy(tensor):
        return "it is not initialised yet; run the model once before"
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"it is a {kind.__name__}, not plain memory; convert it to plain tensors"
    if tensor.is_nested:
        return "it is nested; save its parts"
    if tensor.is_quantized:
        return "it is quantised; dequantize() it, or save its int_repr(), scale and zero point"
    if tensor.layout != torch.strided:
        return f"its layout is {tensor.layout}; save to_dense() of it"
    if tensor.is_meta:
        return "it is on the meta device and has no data; load the weights first"
    if tensor.dtype not in _NAMES:
        return f"torch cannot save its type {tensor.dtype} either; view it as another"
    return None


@dataclass(frozen=True, eq=False)
class _Pool:
    """A base in the making."""

    numel: int
    read: TensorReader


def _overlapping(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    """Groups of tensors whose spans of memory overlap, as indices.

    Only tensors of the same type, whose elements can coincide, are grouped. Addresses decide, not
    storage objects: arrays and mapped files give overlapping storages of their own.
    """
    groups: list[list[int]] = [[i] for i, tensor in enumerate(tensors) if tensor.numel() == 0]
    by_kind: defaultdict[object, list[tuple[int, int, int]]] = defaultdict(list)
    for index, tensor in enumerate(tensors):
        if tensor.numel():
            start = tensor.data_ptr()
            stop = start + span(tensor.shape, tensor.stride()) * tensor.itemsize
            kind = (tensor.device, tensor.dtype, start % tensor.itemsize)
            by_kind[kind].append((start, stop, index))
    for extents in by_kind.values():
        end = -1
        for start, stop, index in sorted(extents):
            if start >= end:
                groups.append([])
            groups[-1].append(index)
            end = max(end, stop)
    return groups


def _share(
    indices: Sequence[int], tensors: Sequence[torch.Tensor]
) -> dict[int, tuple[_Pool, int, tuple[int, ...] | None]]:
    """Places a group of overlapping tensors in as few bases as hold them.

    Returns:
        By index: the base, the offset in it, and the strides (None for the whole in C order).
    """
    by_view: dict[object, list[int]] = {}
    cores = [_without_expansion(tensor) for tensor in tensors]
    for position, core in enumerate(cores):
        by_view.setdefault(_identity(core), []).append(position)
    distinct = [cores[positions[0]] for positions in by_view.values()]
    if _need_a_common_base(distinct):
        start = min(tensor.data_ptr() for tensor in tensors)
        pool = _spanning_pool(distinct, start)
        return {
            index: (pool, *_place(tensor, start, pool.numel))
            for index, tensor in zip(indices, tensors, strict=True)
        }
    result = {}
    for core, positions in zip(distinct, by_view.values(), strict=True):
        pool = _Pool(core.numel(), TensorReader(core))
        for position in positions:
            strides = _core_strides(tensors[position], core)
            result[indices[position]] = (pool, 0, strides)
    return result


def _without_expansion(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with every expanded dimension (stride 0) cut to its one distinct element."""
    for dimension, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(dimension, 0, 1)
    return tensor


def _identity(tensor: torch.Tensor) -> object:
    """Equal for tensors of the same elements at the same places; strides of size 1 mean nothing."""
    strides = (
        stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1
    )
    return (tensor.data_ptr() if tensor.numel() else None, tensor.shape, tuple(strides))


def _core_strides(tensor: torch.Tensor, core: torch.Tensor) -> tuple[int, ...] | None:
    """Strides of a tensor over a C-ordered copy of its core."""
    if tensor.shape == core.shape:
        return None
    strides = contiguous_strides(core.shape)
    pairs = zip(strides, tensor.shape, core.shape, strict=True)
    return tuple(stride if size == kept else 0 for stride, size, kept in pairs)


def _need_a_common_base(distinct: Sequence[torch.Tensor]) -> bool:
    """Whether views must share a base: some overlap, or they interleave and fill it well."""
    used = sum(each.numel() for each in distinct)
    if len(distinct) == 1:
        return used > span(distinct[0].shape, distinct[0].stride())
    start = min(each.data_ptr() for each in distinct)
    numel = _reach(distinct, start)
    if numel <= _SPARE_FACTOR * used:
        return True
    elements = np.concatenate([_element_indices(each, start) for each in distinct])
    return np.unique(elements).size < elements.size


def _element_indices(tensor: torch.Tensor, start: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    indices = np.array((tensor.data_ptr() - start) // tensor.itemsize, np.int64)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        indices = indices[..., None] + np.arange(size, dtype=np.int64) * stride
    return indices.reshape(-1)


def _reach(tensors: Iterable[torch.Tensor], start: int) -> int:
    """Elements from an address to the last that any of the tensors uses."""
    return max(
        (each.data_ptr() - start) // each.itemsize + span(each.shape, each.stride())
        for each in tensors
    )


def _place(tensor: torch.Tensor, start: int, numel: int) -> tuple[int, tuple[int, ...] | None]:
    offset = (tensor.data_ptr() - start) // tensor.itemsize
    if tensor.is_contiguous() and tensor.numel() == numel:
        return offset, None
    return offset, tuple(tensor.stride())


def _spanning_pool(tensors: Sequence[torch.Tensor], start: int) -> _Pool:
    """A base of all elements from an address to the last in use."""
    numel = _reach(tensors, start)
    for tensor in tensors:
        room = tensor.untyped_storage().nbytes() // tensor.itemsize - tensor.storage_offset()
        if tensor.data_ptr() == start and room >= numel:
            return _Pool(numel, TensorReader(tensor.as_strided((numel,), (1,))))
    # Overlapping arrays are storages of their own, of which none may cover all: piece by piece.
    pieces = [(tensor, *_place(tensor, start, -1)) for tensor in tensors]
    whole = torch.zeros(numel * tensors[0].itemsize, dtype=torch.uint8, device="cpu").view(
        tensors[0].dtype
    )
    for tensor, offset, strides in pieces:
        whole.as_strided(tensor.shape, strides or (), offset).copy_(tensor)
    return _Pool(numel, TensorReader(whole))


@dataclass(frozen=True, eq=False)
class TensorReader:
    """Reads a tensor as bytes in C order: :attr:`Base.read` and :attr:`Base.read_part`."""

    tensor: torch.Tensor

    @property
    def address(self) -> int | None:
        """Where the elements lie in memory, None unless they lie there in C order."""
        on_cpu = self.tensor.device.type == "cpu"
        return self.tensor.data_ptr() if on_cpu and self.tensor.is_contiguous() else None

    def __call__(self) -> Bytes:
        """All elements."""
        return self.part(0, self.tensor.numel())

    def part(self, start: int, stop: int) -> Bytes:
        """The elements from ``start`` to before ``stop``."""
        dense = self.tensor
        if self.address is None:
            dense = dense.cpu().contiguous()
        # Not reshape(-1), which leaves a single expanded element its stride of 0.
        flat = dense.as_strided((stop - start,), (1,), dense.storage_offset() + start)
        data: Bytes = flat.view(torch.uint8).numpy()
        return data


def torch_type(base: Base) -> torch.dtype:
    """The element type of a base.

    Raises:
        InvalidArgumentError: If the installed torch lacks it.
    """
    element = getattr(torch, dtype(base.dtype).torch, None)
    if element is None:
        raise InvalidArgumentError(
            f"torch {torch.__version__} has no {dtype(base.dtype).torch}; install a newer one"
        )
    return cast("torch.dtype", element)


def _materialise(data: Bytes, element: torch.dtype, *, copy: bool) -> torch.Tensor:
    if copy:
        owned = torch.empty(data.size, dtype=torch.uint8, device="cpu")
        owned.numpy()[:] = data
        return owned.view(element)
    return over_bytes(data, element)
