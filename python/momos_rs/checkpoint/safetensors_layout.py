"""The safetensors layout: a header of JSON, then the bytes of the tensors.

Shared by checkpoints and by archives, which are safetensors files too. It parses more strictly
than the reference implementation (https://github.com/huggingface/safetensors, ``tensor.rs``): the
leading brace and unique keys, which the specification asks for, are enforced. Neither torch nor
any array is needed here.

The file is::

    8 bytes      length of the header, little-endian
    header       {"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets"}, ...}
    data         every tensor in C order, little-endian; offsets count from here, without gaps
"""

from __future__ import annotations

import json
import mmap
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from momos_rs.dtypes import DTYPES
from momos_rs.errors import CorruptionError, InsufficientDataError, InvalidArgumentError

__all__ = [
    "MAX_HEADER_BYTES",
    "EncodedHeader",
    "Header",
    "TensorInfo",
    "adopt_header",
    "dtype_bits",
    "encode_header",
    "head_bytes",
    "parse_header",
]

Buffer: TypeAlias = "bytes | bytearray | memoryview | mmap.mmap"

MAX_HEADER_BYTES = 100_000_000
"""The longest header a reader accepts; the reference implementation's limit."""

_LENGTH_BYTES = 8
_ALIGNMENT = 8  # the data starts at a multiple of the widest element
_MAX_COUNT = 2**63 - 1  # the largest dimension, element count or byte count that others can hold
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}

_BITS = {each.name: 8 * each.itemsize for each in DTYPES.values() if each.safetensors}
_BITS |= {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}

_RENDERING = reprlib.Repr()
_RENDERING.maxstring = 100
_RENDERING.maxlist = 8
_RENDERING.maxlevel = 2


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor.

    Attributes:
        name: Its key.
        dtype: Its element type, a name of the safetensors format.
        shape: Its shape, in elements.
        start: First byte, counted from the start of the data section.
        stop: One past the last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.stop - self.start


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        tensors: The tensors by name, in the order of the header.
        metadata: The string metadata, empty if there is none.
        data_start: Where the data section starts in the file, in bytes.
        raw: The header's JSON as it stands in the file, padding included.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    raw: bytes = field(repr=False)


@dataclass(frozen=True)
class EncodedHeader:
    """A header ready to be written.

    Attributes:
        data: Length prefix, JSON and padding: everything before the data section.
        order: Indices of the tensors in the order in which their bytes must follow.
        data_bytes: Length of the data section.
    """

    data: bytes
    order: tuple[int, ...]
    data_bytes: int


class _JsonError(ValueError):
    """The JSON is well formed but not what the format allows."""


def dtype_bits(name: str) -> int:
    """Bits per element of a type of the format.

    Raises:
        InvalidArgumentError: If the format has no such type.
    """
    try:
        return _BITS[name]
    except KeyError:
        raise InvalidArgumentError(f"the safetensors format has no element type {name!r}") from None


def head_bytes(start: bytes, size: int) -> int:
    """Bytes at the start of a file that :func:`parse_header` needs.

    Args:
        start: The first bytes of the file, eight of them or all there are.
        size: Bytes of the whole file.
    """
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if len(start) < _LENGTH_BYTES or length > MAX_HEADER_BYTES:
        return min(size, _LENGTH_BYTES)
    return min(size, _LENGTH_BYTES + length)


