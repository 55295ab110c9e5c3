"""The trainable parameters of whatever a measurement is given."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from momos_rs.checkpoint.model import Base, Checkpoint, Entry, cuts
from momos_rs.checkpoint.trainable import why_not_trainable
from momos_rs.checkpoint.views import contiguous_range, gather
from momos_rs.dtypes import dtype
from momos_rs.errors import InvalidArgumentError
from momos_rs.records import Record

if TYPE_CHECKING:
    import torch

    from momos_rs.archive import Archive

__all__ = ["LeftOut", "Source", "WeightSet", "WeightTensor", "collect_weights"]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

Source: TypeAlias = Union[
    "str",
    "os.PathLike[str]",
    "Checkpoint",
    "WeightSet",
    "Mapping[str, torch.Tensor | np.ndarray[Any, Any]]",
    "torch.nn.Module",
    "torch.Tensor",
    "np.ndarray[Any, Any]",
]
"""What can be measured: the path of a checkpoint or archive, a checkpoint in memory, a state
dict, a module (its parameters, frozen or not), or a single tensor or array."""

ARCHIVE_SUFFIX = ".momos"
SINGLE = "weights"
"""Name of a tensor that comes without one."""


@dataclass(frozen=True, eq=False)
class WeightTensor:
    """A trainable parameter.

    Attributes:
        name: Its key in the state dict.
        shape: Its shape.
        dtype: Its element type, a floating key of :data:`momos_rs.dtypes.DTYPES`.
        read: Returns the elements in C order as little-endian bytes, one-dimensional uint8.
        read_pieces: Returns them in consecutive pieces of at most that many bytes, as
            :meth:`momos_rs.checkpoint.Base.pieces` does; None where they are only read at once.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Bytes]
    read_pieces: Callable[[int], Iterator[Bytes]] | None = None

    @property
    def numel(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return self.numel * dtype(self.dtype).itemsize

    def pieces(self, nbytes: int) -> Iterator[Bytes]:
        """The elements in consecutive pieces, all but the last of a multiple of 2^18 elements.

        Args:
            nbytes: Most bytes of a piece, as far as that allows; tensors of fewer come whole.
        """
        if self.read_pieces is not None and self.nbytes > nbytes:
            yield from self.read_pieces(nbytes)
            return
        itemsize = dtype(self.dtype).itemsize
        data = self.read()
        for start, stop in cuts(self.numel, itemsize, nbytes):
            yield data[start * itemsize : stop * itemsize]


@dataclass(frozen=True)
class LeftOut(Record):
    """A tensor that is not measured.

    Attributes:
        name: Its key in the state dict.
        reason: Why.
    """

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class WeightSet:
    """The trainable parameters of a model, in order.

    Attributes:
        source: What they came from, for messages and tables.
        format: ``"torch"``, ``"safetensors"``, ``"momos"``, ...: see
            :attr:`momos_rs.checkpoint.Checkpoint.format`.
        tensors: The parameters; those tied to an earlier one are not repeated.
        left_out: The other tensors.
        archive: The archive that they are decoded from, if they are.
    """

    source: str
    format: str
    tensors: tuple[WeightTensor, ...]
    left_out: tuple[LeftOut, ...] = ()
    archive: Archive | None = None

    @property
    def numel(self) -> int:
        """Number of weights."""
        return sum(tensor.numel for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def without(self, name: str, reason: str) -> WeightSet:
        """The set with one tensor left out."""
        return replace(
            self,
            tensors=tuple(tensor for tensor in self.tensors if tensor.name != name),
            left_out=(*self.left_out, LeftOut(name, reason)),
        )


def collect_weights(
    source: Source, *, name: str | None = None, allow_pickle: bool = False
) -> WeightSet:
    """The trainable parameters of a source.

    In a state dict, which does not say what is a parameter, integer tensors and the running
    statistics of normalisation layers are left out by type and name. Of a module its parameters
    are taken; where one is computed by a parametrization, its computed value.

    Args:
        source: See :data:`Source`.
        name: What to call it; the path or ``"memory"`` by default.
        allow_pickle: Whether a checkpoint file that needs code of its own may run it.

    Raises:
        InvalidArgumentError: If the source is nothing of that kind, or has no weights.
        MomosError: Whatever reading the file raises.
        OSError: If the file cannot be read.
    """
    if isinstance(source, WeightSet):
        found = source
    else:
        checkpoint, archive = _to_checkpoint(source, allow_pickle=allow_pickle)
        found = replace(_from_checkpoint(checkpoint), archive=archive)
    if name is not None:
        found = replace(found, source=name)
    if found.numel == 0:
        raise InvalidArgumentError(f"{found.source} has no trainable weights to measure")
    return found


def _to_checkpoint(source: Any, *, allow_pickle: bool) -> tuple[Checkpoint, Archive | None]:
    """The source as a checkpoint, and the archive if it is one."""
    if isinstance(source, str | os.PathLike):
        return _read(Path(source), allow_pickle=allow_pickle)
    return _in_memory(source), None


def _in_memory(source: Any) -> Checkpoint:
    if isinstance(source, Checkpoint):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        return _from_tensors({SINGLE: source.detach()})
    if torch is not None and isinstance(source, torch.nn.Module):
        return _from_tensors(dict(_parameters_of(source)))
    if isinstance(source, Mapping):
        from momos_rs.checkpoint.tensors import from_state_dict

        return from_state_dict(source)
    raise InvalidArgumentError(
        f"cannot measure a {type(source).__name__}; give a path, a state dict, a module, "
        "a tensor or an array"
    )


def _read(path: Path, *, allow_pickle: bool) -> tuple[Checkpoint, Archive | None]:
    from momos_rs.archive import open_archive

    if path.suffix == ARCHIVE_SUFFIX:
        archive = open_archive(path)
        return archive.checkpoint(), archive
    from momos_rs.checkpoint import read

    return read(path, allow_pickle=allow_pickle), None


def _from_array(array: np.ndarray[Any, Any]) -> Checkpoint:
    """A checkpoint of one array of a type numpy knows, without torch."""
    little = array.dtype.newbyteorder("<")
    kinds = {np.dtype(dtype(kind).numpy): kind for kind in ("F64", "F32", "F16")}
    if little not in kinds:
        raise InvalidArgumentError(
            f"an array of {array.dtype} holds no weights; give float16, float32 or float64"
        )
    data = np.ascontiguousarray(array, little).reshape(-1).view(np.uint8)
    return Checkpoint(
        (Entry(SINGLE, tuple(array.shape), 0),),
        (Base(kinds[little], array.size, lambda: data),),
    )


def _from_tensors(named: Mapping[str, torch.Tensor]) -> Checkpoint:
    from momos_rs.checkpoint.tensors import from_state_dict

    for name, tensor in named.items():
        if not tensor.is_floating_point():
            raise InvalidArgumentError(f"{name!r} is of {tensor.dtype}, which holds no weights")
    return from_state_dict(named)


def _parameters_of(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters of a module with their computed values, tied ones once."""
    seen: set[torch.Tensor] = set()
    for prefix, part in module.named_modules():
        if "parametrizations" in prefix.split("."):
            continue
        computed: list[tuple[str, torch.Tensor]] = [
            (name, getattr(part, name).detach()) for name in getattr(part, "parametrizations", ())
        ]
        own = [
            (name, parameter.detach())
            for name, parameter in part.named_parameters(recurse=False)
            if parameter not in seen
        ]
        seen.update(parameter for _, parameter in part.named_parameters(recurse=False))
        for name, tensor in (*computed, *own):
            yield f"{prefix}.{name}" if prefix else name, tensor


def _from_checkpoint(checkpoint: Checkpoint) -> WeightSet:
    tensors = []
    left_out = []
    views: dict[tuple[object, ...], str] = {}
    for entry in checkpoint.entries:
        base = checkpoint.bases[entry.base]
        view = (entry.base, entry.offset, entry.shape, entry.strides)
        reason = why_not_trainable(entry.name, base.dtype)
        if reason is None and view in views:
            reason = f"tied to {views[view]}"
        if reason is not None:
            left_out.append(LeftOut(entry.name, reason))
            continue
        views[view] = entry.name
        read_pieces = None
        if contiguous_range(entry, base) is not None:
            read_pieces = partial(_pieces, entry, base)
        read = partial(_elements, entry, base)
        tensors.append(WeightTensor(entry.name, entry.shape, base.dtype, read, read_pieces))
    return WeightSet(checkpoint.source, checkpoint.format, tuple(tensors), tuple(left_out))


def _elements(entry: Entry, base: Base) -> Bytes:
    return np.ascontiguousarray(gather(entry, base, base.read()))


def _pieces(entry: Entry, base: Base, nbytes: int) -> Iterator[Bytes]:
    """The elements of a contiguous view."""
    range_ = contiguous_range(entry, base)
    assert range_ is not None
    for start, stop in cuts(entry.numel, dtype(base.dtype).itemsize, nbytes, chunk=base.chunk):
        yield np.ascontiguousarray(base.part(range_[0] + start, range_[0] + stop))
