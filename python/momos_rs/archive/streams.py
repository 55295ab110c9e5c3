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

_STORED, _ZSTD, _PLANES, _ROTATED_PLANES, _FLOATS = range(5)
STORED_HEAD = bytes([_STORED])
"""What a stream begins with that holds the bytes as they are."""

_FLOAT_SIZES = (1, 2, 4, 8)
_LEVEL = 9
"""Beyond this level noise-like mantissas cost time and gain nothing."""

_TRIAL_ELEMENTS = 1 << 16
"""Elements, from the middle of a tensor, on which codecs compete."""


def encode_stream(
    data: Bytes,
    itemsize: int,
    *,
    floating: bool,
    effort: defaults.Effort = defaults.EFFORT,
) -> bytes:
    """The shortest of the codecs, by a trial on a part of the data.

    Args:
        data: Little-endian elements, uint8.
        itemsize: Bytes per element.
        floating: Whether the elements are floating numbers.
        effort: How much time coding may take; ``"fast"`` uses no models.

    Returns:
        The stream, never more than one byte longer than the data.
    """
    first, stop = trial_elements(data.size // itemsize)
    trial = data[first * itemsize : stop * itemsize]
    codec = choose_codec(trial, itemsize, floating=floating, effort=effort)
    chunks = encode_chunks(data, itemsize, codec)
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
    if floating and effort != "fast" and itemsize in _FLOAT_SIZES:
        candidates.append(_FLOATS)
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda each: len(_encode_chunk(trial, itemsize, each)))


def encode_chunks(data: Bytes, itemsize: int, codec: int) -> list[bytes]:
    """The chunks of elements; all of them, or a piece of whole chunks."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(
            pool.map(lambda chunk: _encode_chunk(chunk, itemsize, codec), _chunks(data, itemsize))
        )


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
    if codec not in (_ZSTD, _PLANES, _ROTATED_PLANES, _FLOATS):
        raise UnsupportedVersionError(f"stream codec {codec} is not known to this version")
    step = ELEMENTS_PER_CHUNK * itemsize
    sizes = [min(step, nbytes - start) for start in range(0, nbytes, step)]
    if len(sizes) == 1:
        return _decode_chunk(payload, sizes[0], itemsize, codec)[first:last]
    pieces = _split(payload, len(sizes))
    wanted = range(first // step, min(-(-last // step), len(sizes)))
    out = np.empty(sum(sizes[number] for number in wanted), np.uint8)

    def place(number: int) -> None:
        start = (number - wanted.start) * step
        out[start : start + sizes[number]] = _decode_chunk(
            pieces[number], sizes[number], itemsize, codec
        )

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


def _encode_chunk(chunk: Bytes, itemsize: int, codec: int) -> bytes:
    if codec == _FLOATS:
        return _encode_floats(chunk, itemsize)
    if codec != _ZSTD:
        chunk = _core.split_planes(chunk, itemsize, codec == _ROTATED_PLANES)
    return _compress(chunk)


def _compress(data: Bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL).compress(np.ascontiguousarray(data).data)


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
