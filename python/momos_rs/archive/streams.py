"""Lossless streams of bytes: the motif table and the tensors that are kept exact.

The first byte of a stream names its codec:

====  ==================  ==========================================================
id    codec               what follows
====  ==================  ==========================================================
0     stored              the bytes
1     zstd                chunks of the bytes
2     planes              chunks of byte planes
3     rotated planes      chunks of byte planes of elements rotated left by one bit
4     floats              chunks of elements whose exponents are modelled
5     fields              chunks of elements cut into fields of static codes
====  ==================  ==========================================================

Chunks are independent (zstd frames for codecs 1 to 3), preceded by the lengths of all but the last
(u64, little-endian). A chunk holds :data:`~momos_rs.limits.ELEMENTS_PER_CHUNK` elements, the last
one what is left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import zstandard

from momos_rs import _core, defaults
from momos_rs.errors import CorruptionError, InsufficientDataError, UnsupportedVersionError
from momos_rs.limits import ELEMENTS_PER_CHUNK

__all__ = [
    "STORED_HEAD",
    "choose_codec",
    "decode_stream",
    "encode_chunks",
    "encode_stream",
    "trial_elements",
]

Bytes: TypeAlias = "npt.NDArray[np.uint8]"

_STORED, _ZSTD, _PLANES, _ROTATED_PLANES, _FLOATS, _FIELDS = range(6)
STORED_HEAD = bytes([_STORED])
"""What a stream begins with that holds the bytes as they are."""

_MODELLED_SIZES = (1, 2, 4, 8)
_LEVEL = 9
"""Beyond this level noise-like mantissas cost time and gain nothing."""

_QUICK_LEVEL = 1
"""A level that tells whether there is anything for zstd to find."""

_FEW_ELEMENTS = 1 << 14
"""Of so many elements the adaptive models, which begin without tables, may take fewer bytes, and
their speed does not matter."""

_TRIAL_ELEMENTS = 1 << 16
"""Elements, from the middle of a tensor, on which codecs compete."""


def encode_stream(
    data: Bytes,
    itemsize: int,
    *,
    floating: bool,
    effort: defaults.Effort = defaults.EFFORT,
    general: bool = False,
) -> bytes:
    """The shortest of the codecs, by a trial on a part of the data.

    Args:
        data: Little-endian elements, uint8.
        itemsize: Bytes per element.
        floating: Whether the elements are floating numbers.
        effort: How much time coding may take; only ``"best"`` lets adaptive models code more than
            a few elements.
        general: Whether only a general compressor may code them, as the motifs' bytes, which are
            regrouped already.

    Returns:
        The stream, never more than one byte longer than the data.
    """
    first, stop = trial_elements(data.size // itemsize)
    trial = data[first * itemsize : stop * itemsize]
    codec = _ZSTD
    if not general:
        codec = choose_codec(trial, itemsize, floating=floating, effort=effort)
    chunks = encode_chunks(data, itemsize, codec, floating=floating)
    lengths = b"".join(len(chunk).to_bytes(8, "little") for chunk in chunks[:-1])
    if len(lengths) + sum(map(len, chunks)) >= data.size:
        return STORED_HEAD + data.tobytes()
    return bytes([codec]) + lengths + b"".join(chunks)


def trial_elements(elements: int) -> tuple[int, int]:
    """First element, and one past the last, of those on which codecs compete."""
    span = min(_TRIAL_ELEMENTS, elements)
    start = (elements - span) // 2
    return start, start + span


def choose_codec(trial: Bytes, itemsize: int, *, floating: bool, effort: defaults.Effort) -> int:
    """The codec that makes some elements shortest; arguments as of :func:`encode_stream`."""
    candidates = [_ZSTD]
    if itemsize > 1:
        candidates.append(_PLANES)
        if floating:
            candidates.append(_ROTATED_PLANES)

    def size(codec: int) -> int:
        return len(_encode_chunk(trial, itemsize, codec, floating))

    if itemsize in _MODELLED_SIZES:
        # Most tensors hold no repeats, and then zstd need not be tried at length.
        quick = min(len(_compress(_prepare(trial, itemsize, c), _QUICK_LEVEL)) for c in candidates)
        if size(_FIELDS) < quick:
            candidates = []
        candidates.append(_FIELDS)
        if floating and (effort == "best" or trial.size <= _FEW_ELEMENTS * itemsize):
            candidates.append(_FLOATS)
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=size)


def encode_chunks(data: Bytes, itemsize: int, codec: int, *, floating: bool) -> list[bytes]:
    """The chunks of elements; all of them, or a piece of whole chunks."""

    def encode(chunk: Bytes) -> bytes:
        return _encode_chunk(chunk, itemsize, codec, floating)

    if data.size <= ELEMENTS_PER_CHUNK * itemsize:
        return [encode(chunk) for chunk in _chunks(data, itemsize)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(encode, _chunks(data, itemsize)))


def decode_stream(
    stream: Bytes,
    nbytes: int,
    itemsize: int,
    *,
    part: tuple[int, int] | None = None,
    threads: int | None = None,
) -> Bytes:
    """Inverts :func:`encode_stream`.

    Args:
        stream: The stream, uint8.
        nbytes: Bytes of the data; the caller has checked that it may allocate them.
        itemsize: Bytes per element.
        part: Decode the elements from the first number to before the second only; whole chunks
            are decoded, so that it pays to begin and end at multiples of
            :data:`~momos_rs.limits.ELEMENTS_PER_CHUNK`.
        threads: Number of threads; all cores by default.

    Raises:
        InsufficientDataError: If the stream ends early.
        CorruptionError: If it decodes to something else than ``nbytes`` bytes.
        UnsupportedVersionError: If the codec is unknown.
    """
    if stream.size == 0:
        raise InsufficientDataError("a stream ends early")
    first, last = (0, nbytes) if part is None else (part[0] * itemsize, part[1] * itemsize)
    codec, payload = int(stream[0]), stream[1:]
    if codec == _STORED:
        if payload.size != nbytes:
            raise _wrong_length(payload.size, nbytes)
        return payload[first:last]
    if codec > _FIELDS:
        raise UnsupportedVersionError(f"stream codec {codec} is not known to this version")
    step = ELEMENTS_PER_CHUNK * itemsize
    sizes = [min(step, nbytes - start) for start in range(0, nbytes, step)]
    if len(sizes) == 1 and codec != _FIELDS:
        return _decode_chunk(payload, sizes[0], itemsize, codec)[first:last]
    pieces = _split(payload, len(sizes))
    wanted = range(first // step, min(-(-last // step), len(sizes)))
    out = np.empty(sum(sizes[number] for number in wanted), np.uint8)

    def place(number: int) -> None:
        start = (number - wanted.start) * step
        target = out[start : start + sizes[number]]
        if codec == _FIELDS:
            _core.decode_fields(pieces[number], itemsize, target)
        else:
            target[:] = _decode_chunk(pieces[number], sizes[number], itemsize, codec)

    if len(wanted) <= 1:
        for number in wanted:
            place(number)
        return out[first - wanted.start * step : last - wanted.start * step]
    with _pool(threads) as pool:
        for _ in pool.map(place, wanted):
            pass
    return out[first - wanted.start * step : last - wanted.start * step]


@contextlib.contextmanager
def _pool(threads: int | None) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that drops what has not begun when something fails or is stopped."""
    pool = ThreadPoolExecutor(threads or os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(data: Bytes, itemsize: int) -> Iterator[Bytes]:
    step = ELEMENTS_PER_CHUNK * itemsize
    for start in range(0, data.size, step):
        yield data[start : start + step]


def _encode_chunk(chunk: Bytes, itemsize: int, codec: int, floating: bool) -> bytes:
    if codec == _FIELDS:
        return _core.encode_fields(chunk, itemsize, floating).tobytes()
    if codec == _FLOATS:
        return _encode_floats(chunk, itemsize)
    return _compress(_prepare(chunk, itemsize, codec))


def _prepare(chunk: Bytes, itemsize: int, codec: int) -> Bytes:
    """What a codec gives zstd."""
    if codec == _ZSTD:
        return chunk
    return _core.split_planes(chunk, itemsize, codec == _ROTATED_PLANES)


def _compress(data: Bytes, level: int = _LEVEL) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(np.ascontiguousarray(data).data)


def _decode_chunk(chunk: Bytes, nbytes: int, itemsize: int, codec: int) -> Bytes:
    if codec == _FLOATS:
        return _decode_floats(chunk, nbytes // itemsize, itemsize)
    result = _decompress(chunk, nbytes)
    if codec == _ZSTD:
        return result
    return _core.join_planes(result, itemsize, codec == _ROTATED_PLANES)


def _encode_floats(chunk: Bytes, itemsize: int) -> bytes:
    modelled, planes = _core.encode_floats(chunk, itemsize)
    # A frame of its own for each plane: what they hold has nothing in common.
    frames = map(_compress, np.split(planes, itemsize - 1) if itemsize > 1 else [])
    parts = [modelled.tobytes(), *frames]
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def _decode_floats(chunk: Bytes, elements: int, itemsize: int) -> Bytes:
    parts = []
    for _ in range(itemsize):
        length = int.from_bytes(chunk[:4].tobytes(), "little")
        if chunk.size - 4 < length:
            raise InsufficientDataError("a stream ends early")
        parts.append(chunk[4 : 4 + length])
        chunk = chunk[4 + length :]
    if chunk.size:
        raise CorruptionError("a stream has bytes left over")
    planes = [np.zeros(0, np.uint8), *(_decompress(part, elements) for part in parts[1:])]
    return _core.decode_floats(parts[0], np.concatenate(planes), elements, itemsize)


def _decompress(frame: Bytes, nbytes: int) -> Bytes:
    """What a zstd frame holds, which must be of that size."""
    data = np.ascontiguousarray(frame).data
    try:
        # A frame says how much it holds; believing it before it is checked would allocate that.
        announced = zstandard.get_frame_parameters(data).content_size
        if announced != nbytes:
            raise _wrong_length(announced, nbytes)
        decoded = zstandard.ZstdDecompressor().decompress(
            data, max_output_size=nbytes, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise CorruptionError(f"a stream is not valid zstd: {error}") from None
    if len(decoded) != nbytes:
        raise _wrong_length(len(decoded), nbytes)
    return np.frombuffer(decoded, np.uint8)


def _split(payload: Bytes, count: int) -> list[Bytes]:
    """The chunks of a payload of ``count`` chunks."""
    table = 8 * (count - 1)
    if count < 1 or payload.size < table:
        raise InsufficientDataError("a stream ends early")
    lengths = payload[:table].view("<u8").tolist()
    pieces = []
    start = table
    for length in lengths:
        if length > payload.size - start:
            raise InsufficientDataError("a stream ends early")
        pieces.append(payload[start : start + length])
        start += length
    pieces.append(payload[start:])
    return pieces


def _wrong_length(actual: int, expected: int) -> CorruptionError:
    kind = InsufficientDataError if actual < expected else CorruptionError
    return kind(f"a stream holds {actual} bytes instead of {expected}")