def parse_header(buffer: Buffer, *, source: str, size: int | None = None) -> Header:
    """Reads and checks the header of a safetensors file.

    Nothing is allocated beyond a few times the header, and that only after its length has been
    checked against the file's.

    Args:
        buffer: All bytes of the file, or at least its :func:`head_bytes`.
        source: Name of the file, for messages.
        size: Bytes of the file, if the buffer is only its start.

    Returns:
        The header; its tensors cover the data section exactly.

    Raises:
        InsufficientDataError: If the file is shorter than it announces.
        CorruptionError: If it contradicts itself or the format.
    """
    size = len(buffer) if size is None else size
    if size < _LENGTH_BYTES:
        raise InsufficientDataError(
            f"{source} is truncated: {size} bytes cannot hold the length of a safetensors header"
        )
    length = int.from_bytes(buffer[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise CorruptionError(
            f"{source} is not a safetensors file: it announces a header of {length} bytes, "
            f"more than the {MAX_HEADER_BYTES} allowed"
        )
    data_start = _LENGTH_BYTES + length
    if data_start > size:
        raise InsufficientDataError(
            f"{source} is truncated: it announces a header of {length} bytes and has "
            f"{size - _LENGTH_BYTES} bytes left"
        )
    raw = bytes(buffer[_LENGTH_BYTES:data_start])
    document = _parse_json(raw, source)
    metadata = _check_metadata(document.pop(_METADATA, None), source)
    tensors = {name: _check_tensor(name, value, source) for name, value in document.items()}
    _check_coverage(tensors.values(), size - data_start, source)
    return Header(tensors, metadata, data_start, raw)


def encode_header(
    tensors: Iterable[tuple[str, str, Sequence[int], int]],
    metadata: Mapping[str, str] | None = None,
    *,
    by_itemsize: bool = True,
) -> EncodedHeader:
    """Lays tensors out and writes the header that describes them.

    The keys keep the order given. The data may be laid out in another: with ``by_itemsize``,
    widest element first as the reference writer does, so that every tensor is aligned to its
    element; without, in the order given, back to back.

    Args:
        tensors: Name, element type, shape and number of bytes of each.
        metadata: The string metadata; None or empty writes none.
        by_itemsize: Whether to lay out the data by descending element size (stable).

    Returns:
        The header, and the order in which the bytes of the tensors must follow it.

    Raises:
        InvalidArgumentError: If a reader would refuse the file: a name twice, reserved or not
            encodable, an unknown type, a size that does not fit the shape, too long a header.
    """
    listed = list(tensors)
    for name, dtype, shape, nbytes in listed:
        _check_spec(name, dtype, shape, nbytes)
    order = list(range(len(listed)))
    if by_itemsize:
        order.sort(key=lambda index: -dtype_bits(listed[index][1]))
    starts = [0] * len(listed)
    stop = 0
    for index in order:
        starts[index] = stop
        stop += listed[index][3]

    document: dict[str, object] = {}
    if metadata:
        for key, text in metadata.items():
            if not isinstance(key, str) or not isinstance(text, str):
                raise InvalidArgumentError(
                    f"safetensors metadata holds strings only; {key!r} is {text!r}"
                )
        document[_METADATA] = dict(metadata)
    for (name, dtype, shape, nbytes), start in zip(listed, starts, strict=True):
        if name in document or name == _METADATA:
            raise InvalidArgumentError(f"two tensors, or a tensor and the metadata, named {name!r}")
        offsets = [start, start + nbytes]
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
    try:
        encoded = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"a name or metadata entry is not valid Unicode: {error.object[error.start :][:20]!r}"
        ) from None
    encoded += b" " * (-(_LENGTH_BYTES + len(encoded)) % _ALIGNMENT)
    if len(encoded) > MAX_HEADER_BYTES:
        raise InvalidArgumentError(
            f"the names and shapes need a header of {len(encoded)} bytes; "
            f"safetensors readers accept {MAX_HEADER_BYTES} at most"
        )
    if stop > _MAX_COUNT:
        raise InvalidArgumentError(f"{stop} bytes of tensors are more than a file can hold")
    prefix = len(encoded).to_bytes(_LENGTH_BYTES, "little")
    return EncodedHeader(prefix + encoded, tuple(order), stop)


def adopt_header(
    raw: bytes, tensors: Iterable[tuple[str, str, Sequence[int], int]], *, source: str
) -> EncodedHeader:
    """A header as it stood in another file, to be written before the same tensors.

    Args:
        raw: Its JSON, padding included.
        tensors: Name, element type, shape and number of bytes of each tensor.
        source: Where it comes from, for messages.

    Raises:
        CorruptionError: If it is no header, or that of other tensors.
    """
    listed = list(tensors)
    document = _parse_json(raw, source)
    _check_metadata(document.pop(_METADATA, {}), source)
    found = {name: _check_tensor(name, value, source) for name, value in document.items()}
    stop = sum(nbytes for *_, nbytes in listed)
    _check_coverage(found.values(), stop, source)
    for name, dtype, shape, _ in listed:
        info = found.get(name)
        if info is None or (info.dtype, info.shape) != (dtype, tuple(shape)):
            raise CorruptionError(f"the header in {source} does not describe {_shorten(name)}")
    if len(found) != len(listed) or len(raw) > MAX_HEADER_BYTES:
        raise CorruptionError(f"the header in {source} describes other tensors")
    places = [found[name] for name, *_ in listed]
    order = sorted(range(len(places)), key=lambda at: (places[at].start, places[at].stop))
    return EncodedHeader(len(raw).to_bytes(_LENGTH_BYTES, "little") + raw, tuple(order), stop)


def _parse_json(raw: bytes, source: str) -> dict[str, object]:
    if not raw.startswith(b"{"):
        raise CorruptionError(
            f"{source} is not a safetensors file: its header starts with "
            f"{_shorten(raw[:1])}, not with '{{'"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptionError(f"the header of {source} is not UTF-8 (byte {error.start})") from None
    try:
        document = json.loads(
            text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant
        )
    except RecursionError:
        raise CorruptionError(f"the header of {source} is nested too deeply") from None
    except _JsonError as error:
        raise CorruptionError(f"the header of {source} {error}") from None
    except ValueError as error:  # malformed, or an integer of thousands of digits
        raise CorruptionError(f"the header of {source} is not valid JSON: {error}") from None
    if not isinstance(document, dict):  # cannot happen after '{', but json promises Any
        raise CorruptionError(f"the header of {source} is not a JSON object")
    return document


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _JsonError(f"has the key {_shorten(key)} twice")
            seen.add(key)
    for key, value in pairs:
        for text in (key, value):
            # JSON can escape half a surrogate pair; nothing could write such a name back.
            if isinstance(text, str) and not _is_encodable(text):
                raise _JsonError(f"holds invalid Unicode in {_shorten(key)}")
    return result


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise _JsonError(f"holds {name}, which JSON does not have")


def _check_metadata(value: object, source: str) -> dict[str, str]:
    if value is None:  # left out, or null, which others write for nothing
        return {}
    if not isinstance(value, dict):
        raise CorruptionError(f"the header of {source} has metadata that is not an object")
    for key, text in value.items():
        if not isinstance(text, str):
            raise CorruptionError(
                f"the header of {source} has metadata {_shorten(key)} that is not a string"
            )
    return value


def _check_tensor(name: str, value: object, source: str) -> TensorInfo:
    where = f"tensor {_shorten(name)} in {source}"
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise CorruptionError(f"{where} is not described by dtype, shape and data_offsets alone")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise CorruptionError(f"{where} has the unknown element type {_shorten(dtype)}")
    if not _is_counts(shape):
        raise CorruptionError(f"{where} has the impossible shape {_shorten(shape)}")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CorruptionError(f"{where} has the impossible data offsets {_shorten(offsets)}")
    nbytes = _count_bytes(shape, _BITS[dtype])
    if nbytes is None:
        raise CorruptionError(f"{where} has the impossible shape {_shorten(shape)} for {dtype}")
    start, stop = offsets
    if stop - start != nbytes:
        raise CorruptionError(
            f"{where} needs {nbytes} bytes for {dtype} {_shorten(shape)}, "
            f"but its data offsets span {stop - start}"
        )
    return TensorInfo(name, dtype, tuple(shape), start, stop)


def _check_coverage(tensors: Iterable[TensorInfo], available: int, source: str) -> None:
    """Checks that the tensors cover the data section without gap or overlap."""
    expected = 0
    for tensor in sorted(tensors, key=lambda each: (each.start, each.stop)):
        if tensor.start != expected:
            trouble = "overlaps the tensor before it" if tensor.start < expected else "has a gap"
            raise CorruptionError(
                f"tensor {_shorten(tensor.name)} in {source} starts at byte {tensor.start} of the "
                f"data instead of {expected}: it {trouble}"
                + (" before it" if tensor.start > expected else "")
            )
        expected = tensor.stop
    if expected > available:
        raise InsufficientDataError(
            f"{source} is truncated: its tensors need {expected} bytes and {available} are there"
        )
    if expected < available:
        raise CorruptionError(
            f"{source} has {available - expected} bytes after its tensors that nothing describes"
        )


def _check_spec(name: str, dtype: str, shape: Sequence[int], nbytes: int) -> None:
    expected = _count_bytes(shape, dtype_bits(dtype)) if _is_counts(list(shape)) else None
    if expected is None or nbytes != expected:
        raise InvalidArgumentError(
            f"tensor {_shorten(name)} of {dtype} {_shorten(list(shape))} cannot take {nbytes} bytes"
        )


def _is_counts(value: object) -> bool:
    """Whether it is a list of integers that can be sizes; bool and float are not integers."""
    return isinstance(value, list) and all(
        type(each) is int and 0 <= each <= _MAX_COUNT for each in value
    )


def _count_bytes(shape: Sequence[int], bits: int) -> int | None:
    """Bytes of a shape, or None if they are not whole or beyond what anyone can index."""
    total = bits
    for size in shape:
        total *= max(size, 1)  # a zero must not hide that the others overflow
        if total > 8 * _MAX_COUNT:
            return None
    if 0 in shape:
        return 0
    return None if total % 8 else total // 8


def _shorten(value: object) -> str:
    """A rendering of something from a file, bounded however long or deep it is."""
    return _RENDERING.repr(value)
